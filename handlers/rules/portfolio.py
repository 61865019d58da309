"""A user's open positions as one portfolio: totals, shares, spread, risk, and what of it is worth a word. Pure.

Every total is of what has a price, and `unpriced` beside it counts what has none. Shares are parts of the priced
total and come to exactly 1. diversificationScore is 1 less the Herfindahl index over pairs of protocol and asset; the
indices over each of the two are its reasons, since a protocol may fail, and so may an asset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from config.chains import Chain
from handlers.rules import risk, wire
from handlers.rules.money import dollars
from handlers.rules.prices import EXACT, Prices
from handlers.rules.risk import ONE, ZERO, Facts, Risk, RiskLevel, percent, sum_of, text
from handlers.rules.summary import Total, insight
from handlers.rules.yields import priced, totals
from store.yields import Position

UNITS = 10**6
"""Parts that shares are counted in: as many as the places of a ratio."""
DAY = timedelta(days=1)
CROWDED = Decimal("0.6")
"""Share of one protocol, of several positions, that is worth a word."""
OPENS_SOON_DAYS = 7
"""Days before a lock opens that its user is told: enough to plan with."""


@dataclass(frozen=True, slots=True)
class Holding:
    """An open position at the newest prices, the class of its protocol, and its part of the whole."""

    position: Position
    protocol_class: RiskLevel
    share: Decimal | None = None
    """None: it has no price, or nothing has a value."""
    risk: Risk | None = None

    @property
    def value(self) -> Decimal | None:
        """Dollars."""
        return self.position.value_usd

    @property
    def protocol(self) -> str:
        """Who runs it."""
        return self.position.protocol

    @property
    def asset(self) -> str:
        """What it is held in: one symbol is one asset on every chain; without a symbol it is known by its address."""
        return self.position.symbol or f"{self.position.chain_id}:{self.position.asset}"


@dataclass(frozen=True, slots=True)
class Spread:
    """How a total lies in groups; `herfindahl` None: there is nothing."""

    groups: int
    largest: str | None
    largest_share: Decimal | None
    herfindahl: Decimal | None

    @property
    def score(self) -> Decimal | None:
        """1 less the index: 0 in one group, towards 1 in many equal ones."""
        return None if self.herfindahl is None else EXACT.subtract(ONE, self.herfindahl)


@dataclass(frozen=True, slots=True)
class Portfolio:
    """Open positions by id, and what they are together."""

    holdings: Sequence[Holding]
    protocols: Spread
    assets: Spread
    places: Spread
    """Over pairs of protocol and asset."""
    risk: Risk | None

    @property
    def diversification(self) -> Decimal | None:
        """1 less the index over protocols and assets; None where nothing has a value."""
        return self.places.score


def holdings_of(positions: Iterable[Position], chains: Mapping[int, Chain], prices: Prices) -> list[Holding]:
    """The open ones among positions, at these prices; those of chains that left the table are left out."""
    return [
        Holding(priced(one, chain, prices), risk.protocol_class(one, chain))
        for one in positions
        if one.is_open and (chain := chains.get(one.chain_id)) is not None
    ]


def portfolio(holdings: Sequence[Holding], now: datetime) -> Portfolio:
    """Positions with their shares and risks, and what they are together."""
    values = [each.value for each in holdings]
    known = iter(shares([value for value in values if value is not None]))
    weighed = [
        replace(each, share=None if value is None else next(known))
        for each, value in zip(holdings, values, strict=True)
    ]
    assessed = [replace(each, risk=risk.position_risk(_facts(each, weighed, now))) for each in weighed]
    protocols, assets = spread(assessed, lambda each: each.protocol), spread(assessed, lambda each: each.asset)
    scores = [(each.value, each.risk.score) for each in assessed if each.value is not None and each.risk is not None]
    whole = risk.portfolio_risk(scores, protocols.herfindahl or ZERO)
    places = spread(assessed, lambda each: f"{each.protocol}\0{each.asset}")
    return Portfolio(assessed, protocols, assets, places, whole)


def shares(values: Sequence[Decimal]) -> list[Decimal | None]:
    """Parts of the sum that come to exactly 1, each off by less than 10^-6; None where the sum is 0.

    What rounding down leaves goes to those whose rest is largest.
    """
    whole = sum_of(values)
    if whole <= 0:
        return [None] * len(values)
    exact = [EXACT.divide(EXACT.multiply(value, Decimal(UNITS)), whole) for value in values]
    units = [int(part) for part in exact]
    rests = sorted(range(len(values)), key=lambda n: (units[n] - exact[n], n))
    for n in rests[: UNITS - sum(units)]:
        units[n] += 1
    return [EXACT.scaleb(Decimal(unit), -6) for unit in units]


def herfindahl(values: Sequence[Decimal]) -> Decimal | None:
    """The sum of squared shares, 1 / n for n equal ones and 1 for a single one; None where there is nothing."""
    whole = sum_of(values)
    if whole <= 0:
        return None
    squares = sum_of(EXACT.multiply(value, value) for value in values)
    return risk.rounded(EXACT.divide(squares, EXACT.multiply(whole, whole)))


def spread(holdings: Iterable[Holding], group: Callable[[Holding], str]) -> Spread:
    """How priced positions lie in groups."""
    values: dict[str, Decimal] = {}
    for each in holdings:
        if each.value is not None:
            values[group(each)] = EXACT.add(values.get(group(each), ZERO), each.value)
    parts = shares(list(values.values()))
    largest = max(zip(values, parts, strict=True), key=lambda each: each[1] or ZERO, default=(None, None))
    held = sum(value > 0 for value in values.values())
    return Spread(held, largest[0] if held else None, largest[1], herfindahl(list(values.values())))


def lock_days(position: Position, now: datetime) -> int:
    """Days until a lock opens, a begun one too; 0 for what can be withdrawn."""
    if position.unlock_at is None or position.unlock_at <= now:
        return 0
    return -((now - position.unlock_at) // DAY)


def _facts(holding: Holding, every: Sequence[Holding], now: datetime) -> Facts:
    others = [each.position.apy for each in every if each is not holding and each.position.apy is not None]
    days = lock_days(holding.position, now)
    return Facts(holding.protocol_class, holding.share, days, holding.position.apy, others)


# What is told -------------------------------------------------------------------------------------------------------


def block(told: Portfolio, monthly: Total, *, chains: Mapping[int, Chain], prices: Prices) -> dict[str, object]:
    """The investment block of CONTRACT: `/summary` and `/investments` have the same one."""
    sums = totals(each.position for each in told.holdings)
    whole = told.risk
    return {
        "totalValue": dollars(sums.value),
        "totalYield": dollars(sums.earned),
        "monthlyYield": dollars(monthly.usd),
        "monthlyUnpriced": monthly.unpriced,
        "averageAPY": None if sums.apy is None else wire.ratio(sums.apy),
        "positions": [resource(each, chains[each.position.chain_id], prices) for each in told.holdings],
        "riskScore": None if whole is None else text(whole.score),
        "riskLevel": None if whole is None else whole.level,
        "riskReasons": [] if whole is None else _components(whole),
        "unpriced": sums.unpriced,
    }


def resource(holding: Holding, chain: Chain, prices: Prices) -> dict[str, object]:
    """A position with its share and what its risk is made of; `riskLevel` is its protocol's, as in every event."""
    shown = wire.position(holding.position, chain=chain, prices=prices)
    if holding.risk is None:
        return {**shown, "share": None, "risk": None}
    share = None if holding.share is None else text(holding.share)
    made = {"score": text(holding.risk.score), "level": holding.risk.level, "components": _components(holding.risk)}
    return {**shown, "share": share, "risk": made}


def _components(made: Risk) -> list[dict[str, object]]:
    return [
        {"cause": each.cause, "weight": text(each.weight), "figure": each.figure, "reason": each.reason}
        for each in made.components
    ]


def diversification(told: Portfolio) -> dict[str, object]:
    """`diversificationScore` with what it is made of."""
    score = told.diversification
    return {
        "diversificationScore": None if score is None else text(score),
        "diversificationReasons": [_spread("protocols", told.protocols), _spread("assets", told.assets)],
    }


def _spread(over: str, made: Spread) -> dict[str, object]:
    return {
        "over": over,
        "groups": made.groups,
        "largest": made.largest,
        "largestShare": None if made.largest_share is None else text(made.largest_share),
        "herfindahl": None if made.herfindahl is None else text(made.herfindahl),
        "score": None if made.score is None else text(made.score),
    }


def distribution(told: Portfolio) -> list[dict[str, object]]:
    """`protocolDistribution`: what lies where, the largest first; shares come to exactly 1."""
    grouped: dict[str, list[Position]] = {}
    for each in told.holdings:
        grouped.setdefault(each.protocol, []).append(each.position)
    found = [(protocol, len(mine), totals(mine)) for protocol, mine in grouped.items()]
    parts = shares([sums.value for _, _, sums in found])
    ranked = sorted(zip(found, parts, strict=True), key=lambda each: (-each[0][2].value, each[0][0]))
    return [
        {
            "protocol": protocol,
            "value": dollars(sums.value),
            "share": None if share is None else text(share),
            "yield": dollars(sums.earned),
            "apy": None if sums.apy is None else wire.ratio(sums.apy),
            "positions": count,
            "unpriced": sums.unpriced,
        }
        for (protocol, count, sums), share in ranked
    ]


def insights(told: Portfolio, now: datetime) -> list[dict[str, object]]:
    """What of investments is worth a word, with its figures, the weightiest first."""
    found = [each for holding in told.holdings for each in _about(holding, now)]
    largest, share = told.protocols.largest, told.protocols.largest_share
    if largest is not None and share is not None and share >= CROWDED and len(told.holdings) > 1:
        body = f"{largest} holds {percent(share)} of the portfolio."
        figures: dict[str, object] = {"protocol": largest, "share": text(share), "limit": text(CROWDED)}
        found.append(insight("investment", 65, "Much in one protocol", body, figures, ["see_rebalancing"]))
    lacking = sum(each.value is None for each in told.holdings)
    if lacking:
        body = f"{lacking} position{'' if lacking == 1 else 's'} without a price: in no total."
        found.append(insight("investment", 30, "Positions without a price", body, {"unpriced": lacking}, []))
    return sorted(found, key=lambda each: -int(str(each["priority"])))


def _about(holding: Holding, now: datetime) -> list[dict[str, object]]:
    found, position = [], holding.position
    facts: dict[str, object] = {"positionId": position.position_id, "protocol": position.protocol}
    apy = next((each for each in holding.risk.components if each.cause == "apy"), None) if holding.risk else None
    if apy is not None and apy.weight > 0:
        figures = facts | {"apy": apy.figure, "usual": text(risk.USUAL_APY[holding.protocol_class])}
        title = "Loses value" if position.apy is not None and position.apy < 0 else "Unusual APY"
        found.append(insight("investment", 75, title, f"{position.protocol}: {apy.reason}", figures, ["see_position"]))
    days = lock_days(position, now)
    if position.kind == "lock" and days <= OPENS_SOON_DAYS:
        body = f"{position.label or position.protocol}: {'it is open' if days == 0 else f'opens in {days} days'}."
        figures = facts | {"daysLeft": days}
        found.append(insight("investment", 50, "A lock opens", body, figures, ["see_position"]))
    return found
