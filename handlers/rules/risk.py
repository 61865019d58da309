"""How risky a position is and all of them together, with the figures that say so. Pure.

A score is 0 to 1. Each thing that adds to a risk has a weight of 0 to 1, and they combine as chances that do not depend
on each other: 1 - (1 - a)(1 - b)…, so that more of anything never lowers a score and nothing brings it above 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Literal

from config.chains import Chain
from handlers.rules.prices import EXACT
from store.yields import Position

RiskLevel = Literal["low", "medium", "high"]
Cause = Literal["protocol", "size", "lock", "apy", "positions", "concentration"]

UNLISTED: RiskLevel = "medium"
"""Class of a lock's vault that the table does not list, and of what a V2 account holds: nobody has classed it."""
CLASS_WEIGHT: Mapping[RiskLevel, Decimal] = {"low": Decimal("0.1"), "medium": Decimal("0.35"), "high": Decimal("0.7")}
"""What the class of a protocol adds: a class alone gives the level of its name."""
MEDIUM_FROM, HIGH_FROM = Decimal("0.34"), Decimal("0.67")
"""Scores from which a risk is medium and high: thirds of the scale."""
SIZE_FREE, SIZE_WEIGHT = Decimal("0.25"), Decimal("0.3")
"""Share of the portfolio that adds nothing (a quarter: four equal positions), and what the whole of it adds."""
LOCK_FULL_DAYS, LOCK_WEIGHT = 365, Decimal("0.2")
"""Days until a lock opens that count fully (longer ones differ little: nobody sees further), and what they add."""
USUAL_APY: Mapping[RiskLevel, Decimal] = {"low": Decimal("0.08"), "medium": Decimal("0.2"), "high": Decimal("0.6")}
"""APY up to which a protocol of a class usually pays; who promises more pays for a risk that is not seen yet."""
APY_WEIGHT = Decimal("0.4")
"""What an APY adds that is twice the usual one, twice as far out as an outlier, or a loss of LOSS_FULL a year."""
LOSS_FULL = Decimal("0.1")
PEERS_LEAST = 4
"""Other positions from which one can be called an outlier among them: fewer have no spread to speak of."""
OUTLIER_Z = Decimal("3.5")
"""Robust z from which an APY is an outlier, as for anomalies of spending."""
Z_SCALE, SPREAD_LEAST = Decimal("0.6745"), Decimal("0.005")
"""Makes a median deviation comparable with a standard one; the least deviation: half a percent a year is noise."""
CROWD_FREE, CROWD_WEIGHT = Decimal("0.25"), Decimal("0.25")
"""Herfindahl index over protocols that adds nothing (four equal ones), and what a single protocol adds."""
PLACES = Decimal("0.000001")
ZERO, ONE = Decimal(0), Decimal(1)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a position. `share` of the portfolio: None where it has no price. `apy`: None if not known."""

    protocol_class: RiskLevel
    share: Decimal | None = None
    lock_days: int = 0
    """Days until it opens; 0: it is open."""
    apy: Decimal | None = None
    peers: Sequence[Decimal] = ()
    """APYs of the user's other positions."""


@dataclass(frozen=True, slots=True)
class Component:
    """One thing that adds to a risk: `figure` is what was measured (None: not known), `weight` what it adds."""

    cause: Cause
    weight: Decimal
    figure: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Risk:
    """A score of 0 to 1, its level, and what it is made of; what adds nothing is among it, too."""

    score: Decimal
    level: RiskLevel
    components: Sequence[Component]


def protocol_class(position: Position, chain: Chain) -> RiskLevel:
    """The class that the chain table gives the protocol of a position."""
    vault = chain.vault(position.contract if position.kind == "vault" else position.vault or "")
    return vault.risk if vault else UNLISTED


def level(score: Decimal) -> RiskLevel:
    """The level of a score."""
    return "high" if score >= HIGH_FROM else "medium" if score >= MEDIUM_FROM else "low"


def position_risk(facts: Facts) -> Risk:
    """The risk of one position: its protocol, its size, how long it is locked, and an APY out of line."""
    return _combined([_protocol(facts), _size(facts.share), _lock(facts.lock_days), _apy(facts)])


def portfolio_risk(scores: Sequence[tuple[Decimal, Decimal]], crowd: Decimal) -> Risk | None:
    """The risk of (value, score) of positions: their mean by value, and what crowding into few protocols adds.

    `crowd`: Herfindahl index over protocols. None where nothing has a value.
    """
    whole = sum_of(value for value, _ in scores)
    if whole <= 0:
        return None
    mean = rounded(EXACT.divide(sum_of(EXACT.multiply(value, score) for value, score in scores), whole))
    return _combined(
        [
            Component("positions", mean, text(mean), f"Positions have a risk of {text(mean)}, weighted by value."),
            _crowding(crowd),
        ]
    )


def text(ratio: Decimal) -> str:
    """A ratio without needless zeros."""
    shown = f"{rounded(ratio):f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def percent(ratio: Decimal) -> str:
    """A ratio for people: percent with at most two places."""
    shown = f"{EXACT.multiply(ratio, Decimal(100)).quantize(Decimal('0.01'), ROUND_HALF_EVEN, EXACT):f}"
    return f"{shown.rstrip('0').rstrip('.')} %"


def rounded(ratio: Decimal) -> Decimal:
    """To the places that ratios have."""
    return ratio.quantize(PLACES, ROUND_HALF_EVEN, EXACT)


def sum_of(values: Iterable[Decimal]) -> Decimal:
    """The exact sum."""
    total = ZERO
    for value in values:
        total = EXACT.add(total, value)
    return total


def _combined(components: Sequence[Component]) -> Risk:
    safe = ONE
    for each in components:
        safe = EXACT.multiply(safe, EXACT.subtract(ONE, each.weight))
    score = rounded(EXACT.subtract(ONE, safe))
    return Risk(score, level(score), components)


def _protocol(facts: Facts) -> Component:
    kind = facts.protocol_class
    return Component("protocol", CLASS_WEIGHT[kind], kind, f"Its protocol is of {kind} risk.")


def _size(share: Decimal | None) -> Component:
    if share is None:
        return Component("size", ZERO, None, "Without a price its size is not known.")
    over = _beyond(share, SIZE_FREE, ONE)
    compared = "no more" if over == 0 else "more"
    reason = f"It is {percent(share)} of the portfolio, {compared} than {percent(SIZE_FREE)}."
    return Component("size", rounded(EXACT.multiply(SIZE_WEIGHT, over)), text(share), reason)


def _lock(days: int) -> Component:
    if days <= 0:
        return Component("lock", ZERO, "0", "It can be withdrawn at any time.")
    part = EXACT.divide(Decimal(min(days, LOCK_FULL_DAYS)), Decimal(LOCK_FULL_DAYS))
    reason = f"It is locked for {days} more day{'' if days == 1 else 's'}."
    return Component("lock", rounded(EXACT.multiply(LOCK_WEIGHT, part)), str(days), reason)


def _apy(facts: Facts) -> Component:
    apy = facts.apy
    if apy is None:
        return Component("apy", ZERO, None, "Its APY is not known yet.")
    usual, z = USUAL_APY[facts.protocol_class], robust_z(apy, facts.peers)
    loss = f"It loses {percent(-apy)} a year."
    high = f"Its APY of {percent(apy)} is above the {percent(usual)} that its class usually pays at most."
    out = f"Its APY of {percent(apy)} is out of line with the other positions."
    # An APY beyond the usual, or beyond the others', by as much again counts fully.
    found = [
        (_beyond(-apy, ZERO, LOSS_FULL), loss),
        (_beyond(apy, usual, 2 * usual), high),
        (_beyond(z, ZERO, 2 * OUTLIER_Z) if z is not None and z >= OUTLIER_Z else ZERO, out),
    ]
    part, reason = max(found, key=lambda each: each[0])
    if part == 0:
        reason = f"Its APY of {percent(apy)} is usual for its class."
    return Component("apy", rounded(EXACT.multiply(APY_WEIGHT, part)), text(apy), reason)


def robust_z(value: Decimal, others: Sequence[Decimal]) -> Decimal | None:
    """How far above the median of others a value is, in median deviations; None where there are too few."""
    if len(others) < PEERS_LEAST:
        return None
    middle = median(others)
    spread = max(median([abs(EXACT.subtract(each, middle)) for each in others]), SPREAD_LEAST)
    return EXACT.divide(EXACT.multiply(Z_SCALE, EXACT.subtract(value, middle)), spread)


def median(values: Sequence[Decimal]) -> Decimal:
    """The middle one, or halfway between the two."""
    ranked, half = sorted(values), len(values) // 2
    if len(ranked) % 2:
        return ranked[half]
    return EXACT.divide(EXACT.add(ranked[half - 1], ranked[half]), Decimal(2))


def _crowding(crowd: Decimal) -> Component:
    over = _beyond(crowd, CROWD_FREE, ONE)
    compared = "no more" if over == 0 else "more"
    reason = f"Concentration over protocols is {text(crowd)}, {compared} than {text(CROWD_FREE)}."
    return Component("concentration", rounded(EXACT.multiply(CROWD_WEIGHT, over)), text(crowd), reason)


def _beyond(value: Decimal, free: Decimal, full: Decimal) -> Decimal:
    """0 up to `free`, 1 from `full` on, and straight between them."""
    part = EXACT.divide(EXACT.subtract(value, free), EXACT.subtract(full, free))
    return min(max(part, ZERO), ONE)
