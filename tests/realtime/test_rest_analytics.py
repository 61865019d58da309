"""Analytics as a signed-in user reads them: exact figures of their own calendar, kept until there are newer ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from config.embedded.valkey import Valkey
from handlers.deps import Deps
from store import budgets, persistence
from store.budgets import AssignedRow
from store.clickhouse import Analytics
from store.persistence import Persisted
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.handlers.test_persistence import work
from tests.realtime import rows
from tests.realtime.served import Client, serving
from tests.realtime.wiring import CHAIN, FakeClock, busy, wire

FOOD = "00000000-0000-4000-8000-000000000001"
TRANSPORT = "00000000-0000-4000-8000-000000000002"
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings, clickhouse_url: str, clock: FakeClock) -> Deps:
    return wire(pool, busy(make_settings, clickhouse_url=clickhouse_url), clock=clock)


@pytest.fixture
async def other(anyone: Client) -> Client:
    return await anyone.signed_in()


@pytest.fixture
async def me(anyone: Client, other: Client, clock: FakeClock) -> Client:
    """Signed in by the real clock, which the messages of wallets follow; then it is NOW."""
    client = await anyone.signed_in()
    clock.now = NOW
    return client


def spend(user: str, at: str, number: int, **changes: Any) -> Any:
    return rows.spend(user, number, block_time=datetime.fromisoformat(at).astimezone(UTC), **changes)


async def write(pool: Pool, analytics: Analytics, *made: Any) -> None:
    await rows.write(pool, *made)
    await settle(pool, analytics)


async def settle(pool: Pool, analytics: Analytics) -> None:
    await persistence.ask_unpersisted(pool, older_than_s=-1)
    await work(pool, analytics)


async def trends(client: Client, query: str) -> Any:
    got = await client.get(f"/v1/analytics/trends?{query}")
    assert got.status == 200, got.body
    return got.json


async def test_days_are_the_users_own_and_what_has_no_price_is_said(
    pool: Pool, analytics: Analytics, me: Client
) -> None:
    await me.call("PATCH", "/v1/me", json={"timeZone": "America/New_York"})
    # 1 November has 25 hours in New York: from 04:00 to 05:00 the next day.
    await write(
        pool,
        analytics,
        spend(me.address, "2026-11-01T03:59:59+00:00", 1),
        spend(me.address, "2026-11-01T04:00:00+00:00", 2, usd=Decimal("0.000000000000000001")),
        spend(me.address, "2026-11-02T04:59:59+00:00", 3, usd=None),
        spend(me.address, "2026-11-02T05:00:00+00:00", 4, role="delegate"),
        spend(rows.SHOP, "2026-11-01T12:00:00+00:00", 5),
        spend(me.address, "2026-11-01T12:00:00+00:00", 6, type="deposit", direction="in"),
    )
    await rows.stand(pool, CHAIN.id, 7)
    got = await trends(me, "timeframe=day&to=2026-11-03T00:00:00Z")
    assert got["data"] == [
        {
            "period": "2026-11-01T04:00:00.000Z",
            "categoryId": None,
            "totalSpent": "0.000000000000000001",
            "transactionCount": 2,
            "avgTransaction": "0.00",
            "unpriced": 1,
        },
        {
            "period": "2026-10-31T04:00:00.000Z",
            "categoryId": None,
            "totalSpent": "12.50",
            "transactionCount": 1,
            "avgTransaction": "12.50",
            "unpriced": 0,
        },
    ]
    assert (got["timeZone"], got["asOfBlock"]) == ("America/New_York", {str(CHAIN.id): 7})
    await rows.stand(pool, CHAIN.id, 8)
    assert await trends(me, "timeframe=day&to=2026-11-03T00:00:00Z") == {**got, "asOfBlock": {str(CHAIN.id): 8}}
    await rows.write(pool, spend(me.address, "2026-11-01T12:00:00+00:00", 9))
    await rows.stand(pool, CHAIN.id, 9)
    assert await trends(me, "timeframe=day&to=2026-11-03T00:00:00Z") == {**got, "asOfBlock": {str(CHAIN.id): 8}}


async def test_every_timeframe_adds_up_to_the_same(pool: Pool, analytics: Analytics, me: Client) -> None:
    await write(pool, analytics, *(spend(me.address, f"2026-10-{day:02}T07:30:00+00:00", day) for day in range(1, 31)))
    for timeframe in ("hour", "day", "week", "month", "year"):
        got = await trends(me, f"timeframe={timeframe}&from=2026-10-01T00:00:00Z&to=2026-11-01T00:00:00Z")
        assert sum(Decimal(row["totalSpent"]) for row in got["data"]) == Decimal("375")
        periods = [row["period"] for row in got["data"]]
        assert periods == sorted(periods, reverse=True)


async def test_answer_is_kept_until_something_new_is_persisted(
    pool: Pool, analytics: Analytics, me: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(pool, analytics, spend(me.address, "2026-10-31T12:00:00+00:00", 1))
    path = "/v1/analytics/trends?timeframe=day"
    first = await me.get(path)
    asked = counting(monkeypatch)
    again = await me.get(path)
    assert (again.body, again.headers["ETag"], asked) == (first.body, first.headers["ETag"], [])
    assert (await me.get(path, headers={"If-None-Match": first.headers["ETag"]})).status == 304
    await write(pool, analytics, spend(me.address, "2026-10-31T13:00:00+00:00", 2))
    newer = await me.get(path)
    assert newer.json["data"][0]["totalSpent"] == "25.00"
    assert newer.headers["ETag"] != first.headers["ETag"]
    assert len(asked) == 1


def counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []
    real = Analytics.rows

    async def counted(self: Analytics, sql: str, **parameters: Any) -> Any:
        asked.append(sql)
        return await real(self, sql, **parameters)

    monkeypatch.setattr(Analytics, "rows", counted)
    return asked


async def test_answer_made_while_something_new_arrives_is_not_the_new_versions(
    pool: Pool, analytics: Analytics, me: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks after it was persisted never gets what was read before."""
    await write(pool, analytics, spend(me.address, "2026-10-31T12:00:00+00:00", 1))
    real = Analytics.rows

    async def slow(self: Analytics, sql: str, **parameters: Any) -> Any:
        found = await real(self, sql, **parameters)
        monkeypatch.setattr(Analytics, "rows", real)
        await write(pool, analytics, spend(me.address, "2026-10-31T13:00:00+00:00", 2))
        return found

    monkeypatch.setattr(Analytics, "rows", slow)
    assert (await trends(me, "timeframe=day"))["data"][0]["totalSpent"] == "12.50"
    assert (await trends(me, "timeframe=day"))["data"][0]["totalSpent"] == "25.00"


async def test_answers_of_two_users_are_not_mixed(pool: Pool, analytics: Analytics, other: Client, me: Client) -> None:
    await write(pool, analytics, spend(me.address, "2026-10-31T12:00:00+00:00", 1))
    assert len((await trends(me, "timeframe=day"))["data"]) == 1
    assert (await trends(other, "timeframe=day"))["data"] == []


async def test_answers_of_two_zones_are_not_mixed(pool: Pool, analytics: Analytics, me: Client) -> None:
    await write(pool, analytics, spend(me.address, "2026-10-31T12:00:00+00:00", 1))
    before = await trends(me, "timeframe=day&from=2026-10-01T00:00:00Z&to=2026-11-01T00:00:00Z")
    await me.call("PATCH", "/v1/me", json={"timeZone": "Asia/Kathmandu"})
    after = await trends(me, "timeframe=day&from=2026-10-01T00:00:00Z&to=2026-11-01T00:00:00Z")
    assert [before["data"][0]["period"], after["data"][0]["period"]] == [
        "2026-10-31T00:00:00.000Z",
        "2026-10-30T18:15:00.000Z",
    ]


async def test_categories_narrow_and_none_is_one(pool: Pool, analytics: Analytics, me: Client) -> None:
    made = [spend(me.address, "2026-10-31T12:00:00+00:00", number) for number in (1, 2, 3)]
    await rows.write(pool, *made)
    await categorized(pool, analytics, me.address, {made[0].id: FOOD, made[1].id: TRANSPORT})
    every = await trends(me, "timeframe=year")
    assert [row["categoryId"] for row in every["data"]] == [None, FOOD, TRANSPORT]
    for query in (f"categoryIds={FOOD},none", f"categoryIds=none&categoryIds={FOOD.upper()}"):
        assert [row["categoryId"] for row in (await trends(me, f"timeframe=year&{query}"))["data"]] == [None, FOOD]
    assert (await trends(me, "timeframe=year&categoryIds="))["data"] == every["data"]


async def test_outgoing_transfers_are_no_spends_with_a_category_either(
    pool: Pool, analytics: Analytics, me: Client
) -> None:
    facts = {"type": "transfer", "bucket": None, "bucket_id": None, "wallet": None}
    at = "2026-10-31T12:00:00+00:00"
    made = [
        spend(me.address, at, 1, **facts),
        spend(me.address, at, 2, **facts),
        spend(me.address, at, 3, **facts, counterparty=me.address),
        spend(me.address, at, 4, **facts, direction="in"),
    ]
    await rows.write(pool, *made)
    await categorized(pool, analytics, me.address, {made[number].id: FOOD for number in (1, 2, 3)})
    assert (await trends(me, "timeframe=year"))["data"] == []


async def categorized(pool: Pool, analytics: Analytics, user: str, categories: dict[str, str]) -> None:
    made = [AssignedRow(user, id_, category, Decimal(1), "manual", "", 1) for id_, category in categories.items()]
    async with pool.acquire() as conn, conn.transaction():
        await budgets.save_assigned(conn, made)
    await settle(pool, analytics)


async def test_without_redis_answers_are_the_same(
    pool: Pool, analytics: Analytics, make_settings: MakeSettings, private_valkey: Valkey, clock: FakeClock
) -> None:
    deps = wire(pool, busy(make_settings, redis_url=private_valkey.url), clock=clock)
    async with serving(deps) as anyone:
        me = await anyone.signed_in()
        clock.now = NOW
        await write(pool, analytics, spend(me.address, "2026-10-31T12:00:00+00:00", 1))
        with_it = await trends(me, "timeframe=day")
        private_valkey.kill()
        assert await trends(me, "timeframe=day") == with_it


async def test_clickhouse_that_is_away_is_said_with_when_to_ask_again(pool: Pool, make_settings: MakeSettings) -> None:
    deps = wire(pool, busy(make_settings, clickhouse_url="http://127.0.0.1:9/unused"))
    async with serving(deps) as anyone:
        me = await anyone.signed_in()
        got = await me.get("/v1/analytics/trends?timeframe=day")
        assert (got.status, got.json["code"], got.headers["Retry-After"]) == (503, "unavailable", "5")
        assert (await me.get("/v1/snapshot")).status == 200


async def test_too_many_rows_are_refused_with_what_to_do(
    pool: Pool, analytics: Analytics, me: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.analytics.MOST_ROWS", 1)
    await write(
        pool,
        analytics,
        spend(me.address, "2026-10-30T12:00:00+00:00", 1),
        spend(me.address, "2026-10-31T12:00:00+00:00", 2),
    )
    got = await me.get("/v1/analytics/trends?timeframe=day")
    assert got.status == 400
    assert "shorter range" in got.json["detail"]
    assert len((await trends(me, "timeframe=month"))["data"]) == 1


async def test_persisted_version_is_read_before_the_figures(
    pool: Pool, analytics: Analytics, me: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real = persistence.persisted

    async def version(*words: Any) -> Persisted:
        order.append("version")
        return await real(*words)

    figures = Analytics.rows

    async def rows_(self: Analytics, sql: str, **parameters: Any) -> Any:
        order.append("figures")
        return await figures(self, sql, **parameters)

    monkeypatch.setattr(persistence, "persisted", version)
    monkeypatch.setattr(Analytics, "rows", rows_)
    await trends(me, f"timeframe=day&from={(NOW - timedelta(days=3)):%Y-%m-%dT%H:%M:%SZ}")
    assert order == ["version", "figures"]


async def test_forecast_follows_habits_and_says_what_they_do_to_budgets(
    pool: Pool, analytics: Analytics, me: Client
) -> None:
    await me.call("PUT", "/v1/budgets", json={"scope": "total", "monthlyBudget": "100"})
    await me.call("PUT", "/v1/budgets", json={"scope": "category", "categoryId": FOOD, "monthlyBudget": "1000"})
    # 12.50 every Monday and Friday since July; NOW is Sunday, 1 November.
    days = [day for back in range(120, 0, -1) if (day := NOW - timedelta(days=back)).weekday() in {0, 4}]
    await write(pool, analytics, *(spend(me.address, day.isoformat(), i + 1) for i, day in enumerate(days)))
    got = await me.get("/v1/analytics/forecast?days=7")
    assert got.status == 200, got.body
    told = got.json
    assert [(p["date"], p["amount"]) for p in told["predictions"]] == [
        ("2026-11-02", "12.50"),
        ("2026-11-03", "0.00"),
        ("2026-11-04", "0.00"),
        ("2026-11-05", "0.00"),
        ("2026-11-06", "12.50"),
        ("2026-11-07", "0.00"),
        ("2026-11-08", "0.00"),
    ]
    assert (told["confidence"], told["basis"]["historyDays"], told["basis"]["tests"]) == ("1.00", len_of(days), 8)
    over, room = told["recommendations"]
    # November has five Mondays and four Fridays.
    assert (over["kind"], over["categoryId"]) == ("over_budget", None)
    assert over["figures"] == {
        "budget": "100.00",
        "spent": "0.00",
        "projected": "112.50",
        "over": "12.50",
        "safePerDay": "3.33",
    }
    assert (room["kind"], room["categoryId"], room["figures"]["room"]) == ("room", FOOD, "1000.00")
    await me.call("PUT", "/v1/budgets", json={"scope": "total", "monthlyBudget": "200"})
    kinds = [each["kind"] for each in (await me.get("/v1/analytics/forecast?days=7")).json["recommendations"]]
    assert kinds == ["room", "room"]


def len_of(days: list[datetime]) -> int:
    return (NOW - days[0]).days


async def test_forecast_of_nobody_and_of_a_newcomer_says_that_there_is_too_little(
    pool: Pool, analytics: Analytics, me: Client, other: Client
) -> None:
    nothing = (await other.get("/v1/analytics/forecast")).json
    assert (nothing["predictions"], nothing["confidence"]) == ([], "0")
    await write(pool, analytics, spend(me.address, "2026-10-29T12:00:00+00:00", 1))
    little = (await me.get("/v1/analytics/forecast?days=2")).json
    assert (little["confidence"], [p["amount"] for p in little["predictions"]]) == ("0", ["4.17", "4.17"])
    assert "Only 3 days" in little["basis"]["reason"]
