"""What positions earned between two times: differences of gains, whatever was paid in or taken out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.chains import Token
from handlers.rules.earnings import earned, in_cents, notice
from handlers.rules.prices import NONE
from handlers.rules.summary import Total
from handlers.rules.yields import PRECISE, closed, paid_in, paid_out, valued
from store.yields import PastPosition, Position, PricePoint
from tests.handlers.scripted import ALICE, OTHER_TOKEN, USDC, VAULT, make_chain

CHAINS = {31337: make_chain(tokens=(Token(USDC, "USDC", 6, "usd"), Token(OTHER_TOKEN, "DARK", 6)))}
NOW = datetime(2026, 11, 10, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
ID = f"31337:{VAULT}"


def position(**changes: Any) -> Position:
    made = Position(
        user=ALICE,
        chain_id=31337,
        position_id=ID,
        kind="vault",
        contract=VAULT,
        protocol="Morpho",
        asset=USDC,
        symbol="USDC",
        as_of_block=1,
        as_of=NOW - HOUR,
        opened_block=1,
        opened_at=NOW - 9 * HOUR,
        shares=100_000_000,
        principal=100_000_000,
        value=105_000_000,
    )
    return replace(made, **changes)


def past(percent: int | None = 100, *, at: datetime = NOW - 9 * HOUR, **changes: Any) -> PastPosition:
    price = None if percent is None else PricePoint(at, PRECISE * percent // 100, PRECISE)
    return replace(PastPosition(ID, 31337, "vault", USDC, 100_000_000, 100_000_000, 0, price), **changes)


@pytest.mark.parametrize(
    ("now", "then", "latest", "wanted"),
    [
        (position(), [past()], [], Total(Decimal("5"))),
        (position(), [past(103)], [past(103)], Total(Decimal("2"))),
        (position(), [], [], Total(Decimal("5"))),  # opened since
        (position(value=99_000_000), [past()], [], Total(Decimal("-1"))),
        (position(), [past(105)], [], Total()),
        # A price kept after the last telling counts, an older one does not.
        (position(), [past()], [past(106, at=NOW)], Total(Decimal("6"))),
        (position(), [past()], [past(104, at=NOW - 2 * HOUR)], Total(Decimal("5"))),
        (position(value=None), [past()], [past(104, at=NOW - 2 * HOUR)], Total(Decimal("4"))),
        # All of it came out since.
        (position(shares=0, principal=0, value=0, realized=7_000_000), [past(102)], [], Total(Decimal("5"))),
        # Long gone: nothing happened, whatever it is worth.
        (
            position(shares=0, principal=0, value=0, realized=7, asset=OTHER_TOKEN),
            [past(shares=0, principal=0, realized=7)],
            [],
            Total(),
        ),
        # Not known: at the beginning, at the end, and what it is worth.
        (position(), [past(None)], [], Total(unpriced=1)),
        (position(value=None), [past()], [past(None)], Total(unpriced=1)),
        (position(asset=OTHER_TOKEN), [past()], [], Total(unpriced=1)),
        # A principal that began with its first value.
        (position(principal=None, value=None), [], [], Total()),
        (position(principal=104_000_000), [past(None, principal=None)], [], Total(Decimal("1"))),
        (position(chain_id=9), [past()], [], Total()),
    ],
)
def test_earned(now: Position, then: list[PastPosition], latest: list[PastPosition], wanted: Total) -> None:
    assert earned([now], then, latest, chains=CHAINS, prices=NONE) == wanted


MOVES = st.lists(
    st.tuples(st.sampled_from(("in", "out", "all", "grow")), st.integers(1, 10**9)), min_size=1, max_size=12
)


@given(MOVES)
def test_only_growth_is_earned_whatever_goes_in_and_out(moves: list[tuple[str, int]]) -> None:
    """A share is worth one unit, and growth is paid as new shares to the same position: every unit can be followed."""
    now = position(shares=500, principal=500, value=500)
    grown = 0
    for kind, amount in moves:
        match kind:
            case "in":
                now = paid_in(now, shares=amount, assets=amount)
            case "out":
                taken = min(amount, now.shares)
                now = paid_out(now, shares=taken, assets=taken)
            case "all":
                now = closed(now, assets=now.shares)
            case "grow" if now.shares:
                now, grown = replace(now, shares=now.shares + amount), grown + amount
    now = valued(now, now.shares)
    began = [past(shares=500, principal=500)]
    assert earned([now], began, [], chains=CHAINS, prices=NONE).usd == Decimal(grown).scaleb(-6)


def test_evening_has_a_text_of_its_own_for_a_bad_day() -> None:
    def body(usd: str, unpriced: int = 0) -> str:
        today = Total(Decimal(usd), unpriced)
        return notice(ALICE, date(2026, 11, 10), today, total_yield=Decimal(9), at=NOW).body

    assert body("1234.567") == "Your investments earned $1,234.57 today!"
    assert body("-0.009") == "Your investments lost $0.01 today."
    assert body("0.5", 2) == "Your investments earned $0.50 today! Not counted, for want of a price: 2."


def test_evening_is_one_effect_a_day() -> None:
    day = date(2026, 11, 10)
    made = [
        notice(ALICE, day + timedelta(days=n), Total(Decimal(usd)), total_yield=Decimal(9), at=NOW)
        for n, usd in ((0, 1), (0, 2), (1, 1))
    ]
    assert made[0].subject == made[1].subject == "yield:2026-11-10"
    assert made[0].event_id == made[1].event_id != made[2].event_id
    assert made[0].facts == {"daily_yield": "1.00", "total_yield": "9.00"}


@pytest.mark.parametrize(
    ("usd", "cents"), [("0.004", "0"), ("0.005", "0"), ("0.0051", "0.01"), ("-0.005", "0"), ("-0.006", "-0.01")]
)
def test_what_comes_to_no_cent_is_nothing(usd: str, cents: str) -> None:
    assert in_cents(Decimal(usd)) == Decimal(cents)
