"""The summary: what there is now, what the month brought and took, what of it is worth a word."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from handlers.deps import Deps
from store import persistence
from store.clickhouse import Analytics
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.handlers.test_persistence import work
from tests.realtime import rows
from tests.realtime.served import Client
from tests.realtime.wiring import FakeClock, busy, wire

FOOD = "00000000-0000-4000-8000-000000000001"
NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings, clickhouse_url: str, clock: FakeClock) -> Deps:
    return wire(pool, busy(make_settings, clickhouse_url=clickhouse_url), clock=clock)


@pytest.fixture
async def me(anyone: Client, clock: FakeClock) -> Client:
    client = await anyone.signed_in()
    clock.now = NOW
    return client


async def write(pool: Pool, analytics: Analytics, *made: Any) -> None:
    await rows.write(pool, *made)
    await persistence.ask_unpersisted(pool, older_than_s=-1)
    await work(pool, analytics)


def spend(user: str, day: str, number: int, **changes: Any) -> Any:
    return rows.spend(user, number, block_time=datetime.fromisoformat(f"{day}T12:00:00+00:00"), **changes)


async def test_newcomer_has_nothing_and_is_told_so(analytics: Analytics, me: Client) -> None:
    got = await me.get("/v1/summary")
    assert got.status == 200, got.body
    told = got.json
    assert (told["totalNetWorth"], told["unpriced"]) == ("0.00", 0)
    assert told["accounts"]["spending"] == {
        "totalBalance": "0.00",
        "monthlySpent": "0.00",
        "budgetUtilization": None,
        "topCategories": [],
        "unpriced": 0,
    }
    assert (told["monthlyFlow"]["netFlow"], told["accounts"]["savings"]["goalsProgress"]) == ("0.00", [])


async def test_month_flows_and_deposits_stand_apart(pool: Pool, analytics: Analytics, me: Client) -> None:
    await rows.bucket(pool, me.address, b"Groceries", holds=40_000_000)
    deposit = {"type": "deposit", "direction": "in", "amount": 500_000_000, "usd": Decimal(500)}
    await write(
        pool,
        analytics,
        spend(me.address, "2026-11-02", 1),
        spend(me.address, "2026-11-03", 2, usd=None),
        spend(me.address, "2026-11-04", 3, **deposit),
        spend(me.address, "2026-10-20", 4, usd=Decimal(999)),
        spend(me.address, "2026-10-05", 5, **deposit),
    )
    told = (await me.get("/v1/summary")).json
    flow = told["monthlyFlow"]
    assert {key: flow[key] for key in ("income", "expenses", "netFlow", "deposits", "unpriced")} == {
        "income": "0.00",
        "expenses": "12.50",
        "netFlow": "-12.50",
        "deposits": "500.00",
        "unpriced": 1,
    }
    assert (flow["periodStart"], flow["periodEnd"]) == ("2026-11-01T00:00:00.000Z", "2026-12-01T00:00:00.000Z")
    assert (told["totalNetWorth"], told["accounts"]["spending"]["totalBalance"]) == ("40.00", "40.00")
    assert [each["title"] for each in told["insights"]] == ["No savings goal yet", "Amounts without a price"]


async def test_savings_of_the_planned_contract_are_part_of_what_there_is(
    pool: Pool, analytics: Analytics, me: Client
) -> None:
    saved = {"type": "account_operation", "account_type": "savings", "bucket": None, "bucket_id": None}
    put_in, taken_out = {**saved, "direction": "in", "identifier": "0x01"}, {**saved, "identifier": "0x02"}
    await write(
        pool,
        analytics,
        spend(me.address, "2026-11-02", 1, **put_in, amount=90_000_000),
        spend(me.address, "2026-11-03", 2, **put_in, amount=10_000_000),
        spend(me.address, "2026-11-04", 3, **{**put_in, "direction": "out"}, amount=30_000_000),
        spend(me.address, "2026-11-04", 4, **{**put_in, "direction": "internal"}, amount=5_000_000),
        spend(me.address, "2026-11-05", 5, **taken_out, amount=7_000_000),  # yield came out with it
        spend(me.address, "2026-11-06", 6, **{**put_in, "account_type": "spending"}, amount=1_000_000),
        spend(me.address, "2026-11-07", 7, **put_in, token="0x" + "77" * 20, symbol=None, decimals=None),
    )
    await rows.open_account(pool, me.address, "savings")
    (account,) = (await me.get("/v1/accounts")).json["data"]
    assert [(each["raw"], each["usd"]) for each in account["balances"]] == [("12500000", None), ("70000000", "70.00")]
    told = (await me.get("/v1/summary")).json
    assert (told["totalNetWorth"], told["unpriced"]) == ("70.00", 1)


async def test_budgets_and_categories_are_told_with_figures(pool: Pool, analytics: Analytics, me: Client) -> None:
    await me.call("PUT", "/v1/budgets", json={"scope": "category", "categoryId": FOOD, "monthlyBudget": "10"})
    made = [spend(me.address, "2026-11-02", number) for number in (1, 2)]
    await write(pool, analytics, *made)
    await me.call("PUT", f"/v1/transactions/{made[0].id}/category", json={"categoryId": FOOD})
    await write(pool, analytics)
    told = (await me.get("/v1/summary")).json
    account = told["accounts"]["spending"]
    assert [(c["name"], c["spent"], c["share"]) for c in account["topCategories"]] == [
        (None, "12.50", "0.5"),
        ("Food & Dining", "12.50", "0.5"),
    ]
    assert account["budgetUtilization"] == "1.25"
    first = told["insights"][0]
    assert (first["title"], first["kind"], first["figures"]["spent"]) == ("Over budget", "spending", "12.50")


async def test_dearer_month_is_compared_with_the_last_one_at_the_same_day(
    pool: Pool, analytics: Analytics, me: Client
) -> None:
    await write(
        pool,
        analytics,
        spend(me.address, "2026-11-02", 1, usd=Decimal(50)),
        spend(me.address, "2026-10-05", 2, usd=Decimal(20)),
        spend(me.address, "2026-10-11", 3, usd=Decimal(400)),  # later in its month than it is now
    )
    titles = {each["title"]: each["figures"] for each in (await me.get("/v1/summary")).json["insights"]}
    assert titles["Dearer than last month"] == {"spent": "50.00", "lastMonth": "20.00", "change": "1.500000"}


async def test_balance_is_of_now_and_the_flow_kept(
    pool: Pool, analytics: Analytics, me: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(pool, analytics, spend(me.address, "2026-11-02", 1))
    first = await me.get("/v1/summary")
    assert (await me.get("/v1/summary", headers={"If-None-Match": first.headers["ETag"]})).status == 304

    async def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("asked again")

    monkeypatch.setattr(Analytics, "rows", refuse)
    await rows.bucket(pool, me.address, b"Groceries", holds=1_000_000)
    second = await me.get("/v1/summary", headers={"If-None-Match": first.headers["ETag"]})
    assert (second.status, second.json["totalNetWorth"]) == (200, "1.00")
    assert second.json["monthlyFlow"] == first.json["monthlyFlow"]
