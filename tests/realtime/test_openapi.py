from __future__ import annotations

import io
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from handlers.deps import Deps
from handlers.rules.periods import iso
from handlers.rules.unsubscribe import PATH
from realtime.app import build
from realtime.rest.routes import ENDPOINTS
from store import persistence
from store.clickhouse import Analytics
from store.objects import open_objects
from store.postgres import Pool
from store.redis import open_redis
from tests.conftest import MakeSettings
from tests.handlers.test_persistence import work
from tests.jobs.pictures import sample, saved
from tests.realtime.conform import check, openapi, operation_of, resolve
from tests.realtime.rows import bucket, hold, open_account, spend, stand, tell, write
from tests.realtime.served import Client, serving
from tests.realtime.test_rest_notifications import DEVICE, SEAL_KEY
from tests.realtime.test_rest_unsubscribe import letter_token
from tests.realtime.wallets import Wallet, signed_by_key
from tests.realtime.wiring import CHAIN, USDC, busy, wire
from tests.store.test_notifications import make_notice, record


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, methods in openapi()["paths"].items()
        for method, operation in methods.items()
    }


async def test_every_route_is_documented_and_nothing_else(pool: Pool, make_settings: MakeSettings) -> None:
    redis = open_redis(make_settings().redis_url)
    app: web.Application = build(wire(pool, make_settings()), redis, signed_by_key)
    paths = {re.sub(r":\(\?i:[^)]*\)", "", each.pattern): each.path for each in ENDPOINTS}
    served = {
        (route.method, paths[route.resource.canonical])
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD" and "socket.io" not in route.resource.canonical
    }
    assert served == set(operations())
    await redis.aclose()


def test_the_document_is_openapi_3_1_as_it_should_be() -> None:
    document = openapi()
    assert document["openapi"] == "3.1.0"
    assert {"title", "version"} <= document["info"].keys()
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    refs = [node["$ref"] for node in nodes(document) if "$ref" in node]
    assert refs
    for ref in refs:
        assert resolve(ref)
    used = {ref for ref in refs if ref.startswith("#/components/schemas/")}
    assert used == {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_operations_say_who_may_call_and_what_may_come_back() -> None:
    names = [operation["operationId"] for operation in operations().values()]
    assert len(set(names)) == len(names)
    tags = {tag["name"] for tag in openapi()["tags"]}
    for (method, path), operation in operations().items():
        assert operation["summary"].endswith("."), path
        assert set(operation["tags"]) <= tags
        asks_who = operation.get("security") != [] or path in {"/v1/auth/verify", "/v1/auth/refresh"}
        assert ("401" in operation["responses"]) == asks_who, path
        assert {"400", "403", "500", "503"} <= operation["responses"].keys()
        named = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}
        assert all(parameter["description"] for parameter in operation["parameters"])
        assert "requestBody" not in operation or method in {"POST", "PUT", "PATCH"}, path


def test_only_sign_in_chains_and_operations_are_public() -> None:
    public = {path for (_, path), operation in operations().items() if operation.get("security") == []}
    assert public == {
        "/v1/auth/nonce",
        "/v1/auth/verify",
        "/v1/auth/refresh",
        "/v1/chains",
        "/v1/unsubscribe/{token}",
        "/icons/{name}",
        "/media/{name}",
        "/v1/exports/{id}/file",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
    }


async def fill(pool: Pool, address: str) -> str:
    """Something in every list; returns a transaction id."""
    rows = [
        spend(address, 1),
        spend(address, 2, n=1, type="transfer", role="delegate", wallet=None, bucket=None, bucket_id=None, usd=None),
        spend(
            address, 3, token="0x" + "99" * 20, symbol=None, decimals=None, usd=None, fee_wei=None, counterparty=None
        ),
        spend(address, 4, amount=2**256 - 1, to_bucket="Rent", to_bucket_id="x"),
    ]
    await write(pool, *rows)
    await stand(pool, CHAIN.id, 10)
    await bucket(pool, address, b"Rent", holds=5)
    await bucket(pool, address, b"Groceries")
    await tell(pool, address, 3)
    return rows[0].id


def path_of_v1(path: str, me: Client) -> str:
    return path.replace("{address}", me.address).replace("{chain}", CHAIN.name)


def people_calls(me: Client, transaction_id: str) -> list[tuple[Client, str, str, Any]]:
    contact, tx_hash = "/v1/contacts/0x" + "5b" * 20, transaction_id.split(":")[1]
    return [
        (me, "PATCH", "/v1/me", {"monthlyBudget": "100", "quietHours": {"start": "22:00", "end": "07:00"}}),
        (me, "PUT", contact, {"label": "Shop"}),
        (me, "GET", contact, None),
        (me, "GET", "/v1/contacts", None),
        (me, "DELETE", contact, None),
        (me, "PUT", f"/v1/transactions/{transaction_id}/memo", {"memo": "lunch"}),
        (me, "POST", "/v1/memos", {"chainId": CHAIN.id, "txHash": tx_hash, "memo": "lunch"}),
    ]


FOOD = "00000000-0000-4000-8000-000000000001"


async def category_calls(anyone: Client, me: Client, deps: Deps) -> list[tuple[Client, str, str, Any]]:
    made = f"/v1/categories/{(await me.post('/v1/categories', {'name': 'Cats'})).json['id']}"
    rule = {"field": "memo", "value": "taxi", "categoryId": FOOD}
    rule_id = (await me.post("/v1/category-rules", rule)).json["id"]
    picture = "a" * 64 + "-64.webp"
    await open_objects(deps.settings).put(f"media/{picture}", b"x", media="image/webp", public=True)
    return [
        (me, "POST", "/v1/categories", {"name": "Dogs"}),
        (me, "GET", "/v1/categories", None),
        (me, "GET", made, None),
        (me, "PATCH", made, {"sortOrder": 2}),
        (me, "PUT", f"{made}/preferences", {"isFavorite": True}),
        (me, "POST", f"{made}/image", form({"image": saved(sample(), "PNG")})),
        (me, "GET", f"{made}/image", None),
        (me, "DELETE", f"{made}/image", None),
        (me, "DELETE", made, None),
        (me, "POST", "/v1/category-rules", rule),
        (me, "GET", "/v1/category-rules", None),
        (me, "DELETE", f"/v1/category-rules/{rule_id}", None),
        (anyone, "GET", "/icons/food.svg", None),
        (anyone, "GET", f"/media/{picture}", None),
    ]


async def budget_calls(me: Client, pool: Pool, transaction_id: str) -> list[tuple[Client, str, str, Any]]:
    await pool.execute("INSERT INTO ai_usage VALUES ($1, now() AT TIME ZONE 'UTC', 'p', 'm', 1, 2, 3, 0.5)", me.address)
    thought = {"chainId": CHAIN.id, "bucket": "Rent", "token": USDC, "amount": "1"}
    (mine,) = [each["id"] for each in (await me.get("/v1/buckets")).json["data"] if each["name"] == "Groceries"]
    return [
        (me, "GET", f"/v1/buckets/{mine}", None),
        (me, "GET", f"/v1/buckets/{mine}/spends", None),
        (me, "PUT", "/v1/budgets", {"scope": "category", "categoryId": FOOD, "monthlyBudget": "100"}),
        (me, "GET", "/v1/budgets", None),
        (me, "GET", "/v1/budgets/status", None),
        (me, "POST", "/v1/budgets/simulate", thought),
        (me, "PUT", f"/v1/transactions/{transaction_id}/category", {"categoryId": FOOD}),
        (me, "GET", "/v1/me/ai-usage", None),
    ]


async def goal_calls(me: Client) -> list[tuple[Client, str, str, Any]]:
    goal = {"name": "Bike", "targetAmount": "200", "currentAmount": "90", "targetDate": "2100-01-01"}
    goal_id = (await me.post("/v1/goals", goal)).json["goalId"]
    spare = (await me.post("/v1/goals", goal)).json["goalId"]
    return [
        (me, "POST", "/v1/goals", goal),
        (me, "GET", "/v1/goals", None),
        (me, "GET", f"/v1/goals/{goal_id}", None),
        (me, "PATCH", f"/v1/goals/{goal_id}", {"name": "Boat"}),
        (me, "DELETE", f"/v1/goals/{spare}", None),
        (me, "GET", "/v1/savings", None),
        (me, "GET", "/v1/achievements", None),
    ]


def form(files: dict[str, bytes]) -> aiohttp.FormData:
    made = aiohttp.FormData()
    for name, raw in files.items():
        made.add_field(name, io.BytesIO(raw), filename="f", content_type="image/png")
    return made


async def inbox_calls(me: Client, pool: Pool) -> list[tuple[Client, str, str, Any]]:
    notice = make_notice(user=me.address)
    await record(pool, notice)
    phone = (await me.post("/v1/devices", DEVICE)).json["id"]
    link = PATH + await letter_token(me, pool)
    return [
        (me, "GET", link, None),
        (me, "POST", link, None),
        (me, "GET", "/v1/notifications", None),
        (me, "POST", "/v1/notifications/read", {"upTo": str(notice.id)}),
        (me, "GET", "/v1/notification-preferences", None),
        (me, "PUT", "/v1/notification-preferences", {"data": []}),
        (me, "GET", "/v1/devices", None),
        (me, "DELETE", f"/v1/devices/{phone}", None),
        (me, "POST", "/v1/devices", DEVICE),
    ]


async def account_calls(me: Client, pool: Pool) -> list[tuple[Client, str, str, Any]]:
    await open_account(pool, me.address, "spending")
    await hold(pool, me.address)
    path = f"/v1/accounts/eip155:{CHAIN.id}:{me.address}:spending"
    return [
        (me, "GET", "/v1/accounts", None),
        (me, "GET", path, None),
        (me, "PATCH", path, {"accountName": "Daily", "isActive": True}),
        (me, "GET", "/v1/positions", None),
        (me, "GET", "/v1/investments", None),
        (me, "GET", "/v1/recommendations/rebalancing", None),
    ]


async def document_calls(me: Client, deps: Deps) -> list[tuple[Client, str, str, Any]]:
    export = f"/v1/exports/{(await me.get('/v1/reports/2026-10?format=json')).json['id']}"
    await deps.pool.execute("UPDATE exports SET status = 'done'")
    done = (await me.get(export)).json
    objects = open_objects(deps.settings)
    name = await deps.pool.fetchval("SELECT object FROM exports")
    await objects.put(name, b"{}", media="application/json", public=False)
    return [
        (me, "GET", "/v1/me/export", None),
        (me, "GET", "/v1/reports/2026-11", None),
        (me, "GET", "/v1/exports", None),
        (me, "GET", export, None),
        (me, "GET", done["url"], None),
        (me, "DELETE", export, None),
        (me, "GET", "/v1/transactions/export?format=csv", None),
        (me, "GET", "/v1/transactions/export/columns?format=parquet", None),
    ]


async def friend_calls(anyone: Client, me: Client) -> list[tuple[Client, str, str, Any]]:
    """Everything about friends: three who ask, of whom one is accepted, one declined and one blocked."""
    for _ in range(3):
        assert (await (await anyone.signed_in()).post("/v1/friends/requests", {"address": me.address})).status == 202
    first, second, third = [each["id"] for each in (await me.get("/v1/friends?status=received")).json["data"]]
    other = await anyone.signed_in()
    token = (await other.post("/v1/friends/invitations", {})).json["token"]
    made = (await me.post("/v1/friends/invitations", {"uses": 2})).json["id"]
    return [
        (me, "POST", "/v1/friends/requests", {"address": "0x" + "12" * 20}),
        (me, "GET", "/v1/friends?status=received", None),
        (me, "POST", f"/v1/friends/{first}/accept", None),
        (me, "POST", f"/v1/friends/{second}/decline", None),
        (me, "POST", f"/v1/friends/{third}/block", None),
        (me, "GET", "/v1/friends/blocked", None),
        (me, "DELETE", f"/v1/friends/{third}/block", None),
        (me, "POST", f"/v1/friends/invitations/{token}/accept", None),
        (me, "GET", "/v1/friends", None),
        (me, "GET", "/v1/friends/comparisons", None),
        (me, "POST", "/v1/me/avatar", form({"image": saved(sample(), "PNG")})),
        (me, "GET", "/v1/me/avatar", None),
        (me, "DELETE", "/v1/me/avatar", None),
        (me, "DELETE", f"/v1/friends/{first}", None),
        (me, "POST", "/v1/friends/invitations", {"uses": 3}),
        (me, "GET", "/v1/friends/invitations", None),
        (me, "DELETE", f"/v1/friends/invitations/{made}", None),
    ]


async def challenge_calls(
    anyone: Client, me: Client, clock: Callable[[], datetime]
) -> list[tuple[Client, str, str, Any]]:
    """Everything about challenges: one that is made, changed and called off, one that is joined, and one by a link."""
    start, end = (iso(clock() + timedelta(days=days)) for days in (1, 8))
    wanted = {"name": "No coffee", "measure": "no_spend_days", "startsAt": start, "endsAt": end}
    mine = (await me.post("/v1/challenges", wanted)).json["id"]
    other = await anyone.signed_in()
    public, invited = [
        (await other.post("/v1/challenges", wanted | {"visibility": each})).json["id"] for each in ("public", "private")
    ]
    token = (await other.post(f"/v1/challenges/{invited}/links", {})).json["token"]
    friend = (await me.post("/v1/friends/invitations", {})).json["token"]
    assert (await other.post(f"/v1/friends/invitations/{friend}/accept")).status == 200
    [mate] = [each["id"] for each in (await me.get("/v1/friends")).json["data"] if each["address"] is None][:1]
    theirs = (await other.get("/v1/friends")).json["data"][0]["id"]
    declined = (await other.post("/v1/challenges", wanted)).json["id"]
    assert (await other.post(f"/v1/challenges/{declined}/invite", {"friendIds": [theirs]})).status == 204
    link = (await me.post(f"/v1/challenges/{mine}/links", {"uses": 2})).json["id"]
    return [
        (me, "POST", "/v1/challenges", wanted),
        (me, "GET", "/v1/challenges?list=mine", None),
        (me, "GET", f"/v1/challenges/{mine}", None),
        (me, "GET", f"/v1/challenges/{mine}/leaderboard", None),
        (me, "PATCH", f"/v1/challenges/{mine}", {"description": "Not one."}),
        (me, "POST", f"/v1/challenges/{public}/join", None),
        (me, "POST", f"/v1/challenges/{public}/leave", None),
        (me, "POST", f"/v1/challenges/{declined}/decline", None),
        (me, "POST", f"/v1/challenges/links/{token}/join", None),
        (me, "POST", f"/v1/challenges/{mine}/links", {}),
        (me, "GET", f"/v1/challenges/{mine}/links", None),
        (me, "DELETE", f"/v1/challenges/{mine}/links/{link}", None),
        (me, "POST", f"/v1/challenges/{mine}/invite", {"friendIds": [mate]}),
        (me, "POST", f"/v1/challenges/{mine}/cancel", None),
    ]


async def test_every_operation_answers_as_it_is_documented(
    pool: Pool, analytics: Analytics, make_settings: MakeSettings
) -> None:
    deps: Deps = wire(pool, busy(make_settings, seal_keys=(SEAL_KEY,)))
    seen: set[tuple[str, str]] = set()
    async with serving(deps) as anyone:
        wallet = Wallet()
        me = await anyone.signed_in(wallet)
        spare = await anyone.signed_in(wallet)
        id_ = await fill(pool, me.address)
        await persistence.ask_unpersisted(pool, older_than_s=-1)
        await work(pool, analytics)
        other = next(s["id"] for s in (await me.get("/v1/auth/sessions")).json["data"] if not s["current"])
        text = wallet.message((await anyone.post("/v1/auth/nonce")).json["nonce"])
        calls: list[tuple[Client, str, str, Any]] = [
            (anyone, "POST", "/v1/auth/nonce", None),
            (anyone, "POST", "/v1/auth/verify", {"message": text, "signature": wallet.sign(text)}),
            (anyone, "POST", "/v1/auth/refresh", {"refreshToken": spare.refresh}),
            (me, "GET", "/v1/auth/sessions", None),
            (me, "DELETE", f"/v1/auth/sessions/{other}", None),
            (me, "GET", "/v1/me", None),
            (me, "GET", "/v1/me/audit", None),
            (me, "GET", "/v1/chains", None),
            (me, "GET", "/v1/snapshot", None),
            (me, "GET", "/v1/events", None),
            (me, "GET", "/v1/transactions", None),
            (me, "GET", f"/v1/transactions/{id_}", None),
            (me, "GET", "/v1/buckets", None),
            (me, "GET", "/v1/analytics/buckets", None),
            (me, "GET", "/v1/analytics/trends?timeframe=year", None),
            (me, "GET", "/v1/analytics/forecast", None),
            (me, "GET", "/v1/summary", None),
            *((me, "GET", path_of_v1(each.path, me), None) for each in ENDPOINTS if each.is_v1),
            *people_calls(me, id_),
            *(await category_calls(anyone, me, deps)),
            *(await budget_calls(me, pool, id_)),
            *(await account_calls(me, pool)),
            *(await goal_calls(me)),
            *(await friend_calls(anyone, me)),
            *(await challenge_calls(anyone, me, deps.now)),
            *(await document_calls(me, deps)),
            *(await inbox_calls(me, pool)),
            (me, "GET", "/healthz", None),
            (me, "GET", "/readyz", None),
            (me, "GET", "/metrics", None),
            (me, "GET", "/openapi.json", None),
            (me, "POST", "/v1/auth/logout", None),
            (await anyone.signed_in(wallet), "DELETE", "/v1/auth/sessions", None),
        ]
        for client, method, path, body in calls:
            sent = {"data": body} if isinstance(body, aiohttp.FormData) else {"json": body}
            got = await client.call(method, path, **sent)
            assert got.status in {200, 201, 202, 204}, (path, got.body)
            path = path.partition("?")[0]
            found = operation_of(method, path)
            assert found is not None
            check(method, path, got.status, got.headers, got.body)
            seen.add((method, found[0]))
            if got.status == 200 and method == "GET" and "json" in got.headers["Content-Type"]:
                assert got.json.get("data", True), f"{path} has nothing to check"
        for method, path in operations():
            refused = await anyone.call(method, re.sub(r"\{\w+\}", str(uuid.uuid4()), path) + "?nonsense=1")
            assert refused.status in {400, 401}
            check(method, path, refused.status, refused.headers, refused.body)
    assert seen == set(operations())


@pytest.mark.parametrize("change", [{"extra": 1}, {"nonce": 5}, {"nonce": "short"}, {"nonce": None}, {"expiresAt": []}])
def test_the_checker_notices_what_is_not_documented(change: dict[str, Any]) -> None:
    good = {"nonce": "12345678", "expiresAt": "2026-11-24T10:00:00.000Z"}
    headers = dict.fromkeys(("X-Request-Id", "RateLimit", "RateLimit-Policy"), "x") | {
        "Content-Type": "application/json"
    }
    check("POST", "/v1/auth/nonce", 200, headers, orjson.dumps(good))
    with pytest.raises(AssertionError):
        check("POST", "/v1/auth/nonce", 200, headers, orjson.dumps({**good, **change}))
