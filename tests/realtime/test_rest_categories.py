from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import pytest

from handlers import images
from handlers.categories import MAX_OWN, MAX_RULES
from handlers.deps import Deps
from handlers.events import CategoryUpdated
from handlers.rules.pictures import MAX_BYTES, content_name, file_name
from realtime.rest.media import ICONS
from store import objects, outbox
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.jobs.pictures import SECRET, ihdr, png, sample, saved
from tests.realtime.served import Client, Got, serving
from tests.realtime.wiring import busy, wire

FOOD = "00000000-0000-4000-8000-000000000001"
TRANSPORT = "00000000-0000-4000-8000-000000000002"
SHOP = "0x" + "5b" * 20


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings) -> Deps:
    return wire(pool, busy(make_settings, upload_limit_per_minute=1_000_000))


async def make(client: Client, name: str, **facts: Any) -> dict[str, Any]:
    got = await client.post("/v1/categories", {"name": name, **facts})
    assert got.status == 201, got.body
    assert got.headers["Location"] == f"/v1/categories/{got.json['id']}"
    return dict(got.json)


async def listed(client: Client, query: str = "") -> list[dict[str, Any]]:
    return list((await client.get(f"/v1/categories{query}")).json["data"])


async def told(client: Client) -> list[dict[str, Any]]:
    """What the log said of categories, oldest first."""
    data = (await client.get("/v1/events?limit=1000")).json["data"]
    return [each["payload"]["category"] for each in data if each["event"] == "category_updated"]


async def prefer(client: Client, category: str, **facts: Any) -> Got:
    return await client.call("PUT", f"/v1/categories/{category}/preferences", json=facts)


# The list and own categories ---------------------------------------------------------------------------------------


async def test_the_eight_defaults_are_there_with_icons_that_are_served(me: Client, anyone: Client) -> None:
    found = await listed(me)
    assert [each["name"] for each in found[:2]] == ["Food & Dining", "Transportation"]
    assert len(found) == 8
    assert all(each["isDefault"] and each["isActive"] and each["monthlyBudget"] is None for each in found)
    for each in found:
        got = await anyone.get(each["iconUrl"])
        assert (got.status, got.headers["Content-Type"]) == (200, "image/svg+xml")
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert "max-age" in got.headers["Cache-Control"]
        assert each["colorHex"].encode() in got.body
        assert b"<script" not in got.body


async def test_an_own_category_is_listed_told_and_paged(me: Client) -> None:
    made = await make(me, "  Dogs\u202e & cats ", colorHex="#ab12cd", parentId=FOOD, description="Food for them")
    assert (made["name"], made["colorHex"], made["parentId"]) == ("Dogs & cats", "#AB12CD", FOOD)
    assert (made["iconUrl"], made["customName"], made["isDefault"]) == (None, "Dogs & cats", False)
    await make(me, "First", sortOrder=0)
    await make(me, "Last", sortOrder=9)
    pages: list[str] = []
    path = "/v1/categories?limit=3"
    while path:
        got = await me.get(path)
        pages += [each["name"] for each in got.json["data"]]
        path = f"/v1/categories?limit=3&cursor={quote(got.json['nextCursor'])}" if got.json["hasMore"] else ""
    assert len(pages) == len(set(pages)) == 11
    assert pages[-1] == "Last"
    assert [each["name"] for each in await told(me)] == ["Dogs & cats", "First", "Last"]
    assert (await me.get(f"/v1/categories/{made['id']}")).json == made


async def test_other_people_see_and_touch_nothing_of_it(me: Client, anyone: Client) -> None:
    made, other = await make(me, "Mine"), await anyone.signed_in()
    path = f"/v1/categories/{made['id']}"
    assert len(await listed(other)) == 8
    for method, json in (("GET", None), ("PATCH", {"name": "x"}), ("DELETE", None)):
        assert (await other.call(method, path, json=json)).status == 404
    assert (await prefer(other, made["id"], isFavorite=True)).status == 404
    assert (await other.post("/v1/categories", {"name": "Under", "parentId": made["id"]})).status == 400
    rule = {"field": "memo", "value": "word", "categoryId": made["id"]}
    assert (await other.post("/v1/category-rules", rule)).status == 400
    assert (await send(other, made["id"], PICTURE)).status == 404
    assert await listed(me) == [*await listed(other), made]


WRONG_CATEGORIES: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "/name"),
    ({"name": "\u200b \n"}, "/name"),
    ({"name": "x" * 65}, "/name"),
    ({"name": 7}, "/name"),
    ({}, "/name"),
    ({"name": "x", "colorHex": "red"}, "/colorHex"),
    ({"name": "x", "colorHex": "#FFF"}, "/colorHex"),
    ({"name": "x", "parentId": "food"}, "/parentId"),
    ({"name": "x", "parentId": str(uuid4())}, "/parentId"),
    ({"name": "x", "sortOrder": -1}, "/sortOrder"),
    ({"name": "x", "sortOrder": True}, "/sortOrder"),
    ({"name": "x", "iconUrl": "https://evil.example/x.svg"}, "/iconUrl"),
    ({"name": "x", "description": "d" * 301}, "/description"),
]


async def test_what_can_not_be_a_category_is_refused(me: Client) -> None:
    for facts, pointer in WRONG_CATEGORIES:
        got = await me.post("/v1/categories", facts)
        assert (got.status, [each["pointer"] for each in got.json["errors"]]) == (400, [pointer]), facts
    assert (len(await listed(me)), await told(me)) == (8, [])


async def test_the_tree_is_three_levels_deep_and_has_no_circle(me: Client) -> None:
    under = await make(me, "Under food", parentId=FOOD)
    leaf = await make(me, "Leaf", parentId=under["id"])
    top = await make(me, "Top")
    for category, parent in (
        (None, leaf["id"]),
        (under["id"], leaf["id"]),
        (under["id"], under["id"]),
        (under["id"], (await make(me, "Below top", parentId=top["id"]))["id"]),
    ):
        if category is None:
            got = await me.post("/v1/categories", {"name": "Too deep", "parentId": parent})
        else:
            got = await me.call("PATCH", f"/v1/categories/{category}", json={"parentId": parent})
        assert (got.status, got.json["errors"][0]["pointer"]) == (400, "/parentId")
    got = await me.call("PATCH", f"/v1/categories/{leaf['id']}", json={"parentId": None})
    assert (got.status, got.json["parentId"]) == (200, None)


async def test_names_are_ones_own_once(me: Client, anyone: Client) -> None:
    await make(me, "Dogs")
    other = await make(me, "Cats")
    assert (await me.post("/v1/categories", {"name": "DOGS"})).status == 409
    assert (await me.call("PATCH", f"/v1/categories/{other['id']}", json={"name": "dogs"})).status == 409
    assert (await me.call("PATCH", f"/v1/categories/{other['id']}", json={"name": "cats"})).status == 200
    await make(await anyone.signed_in(), "Dogs")


async def test_of_many_at_once_with_one_name_one_is_made(me: Client) -> None:
    got = await asyncio.gather(*(me.post("/v1/categories", {"name": "Dogs"}) for _ in range(6)))
    assert sorted(each.status for each in got) == [201] + [409] * 5


async def test_there_is_an_end_to_own_categories(me: Client, pool: Pool) -> None:
    await pool.execute(
        """INSERT INTO categories (owner, name, color_hex) SELECT $1, 'c' || n, '#000000'
           FROM generate_series(2, $2::int) AS n""",
        me.address,
        MAX_OWN,
    )
    last = await make(me, "Last")
    assert (await me.post("/v1/categories", {"name": "One more"})).status == 409
    assert (await me.call("DELETE", f"/v1/categories/{last['id']}")).status == 204
    await make(me, "One more")


async def test_a_call_that_was_answered_is_answered_again(me: Client, pool: Pool) -> None:
    key = {"Idempotency-Key": "k"}
    first = await me.post("/v1/categories", {"name": "Dogs"}, headers=key)
    assert (await me.post("/v1/categories", {"name": "Dogs"}, headers=key)).json == first.json
    # A server that died after its commit left no answer: the call runs again and finds what it made.
    await pool.execute("UPDATE idempotency_keys SET status = NULL, claimed_at = now() - interval '2 minutes'")
    again = await me.post("/v1/categories", {"name": "Dogs"}, headers=key)
    assert (again.status, again.json) == (201, first.json)
    assert (len(await listed(me)), len(await told(me))) == (9, 1)
    assert (await me.post("/v1/categories", {"name": "Cats"}, headers=key)).status == 422


async def test_a_change_is_told_once_and_no_change_is_not(me: Client) -> None:
    made = await make(me, "Dogs")
    path = f"/v1/categories/{made['id']}"
    for _ in range(2):
        got = await me.call("PATCH", path, json={"name": "Hounds", "sortOrder": 3})
        assert (got.status, got.json["name"], got.json["colorHex"]) == (200, "Hounds", made["colorHex"])
    assert (await me.call("PATCH", path, json={})).status == 200
    assert (await me.call("PATCH", path, json={"name": None})).status == 400
    assert [each["name"] for each in await told(me)] == ["Dogs", "Hounds"]


async def test_a_change_meant_for_an_older_state_is_refused(me: Client) -> None:
    made = await make(me, "Dogs")
    path = f"/v1/categories/{made['id']}"
    tag = (await me.get(path)).headers["ETag"]
    assert (await me.call("PATCH", path, json={"sortOrder": 1}, headers={"If-Match": f'"x", {tag}'})).status == 200
    got = await me.call("PATCH", path, json={"sortOrder": 2}, headers={"If-Match": tag})
    assert (got.status, got.json["code"]) == (412, "precondition_failed")
    assert (await me.call("PATCH", path, json={"sortOrder": 2}, headers={"If-Match": "*"})).status == 200
    tag = (await me.get(path)).headers["ETag"]
    assert (await me.get(path, headers={"If-None-Match": tag})).status == 304


async def test_a_deleted_category_stays_for_its_transactions_and_its_rules_go(me: Client, pool: Pool) -> None:
    top = await make(me, "Dogs")
    leaf = await make(me, "Bones", parentId=top["id"])
    path = f"/v1/categories/{top['id']}"
    assert (await me.call("DELETE", path)).status == 409
    assert (await me.call("DELETE", f"/v1/categories/{leaf['id']}")).status == 204
    for category in (top["id"], FOOD):
        await me.post("/v1/category-rules", {"field": "memo", "value": f"w{category[:4]}", "categoryId": category})
        await pool.execute("INSERT INTO category_memory VALUES ($1, 'band:1', $2, 3)", me.address, category)
    await prefer(me, top["id"], monthlyBudget="20")
    assert (await me.call("DELETE", path)).status == 204
    assert (await me.get(path)).json["isActive"] is False
    assert (await me.get(path)).json["monthlyBudget"] is None
    assert [each["id"] for each in await listed(me)] == [
        each["id"] for each in (await listed(me, "?inactive=true"))[:8]
    ]
    assert len(await listed(me, "?inactive=true")) == 10
    assert [each["categoryId"] for each in (await me.get("/v1/category-rules")).json["data"]] == [FOOD]
    assert await pool.fetchval("SELECT array_agg(category_id::text) FROM category_memory") == [FOOD]
    for method, json in (("DELETE", None), ("PATCH", {"name": "x"})):
        assert (await me.call(method, path, json=json)).status == 404
    assert (await prefer(me, top["id"], isFavorite=True)).status == 404
    assert (await me.post("/v1/categories", {"name": "Under", "parentId": top["id"]})).status == 400
    await make(me, "Dogs")
    assert (await told(me))[-2]["isActive"] is False


async def test_a_default_is_everyones(me: Client) -> None:
    for method, json in (("PATCH", {"name": "x"}), ("DELETE", None)):
        got = await me.call(method, f"/v1/categories/{FOOD}", json=json)
        assert (got.status, got.json["code"]) == (403, "default_category")


async def test_an_id_that_is_none_is_nobodys(me: Client) -> None:
    for path in ("/v1/categories/food", "/v1/categories/%00", "/v1/categories/food/image"):
        assert (await me.get(path)).status == 404
    assert (await me.call("DELETE", "/v1/category-rules/1")).status == 404


# Preferences -------------------------------------------------------------------------------------------------------


async def test_preferences_are_ones_own_and_null_takes_them_back(me: Client, anyone: Client) -> None:
    got = await prefer(me, FOOD, customName="Meals", customColorHex="#00ff00", isFavorite=True)
    assert got.status == 200
    shown = {"name": "Food & Dining", "customName": "Meals", "customColorHex": "#00FF00", "isFavorite": True}
    assert shown.items() <= got.json.items()
    assert (await listed(await anyone.signed_in()))[0]["customName"] == "Food & Dining"
    got = await prefer(me, FOOD, customName=None)
    assert (got.json["customName"], got.json["customColorHex"]) == ("Food & Dining", "#00FF00")
    assert [each["customName"] for each in await told(me)] == ["Meals", "Food & Dining"]
    assert (await prefer(me, FOOD, customColorHex=None, isFavorite=False)).json["customColorHex"] == "#FF6B6B"
    for wrong in ({"isFavorite": None}, {"isFavorite": "yes"}, {"customName": ""}, {"customIconUrl": "x"}):
        assert (await prefer(me, FOOD, **wrong)).status == 400


async def test_a_budget_is_money_and_none_is_not_zero(me: Client) -> None:
    for written, shown in (("250", "250.00"), ("0", "0.00"), ("12.5", "12.50"), (None, None)):
        got = await prefer(me, FOOD, monthlyBudget=written)
        assert (got.status, got.json["monthlyBudget"]) == (200, shown)
    for wrong in ("-1", "1.005", "1e3", "", "NaN", 250, 2.5, "9" * 16, "１２"):
        assert (await prefer(me, FOOD, monthlyBudget=wrong)).status == 400, wrong


async def test_a_budget_that_changed_is_told_with_its_category(me: Client, deps: Deps) -> None:
    await prefer(me, FOOD, monthlyBudget="250")
    await prefer(me, FOOD, isFavorite=True, monthlyBudget="250.00")
    data = (await me.get("/v1/events")).json["data"]
    names = [each["event"] for each in data]
    assert names == ["category_updated", "budget_update", "category_updated"]
    [budget] = [each for each in data[1]["payload"]["budgets"] if each["categoryId"] == FOOD]
    assert budget["budget"] == "250.00"


# Rules -------------------------------------------------------------------------------------------------------------


async def test_rules_are_made_replaced_listed_and_deleted(me: Client, anyone: Client) -> None:
    payee = {"field": "counterparty", "value": "0x" + "5B" * 20, "categoryId": FOOD}
    first = await me.post("/v1/category-rules", payee)
    assert (first.status, first.json["value"]) == (201, SHOP)
    second = await me.post("/v1/category-rules", {**payee, "categoryId": TRANSPORT})
    assert (second.json["id"], second.json["categoryId"]) == (first.json["id"], TRANSPORT)
    for word in ("taxi", "rent", "bread"):
        assert (await me.post("/v1/category-rules", {**payee, "field": "memo", "value": word})).status == 201
    other = await anyone.signed_in()
    assert (await other.get("/v1/category-rules")).json["data"] == []
    assert (await other.call("DELETE", f"/v1/category-rules/{first.json['id']}")).status == 404
    values: list[str] = []
    path = "/v1/category-rules?limit=3"
    while path:
        got = await me.get(path)
        values += [each["value"] for each in got.json["data"]]
        path = f"/v1/category-rules?limit=3&cursor={quote(got.json['nextCursor'])}" if got.json["hasMore"] else ""
    assert sorted(values) == sorted([SHOP, "taxi", "rent", "bread"])
    assert [(await me.call("DELETE", f"/v1/category-rules/{first.json['id']}")).status for _ in range(2)] == [204, 404]
    assert len((await me.get("/v1/category-rules")).json["data"]) == 3


WRONG_RULES: list[tuple[dict[str, Any], str]] = [
    ({"field": "counterparty", "value": "shop"}, "/value"),
    ({"field": "memo", "value": "two words"}, "/value"),
    ({"field": "bucket", "value": " "}, "/value"),
    ({"field": "amount"}, "/field"),
    ({"value": ""}, "/value"),
    ({"value": "v" * 201}, "/value"),
    ({"categoryId": "x"}, "/categoryId"),
    ({"categoryId": str(uuid4())}, "/categoryId"),
]


async def test_what_can_not_be_a_rule_is_refused(me: Client) -> None:
    for facts, pointer in WRONG_RULES:
        got = await me.post("/v1/category-rules", {"field": "memo", "value": "taxi", "categoryId": FOOD, **facts})
        assert (got.status, [each["pointer"] for each in got.json["errors"]]) == (400, [pointer]), facts


async def test_there_is_an_end_to_rules(me: Client, pool: Pool) -> None:
    await pool.execute(
        """INSERT INTO category_rules (user_address, field, value, category_id)
           SELECT $1, 'memo', 'word' || n, $2 FROM generate_series(1, $3::int) AS n""",
        me.address,
        FOOD,
        MAX_RULES,
    )
    rule = {"field": "memo", "value": "taxi", "categoryId": TRANSPORT}
    assert (await me.post("/v1/category-rules", rule)).status == 409
    assert (await me.post("/v1/category-rules", {**rule, "value": "word7"})).status == 201


# Pictures ----------------------------------------------------------------------------------------------------------

PICTURE = saved(sample(), "PNG")


async def send(client: Client, category: str, raw: bytes, **headers: str) -> Got:
    form = aiohttp.FormData()
    form.add_field("image", io.BytesIO(raw), filename="me.png", content_type="image/png")
    return await client.call("POST", f"/v1/categories/{category}/image", data=form, headers=headers)


def uploads(deps: Deps) -> list[Path]:
    folder = deps.settings.data_dir / objects.FOLDER / "uploads"
    return list(folder.iterdir()) if folder.exists() else []


async def test_a_picture_is_taken_in_and_its_way_can_be_followed(me: Client, deps: Deps) -> None:
    path = f"/v1/categories/{FOOD}/image"
    assert (await me.get(path)).status == 404
    got = await send(me, FOOD, PICTURE)
    assert (got.status, got.json["status"], got.headers["Location"]) == (202, "queued", path)
    [file] = uploads(deps)
    assert (file.read_bytes(), me.address[2:] in str(file)) == (PICTURE, False)
    await finish(deps, {64: b"small", 256: b"large"})
    status = (await me.get(path)).json
    name = content_name({64: b"small", 256: b"large"})
    assert (status["status"], status["iconUrl"]) == ("done", f"/media/{name}-256.webp")
    assert status["smallIconUrl"] == f"/media/{name}-64.webp"
    assert [each["customIconUrl"] for each in await told(me)] == [status["iconUrl"]]
    assert (await listed(me))[0]["customIconUrl"] == status["iconUrl"]
    assert (await me.call("DELETE", path)).status == 204
    assert [(await me.call("DELETE", path)).status, (await me.get(path)).status] == [404, 404]
    assert (await told(me))[-1]["customIconUrl"] == "/icons/food.svg"


async def finish(deps: Deps, squares: dict[int, bytes]) -> None:
    """What the job does once the picture is decoded."""
    [due] = await outbox.due(deps.pool, "slow", older_than_s=0, limit=10)
    claim = await outbox.begin(deps.pool, due.id)
    assert claim is not None
    await images.start(deps, images.Sent.of(claim.args))
    assert await images.show(deps, objects.open_objects(deps.settings), claim, squares)


async def test_a_picture_is_served_to_anyone_for_ever(me: Client, anyone: Client, deps: Deps) -> None:
    await send(me, FOOD, PICTURE)
    await finish(deps, {64: b"small", 256: b"large"})
    got = await anyone.get((await told(me))[0]["customIconUrl"])
    assert (got.status, got.body, got.headers["Content-Type"]) == (200, b"large", "image/webp")
    assert got.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert got.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_cdn_is_named_in_links(pool: Pool, make_settings: MakeSettings) -> None:
    deps = wire(pool, busy(make_settings, upload_limit_per_minute=100, cdn_url="https://cdn.example/x/"))
    async with serving(deps) as anyone:
        me = await anyone.signed_in()
        await send(me, FOOD, PICTURE)
        await finish(deps, {64: b"small", 256: b"large"})
        [shown] = await told(me)
        assert shown["customIconUrl"].startswith("https://cdn.example/x/media/")
        assert shown["iconUrl"] == "/icons/food.svg"


async def test_nothing_else_is_served(anyone: Client) -> None:
    for path in (
        "/icons/nothing.svg",
        "/icons/..%2Fapp.py",
        "/icons/%2E%2E%2Fapp.py",
        "/media/x.webp",
        "/media/..%2Fuploads%2Fx",
        "/media/" + file_name("a" * 64, 256),
        "/media/" + file_name("A" * 64, 256),
    ):
        assert (await anyone.get(path)).status == 404, path


async def test_what_is_no_picture_is_turned_away_at_once(me: Client, deps: Deps) -> None:
    for raw, status, code in (
        (b"", 415, "unsupported_picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>" + SECRET, 415, "unsupported_picture"),
        (png(ihdr(60_000, 60_000)), 422, "picture_refused"),
        (PICTURE + bytes(MAX_BYTES), 413, "too_large"),
    ):
        got = await send(me, FOOD, raw)
        assert (got.status, got.json["code"]) == (status, code)
    assert (await send(me, str(uuid4()), PICTURE)).status == 404
    assert (uploads(deps), await outbox.depth(deps.pool)) == ([], 0)


async def test_a_picture_sent_twice_under_one_key_is_taken_once(me: Client, deps: Deps) -> None:
    key = {"Idempotency-Key": "p"}
    assert [(await send(me, FOOD, PICTURE, **key)).status for _ in range(2)] == [202, 202]
    assert (len(uploads(deps)), await outbox.depth(deps.pool)) == (1, 1)


async def test_pictures_have_a_limit_of_their_own(pool: Pool, make_settings: MakeSettings) -> None:
    async with serving(wire(pool, busy(make_settings, upload_limit_per_minute=2))) as anyone:
        me = await anyone.signed_in()
        assert [(await send(me, FOOD, PICTURE)).status for _ in range(3)] == [202, 202, 429]


async def test_storage_that_is_away_is_said_to_be(
    me: Client, anyone: Client, deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise objects.ObjectsAway("gone")

    monkeypatch.setattr(objects.Folder, "put", away)
    monkeypatch.setattr(objects.Folder, "get", away)
    for got in (await send(me, FOOD, PICTURE), await anyone.get("/media/" + file_name("a" * 64, 256))):
        assert (got.status, got.json["code"]) == (503, "unavailable")
        assert "storage" in got.json["detail"]
    assert (await me.get(f"/v1/categories/{FOOD}/image")).status == 404


def test_every_default_has_its_own_drawing() -> None:
    files = sorted(ICONS.glob("*.svg"))
    assert len(files) == len({path.read_bytes() for path in files}) == 8


async def test_events_are_as_the_catalogue_says(me: Client) -> None:
    await make(me, "Dogs")
    data = (await me.get("/v1/events")).json["data"]
    CategoryUpdated.model_validate(data[0]["payload"])
