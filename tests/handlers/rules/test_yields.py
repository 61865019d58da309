from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.rules.yields import (
    PRECISE,
    SHORTEST,
    WINDOW,
    Rate,
    apy,
    closed,
    is_step,
    opened_with,
    paid_in,
    paid_out,
    past_value,
    totals,
    valued,
    window_start,
)
from store.yields import PastPosition, Position, PricePoint
from tests.handlers.scripted import ALICE, USDC, VAULT

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
EMPTY = Position(
    user=ALICE,
    chain_id=1,
    position_id=f"1:{VAULT}",
    kind="vault",
    contract=VAULT,
    protocol="Morpho",
    asset=USDC,
    symbol="USDC",
    as_of_block=1,
    as_of=NOW,
    opened_block=1,
    opened_at=NOW,
)


def holding(shares: int, principal: int | None, **changes: object) -> Position:
    return replace(EMPTY, shares=shares, principal=principal, **changes)  # type: ignore[arg-type]  # fields by name


def point(hours: float, assets: int, shares: int = 1000) -> PricePoint:
    return PricePoint(NOW + timedelta(hours=hours), assets, shares)


# Principal ----------------------------------------------------------------------------------------------------------


def test_principal_falls_with_the_shares_that_leave_and_the_rest_is_realised() -> None:
    one = paid_in(paid_in(EMPTY, shares=100, assets=100), shares=100, assets=120)
    assert (one.shares, one.principal) == (200, 220)
    less = paid_out(one, shares=50, assets=75)
    assert (less.shares, less.principal, less.realized) == (150, 165, 20)
    gone = paid_out(less, shares=150, assets=150)
    assert (gone.shares, gone.principal, gone.realized, gone.is_open) == (0, 0, 5, False)


def test_more_shares_than_there_are_close_a_position_and_none_change_nothing() -> None:
    assert paid_out(holding(10, 7), shares=11, assets=9) == holding(0, 0, realized=2)
    assert paid_out(EMPTY, shares=1, assets=1) == EMPTY


def test_unknown_principal_begins_with_the_first_price() -> None:
    found = opened_with(EMPTY, 50)
    assert (found.shares, found.principal) == (50, None)
    more = paid_in(found, shares=50, assets=60)
    assert more.principal is None
    assert paid_out(more, shares=40, assets=50).principal is None
    assert (valued(more, None).principal, valued(more, None).earned) == (None, None)
    assert (valued(more, 130).principal, valued(more, 130).earned) == (130, 0)
    assert paid_out(more, shares=100, assets=130).principal == 0
    assert opened_with(EMPTY, 0).principal == 0


def test_shares_of_no_known_price_make_the_principal_unknown() -> None:
    assert paid_in(holding(10, 10), shares=5, assets=None).principal is None
    assert paid_out(holding(10, 10), shares=5, assets=None) == holding(5, 5)


def test_closing_realises_what_came_out_beyond_the_principal() -> None:
    assert closed(holding(1, 100), assets=90) == holding(0, 0, realized=-10)
    assert closed(holding(1, None), assets=90).realized == 0


moves = st.lists(st.tuples(st.sampled_from(("in", "out")), st.integers(0, 10**30), st.integers(0, 10**30)), max_size=30)


@given(moves)
def test_nothing_of_what_went_in_and_out_is_lost(history: list[tuple[str, int, int]]) -> None:
    """Principal plus what came out equals what went in plus what was realised, whatever the order."""
    one, went_in, came_out = EMPTY, 0, 0
    for kind, shares, assets in history:
        if kind == "in":
            one, went_in = paid_in(one, shares=shares, assets=assets), went_in + assets
        elif one.shares:
            one, came_out = paid_out(one, shares=shares, assets=assets), came_out + assets
        assert one.principal is not None
        assert one.shares >= 0
        assert one.principal >= 0
        assert one.principal + came_out == went_in + one.realized
        assert one.shares or not one.principal or kind == "in"


# Value --------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**24), st.integers(0, 10**24), st.integers(1, 10**15))
def test_worth_is_what_the_vault_itself_answers(assets: int, supply: int, shares: int) -> None:
    """An OpenZeppelin vault floors shares * (assets + 1) / (supply + 1); we asked it of very many shares."""
    asked = PRECISE * (assets + 1) // (supply + 1)
    assert Rate(asked, PRECISE).worth(shares) == shares * (assets + 1) // (supply + 1)


def test_worth_by_one_share_is_rounded_down() -> None:
    assert Rate(1_100_000, 10**6).worth(999_999) == 1_099_998
    assert (Rate(0, 0).worth(5), Rate(5, 5).worth(0)) == (0, 0)


def test_closed_position_is_worth_nothing_whatever_was_read() -> None:
    assert valued(EMPTY, 7).value == 0


# APY ----------------------------------------------------------------------------------------------------------------


def test_growth_is_annualised_over_its_window() -> None:
    found = apy(point(-7 * 24, 1000), point(0, 1001))
    assert found is not None
    assert found.window == timedelta(days=7)
    assert found.rate == Decimal("0.053499")  # 1.001 ** (365 / 7) - 1
    assert abs(found.rate - Decimal(str(1.001 ** (365 / 7) - 1))) < Decimal("0.000001")


def test_price_points_of_different_shares_compare() -> None:
    assert apy(point(-24, 10, shares=5), point(0, 2 * PRECISE, shares=PRECISE)) == apy(point(-24, 5), point(0, 5))


@pytest.mark.parametrize(("after", "rate"), [(1000, "0"), (990, "-0.974482"), (0, "-1")])
def test_loss_has_a_rate_too(after: int, rate: str) -> None:
    found = apy(point(-24, 1000), point(0, after))
    assert found is not None
    assert found.rate == Decimal(rate)


def test_too_little_time_a_jump_and_no_price_say_nothing() -> None:
    short = SHORTEST.total_seconds() / 3600
    assert apy(point(-short + 0.01, 1000), point(0, 1001)) is None
    assert apy(point(-short, 1_000_000), point(0, 1_000_001)) is not None
    assert apy(point(-1, 1000), point(0, 2000)) is None
    assert apy(None, point(0, 1000)) is None
    assert apy(point(-24, 0), point(0, 1000)) is None


def test_window_is_a_week_or_the_time_since_entry() -> None:
    assert window_start(EMPTY, NOW + timedelta(days=3)) == NOW
    assert window_start(EMPTY, NOW + timedelta(days=30)) == NOW + timedelta(days=30) - WINDOW


# Telling ------------------------------------------------------------------------------------------------------------


def priced(value: int, earned: str, **changes: object) -> Position:
    return holding(10, 10, value=value, value_usd=Decimal(value), yield_usd=Decimal(earned), **changes)


def test_step_is_counted_from_what_was_told() -> None:
    step = Decimal("0.01")
    told = priced(100, "1.000")
    assert not is_step(told, priced(100, "1.009"), step_usd=step)
    assert is_step(told, priced(100, "1.010"), step_usd=step)
    assert is_step(told, priced(100, "0.990"), step_usd=step)


def test_step_without_a_price_is_a_part_of_the_value() -> None:
    told = holding(10, 100_000, value=100_000)
    assert not is_step(told, replace(told, value=100_009), step_usd=Decimal(1))
    assert is_step(told, replace(told, value=100_011), step_usd=Decimal(1))
    unknown = replace(told, value=None)
    assert is_step(unknown, told, step_usd=Decimal(1))
    assert not is_step(unknown, unknown, step_usd=Decimal(1))


def test_average_is_weighted_by_value_and_says_what_it_leaves_out() -> None:
    sums = totals(
        [
            priced(300, "3", apy=Decimal("0.05")),
            priced(100, "-1", apy=Decimal("0.01")),
            priced(1000, "5"),
            holding(10, 10, value=7, apy=Decimal(9)),
            replace(EMPTY, value_usd=Decimal(5), yield_usd=Decimal(5)),
        ]
    )
    assert (sums.value, sums.earned, sums.apy, sums.unpriced) == (Decimal(1400), Decimal(7), Decimal("0.040000"), 1)
    assert totals([]).apy is None


def test_past_value_needs_a_price_that_was_known_then() -> None:
    past = PastPosition("1:v", 1, "vault", USDC, 50, 50, 0, point(-1, 1100))
    assert past_value(past) == 55
    assert past_value(replace(past, price=None)) is None
    assert past_value(replace(past, price=None, shares=0)) == 0
    assert past_value(replace(past, kind="lock", price=PricePoint(NOW, 70, 1))) == 70
    assert past_value(replace(past, kind="account", price=None)) == 50
