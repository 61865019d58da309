"""Investments as a signed-in user reads them: positions, the block that the summary shows too, and rebalancing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from config.chains import Token, Vault
from handlers.deps import Deps
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.realtime import rows
from tests.realtime.served import Client
from tests.realtime.wiring import CHAIN, OTHER_CHAIN, USDC, FakeClock, busy, wire

NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)
AUTUMN = datetime(2026, 10, 20, tzinfo=UTC)
STEADY, WILD, DARK, LOCK = ("0x" + 20 * byte for byte in ("4e", "4f", "5a", "10"))
COIN = "0x" + "c1" * 20


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings, clickhouse_url: str, clock: FakeClock) -> Deps:
    chain = replace(
        CHAIN,
        tokens=(*CHAIN.tokens, Token(COIN, "COIN", 6)),
        vaults=(
            Vault(STEADY, "Morpho", USDC, "Steady", 6, "low"),
            Vault(WILD, "Newcomer", USDC, "Wild", 6, "high"),
            Vault(DARK, "Morpho", COIN, "Dark", 6, "low"),
        ),
    )
    other = replace(OTHER_CHAIN, tokens=CHAIN.tokens)
    made = wire(pool, busy(make_settings, clickhouse_url=clickhouse_url), clock=clock)
    return replace(made, chains={chain.id: chain, other.id: other})


@pytest.fixture
async def other(anyone: Client) -> Client:
    return await anyone.signed_in()


@pytest.fixture
async def me(anyone: Client, other: Client, clock: FakeClock) -> Client:
    client = await anyone.signed_in()
    clock.now = NOW
    return client


@pytest.fixture
async def mine(me: Client, pool: Pool) -> Client:
    """300 USDC of 400 in a steady vault, 100 in a wild one, and something without a price."""
    await rows.hold(pool, me.address, vault=STEADY, shares=300_000_000, percent=100, at=AUTUMN, apy=Decimal("0.04"))
    await rows.hold(
        pool, me.address, vault=WILD, number=2, at=AUTUMN, apy=Decimal("0.2"), protocol="Newcomer", percent=100
    )
    await rows.hold(pool, me.address, vault=DARK, number=3, at=AUTUMN, asset=COIN, symbol="COIN")
    return me


def ids(page: Any) -> list[str]:
    return [each["positionId"].split(":")[1] for each in page["data"]]


async def read(client: Client, path: str) -> Any:
    got = await client.get(path)
    assert got.status == 200, got.body
    return got.json


async def test_nobody_invested_has_nothing_and_is_told_so(me: Client) -> None:
    assert (await read(me, "/v1/positions"))["data"] == []
    got = await read(me, "/v1/investments")
    assert (got["totalValue"], got["monthlyYield"], got["averageAPY"], got["riskScore"]) == ("0.00", "0.00", None, None)
    assert (got["diversificationScore"], got["protocolDistribution"], got["recommendations"]) == (None, [], [])
    advice = await read(me, "/v1/recommendations/rebalancing")
    assert (advice["rebalancingSuggestions"], advice["actionPriority"]) == ([], "none")


async def test_positions_are_listed_page_by_page_with_shares_and_risk(mine: Client) -> None:
    first = await read(mine, "/v1/positions?limit=2")
    second = await read(mine, f"/v1/positions?limit=2&cursor={first['nextCursor']}")
    assert [ids(first), ids(second)] == [[STEADY, WILD], [DARK]]
    assert second["nextCursor"] is None
    every: list[Any] = [*first["data"], *second["data"]]
    steady, wild, dark = every
    assert [each["share"] for each in (steady, wild, dark)] == ["0.75", "0.25", None]
    assert [each["riskLevel"] for each in (steady, wild, dark)] == ["low", "high", "low"]
    assert [part["weight"] for part in steady["risk"]["components"]] == ["0.1", "0.2", "0", "0"]
    assert (steady["risk"]["score"], dark["value"]["usd"]) == ("0.28", None)
    assert dark["risk"]["components"][1]["figure"] is None


async def test_same_state_has_the_same_tag(mine: Client, pool: Pool) -> None:
    for number, path in enumerate(("/v1/positions", "/v1/investments"), 10):
        tag = (await mine.get(path)).headers["ETag"]
        assert (await mine.get(path, headers={"If-None-Match": tag})).status == 304
        await rows.hold(pool, mine.address, vault=STEADY, number=number, at=AUTUMN, shares=number)
        assert (await mine.get(path, headers={"If-None-Match": tag})).status == 200


async def test_totals_leave_out_what_has_no_price_and_say_so(mine: Client, pool: Pool) -> None:
    await rows.hold(
        pool,
        mine.address,
        vault=STEADY,
        number=4,
        at=NOW - timedelta(days=1),
        shares=300_000_000,
        percent=102,
        apy=Decimal("0.04"),
    )
    got = await read(mine, "/v1/investments")
    assert (got["totalValue"], got["totalYield"], got["unpriced"]) == ("406.00", "6.00", 1)
    assert (got["monthlyYield"], got["monthlyUnpriced"], got["monthStart"]) == ("6.00", 0, "2026-11-01T00:00:00.000Z")
    assert got["averageAPY"] == "0.079409"  # (306 * 0.04 + 100 * 0.2) / 406
    assert [
        (part["protocol"], part["value"], part["share"], part["unpriced"]) for part in got["protocolDistribution"]
    ] == [
        ("Morpho", "306.00", "0.753695", 1),
        ("Newcomer", "100.00", "0.246305", 0),
    ]


async def test_month_counts_what_was_earned_not_what_was_paid_in_or_taken_out(me: Client, pool: Pool) -> None:
    await me.call("PATCH", "/v1/me", json={"timeZone": "America/New_York"})
    # November begins there at 04:00 UTC: what the price did before is October's.
    begins = datetime(2026, 11, 1, 4, tzinfo=UTC)
    await rows.hold(pool, me.address, vault=STEADY, at=AUTUMN)
    await rows.value(pool, STEADY, 105, number=2, at=begins)
    await rows.value(pool, STEADY, 106, number=3, at=begins + timedelta(hours=1))
    # 200 more at 110 %, half of it all taken out at 120 %: 30 of 60 earned are realised.
    more = {"shares": 300_000_000, "principal": 320_000_000, "value": 330_000_000}
    await rows.hold(pool, me.address, vault=STEADY, number=4, at=NOW - timedelta(days=5), percent=110, **more)
    less = {"shares": 150_000_000, "principal": 160_000_000, "value": 180_000_000, "realized": 20_000_000}
    await rows.hold(pool, me.address, vault=STEADY, number=5, at=NOW - timedelta(days=1), percent=120, **less)
    got = await read(me, "/v1/investments")
    assert (got["totalValue"], got["totalYield"]) == ("180.00", "20.00")
    assert (got["monthlyYield"], got["monthStart"]) == ("35.00", "2026-11-01T04:00:00.000Z")  # 40 less October's 5
    await rows.hold(
        pool, me.address, vault=STEADY, number=6, at=NOW, shares=0, principal=0, value=0, realized=40_000_000
    )
    got = await read(me, "/v1/investments")
    assert (got["totalValue"], got["monthlyYield"]) == ("0.00", "35.00")


async def test_price_read_after_the_last_telling_counts_and_one_before_does_not(me: Client, pool: Pool) -> None:
    await rows.hold(pool, me.address, vault=STEADY, at=AUTUMN)
    await rows.value(pool, STEADY, 101, number=2, at=NOW - timedelta(hours=2))
    assert (await read(me, "/v1/investments"))["monthlyYield"] == "1.00"
    # Told since, at 103, and no price kept with it.
    await pool.execute("UPDATE investment_positions SET current_value = 103000000, last_updated_at = $1", NOW)
    assert (await read(me, "/v1/investments"))["monthlyYield"] == "3.00"


async def test_gain_that_nobody_knows_is_said(me: Client, pool: Pool) -> None:
    await rows.hold(pool, me.address, vault=DARK, asset=COIN, symbol="COIN", at=AUTUMN)
    await rows.value(pool, DARK, 105, number=2, at=NOW)
    await rows.hold(pool, me.address, vault=STEADY, number=3, at=AUTUMN)
    await pool.execute("DELETE FROM share_prices WHERE source = $1", STEADY)
    got = await read(me, "/v1/investments")
    assert (got["monthlyYield"], got["monthlyUnpriced"], got["unpriced"]) == ("0.00", 2, 1)


async def test_closed_positions_are_there_for_who_asks(mine: Client, pool: Pool) -> None:
    await rows.hold(pool, mine.address, vault=WILD, number=5, at=NOW, shares=0, principal=0, value=0)
    assert ids(await read(mine, "/v1/positions")) == [STEADY, DARK]
    closed = await read(mine, "/v1/positions?state=closed")
    assert [(each["share"], each["risk"], each["riskLevel"]) for each in closed["data"]] == [(None, None, "high")]
    assert ids(await read(mine, "/v1/positions?state=all")) == [STEADY, WILD, DARK]


async def test_a_chain_or_an_account_is_a_portfolio_of_its_own(mine: Client, pool: Pool) -> None:
    await rows.hold(pool, mine.address, vault=STEADY, number=6, chain_id=OTHER_CHAIN.id, at=AUTUMN)
    account = f"eip155:{OTHER_CHAIN.id}:{mine.address}"
    for query in (f"chain={OTHER_CHAIN.id}", f"accountId={account.upper().replace('0X', '0x')}:investment"):
        (position,) = (await read(mine, f"/v1/positions?{query}"))["data"]
        assert (position["chainId"], position["share"]) == (OTHER_CHAIN.id, "1")
        assert (await read(mine, f"/v1/investments?{query}"))["totalValue"] == "100.00"
    assert (await read(mine, f"/v1/positions?accountId={account}:spending"))["data"] == []
    assert (await read(mine, f"/v1/positions?chain=77&accountId={account}:investment"))["data"] == []
    assert (await read(mine, "/v1/investments"))["totalValue"] == "500.00"


async def test_other_people_see_nothing_of_it(mine: Client, other: Client) -> None:
    assert (await read(other, "/v1/positions?state=all"))["data"] == []
    assert (await read(other, "/v1/investments"))["totalValue"] == "0.00"
    for path in ("/v1/positions", "/v1/investments"):
        for account in (f"eip155:{CHAIN.id}:{mine.address}:investment", "eip155:1:x:investment", "'; --"):
            assert (await other.get(path, params={"accountId": account})).status == 404
    cursor = (await read(mine, "/v1/positions?limit=1"))["nextCursor"]
    assert (await read(other, f"/v1/positions?state=all&cursor={cursor}"))["data"] == []


async def test_spread_is_told_over_protocols_and_assets(mine: Client, pool: Pool) -> None:
    got = await read(mine, "/v1/investments")
    assert got["diversificationScore"] == "0.375"  # 1 - 0.5625 - 0.0625, over protocols and assets together
    protocols, assets = got["diversificationReasons"]
    assert (protocols["herfindahl"], protocols["largest"], protocols["largestShare"]) == ("0.625", "Morpho", "0.75")
    assert (assets["groups"], assets["herfindahl"], assets["score"]) == (1, "1", "0")
    # 0.75 * 0.28 + 0.25 * 0.7, and half of the way from 0.25 to 1 of a quarter
    assert [(part["cause"], part["weight"]) for part in got["riskReasons"]] == [
        ("positions", "0.385"),
        ("concentration", "0.125"),
    ]
    assert (got["riskScore"], got["riskLevel"]) == ("0.461875", "medium")
    assert [each["title"] for each in got["recommendations"]] == ["Much in one protocol", "Positions without a price"]


async def test_summary_has_the_same_block_and_counts_it_once(mine: Client, pool: Pool) -> None:
    await rows.value(pool, STEADY, 101, number=7, at=NOW)
    got = await read(mine, "/v1/summary")
    invested = await read(mine, "/v1/investments")
    assert got["accounts"]["investment"] == {key: invested[key] for key in got["accounts"]["investment"]}
    assert (got["totalNetWorth"], got["unpriced"]) == ("400.00", 1)
    assert (got["monthlyFlow"]["income"], got["monthlyFlow"]["netFlow"]) == ("3.00", "3.00")
    assert "Much in one protocol" in [each["title"] for each in got["insights"]]


async def test_rebalancing_follows_the_risk_profile(mine: Client) -> None:
    moderate = await read(mine, "/v1/recommendations/rebalancing")
    assert [(each["name"], each["share"], each["limit"]) for each in moderate["riskAssessment"]["breaches"]] == [
        ("high", "0.25", "0.2"),
        ("Morpho", "0.75", "0.6"),
    ]
    moves = {
        each["positionId"]: (each["action"], each["fromShare"], each["toShare"], each["amountUsd"])
        for each in moderate["rebalancingSuggestions"]
    }
    assert moves == {
        f"{CHAIN.id}:{STEADY}": ("reduce", "0.75", "0.6", "60.00"),
        f"{CHAIN.id}:{WILD}": ("reduce", "0.25", "0.2", "20.00"),
        None: ("open", "0", "0.2", "80.00"),
    }
    assert moderate["actionPriority"] == "medium"
    assert moderate["expectedOutcomes"]["newPositionsUsd"] == "80.00"
    assert moderate["riskAssessment"]["unpriced"] == 1
    await mine.call("PATCH", "/v1/me", json={"riskProfile": "aggressive"})
    aggressive = await read(mine, "/v1/recommendations/rebalancing")
    assert (aggressive["rebalancingSuggestions"], aggressive["actionPriority"]) == ([], "none")
