"""What would bring a portfolio within the limits of its user's risk profile: figures to decide by, never a trade. Pure.

Only what is beyond a limit moves, the riskiest position first, and only as far as the limit. No asset is sold for
another: what leaves a position goes to others of the same asset that have room, the least risky first, and what finds
none is said as a new position to open. What is locked stays, and is said. Fees and taxes are not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Literal

from handlers.rules import wire
from handlers.rules.money import dollars
from handlers.rules.periods import iso
from handlers.rules.portfolio import UNITS, Holding, Portfolio, lock_days, portfolio
from handlers.rules.prices import EXACT
from handlers.rules.risk import ZERO, RiskLevel, percent, sum_of, text
from handlers.rules.yields import totals
from store.people import RiskProfile

Priority = Literal["none", "low", "medium", "high"]

LEAST_USD = Decimal(10)
"""Dollars below which nothing is moved: gas and the time of the user cost more than the risk."""
MEDIUM_OVER, HIGH_OVER = Decimal("0.05"), Decimal("0.2")
"""Share beyond a limit from which acting is of medium and of high priority."""
CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest shares of the portfolio that a profile bears: of one protocol, and of all protocols of a class."""

    protocol: Decimal
    classes: Mapping[RiskLevel, Decimal]
    level: RiskLevel
    """The highest level of the whole that fits the profile."""


LIMITS: Mapping[RiskProfile, Limits] = {
    # Half in one place at most, so that no single failure takes more; hardly anything young or levered.
    "conservative": Limits(
        Decimal("0.5"), {"low": Decimal(1), "medium": Decimal("0.3"), "high": Decimal("0.05")}, "low"
    ),
    # Somewhat more in one place; a fifth may be lost without the rest having to earn it back for years.
    "moderate": Limits(Decimal("0.6"), {"low": Decimal(1), "medium": Decimal("0.7"), "high": Decimal("0.2")}, "medium"),
    # Knows what can be lost, yet one protocol still is not everything.
    "aggressive": Limits(Decimal("0.75"), {"low": Decimal(1), "medium": Decimal(1), "high": Decimal("0.5")}, "high"),
}


@dataclass(frozen=True, slots=True)
class Breach:
    """Something beyond a limit, in shares; `name` is a protocol or a class."""

    kind: Literal["protocol", "class"]
    name: str
    share: Decimal
    limit: Decimal

    @property
    def over(self) -> Decimal:
        """Share beyond the limit."""
        return EXACT.subtract(self.share, self.limit)


@dataclass(slots=True)
class Plan:
    """Units (millionths of the portfolio) by index of its priced holdings, as they are moved."""

    holdings: Sequence[Holding]
    limits: Limits
    now: datetime
    before: Sequence[int]
    units: list[int]
    freed: dict[str, int] = field(default_factory=dict)
    """Units that left positions, by asset, and have no new place yet."""
    why: dict[int, list[Breach]] = field(default_factory=dict)

    def movable(self, n: int) -> bool:
        """Whether a position can be withdrawn from now."""
        return lock_days(self.holdings[n].position, self.now) == 0

    def in_protocol(self, name: str) -> int:
        """Units in one protocol."""
        return sum(u for u, each in zip(self.units, self.holdings, strict=True) if each.protocol == name)

    def in_class(self, kind: RiskLevel) -> int:
        """Units in all protocols of a class."""
        return sum(u for u, each in zip(self.units, self.holdings, strict=True) if each.protocol_class == kind)

    def room(self, n: int) -> int:
        """Units that a position may still take; none in a lock, which takes nothing in.

        Where units just left there may be room again, once others of its class or protocol have left, too.
        """
        each = self.holdings[n]
        if each.position.kind == "lock":
            return 0
        protocol = _units(self.limits.protocol) - self.in_protocol(each.protocol)
        return max(
            0, min(protocol, _units(self.limits.classes[each.protocol_class]) - self.in_class(each.protocol_class))
        )

    def reduce(self, members: Sequence[int], over: int, breach: Breach) -> None:
        """Take units that are beyond a limit out of its members, the riskiest first."""
        for n in sorted(members, key=lambda n: (-_score(self.holdings[n]), self.holdings[n].position.position_id)):
            taken = min(over, self.units[n]) if self.movable(n) else 0
            if taken <= 0:
                continue
            self.units[n] -= taken
            over -= taken
            asset = self.holdings[n].asset
            self.freed[asset] = self.freed.get(asset, 0) + taken
            self.why.setdefault(n, []).append(breach)

    def place(self) -> None:
        """Put what was freed into positions of the same asset that have room: the least risky, then the best paid."""
        order = sorted(
            range(len(self.holdings)),
            key=lambda n: (
                _score(self.holdings[n]),
                -(self.holdings[n].position.apy or ZERO),
                self.holdings[n].position.position_id,
            ),
        )
        for asset, free in self.freed.items():
            left = free
            for n in order:
                if self.holdings[n].asset == asset:
                    taken = min(left, self.room(n))
                    self.units[n] += taken
                    left -= taken
            self.freed[asset] = left


def advice(held: Portfolio, profile: RiskProfile, now: datetime) -> dict[str, object]:
    """`/recommendations/rebalancing` of CONTRACT."""
    priced = [each for each in held.holdings if each.share is not None]
    limits = LIMITS[profile]
    found = breaches(priced, limits)
    plan = planned(priced, limits, now)
    suggestions = _suggestions(plan, held)
    return {
        "rebalancingSuggestions": suggestions,
        "riskAssessment": _assessment(held, priced, profile, found, now),
        "expectedOutcomes": _outcomes(held, plan, suggestions, now),
        "actionPriority": priority(found, suggestions),
        "reasoning": _reasoning(found, priced, now),
    }


def breaches(priced: Sequence[Holding], limits: Limits) -> list[Breach]:
    """What is beyond the limits, classes first."""
    by_class: dict[str, Decimal] = {}
    by_protocol: dict[str, Decimal] = {}
    for each in priced:
        share = each.share or ZERO
        by_class[each.protocol_class] = EXACT.add(by_class.get(each.protocol_class, ZERO), share)
        by_protocol[each.protocol] = EXACT.add(by_protocol.get(each.protocol, ZERO), share)
    found = [Breach("class", kind, by_class.get(kind, ZERO), limits.classes[kind]) for kind in ("high", "medium")]
    found += [Breach("protocol", name, share, limits.protocol) for name, share in sorted(by_protocol.items())]
    return [each for each in found if each.over > 0]


def planned(priced: Sequence[Holding], limits: Limits, now: datetime) -> Plan:
    """Where the units of a portfolio are to be; what was freed and has no place is in `freed`."""
    units = [_units(each.share or ZERO) for each in priced]
    plan = Plan(priced, limits, now, tuple(units), units)
    for kind in ("high", "medium"):
        over = plan.in_class(kind) - _units(limits.classes[kind])
        members = [n for n, each in enumerate(priced) if each.protocol_class == kind]
        plan.reduce(members, over, _breach("class", kind, plan.in_class(kind), limits.classes[kind]))
    for name in sorted({each.protocol for each in priced}):
        over = plan.in_protocol(name) - _units(limits.protocol)
        members = [n for n, each in enumerate(priced) if each.protocol == name]
        plan.reduce(members, over, _breach("protocol", name, plan.in_protocol(name), limits.protocol))
    plan.place()
    return plan


def priority(found: Sequence[Breach], suggestions: Sequence[object]) -> Priority:
    """How much it matters: by what is furthest beyond its limit; none where nothing can be moved."""
    over = max((each.over for each in found), default=ZERO)
    if not suggestions:
        return "none"
    return "high" if over >= HIGH_OVER else "medium" if over >= MEDIUM_OVER else "low"


# What is told -------------------------------------------------------------------------------------------------------


def _suggestions(plan: Plan, held: Portfolio) -> list[dict[str, object]]:
    whole = sum_of(each.value or ZERO for each in held.holdings)
    moves: list[tuple[int, dict[str, object]]] = []
    for n, (was, now) in enumerate(zip(plan.before, plan.units, strict=True)):
        if was != now:
            position = plan.holdings[n].position
            facts = {
                "positionId": position.position_id,
                "chainId": position.chain_id,
                "protocol": position.protocol,
                "asset": plan.holdings[n].asset,
                "action": "increase" if now > was else "reduce",
            }
            moves.append((now - was, facts | _figures(was, now, whole, plan.why.get(n, ()))))
    for asset, left in plan.freed.items():
        if left:
            facts = {"positionId": None, "chainId": None, "protocol": None, "asset": asset, "action": "open"}
            moves.append((left, facts | _figures(0, left, whole, ())))
    total = sum(abs(delta) for delta, _ in moves) // 2
    if _dollars(total, whole) < LEAST_USD:
        return []
    return [facts for _, facts in sorted(moves, key=lambda each: (each[0] > 0, -abs(each[0])))]


def _figures(was: int, now: int, whole: Decimal, why: Iterable[Breach]) -> dict[str, object]:
    return {
        "fromShare": text(_share(was)),
        "toShare": text(_share(now)),
        "amountUsd": dollars(_dollars(abs(now - was), whole)),
        "reasons": [_told(each) for each in why],
    }


def _told(breach: Breach) -> dict[str, object]:
    return {"kind": breach.kind, "name": breach.name, "share": text(breach.share), "limit": text(breach.limit)}


def _assessment(
    held: Portfolio, priced: Sequence[Holding], profile: RiskProfile, found: Sequence[Breach], now: datetime
) -> dict[str, object]:
    limits, whole = LIMITS[profile], held.risk
    return {
        "riskProfile": profile,
        "riskScore": None if whole is None else text(whole.score),
        "riskLevel": None if whole is None else whole.level,
        "suitsProfile": whole is None or _rank(whole.level) <= _rank(limits.level),
        "diversificationScore": None if held.diversification is None else text(held.diversification),
        "limits": {
            "protocol": text(limits.protocol),
            "medium": text(limits.classes["medium"]),
            "high": text(limits.classes["high"]),
        },
        "breaches": [_told(each) for each in found],
        "locked": [
            {
                "positionId": each.position.position_id,
                "share": text(each.share or ZERO),
                "unlockAt": iso(each.position.unlock_at),
            }
            for each in priced
            if each.position.unlock_at is not None and lock_days(each.position, now) > 0
        ],
        "unpriced": sum(each.value is None for each in held.holdings),
    }


def _outcomes(held: Portfolio, plan: Plan, suggestions: Sequence[object], now: datetime) -> dict[str, object]:
    """Figures before and after; what a new position will pay is not known, so it is in no APY."""
    after = _after(held, plan, now) if suggestions else held
    was, will = (totals(each.position for each in one.holdings) for one in (held, after))
    known_after = totals(each.position for each in after.holdings if not _is_new(each))
    return {
        "riskScore": _change(_score_text(held), _score_text(after)),
        "diversificationScore": _change(_spread_text(held), _spread_text(after)),
        "averageAPY": _change(_ratio(was.apy), _ratio(known_after.apy)),
        "yieldPerYear": _change(_per_year(held), _per_year(after)),
        "newPositionsUsd": dollars(_cents(EXACT.subtract(will.value, known_after.value))),
    }


NEW_ID = "new:"


def _after(held: Portfolio, plan: Plan, now: datetime) -> Portfolio:
    whole = sum_of(each.value or ZERO for each in held.holdings)
    moved = [
        replace(each, position=replace(each.position, value_usd=EXACT.multiply(_share(units), whole)))
        for each, units in zip(plan.holdings, plan.units, strict=True)
        if units
    ]
    for asset, left in plan.freed.items():
        if left:
            like = next(each for each in plan.holdings if each.asset == asset)
            value = EXACT.multiply(_share(left), whole)
            fresh = replace(
                like.position,
                position_id=NEW_ID + asset,
                protocol=NEW_ID + asset,
                kind="vault",
                value_usd=value,
                yield_usd=ZERO,
                apy=None,
                unlock_at=None,
            )
            moved.append(Holding(fresh, "low"))
    unpriced = [each for each in held.holdings if each.share is None]
    return portfolio([*moved, *unpriced], now)


def _is_new(holding: Holding) -> bool:
    return holding.position.position_id.startswith(NEW_ID)


def _change(was: str | None, will: str | None) -> dict[str, object]:
    return {"from": was, "to": will}


def _score_text(held: Portfolio) -> str | None:
    return None if held.risk is None else text(held.risk.score)


def _spread_text(held: Portfolio) -> str | None:
    return None if held.diversification is None else text(held.diversification)


def _ratio(apy: Decimal | None) -> str | None:
    return None if apy is None else wire.ratio(apy)


def _per_year(held: Portfolio) -> str:
    """Dollars a year at the APYs that are known."""
    earning = [(each.value, each.position.apy) for each in held.holdings]
    return dollars(_cents(sum_of(EXACT.multiply(value, apy) for value, apy in earning if value is not None and apy)))


def _reasoning(found: Sequence[Breach], priced: Sequence[Holding], now: datetime) -> list[str]:
    said = [
        f"{each.name if each.kind == 'protocol' else f'Protocols of {each.name} risk'}: {percent(each.share)}, "
        f"at most {percent(each.limit)} for this profile."
        for each in found
    ]
    names = {each.name for each in found}
    kept = [each for each in priced if lock_days(each.position, now) and {each.protocol, each.protocol_class} & names]
    said += [
        f"{each.position.protocol}: locked for {lock_days(each.position, now)} days, so it stays." for each in kept
    ]
    return said or ["Everything is within the limits of this profile."]


def _breach(kind: Literal["protocol", "class"], name: str, units: int, limit: Decimal) -> Breach:
    return Breach(kind, name, _share(units), limit)


def _score(holding: Holding) -> Decimal:
    return holding.risk.score if holding.risk is not None else ZERO


def _rank(level: RiskLevel) -> int:
    return ("low", "medium", "high").index(level)


def _units(share: Decimal) -> int:
    return int(EXACT.multiply(share, Decimal(UNITS)))


def _share(units: int) -> Decimal:
    return EXACT.scaleb(Decimal(units), -6)


def _dollars(units: int, whole: Decimal) -> Decimal:
    return _cents(EXACT.multiply(_share(units), whole))


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(CENT, ROUND_HALF_EVEN, EXACT)
