"""Documents as clients see them: begun, followed, fetched by a link that ends, and nobody else's."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from yarl import URL

from handlers import documents
from handlers.deps import Deps
from handlers.rules.periods import iso
from jobs.documents import prune
from jobs.job import Tools
from store.clickhouse import Analytics
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.realtime.documents import work
from tests.realtime.rows import SHOP, bucket, index, spend, stand, write
from tests.realtime.served import Client, serving
from tests.realtime.test_rest_exports import KEY, many
from tests.realtime.wiring import CHAIN, FakeClock, busy, wire
from tests.store.bucket import bucket as s3

FOOD = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings, clock: FakeClock) -> Deps:
    wide = {"export_limit_per_minute": 1_000_000, "access_token_ttl_s": 10**6}
    return wire(pool, busy(make_settings, seal_keys=[KEY], export_rows=20, **wide), clock=clock)


def files(deps: Deps) -> list[str]:
    root = deps.settings.data_dir / "objects"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def begun(client: Client, path: str) -> dict[str, Any]:
    got = await client.get(path)
    assert got.status == 202, got.body
    assert got.headers["Location"] == f"/v1/exports/{got.json['id']}"
    assert got.json["status"] in {"queued", "running"}
    found: dict[str, Any] = got.json
    return found


async def finished(client: Client, deps: Deps, export: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Its last state and its document, fetched by its link without a token."""
    await work(deps)
    state = (await client.get(f"/v1/exports/{export['id']}")).json
    assert (state["status"], state["progress"], state["reason"]) == ("done", "1", None), state
    assert state["expiresAt"] > state["finishedAt"] >= state["createdAt"]
    got = await Client(client.session, client.base).get(state["url"])
    assert got.status == 200
    assert got.headers["Content-Type"] == state["mediaType"]
    assert got.headers["Content-Disposition"] == f'attachment; filename="{state["fileName"]}"'
    assert len(got.body) == state["bytes"]
    return state, got.body


async def test_a_large_export_becomes_a_document(me: Client, pool: Pool, deps: Deps) -> None:
    await many(pool, me.address, 21)
    export = await begun(me, "/v1/transactions/export?format=csv")
    assert (export["kind"], export["progress"], export["url"]) == ("transactions", None, None)
    state, body = await finished(me, deps, export)
    assert (state["rows"], state["totalRows"]) == (21, 21)
    rows = list(csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline="")))
    listed = (await me.get("/v1/transactions")).json["data"]
    assert [row["id"] for row in rows] == [each["id"] for each in listed]
    assert (await me.get("/v1/transactions/export?format=csv&max=1")).status == 200  # few are answered at once


async def test_a_document_keeps_to_its_filters_and_its_search(me: Client, pool: Pool, deps: Deps) -> None:
    await many(pool, me.address, 50)
    await write(pool, spend(me.address, 3, bucket="Rent"))
    await index(pool, me.address, seal_keys=[KEY])
    export = await begun(me, "/v1/transactions/export?format=ndjson&q=groceries&type=spend")
    stored = await pool.fetchrow("SELECT params::text, query, fingerprint FROM exports")
    assert stored is not None
    assert b"groceries" not in b"".join(str(each).encode() for each in stored)
    _, body = await finished(me, deps, export)
    buckets = [orjson.loads(line)["bucket"] for line in body.splitlines()]
    assert buckets == ["Groceries"] * 50


async def test_parquet_documents_come_from_the_analytics_store(
    me: Client, pool: Pool, deps: Deps, analytics: Analytics
) -> None:
    await many(pool, me.address, 30)
    _, body = await finished(me, deps, await begun(me, "/v1/transactions/export?format=parquet"))
    assert (body[:4], body[-4:]) == (b"PAR1", b"PAR1")


async def test_the_same_asked_while_it_is_under_way_is_the_same_document(
    me: Client, anyone: Client, pool: Pool, deps: Deps, clock: FakeClock
) -> None:
    await many(pool, me.address, 30)
    first = await begun(me, "/v1/transactions/export?format=csv")
    again = await begun(me, "/v1/transactions/export?format=csv")
    other = await begun(me, "/v1/transactions/export?format=csv&max=99")
    assert first["id"] == again["id"] != other["id"]
    await begun(me, "/v1/me/export")
    refused = await me.get("/v1/reports/2026-11")
    assert (refused.status, refused.json["code"]) == (409, "conflict")  # three are under way
    await work(deps)
    clock.pass_(1)
    later = await begun(me, "/v1/transactions/export?format=csv")
    assert later["id"] != first["id"]
    listed = (await me.get("/v1/exports?limit=3")).json
    rest = (await me.get(f"/v1/exports?limit=3&cursor={listed['nextCursor']}")).json
    assert listed["data"][0]["id"] == later["id"]
    assert len({each["id"] for each in listed["data"] + rest["data"]}) == 4
    assert (await (await anyone.signed_in()).get("/v1/exports")).json["data"] == []


async def test_a_key_brings_the_first_answer_again(me: Client, deps: Deps) -> None:
    headers = {"Idempotency-Key": "copy-1"}
    first = await me.get("/v1/me/export", headers=headers)
    await work(deps)
    again = await me.get("/v1/me/export", headers=headers)
    assert (again.status, again.body) == (202, first.body)
    assert (await me.get("/v1/me/export")).json["id"] != first.json["id"]


async def test_ones_own_copy_holds_everything_and_nothing_of_others(
    me: Client, anyone: Client, pool: Pool, deps: Deps
) -> None:
    other = await anyone.signed_in()
    rows = [spend(me.address, number) for number in (1, 2)]
    await write(pool, *rows, spend(other.address, 3))
    await bucket(pool, me.address, b"Rent", holds=5)
    for client, word in ((me, "mine"), (other, "theirs")):
        await client.call("PATCH", "/v1/me", json={"email": f"{word}@example.com", "displayName": word})
        await client.call("PUT", f"/v1/contacts/{SHOP}", json={"label": f"{word} shop"})
        await client.post("/v1/memos", {"chainId": CHAIN.id, "txHash": rows[0].tx_hash, "memo": f"{word} memo"})
        await client.post("/v1/categories", {"name": f"{word} things"})
        await client.post("/v1/category-rules", {"field": "memo", "value": word, "categoryId": FOOD})
        await client.post(
            "/v1/devices", {"token": f"token-{word}", "platform": "ios", "locale": "en", "appVersion": "1"}
        )
        await client.call(
            "PUT", "/v1/budgets", json={"scope": "category", "categoryId": FOOD, "monthlyBudget": "10.50"}
        )
    _, body = await finished(me, deps, await begun(me, "/v1/me/export"))
    lines = [orjson.loads(line) for line in body.splitlines()]
    kinds = [line["kind"] for line in lines]
    assert set(kinds) >= {"profile", "contact", "category", "category_preference", "category_rule", "bucket", "balance"}
    assert set(kinds) >= {"memo", "device", "session", "audit", "transaction"}
    found = {line["kind"]: line["data"] for line in lines}
    assert found["profile"]["email"] == "mine@example.com"
    assert found["memo"]["memo"] == "mine memo"
    assert found["category_preference"]["monthlyBudget"] == "10.50"
    assert found["balance"]["amountRaw"] == "5"
    assert kinds.count("transaction") == 2
    assert found["transaction"]["memo"] == "mine memo"
    assert b"theirs" not in body
    assert other.address.encode() not in body
    assert b"token-mine" not in body
    assert me.token.encode() not in body


async def test_a_copy_names_friends_as_they_are_shown(me: Client, anyone: Client, deps: Deps) -> None:
    other = await anyone.signed_in()
    await other.call("PATCH", "/v1/me", json={"displayName": "Friend"})
    token = (await me.post("/v1/friends/invitations", {"uses": 2})).json["token"]
    await other.post(f"/v1/friends/invitations/{token}/accept")
    await me.post("/v1/friends/requests", {"address": SHOP})
    _, body = await finished(me, deps, await begun(me, "/v1/me/export"))
    found = {line["kind"]: line["data"] for line in map(orjson.loads, body.splitlines())}
    assert (found["friend"]["displayName"], found["friend"]["status"], found["friend"]["address"]) == (
        "Friend",
        "friends",
        None,
    )
    assert found["friend_request"]["address"] == SHOP
    assert found["friend_invitation"]["usesLeft"] == 1
    assert other.address.encode() not in body
    assert token.encode() not in body
    await me.post(f"/v1/friends/{found['friend']['id']}/block")
    await other.call("PATCH", "/v1/me", json={"displayName": "Later"})
    _, body = await finished(me, deps, await begun(me, "/v1/me/export"))
    found = {line["kind"]: line["data"] for line in map(orjson.loads, body.splitlines())}
    assert (found["friend"]["displayName"], found["friend"]["status"]) == ("Friend", "blocked")
    assert b"Later" not in body


async def test_a_copy_has_challenges_and_nothing_of_who_else_is_in_them(me: Client, anyone: Client, deps: Deps) -> None:
    other = await anyone.signed_in()
    await other.call("PATCH", "/v1/me", json={"displayName": "Rival"})
    ends = iso(deps.now() + timedelta(days=9))
    wanted = {"name": "No coffee", "measure": "no_spend_days", "visibility": "public", "endsAt": ends}
    theirs = (await other.post("/v1/challenges", wanted)).json["id"]
    await me.post(f"/v1/challenges/{theirs}/join")
    mine = (await me.post("/v1/challenges", wanted | {"join": False})).json["id"]
    token = (await me.post(f"/v1/challenges/{mine}/links", {})).json["token"]
    _, body = await finished(me, deps, await begun(me, "/v1/me/export"))
    found: dict[str, list[Any]] = {}
    for line in map(orjson.loads, body.splitlines()):
        found.setdefault(line["kind"], []).append(line["data"])
    assert {each["id"]: each["isCreator"] for each in found["challenge"]} == {mine: True, theirs: False}
    assert [(each["challengeId"], each["score"]) for each in found["challenge_part"]] == [(theirs, 0)]
    assert [each["challengeId"] for each in found["challenge_link"]] == [mine]
    assert other.address.encode() not in body
    assert b"Rival" not in body
    assert token.encode() not in body


async def test_a_report_counts_what_budgets_count_in_the_users_own_month(me: Client, pool: Pool, deps: Deps) -> None:
    await me.call("PATCH", "/v1/me", json={"timeZone": "Asia/Tokyo"})
    hour = 1800  # blocks of two seconds: the zone is nine hours ahead
    rows = [
        spend(me.address, 1, usd=Decimal("12.5")),
        spend(me.address, 2, usd=None),
        spend(me.address, 3, type="deposit", direction="in"),
        spend(me.address, 4, usd=Decimal("100"), bucket="<script>"),
        spend(me.address, -10 * hour, usd=Decimal("7")),  # 31 October, 19:00 in Tokyo
        spend(me.address, -8 * hour, usd=Decimal("0.25")),  # 1 November there
    ]
    await write(pool, *rows)
    await me.call("PUT", f"/v1/contacts/{SHOP}", json={"label": '<b>"Shop"'})
    await me.call("PUT", f"/v1/transactions/{rows[3].id}/category", json={"categoryId": FOOD})
    await me.call("PUT", "/v1/budgets", json={"scope": "category", "categoryId": FOOD, "monthlyBudget": "80"})
    _, body = await finished(me, deps, await begun(me, "/v1/reports/2026-11?format=json"))
    report = orjson.loads(body)
    assert (report["spent"], report["unpriced"], report["transactions"]) == ("112.75", 1, 4)
    assert (report["from"], report["timeZone"]) == ("2026-10-31T15:00:00.000Z", "Asia/Tokyo")
    food, none = report["categories"]
    assert (food["name"], food["spent"], food["budget"], food["status"]) == (
        "Food & Dining",
        "100.00",
        "80.00",
        "over_budget",
    )
    assert (none["categoryId"], none["spent"], none["unpriced"], none["budget"]) == (None, "12.75", 1, None)
    assert [(each["address"], each["label"], each["spent"]) for each in report["payees"]] == [
        (SHOP, '<b>"Shop"', "112.75")
    ]
    assert [each["name"] for each in report["buckets"]] == ["<script>", "Groceries"]
    assert {each["type"]: each["total"] for each in report["flows"]} == {"spend": "112.75", "deposit": "12.50"}
    state, page = await finished(me, deps, await begun(me, "/v1/reports/2026-11"))
    assert state["fileName"].startswith("expendi-report-2026-11-")
    text = page.decode()
    assert "$112.75" in text
    assert "+ 1 without a price" in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "&lt;b&gt;&quot;Shop&quot;" in text


@pytest.mark.parametrize("month", ["2999-01", "2026-13", "2026-1", "november", "2026-11%00", "1999-12", "%27"])
async def test_a_month_that_is_none_has_no_report(me: Client, month: str) -> None:
    assert (await me.get(f"/v1/reports/{month}")).status == 404


async def test_a_link_ends_after_a_quarter_of_an_hour(me: Client, deps: Deps, clock: FakeClock) -> None:
    state, _ = await finished(me, deps, await begun(me, "/v1/me/export"))
    clock.pass_(documents.LINK_S - 1)
    assert (await me.get(state["url"])).status == 200
    clock.pass_(2)
    got = await me.get(state["url"])
    assert (got.status, got.json["code"]) == (410, "link_expired")


async def test_what_is_not_signed_by_us_opens_nothing(me: Client, anyone: Client, deps: Deps) -> None:
    other = await anyone.signed_in()
    mine, _ = await finished(me, deps, await begun(me, "/v1/me/export"))
    theirs, _ = await finished(other, deps, await begun(other, "/v1/me/export"))
    url = mine["url"]
    until = url.partition("until=")[2].partition("&")[0]
    forged = [
        url[:-1] + ("0" if url[-1] != "0" else "1"),
        url.replace(mine["id"], theirs["id"]),
        url.replace(until, str(int(until) + 1)),
        url.partition("signature=")[0] + "signature=",
        url.partition("signature=")[0] + "signature=%00%F0",
        url.replace(mine["id"], "x"),
    ]
    for path in forged:
        got = await anyone.get(path)
        assert got.status in {404, 400}, path
    for method in ("GET", "DELETE"):
        for id_ in (theirs["id"], "00000000-0000-4000-8000-000000000000", "x", "%00"):
            got = await me.call(method, f"/v1/exports/{id_}")
            assert (got.status, got.json["detail"]) == (404, "You have no export of this id.")
    assert (await other.get(theirs["url"])).status == 200


async def test_a_cancelled_export_is_neither_written_nor_kept(me: Client, pool: Pool, deps: Deps) -> None:
    export = await begun(me, "/v1/me/export")
    assert (await me.call("DELETE", f"/v1/exports/{export['id']}")).status == 204
    assert (await me.get(f"/v1/exports/{export['id']}")).status == 404
    assert (await me.call("DELETE", f"/v1/exports/{export['id']}")).status == 404
    assert await work(deps) == 1
    assert files(deps) == []
    done, _ = await finished(me, deps, await begun(me, "/v1/me/export"))
    assert len(files(deps)) == 1
    assert (await me.call("DELETE", f"/v1/exports/{done['id']}")).status == 204
    assert (await me.get(done["url"])).status == 404
    await _pruned(deps)
    assert files(deps) == []
    assert await pool.fetchval("SELECT count(*) FROM exports") == 0


async def test_a_document_goes_when_its_time_is_over(me: Client, pool: Pool, deps: Deps, clock: FakeClock) -> None:
    done, _ = await finished(me, deps, await begun(me, "/v1/me/export"))
    await _pruned(deps)
    assert len(files(deps)) == 1
    clock.pass_(25 * 3600)
    assert (await me.get(f"/v1/exports/{done['id']}")).status == 404
    assert (await me.get("/v1/exports")).json["data"] == []
    await _pruned(deps)
    assert files(deps) == []
    assert await pool.fetchval("SELECT count(*) FROM exports") == 0


async def _pruned(deps: Deps) -> None:
    analytics = Analytics(deps.settings.clickhouse_url)
    await prune(Tools(deps, analytics))
    await analytics.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3(tmp_path_factory.mktemp("s3") / "log") as facts:
        yield facts


async def test_a_document_in_a_bucket_is_fetched_from_the_bucket(
    pool: Pool, make_settings: MakeSettings, server: dict[str, str]
) -> None:
    deps = wire(pool, busy(make_settings, seal_keys=[KEY], **server))
    async with serving(deps) as anyone:
        me = await anyone.signed_in()
        await write(pool, *(spend(me.address, number) for number in range(1, 4)))
        await stand(pool, CHAIN.id, 4)
        export = await begun(me, "/v1/me/export")
        await work(deps)
        state = (await me.get(f"/v1/exports/{export['id']}")).json
        assert urlsplit(state["url"]).netloc == urlsplit(server["s3_endpoint"]).netloc
        assert "X-Amz-Expires=900" in state["url"]
        async with anyone.session.get(URL(state["url"], encoded=True)) as response:
            body = await response.read()
            assert response.headers["Content-Disposition"] == f'attachment; filename="{state["fileName"]}"'
        assert len(body) == state["bytes"]
        assert [orjson.loads(line)["kind"] for line in body.splitlines()].count("transaction") == 3
        assert files(deps) == []
