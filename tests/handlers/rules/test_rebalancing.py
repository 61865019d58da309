"""What would bring a portfolio within its user's limits: only what is beyond one moves, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.rules.portfolio import Holding, portfolio
from handlers.rules.rebalancing import LIMITS, advice, planned
from store.people import RiskProfile
from tests.handlers.rules.test_portfolio import NOW, held

D = Decimal
PROFILES = get_args(RiskProfile)


def told(holdings: list[Holding], profile: RiskProfile = "moderate") -> Any:
    return advice(portfolio(holdings, NOW), profile, NOW)


def moves(told: Any) -> list[tuple[Any, ...]]:
    return [
        (each["action"], each["positionId"], each["fromShare"], each["toShare"], each["amountUsd"])
        for each in told["rebalancingSuggestions"]
    ]


@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_invested_or_within_the_limits_is_left_alone(profile: RiskProfile) -> None:
    for holdings in ([], [held("a", 50), held("b", 50)], [held("a", None)]):
        got = told(holdings, profile)
        assert (got["rebalancingSuggestions"], got["actionPriority"]) == ([], "none")
        assert got["reasoning"] == ["Everything is within the limits of this profile."]
        assert got["expectedOutcomes"]["riskScore"]["from"] == got["expectedOutcomes"]["riskScore"]["to"]


def test_what_is_beyond_a_limit_goes_to_the_least_risky_that_has_room() -> None:
    got = told([held("wild", 500, kind="high", apy=D("0.3")), held("a", 300, apy=D("0.04")), held("b", 200)])
    assert moves(got) == [
        ("reduce", "1:wild:0", "0.5", "0.2", "300.00"),
        ("increase", "1:b:0", "0.2", "0.5", "300.00"),
    ]
    assert got["rebalancingSuggestions"][0]["reasons"] == [
        {"kind": "class", "name": "high", "share": "0.5", "limit": "0.2"}
    ]
    assert got["actionPriority"] == "high"
    outcomes = got["expectedOutcomes"]
    assert D(outcomes["riskScore"]["to"]) < D(outcomes["riskScore"]["from"])
    assert outcomes["yieldPerYear"] == {"from": "162.00", "to": "72.00"}
    assert outcomes["newPositionsUsd"] == "0.00"


def test_a_single_protocol_is_told_to_open_another() -> None:
    got = told([held("only", 1000, apy=D("0.05"))], "conservative")
    assert moves(got) == [
        ("reduce", "1:only:0", "1", "0.5", "500.00"),
        ("open", None, "0", "0.5", "500.00"),
    ]
    outcomes = got["expectedOutcomes"]
    assert outcomes["diversificationScore"] == {"from": "0", "to": "0.5"}
    assert outcomes["averageAPY"] == {"from": "0.05", "to": "0.05"}
    assert (outcomes["yieldPerYear"], outcomes["newPositionsUsd"]) == ({"from": "50.00", "to": "25.00"}, "500.00")


def test_no_asset_is_sold_for_another() -> None:
    got = told([held("a", 800, symbol="EURC"), held("b", 200)])
    assert moves(got) == [("reduce", "1:a:0", "0.8", "0.6", "200.00"), ("open", None, "0", "0.2", "200.00")]
    assert got["rebalancingSuggestions"][1]["asset"] == "EURC"


def test_what_is_locked_stays_and_is_said() -> None:
    until = NOW + timedelta(days=30)
    lock = held("a", 900, kind="low", unlock_at=until)
    got = told([lock, held("b", 100)])
    assert moves(got) == []
    assert got["riskAssessment"]["breaches"][0]["name"] == "a"
    assert got["riskAssessment"]["locked"] == [
        {"positionId": "1:a:0", "share": "0.9", "unlockAt": "2026-12-10T12:00:00.000Z"}
    ]
    assert "a: locked for 30 days, so it stays." in got["reasoning"]
    assert got["actionPriority"] == "none"


def test_lock_that_is_open_gives_and_takes_nothing_in() -> None:
    assert moves(told([held("a", 700), held("b", 300, kind="low", label="lock")]))[1][0] == "increase"
    shut = held("b", 300)
    shut = Holding(replace(shut.position, kind="lock", unlock_at=NOW), "low")
    assert [each[0] for each in moves(told([held("a", 700), shut]))] == ["reduce", "open"]
    opened = held("a", 700)
    opened = Holding(replace(opened.position, kind="lock", unlock_at=NOW), "low")
    assert [each[0] for each in moves(told([opened, held("b", 300)]))] == ["reduce", "increase"]


def test_no_more_leaves_than_limits_ask_for() -> None:
    """X is over its class limit and, with Y, over its protocol's: what both give is not taken twice."""
    got = told([held("p", 600, kind="medium"), held("p", 300, kind="medium", n=1), held("q", 100, kind="medium")])
    assert sum(D(each["amountUsd"]) for each in got["rebalancingSuggestions"] if each["action"] == "reduce") == 300


def test_small_change_is_not_worth_moving() -> None:
    assert moves(told([held("a", 20), held("b", 5)])) == []  # 5 dollars beyond the limit
    assert moves(told([held("a", 40), held("b", 10)])) != []


def test_unpriced_positions_are_counted_and_left_alone() -> None:
    got = told([held("a", 700), held("b", 300), held("c", None)])
    assert {each[1] for each in moves(got)} == {"1:a:0", "1:b:0"}
    assert got["riskAssessment"]["unpriced"] == 1


POSITIONS = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from(("low", "medium", "high")),
        st.decimals(0, 10**6, places=2),
        st.sampled_from(("USDC", "EURC")),
        st.booleans(),
    ),
    max_size=8,
)


def made_of(made: list[tuple[Any, ...]], *, locks: bool) -> list[Holding]:
    classes = {name: kind for name, kind, *_ in made}  # a protocol is of one class
    return [
        held(
            name,
            usd,
            n=n,
            kind=classes[name],
            symbol=symbol,
            unlock_at=NOW + timedelta(days=9) if locks and is_locked else None,
        )
        for n, (name, _, usd, symbol, is_locked) in enumerate(made)
    ]


@given(POSITIONS, st.sampled_from(PROFILES))
def test_plan_moves_everything_somewhere_and_leaves_locks_alone(
    made: list[tuple[Any, ...]], profile: RiskProfile
) -> None:
    whole = portfolio(made_of(made, locks=True), NOW)
    priced = [each for each in whole.holdings if each.share is not None]
    plan = planned(priced, LIMITS[profile], NOW)
    assert sum(plan.units) + sum(plan.freed.values()) == sum(plan.before) == (10**6 if priced else 0)
    assert all(unit >= 0 for unit in (*plan.units, *plan.freed.values()))
    for n, each in enumerate(priced):
        if each.position.unlock_at is not None:
            assert plan.units[n] >= plan.before[n]
    by_asset = [
        (sum(u for u, each in zip(units, priced, strict=True) if each.asset == asset) + left)
        for asset in ("USDC", "EURC")
        for units, left in ((plan.before, 0), (plan.units, plan.freed.get(asset, 0)))
    ]
    assert by_asset[0::2] == by_asset[1::2]


@given(POSITIONS, st.sampled_from(PROFILES))
def test_without_locks_every_limit_holds_afterwards(made: list[tuple[Any, ...]], profile: RiskProfile) -> None:
    whole = portfolio(made_of(made, locks=False), NOW)
    priced = [each for each in whole.holdings if each.share is not None]
    limits = LIMITS[profile]
    plan = planned(priced, limits, NOW)
    for kind in ("medium", "high"):
        assert plan.in_class(kind) <= limits.classes[kind] * 10**6
    for name in "abcd":
        assert plan.in_protocol(name) <= limits.protocol * 10**6


@given(POSITIONS, st.sampled_from(PROFILES))
def test_shares_of_the_advice_add_up(made: list[tuple[Any, ...]], profile: RiskProfile) -> None:
    got = told(made_of(made, locks=True), profile)
    suggested = got["rebalancingSuggestions"]
    assert sum(D(each["toShare"]) - D(each["fromShare"]) for each in suggested) == 0
    for each in suggested:
        grew = D(each["toShare"]) > D(each["fromShare"])
        assert grew == (each["action"] != "reduce")
