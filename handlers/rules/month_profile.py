"""How a user's spending spreads over a month, learned from whole months, and what that says of the open one. Pure.

Two habits make a profile: what comes on the same day of every month (a rent, a subscription), and the rest, which
follows weekdays and the quarters of a month. Whole cents throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from handlers.rules.month_budget import Pace

LEAST_MONTHS = 3
"""Whole months of history before a profile is believed: with fewer, chance looks like habit."""
MOST_MONTHS = 6
"""Whole months that are looked at: older habits are others."""
COMMON_DAYS = 28
"""Days that every month has; what comes at a month's end is known by being its last day."""
QUARTER_DAYS = (7, 14, 21, 31)
"""Last days of the quarters of a month."""
THOUSAND = 1000
TOTAL = "total"


@dataclass(frozen=True, slots=True)
class Profile:
    """A month as it usually goes, in cents.

    `fixed` on each of COMMON_DAYS and on the last day; `quarters` a day; `weekdays` in thousandths of such a day.
    """

    months: int
    fixed: tuple[int, ...]
    quarters: tuple[int, ...]
    weekdays: tuple[int, ...]

    def expected(self, day: date) -> int:
        """Cents that are usual on a day."""
        return _fixed(self.fixed, day) + self.quarters[_quarter(day)] * self.weekdays[day.weekday()] // THOUSAND

    def pace(self, today: date) -> Pace | None:
        """How far the month of a day usually is at its end, today counted as done; None for a month without money."""
        first = today.replace(day=1)
        days = [self.expected(first + timedelta(days=back)) for back in range(_length(first))]
        whole = sum(days)
        if not whole:
            return None
        return Pace(Decimal(sum(days[: today.day])) / whole, Decimal(whole) / 100)

    def stored(self) -> list[object]:
        """The profile as JSON."""
        return [self.months, list(self.fixed), list(self.quarters), list(self.weekdays)]


def profile_of(stored: Sequence[Any]) -> Profile:
    """A profile as it was stored."""
    months, fixed, quarters, weekdays = stored
    return Profile(months, tuple(fixed), tuple(quarters), tuple(weekdays))


def profiles_of(stored: Mapping[str, Sequence[Any]]) -> dict[str | None, Profile]:
    """Profiles by category id; None: the total."""
    return {None if key == TOTAL else key: profile_of(each) for key, each in stored.items()}


def learned(days: Mapping[str | None, Mapping[date, Decimal]], until: date) -> dict[str, list[object]]:
    """Profiles, as they are stored, of the total and of every category, from the whole months before `until`.

    `until` is the first of a month. The month of the very first spend is whole if that was on its first day.
    {} with too few months.
    """
    first = min((day for amounts in days.values() for day in amounts), default=until)
    months = [month for month in _months_before(until) if month >= first]
    if len(months) < LEAST_MONTHS:
        return {}
    total: dict[date, Decimal] = {}
    for amounts in days.values():
        for day, amount in amounts.items():
            total[day] = total.get(day, Decimal(0)) + amount
    found = {TOTAL: _learn(total, months).stored()}
    return found | {key: _learn(amounts, months).stored() for key, amounts in days.items() if key is not None}


def _months_before(until: date) -> list[date]:
    """First days of the MOST_MONTHS months before `until`, oldest first."""
    count = until.year * 12 + until.month - 1
    return [date((count - k) // 12, (count - k) % 12 + 1, 1) for k in range(MOST_MONTHS, 0, -1)]


def _learn(amounts: Mapping[date, Decimal], months: Sequence[date]) -> Profile:
    cents = {day: int((amount * 100).to_integral_value(ROUND_HALF_UP)) for day, amount in amounts.items()}
    # What is there in every month on that day is fixed; a single spend on it is not.
    fixed = [min(cents.get(month.replace(day=number), 0) for month in months) for number in range(1, COMMON_DAYS + 1)]
    fixed.append(min(cents.get(month.replace(day=_length(month)), 0) for month in months))
    days = [month + timedelta(days=back) for month in months for back in range(_length(month))]
    rest = {day: max(0, cents.get(day, 0) - _fixed(fixed, day)) for day in days}
    quarters = [_mean([rest[day] for day in rest if _quarter(day) == place]) for place in range(len(QUARTER_DAYS))]
    usual = _mean(list(rest.values()))
    weekdays = [
        _mean([rest[day] for day in rest if day.weekday() == place]) * THOUSAND // usual if usual else THOUSAND
        for place in range(7)
    ]
    return Profile(len(months), tuple(fixed), tuple(quarters), tuple(weekdays))


def _fixed(fixed: Sequence[int], day: date) -> int:
    last = fixed[COMMON_DAYS] if (day + timedelta(days=1)).day == 1 else 0
    return last + (fixed[day.day - 1] if day.day <= COMMON_DAYS else 0)


def _quarter(day: date) -> int:
    return next(place for place, last in enumerate(QUARTER_DAYS) if day.day <= last)


def _length(first: date) -> int:
    following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    return (following - first).days


def _mean(values: Sequence[int]) -> int:
    return sum(values) // len(values) if values else 0
