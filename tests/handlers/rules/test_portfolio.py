"""Positions as one portfolio: shares, spread, totals that say what they lack, and what is worth a word."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.rules.portfolio import (
    Holding,
    distribution,
    herfindahl,
    insights,
    lock_days,
    portfolio,
    shares,
)
from store.yields import Position

D = Decimal
EURC = "0x" + "c1" * 20
NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)
VALUES = st.lists(st.decimals(0, 10**30, places=18), max_size=12)


def held(name: str, usd: Decimal | int | None, *, kind: Any = "low", **changes: Any) -> Holding:
    """A position of a dollar value in a protocol; its yield is a tenth of it."""
    value = None if usd is None else Decimal(usd)
    position = Position(
        user="0x" + "a1" * 20,
        chain_id=1,
        position_id=f"1:{name}:{changes.pop('n', 0)}",
        kind="vault",
        contract="0x" + "4e" * 20,
        protocol=name,
        asset="0x" + "c0" * 20,
        symbol="USDC",
        as_of_block=1,
        as_of=NOW,
        opened_block=1,
        opened_at=NOW,
        shares=1,
        principal=1,
        value_usd=value,
        yield_usd=None if value is None else value / 10,
    )
    return Holding(replace(position, **changes), kind)


@given(VALUES)
def test_shares_come_to_exactly_1_and_each_is_off_by_less_than_a_millionth(values: list[Decimal]) -> None:
    parts, whole = shares(values), sum(map(int_, values))
    if whole == 0:
        assert parts == [None] * len(values)
        return
    known = [part for part in parts if part is not None]
    assert sum(known) == 1
    assert len(known) == len(values)
    for value, part in zip(values, known, strict=True):
        assert abs(int(part * 10**6) * whole - int_(value) * 10**6) < whole
        assert 0 <= part <= 1


def int_(value: Decimal) -> int:
    """In units of 10^-18: plain integers lose nothing."""
    return int(value.scaleb(18)) if value else 0


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["1", "1", "1"], ["0.333334", "0.333333", "0.333333"]),
        (["2", "1"], ["0.666667", "0.333333"]),
        (["1", "0"], ["1", "0"]),
        (["1", "10000000"], ["0", "1"]),
    ],
)
def test_what_rounding_leaves_goes_to_the_largest_rest(values: list[str], wanted: list[str]) -> None:
    assert shares([D(each) for each in values]) == [D(each) for each in wanted]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([], None), (["0"], None), (["7"], "1"), (["1", "1"], "0.5"), (["3", "1"], "0.625"), (["1"] * 4, "0.25")],
)
def test_herfindahl(values: list[str], wanted: str | None) -> None:
    assert herfindahl([D(each) for each in values]) == (None if wanted is None else D(wanted))


@given(st.lists(st.decimals("0.01", 10**12, places=2), min_size=1, max_size=8))
def test_equal_splits_are_the_most_spread(values: list[Decimal]) -> None:
    split = [held(f"p{n}", value) for n, value in enumerate(values)]
    equal = [held(f"p{n}", 100) for n in range(len(values))]
    some, most = portfolio(split, NOW).diversification, portfolio(equal, NOW).diversification
    assert some is not None
    assert most is not None
    assert 0 <= some <= most + D("0.000001")
    best = herfindahl([D(1)] * len(values))
    assert best is not None
    assert portfolio(equal, NOW).protocols.score == 1 - best


@given(st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.decimals(0, 10**9, places=6))), max_size=9))
def test_every_portfolio_is_whole(made: list[tuple[str, Decimal | None]]) -> None:
    told = portfolio([held(name, usd, n=n) for n, (name, usd) in enumerate(made)], NOW)
    parts = [each.share for each in told.holdings if each.share is not None]
    assert sum(parts) == (1 if any(usd for _, usd in made) else 0)
    groups: list[Any] = distribution(told)
    assert sum(D(each["share"] or 0) for each in groups) == (1 if any(usd for _, usd in made) else 0)
    assert sum(D(each["value"]) for each in groups) == sum(usd for _, usd in made if usd)
    assert sum(each["unpriced"] for each in groups) == sum(usd is None for _, usd in made)
    assert sum(each["positions"] for each in groups) == len(made)
    if told.risk is not None:
        assert 0 <= told.risk.score <= 1


def test_spread_counts_a_protocol_on_two_chains_once_and_assets_by_symbol() -> None:
    told = portfolio([held("a", 50), held("a", 25, n=1, chain_id=2), held("b", 25, symbol="EURC", asset=EURC)], NOW)
    assert (told.protocols.groups, told.protocols.largest, told.protocols.herfindahl) == (2, "a", D("0.625"))
    assert (told.assets.groups, told.assets.largest_share) == (2, D("0.75"))
    assert told.diversification == D("0.375")
    unnamed = [held("a", 50, symbol=None), held("b", 50, symbol=None, asset=EURC)]
    assert portfolio(unnamed, NOW).assets.groups == 2


def test_an_apy_is_compared_with_the_other_positions_not_with_itself() -> None:
    steady = [held(f"p{n}", 100, apy=D("0.05")) for n in range(4)]
    odd = held("odd", 100, apy=D("0.079"))
    told = portfolio([*steady, odd], NOW)
    weights = [each.risk.components[3].weight for each in told.holdings if each.risk]
    assert weights[:4] == [0] * 4
    assert weights[4] > 0
    fewer = portfolio([*steady[:3], odd], NOW).holdings[3].risk
    assert fewer is not None
    assert fewer.components[3].weight == 0


def test_distribution_is_largest_first_with_apy_by_value() -> None:
    told = portfolio([held("b", 10), held("a", 30, apy=D("0.04")), held("a", 10, n=1, apy=D("0.08"))], NOW)
    assert distribution(told) == [
        {
            "protocol": "a",
            "value": "40.00",
            "share": "0.8",
            "yield": "4.00",
            "apy": "0.05",
            "positions": 2,
            "unpriced": 0,
        },
        {
            "protocol": "b",
            "value": "10.00",
            "share": "0.2",
            "yield": "1.00",
            "apy": None,
            "positions": 1,
            "unpriced": 0,
        },
    ]


@pytest.mark.parametrize(
    ("left", "days"),
    [
        (timedelta(0), 0),
        (timedelta(seconds=-5), 0),
        (timedelta(seconds=1), 1),
        (timedelta(days=1), 1),
        (timedelta(days=1, seconds=1), 2),
    ],
)
def test_a_begun_day_of_a_lock_is_a_day(left: timedelta, days: int) -> None:
    assert lock_days(held("a", 1, unlock_at=NOW + left).position, NOW) == days
    assert lock_days(held("a", 1).position, NOW) == 0


def test_what_is_worth_a_word() -> None:
    told = portfolio(
        [
            held("a", 60, apy=D("-0.01")),
            held("b", 10, apy=D("0.5")),
            held("c", 30, kind="low", unlock_at=NOW + timedelta(days=7)),
            held("d", None),
        ],
        NOW,
    )
    locked = replace(told.holdings[2].position, kind="lock")
    told = portfolio([*told.holdings[:2], replace(told.holdings[2], position=locked), told.holdings[3]], NOW)
    assert [(each["title"], each["priority"]) for each in insights(told, NOW)] == [
        ("Loses value", 75),
        ("Unusual APY", 75),
        ("Much in one protocol", 65),
        ("A lock opens", 50),
        ("Positions without a price", 30),
    ]
    assert insights(portfolio([held("a", 100)], NOW), NOW) == []
