"""What the first front end calls, as it calls it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from handlers.deps import Deps
from realtime.rest.routes import ENDPOINTS
from store import spending
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.factories import make_address
from tests.realtime.rows import bucket, spend, write
from tests.realtime.served import Client, serving
from tests.realtime.wiring import OTHER_CHAIN, FakeClock, busy, wire

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
V1 = [each for each in ENDPOINTS if each.is_v1]
PATHS = [each.path for each in V1]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings, clock: FakeClock) -> Deps:
    return wire(pool, busy(make_settings), clock=clock)


@pytest.fixture
async def stranger(anyone: Client) -> Client:
    return await anyone.signed_in()


@pytest.fixture
async def me(anyone: Client, stranger: Client, pool: Pool, clock: FakeClock) -> Client:  # signed in before time stops
    """Groceries: 25 of 100 spent in two spends, 40 left. Rent: over its limit, busy once. Idle: 7, never touched."""
    me = await anyone.signed_in()
    clock.now = NOW
    for name, held in ((b"Groceries", 40_000_000), (b"Rent", 0), (b"Idle", 7_000_000)):
        await bucket(pool, me.address, name, holds=held)
    rows = {row.name: row for row in await spending.buckets_of(pool, None, [me.address])}
    started = NOW - timedelta(days=10)
    async with pool.acquire() as conn, conn.transaction():
        await spending.save_buckets(
            conn,
            [
                replace(rows["Groceries"], spent=25_000_000, period_start=started),
                replace(rows["Rent"], spent=150_000_000, period_start=started),
            ],
        )
    october = datetime(2026, 10, 5, tzinfo=UTC)
    rent: dict[str, Any] = {"bucket_id": rows["Rent"].bucket_id, "bucket": "Rent"}
    await write(
        pool,
        spend(me.address, 1, block_time=october),
        spend(me.address, 2),
        spend(me.address, 3, amount=150_000_000, usd=Decimal(150), **rent),
        spend(me.address, 4, role="delegate"),
        spend(me.address, 5, type="bucket_funding", direction="internal", usd=Decimal(65), amount=65_000_000),
    )
    return me


def filled(path: str, address: str, chain: str = "devnet") -> str:
    return path.replace("{chain}", chain).replace("{address}", address)


async def data(client: Client, path: str, **options: Any) -> Any:
    got = await client.get(path, **options)
    assert (got.status, got.json["success"]) == (200, True), got.body
    return got.json["data"]


async def test_bucket_usage_has_what_the_front_end_reads(me: Client) -> None:
    told = await data(
        me, f"/api/V2/analytics/chains/DevNet/users/{me.address.upper().replace('0X', '0x')}/bucket-usage"
    )
    found = {each["bucketName"]: each for each in told["buckets"]}
    assert {key: found["Groceries"][key] for key in USAGE} == {
        "transactionCount": 3,
        "totalSpent": "25000000",
        "totalDeposited": "65000000",
        "monthlyLimit": "100000000",
        "monthlySpent": "25000000",
        "balance": "40000000",
        "utilizationRate": 25,
        "isOverBudget": False,
        "lastActivity": "2026-11-01T00:00:10.000Z",
    }
    assert (found["Rent"]["utilizationRate"], found["Rent"]["isOverBudget"]) == (150, True)
    assert (found["Idle"]["lastActivity"], found["Idle"]["transactionCount"]) == (None, 0)
    assert told["summary"] == {"totalBuckets": 3, "activeBuckets": 2, "overBudgetBuckets": 1, "totalTransactions": 4}
    assert (told["chainName"], told["walletAddress"]) == ("devnet", me.address)
    only = await data(me, f"/api/analytics/users/{me.address}/bucket-usage?bucketId={found['Rent']['bucketId']}")
    assert [each["bucketName"] for each in only["buckets"]] == ["Rent"]


USAGE = (
    "transactionCount",
    "totalSpent",
    "totalDeposited",
    "monthlyLimit",
    "monthlySpent",
    "balance",
    "utilizationRate",
    "isOverBudget",
    "lastActivity",
)


async def test_insights_name_what_stands_out(me: Client) -> None:
    told = await data(me, f"/api/v2/analytics/chains/31337/users/{me.address}/insights")
    assert (told["totalSpent"], told["totalBalance"], told["activeBuckets"]) == ("175000000", "47000000", 3)
    assert told["mostUsedBucket"]["bucketName"] == "Groceries"
    assert told["highestSpendingBucket"]["bucketName"] == "Rent"
    assert told["mostFundedBucket"]["totalDeposited"] == "65000000"
    assert told["budgetAdherenceRate"] == 66.67
    assert [each["bucketName"] for each in told["abandonedBuckets"]] == ["Idle"]
    assert (told["userId"], told["chainName"]) == (me.address, "devnet")
    own = f"/api/analytics/users/{me.address}"
    assert (await data(me, f"{own}/most-used-bucket"))["mostUsedBucket"] == told["mostUsedBucket"]
    assert (await data(me, f"{own}/highest-spending-bucket"))["rank"] == 1
    assert (await data(me, f"{own}/most-funded-bucket"))["mostFundedBucket"] == told["mostFundedBucket"]


async def test_activity_of_a_month_and_of_all_time(me: Client) -> None:
    own = f"/api/v2/analytics/chains/devnet/users/{me.address}/bucket-activity"
    told = await data(me, own)
    assert [(each["bucketName"], each["transactionCount"]) for each in told["bucketActivity"]] == [
        ("Groceries", 3),
        ("Rent", 1),
    ]
    assert (told["period"], told["summary"]["mostActiveCount"]) == ("all-time", 3)
    october = await data(me, f"{own}?month=2026-10")
    assert [(each["transactionCount"], each["firstActivity"]) for each in october["bucketActivity"]] == [
        (1, "2026-10-05T00:00:00.000Z")
    ]


async def test_efficiency_ranks_the_fullest_first(me: Client) -> None:
    told = await data(me, f"/api/analytics/users/{me.address}/budget-efficiency")
    shown = [
        (each["bucketName"], each["efficiency"], each["remainingBudget"], each["status"])
        for each in told["bucketEfficiency"]
    ]
    assert shown[:2] == [("Rent", 100, "0", "over_budget"), ("Groceries", 25, "75000000", "healthy")]
    assert told["overallEfficiency"] == 41.67
    assert told["summary"] == {"totalBuckets": 3, "healthyBuckets": 2, "warningBuckets": 0, "overBudgetBuckets": 1}


async def test_seasons_and_forgotten_money(me: Client) -> None:
    told = await data(me, f"/api/analytics/users/{me.address}/seasonal-patterns")
    assert told == {
        "monthlySpending": [
            {"month": "2026-10", "totalSpent": 12500000, "transactionCount": 1, "budgetAdherenceRate": 1},
            {"month": "2026-11", "totalSpent": 162500000, "transactionCount": 2, "budgetAdherenceRate": 0.6667},
        ],
        "averageMonthlySpending": 87500000,
        "spendingTrend": "stable",
    }
    gone = await data(me, f"/api/analytics/users/{me.address}/abandoned-buckets")
    assert (gone["count"], gone["potentialSavings"]) == (1, "7000000")
    assert gone["abandonedBuckets"][0]["daysSinceLastActivity"] is None


async def test_time_series_fills_in_what_was_not_spent(me: Client) -> None:
    own = f"/api/v2/analytics/chains/devnet/users/{me.address}/bucket-time-series"
    told = await data(me, f"{own}?period=monthly&from=2026-09-01T00:00:00.000Z&to=2026-11-20T00:00:00.000Z")
    series = {each["bucketName"]: [(p["period"], p["totalSpent"]) for p in each["data"]] for each in told["buckets"]}
    assert series["Groceries"] == [("2026-09", 0), ("2026-10", 12500000), ("2026-11", 12500000)]
    assert told["dateRange"] == {"from": "2026-09-01T00:00:00.000Z", "to": "2026-11-20T00:00:00.000Z"}
    assert told["summary"]["totalSpentAcrossAllBuckets"] == 175000000
    assert told["summary"]["periodRange"] == "2026-09-01 to 2026-11-20"
    yearly = await data(me, f"/api/analytics/users/{me.address}/bucket-time-series?period=yearly")
    assert (yearly["totalPeriods"], yearly["period"]) == (2, "yearly")


async def test_chains_side_by_side(me: Client, pool: Pool) -> None:
    await bucket(pool, me.address, b"rent", chain_id=OTHER_CHAIN.id)
    told = await data(me, f"/api/v2/analytics/users/{me.address}/cross-chain-buckets")
    compared = {
        each["bucketName"]: [use["chainDisplayName"] for use in each["chains"]] for each in told["crossChainBuckets"]
    }
    assert compared["rent"] == ["devnet", "other"]
    assert told["crossChainBuckets"][0]["totalSpent"] == "150000000"
    assert told["summary"] == {"uniqueBucketNames": 3, "totalChainsWithData": 2, "totalBucketsAcrossChains": 4}
    summary = (await data(me, f"/api/v2/analytics/users/{me.address}/cross-chain-insights"))["crossChainSummary"]
    assert (summary["totalSpent"], summary["activeChains"], summary["averageBudgetAdherence"]) == (
        "175000000",
        2,
        83.34,
    )


@pytest.mark.parametrize("path", PATHS)
async def test_every_route_is_its_owners_alone(path: str, me: Client, anyone: Client, stranger: Client) -> None:
    assert (await me.get(filled(path, me.address))).status == 200
    for client, status in ((stranger, 404), (anyone, 401)):
        got = await client.get(filled(path, me.address))
        assert (got.status, got.json["success"], set(got.json)) == (status, False, {"success", "error"})
    hidden = (await stranger.get(filled(path, me.address))).json["error"]
    nobody = (await stranger.get(filled(path, make_address("nobody")))).json["error"]
    assert "not found" in hidden
    assert hidden.replace(me.address, "") == nobody.replace(make_address("nobody"), "")


@pytest.mark.parametrize("path", PATHS)
async def test_any_case_of_path_leads_to_the_same_answer(path: str, me: Client) -> None:
    low = await me.get(filled(path, me.address))
    shouted = filled(path, me.address.upper().replace("0X", "0x"), chain="DEVNET")
    head, _, tail = shouted.partition("/users/")
    high = await me.get(head.upper() + "/USERS/" + tail[:42] + tail[42:].upper())
    assert (high.status, high.body) == (200, low.body)


@pytest.mark.parametrize(
    "query",
    [
        "?month=2026-13",
        "?month=9999-12",
        "?to=0001-06-01T00:00:00Z",
        "?period=yearly&from=0001-01-01T00:00:00Z&to=0009-01-01T00:00:00Z",
        "?period=yearly&from=9990-01-01T00:00:00Z&to=9999-12-31T23:59:59Z",
        "?month=0000-01",
        "?month=2026-1'--",
        "?period=hourly",
        "?from=yesterday",
        "?from=2026-11-20T00:00:00Z&to=2026-11-19T00:00:00Z",
        "?period=daily&from=1000-01-01T00:00:00Z",
        "?from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z&period=daily",
        "?from=0001-01-01T00:00:00%2B14:00&period=yearly",
        "?bucketId=%00",
        "?bucketId=' OR 1=1 --",
        "?unknown=1",
    ],
)
async def test_hostile_queries_are_refused_in_the_envelope_or_find_nothing(query: str, me: Client) -> None:
    for each in V1:
        got = await me.get(filled(each.path, me.address) + query)
        assert got.status in (200, 400), (each.path, got.body)
        assert got.json["success"] is (got.status == 200)


async def test_numbers_hold_whatever_a_contract_can_count(me: Client, pool: Pool) -> None:
    most = 2**256 - 1
    await write(pool, spend(me.address, 9, amount=most, usd=Decimal(most).scaleb(-6)))
    told = {
        "bucket-time-series": f'"totalSpentAcrossAllBuckets":{most + 175_000_000}',
        "seasonal-patterns": f'"totalSpent":{most + 162_500_000}',
    }
    for name, expected in told.items():
        path = f"{me.base}/api/analytics/users/{me.address}/{name}"
        async with me.session.get(path, headers={"Authorization": f"Bearer {me.token}"}) as got:
            text = await got.text()
        assert (got.status, expected in text) == (200, True), text


@pytest.mark.parametrize("address", ["0x1", "0x" + "g" * 40, "0x" + "1" * 41, "%00", "me"])
async def test_what_is_no_address_or_chain_is_refused(address: str, me: Client) -> None:
    got = await me.get(f"/api/analytics/users/{address}/insights")
    assert (got.status, got.json["error"]) == (400, "Invalid wallet address format.")
    got = await me.get(f"/api/v2/analytics/chains/{address}/users/{me.address}/insights")
    assert (got.status, got.json["success"]) == (404, False)
    assert (await me.get("/api/v2/nothing")).json["success"] is False


async def test_a_setting_opens_them_to_anyone(pool: Pool, make_settings: MakeSettings, me: Client) -> None:
    async with serving(wire(pool, busy(make_settings, v1_public=True), clock=FakeClock(NOW))) as anyone:
        told = await data(anyone, f"/api/analytics/users/{me.address}/insights")
        assert told["totalSpent"] == "175000000"
        got = await anyone.get(f"/api/analytics/users/{make_address('nobody')}/insights")
        assert (got.status, got.json["error"]) == (
            404,
            f"User with wallet address {make_address('nobody')} not found.",
        )


async def test_todays_route_tells_the_same_in_dollars(me: Client) -> None:
    told = (await me.get("/v1/analytics/buckets")).json
    by_name = {each["name"]: each for each in told["buckets"]}
    assert (by_name["Groceries"]["totalSpent"], by_name["Groceries"]["utilization"]) == ("25.00", "0.25")
    assert (by_name["Rent"]["status"], by_name["Idle"]["balance"]) == ("over_budget", "7.00")
    assert told["mostUsed"] == by_name["Groceries"]["bucketId"]
    assert told["highestSpending"] == by_name["Rent"]["bucketId"]
    assert told["abandoned"] == [by_name["Idle"]["bucketId"]]
    assert (told["adherence"], told["seasonal"]["averageSpent"]) == ("0.6667", "87.50")
    assert [each["totalSpent"] for each in told["chains"]] == ["175.00"]


async def test_todays_route_counts_what_has_no_price_beside_each_total(me: Client, pool: Pool) -> None:
    funding: dict[str, Any] = {"type": "bucket_funding", "direction": "internal", "usd": None}
    await write(pool, spend(me.address, 6, usd=None), spend(me.address, 7, **funding), spend(me.address, 8, **funding))
    told = (await me.get("/v1/analytics/buckets")).json
    (groceries,) = [each for each in told["buckets"] if each["name"] == "Groceries"]
    assert (groceries["totalSpent"], groceries["unpriced"]) == ("25.00", 1)
    assert (groceries["totalFunded"], groceries["fundedUnpriced"]) == ("65.00", 2)
    assert [(each["month"], each["unpriced"]) for each in told["seasonal"]["months"]] == [
        ("2026-10", 0),
        ("2026-11", 1),
    ]
