"""What a position is worth, what of it is yield, and how fast it grows: exact arithmetic over facts. Pure.

Principal is what went in and has not come out: it grows by what is paid in and falls in proportion to the shares that
leave. Yield is value beyond it; what leaves with a part of the shares is realised with that part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal

from config.chains import Chain
from handlers.rules.prices import Prices
from store.yields import PastPosition, Position, PricePoint

PRECISE = 10**36
"""Shares whose worth is asked of a vault: so many that the digits of any real position follow from it, and few enough
that no vault's own multiplication overflows (assets up to 10^41 base units)."""
WINDOW = timedelta(days=7)
"""What APY looks back at: long enough to smooth single harvests, short enough to follow the market."""
SHORTEST = timedelta(hours=1)
"""No APY over less: one rounded base unit, annualised, would say anything."""
YEAR = timedelta(days=365)
APY_MOST = Decimal(1000)
"""100,000 %: beyond it a number is a jump of the price, not a rate that a year could keep."""
APY_PLACES = Decimal("0.000001")
STEP_OF_VALUE = Decimal("0.0001")
"""Where an asset has no price, the step at which yield is told, as a part of the value."""

_EXACT = Context(prec=200)
_LOGS = Context(prec=40, Emax=999_999, Emin=-999_999, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many base units of a vault's share are worth so many of its asset."""

    assets: int
    shares: int

    def worth(self, shares: int) -> int:
        """What shares are worth, to the unit that the vault itself answers.

        Asked of so many shares, the answer was rounded down once; the product is then the one just below its end.
        """
        if shares <= 0 or self.shares <= 0:
            return 0
        if self.shares >= PRECISE:
            return (shares * (self.assets + 1) - 1) // self.shares
        return shares * self.assets // self.shares


@dataclass(frozen=True, slots=True)
class Apy:
    """A rate per year (1 is 100 %), and the time it was measured over."""

    rate: Decimal
    window: timedelta


# Principal ----------------------------------------------------------------------------------------------------------


def paid_in(position: Position, *, shares: int, assets: int | None) -> Position:
    """More shares for so many assets; None: nobody knows yet what they were worth. For no shares they are gone."""
    if not position.shares and not shares:
        return replace(position, realized=position.realized - (assets or 0))
    known = position.principal if position.shares or position.principal else 0
    principal = None if known is None or assets is None else known + assets
    return replace(position, shares=position.shares + shares, principal=principal)


def paid_out(position: Position, *, shares: int, assets: int | None) -> Position:
    """Shares left for so many assets: the principal falls in proportion, what is beyond its part is realised."""
    if position.shares <= 0:
        return position
    leaving = min(shares, position.shares)
    left = position.shares - leaving
    if position.principal is None:
        return replace(position, shares=left, principal=None if left else 0)
    part = position.principal - position.principal * left // position.shares
    realized = position.realized + (assets - part if assets is not None else 0)
    return replace(position, shares=left, principal=position.principal - part, realized=realized)


def opened_with(position: Position, shares: int) -> Position:
    """A position that begins to be followed with shares that are there already: worth what the first price says."""
    return replace(position, shares=shares, principal=None if shares else 0)


def closed(position: Position, *, assets: int) -> Position:
    """All of it came out as so many assets."""
    realized = position.realized + assets - (assets if position.principal is None else position.principal)
    return replace(position, shares=0, principal=0, realized=realized)


# Value --------------------------------------------------------------------------------------------------------------


def valued(position: Position, value: int | None) -> Position:
    """With its value at a block; a principal that was not known until now begins there."""
    if not position.is_open:
        value = 0
    principal = value if position.principal is None else position.principal
    return replace(position, value=value, principal=principal)


def priced(position: Position, chain: Chain, prices: Prices) -> Position:
    """With its value and yield in dollars; None where the asset has no price."""
    usd = None if position.value is None else prices.usd(chain, position.asset, position.value)
    earned = None if position.earned is None else prices.usd(chain, position.asset, position.earned)
    return replace(position, value_usd=usd, yield_usd=earned)


def apy(base: PricePoint | None, now: PricePoint) -> Apy | None:
    """The rate that the price has grown at since `base`, annualised; None where too little time says anything."""
    if base is None or now.at - base.at < SHORTEST or not base.assets or not base.shares or not now.shares:
        return None
    window = now.at - base.at
    grown = _LOGS.divide(Decimal(now.assets * base.shares), Decimal(base.assets * now.shares))
    if grown <= 0:
        return Apy(Decimal(-1), window)
    years = _LOGS.divide(Decimal(YEAR // timedelta(seconds=1)), Decimal(window // timedelta(seconds=1)))
    exponent = _LOGS.multiply(_LOGS.ln(grown), years)
    if exponent > _LOGS.ln(APY_MOST + 1):
        return None
    return Apy((_LOGS.exp(exponent) - 1).quantize(APY_PLACES, context=_LOGS), window)


def window_start(position: Position, now: datetime) -> datetime:
    """Where the window of a position's APY begins: a week ago, or where it was opened if that is later."""
    return max(now - WINDOW, position.opened_at)


def is_step(told: Position, now: Position, *, step_usd: Decimal) -> bool:
    """Whether yield has moved far enough since it was told: by `step_usd`, without a price by a part of the value."""
    if now.earned is None or told.earned is None:
        return now.earned != told.earned
    if now.yield_usd is not None and told.yield_usd is not None:
        return abs(now.yield_usd - told.yield_usd) >= step_usd
    return abs(now.earned - told.earned) >= STEP_OF_VALUE * max(1, now.value or 0)


@dataclass(frozen=True, slots=True)
class Totals:
    """What positions come to in dollars; `unpriced`: how many have no price and are in none of the figures."""

    value: Decimal
    earned: Decimal
    apy: Decimal | None
    unpriced: int


def totals(positions: Iterable[Position]) -> Totals:
    """Over open positions; APY is weighted by value, over those that have one."""
    value = earned = weight = weighted = Decimal(0)
    unpriced = 0
    for one in positions:
        if not one.is_open:
            continue
        if one.value_usd is None or one.yield_usd is None:
            unpriced += 1
            continue
        value, earned = _EXACT.add(value, one.value_usd), _EXACT.add(earned, one.yield_usd)
        if one.apy is not None:
            weight += one.value_usd
            weighted = _EXACT.add(weighted, _EXACT.multiply(one.value_usd, one.apy))
    average = _LOGS.divide(weighted, weight).quantize(APY_PLACES, context=_LOGS) if weight > 0 else None
    return Totals(value, earned, average, unpriced)


def past_value(past: PastPosition) -> int | None:
    """What a position was worth at a past time, in base units of its asset; None where no price was known then."""
    if past.kind == "account":
        return past.principal
    if past.shares == 0:
        return 0
    if past.price is None:
        return None
    return past.price.assets if past.kind == "lock" else Rate(past.price.assets, past.price.shares).worth(past.shares)
