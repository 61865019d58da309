"""Which digest is due in a time zone, and the figures of one. Pure: zone, clock and sums are arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Literal
from zoneinfo import ZoneInfo

Cadence = Literal["daily", "weekly"]

HOUR = time(8)
"""When a digest goes out, on the clock of the user's wall: with the first coffee."""
LATEST = timedelta(hours=12)
"""How late a digest may still go out (after a stop of ours): one of last week is of no use in the evening."""
CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Period:
    """What a digest covers, as instants (UTC); `first_day` in the user's calendar names it."""

    cadence: Cadence
    first_day: date
    before: datetime
    """Beginning of the period before it, which figures are compared with."""
    since: datetime
    until: datetime
    due: datetime

    @property
    def subject(self) -> str:
        """Name of the letter: one per user and period."""
        return f"digest:{self.cadence}:{self.first_day.isoformat()}"


def period_due(cadence: Cadence, zone: ZoneInfo, now: datetime) -> Period | None:
    """The period whose digest is to go out now, in this zone; None while none is."""
    today = now.astimezone(zone).date()
    days = 1 if cadence == "daily" else 7
    last_day = today if cadence == "daily" else today - timedelta(days=today.weekday())
    first_day = last_day - timedelta(days=days)
    due = _instant(last_day, HOUR, zone)
    if not due <= now < due + LATEST:
        return None
    return Period(
        cadence=cadence,
        first_day=first_day,
        before=_instant(first_day - timedelta(days=days), time(), zone),
        since=_instant(first_day, time(), zone),
        until=_instant(last_day, time(), zone),
        due=due,
    )


def _instant(day: date, clock: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, clock, zone).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Spent:
    """Dollars spent in one category, in the period and in the one before; name None: not categorized."""

    name: str | None
    now: Decimal
    before: Decimal
    unpriced: int = 0
    """Spends of the period without a price, which no sum counts."""
    unpriced_before: int = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget of the current month (dollars)."""

    name: str
    budget: Decimal
    spent: Decimal
    unpriced: int = 0

    @property
    def percent(self) -> int | None:
        """How much of it is spent, rounded down; None for a budget of 0."""
        return int(self.spent * 100 / self.budget) if self.budget else None


@dataclass(frozen=True, slots=True)
class Digest:
    """All figures of one digest."""

    period: Period
    spent: Sequence[Spent]
    budgets: Sequence[Budget]
    alerts: int
    unread: int

    @property
    def total(self) -> Decimal:
        """Dollars spent in the period."""
        return sum((each.now for each in self.spent), Decimal(0))

    @property
    def total_before(self) -> Decimal:
        """Dollars spent in the period before."""
        return sum((each.before for each in self.spent), Decimal(0))

    @property
    def change(self) -> int | None:
        """Change of the total in percent, rounded to whole ones.

        None when nothing was spent before, and when either total leaves spends out: more or less could be untrue.
        """
        if not self.total_before or any(each.unpriced or each.unpriced_before for each in self.spent):
            return None
        return int(((self.total / self.total_before - 1) * 100).to_integral_value())

    @property
    def unpriced(self) -> int:
        """Spends without a price, which no sum counts."""
        return sum(each.unpriced for each in self.spent)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not (self.total or self.total_before or self.unpriced or self.alerts)
