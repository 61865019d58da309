"""What makes a position risky and a portfolio, each with its figure: tables, and what holds of every score."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.rules.risk import (
    Facts,
    RiskLevel,
    level,
    median,
    portfolio_risk,
    position_risk,
    robust_z,
)

D = Decimal
RATIOS = st.decimals(0, 1, places=6)
APYS = st.one_of(st.none(), st.decimals(-1, 1000, places=6))
CLASSES = st.sampled_from(get_args(RiskLevel))
PEERS = [D("0.04"), D("0.05"), D("0.05"), D("0.06")]


@pytest.mark.parametrize(
    ("facts", "score", "weights"),
    [
        ({"protocol_class": "low"}, "0.1", ["0.1", "0", "0", "0"]),
        ({"protocol_class": "medium"}, "0.35", ["0.35", "0", "0", "0"]),
        ({"protocol_class": "high"}, "0.7", ["0.7", "0", "0", "0"]),
        ({"share": D("0.25")}, "0.1", ["0.1", "0", "0", "0"]),
        ({"share": D("0.625")}, "0.235", ["0.1", "0.15", "0", "0"]),
        ({"share": D(1)}, "0.37", ["0.1", "0.3", "0", "0"]),
        ({"lock_days": 73}, "0.136", ["0.1", "0", "0.04", "0"]),
        ({"lock_days": 365}, "0.28", ["0.1", "0", "0.2", "0"]),
        ({"lock_days": 4000}, "0.28", ["0.1", "0", "0.2", "0"]),
        ({"apy": D("0.08")}, "0.1", ["0.1", "0", "0", "0"]),
        ({"apy": D("0.12")}, "0.28", ["0.1", "0", "0", "0.2"]),
        ({"apy": D(5)}, "0.46", ["0.1", "0", "0", "0.4"]),
        ({"apy": D("-0.05")}, "0.28", ["0.1", "0", "0", "0.2"]),
        ({"apy": D("-0.5")}, "0.46", ["0.1", "0", "0", "0.4"]),
        ({"protocol_class": "high", "apy": D("0.6")}, "0.7", ["0.7", "0", "0", "0"]),
        # Usual for its class, and far above the others: median 0.05, deviation 0.005, z = 20.2.
        ({"protocol_class": "medium", "apy": D("0.2"), "peers": PEERS}, "0.61", ["0.35", "0", "0", "0.4"]),
        # z = 3.5074: just an outlier counts half.
        ({"apy": D("0.076"), "peers": PEERS}, "0.280381", ["0.1", "0", "0", "0.200423"]),
        ({"apy": D("0.0759"), "peers": PEERS}, "0.1", ["0.1", "0", "0", "0"]),
        ({"apy": D("0.076"), "peers": PEERS[:3]}, "0.1", ["0.1", "0", "0", "0"]),
        ({"share": D(1), "lock_days": 365, "apy": D(1)}, "0.69760", ["0.1", "0.3", "0.2", "0.4"]),
    ],
)
def test_position_risk(facts: dict[str, Any], score: str, weights: list[str]) -> None:
    made = position_risk(Facts(**{"protocol_class": "low", **facts}))
    assert [each.cause for each in made.components] == ["protocol", "size", "lock", "apy"]
    assert [each.weight for each in made.components] == [D(weight) for weight in weights]
    assert made.score == D(score)
    assert all(each.reason for each in made.components)


@pytest.mark.parametrize(
    ("score", "wanted"),
    [("0", "low"), ("0.339999", "low"), ("0.34", "medium"), ("0.669999", "medium"), ("0.67", "high"), ("1", "high")],
)
def test_levels_begin_at_thirds(score: str, wanted: str) -> None:
    assert level(D(score)) == wanted


@pytest.mark.parametrize("kind", get_args(RiskLevel))
def test_class_alone_gives_the_level_of_its_name(kind: RiskLevel) -> None:
    assert position_risk(Facts(kind)).level == kind


def test_what_is_not_known_is_said_and_adds_nothing() -> None:
    _, size, _, apy = position_risk(Facts("low")).components
    assert (size.figure, apy.figure) == (None, None)
    assert (size.reason, apy.reason) == ("Without a price its size is not known.", "Its APY is not known yet.")


def test_reasons_have_their_figures() -> None:
    facts = Facts("high", share=D("0.5"), lock_days=1, apy=D("1.2"))
    assert [each.reason for each in position_risk(facts).components] == [
        "Its protocol is of high risk.",
        "It is 50 % of the portfolio, more than 25 %.",
        "It is locked for 1 more day.",
        "Its APY of 120 % is above the 60 % that its class usually pays at most.",
    ]
    assert position_risk(Facts("low", apy=D("-0.01"))).components[3].reason == "It loses 1 % a year."


@pytest.mark.parametrize(
    ("scores", "crowd", "wanted"),
    [
        ([], "1", None),
        ([(0, "0.5")], "1", None),
        ([(100, "0.2")], "0.25", "0.2"),
        ([(100, "0.2")], "1", "0.4"),
        ([(300, "0.1"), (100, "0.7")], "0.25", "0.25"),
        ([(300, "0.1"), (100, "0.7")], "0.625", "0.34375"),
    ],
)
def test_portfolio_is_the_mean_by_value_and_its_concentration(
    scores: list[tuple[int, str]], crowd: str, wanted: str | None
) -> None:
    made = portfolio_risk([(D(value), D(score)) for value, score in scores], D(crowd))
    assert (made and made.score) == (None if wanted is None else D(wanted))


@given(CLASSES, st.one_of(st.none(), RATIOS), st.integers(-5, 10**9), APYS, st.lists(st.decimals(-1, 9), max_size=6))
def test_position_score_is_between_0_and_1(
    kind: RiskLevel, share: Decimal | None, days: int, apy: Decimal | None, peers: list[Decimal]
) -> None:
    made = position_risk(Facts(kind, share, days, apy, peers))
    assert 0 <= made.score <= 1
    assert all(0 <= each.weight <= 1 for each in made.components)
    assert made.level == level(made.score)


@given(CLASSES, RATIOS, RATIOS, st.integers(0, 2000), st.integers(0, 2000))
def test_more_in_one_place_or_for_longer_is_never_less_risky(
    kind: RiskLevel, share: Decimal, more: Decimal, days: int, longer: int
) -> None:
    least, most = sorted((share, more))
    soon, late = sorted((days, longer))
    assert position_risk(Facts(kind, least, soon)).score <= position_risk(Facts(kind, most, late)).score


@given(st.lists(st.tuples(st.decimals(0, 10**30, places=18), RATIOS), max_size=8), RATIOS)
def test_portfolio_score_lies_between_its_positions_and_1(
    scores: list[tuple[Decimal, Decimal]], crowd: Decimal
) -> None:
    made = portfolio_risk(scores, crowd)
    if made is not None:
        counted = [score for value, score in scores if value > 0]
        assert min(counted) <= made.score <= 1


@pytest.mark.parametrize(
    ("values", "wanted"), [(["1"], "1"), (["3", "1"], "2"), (["5", "1", "2"], "2"), (["1", "2", "3", "10"], "2.5")]
)
def test_median(values: list[str], wanted: str) -> None:
    assert median([D(each) for each in values]) == D(wanted)


def test_equal_peers_have_a_least_spread() -> None:
    assert robust_z(D("0.06"), [D("0.05")] * 4) == D("1.349")
    assert robust_z(D("0.04"), [D("0.05")] * 4) == D("-1.349")
