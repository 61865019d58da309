"""How buckets are used: which one most, which one too much, which one not at all. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Literal

from handlers.rules.budget_impact import Status, status
from handlers.rules.periods import is_due
from store.records import BucketRow
from store.usage import Activity, Period, Spent

ABANDONED_AFTER = timedelta(days=30)
"""Time without a transaction after which money in a bucket counts as forgotten: the chain's own month."""
TREND_MONTHS = 3
"""Months that are compared with as many before them."""
TREND_PERCENT = 10
"""Change (%) from which spending counts as rising or falling."""
PERCENT = Decimal("0.01")

Trend = Literal["increasing", "decreasing", "stable"]


@dataclass(frozen=True, slots=True)
class Usage:
    """One bucket: its row, what was ever done with it (None: nothing), and the dollars that it holds.

    `unpriced` counts what it holds without a known price, beside the dollars.
    """

    bucket: BucketRow
    activity: Activity | None
    balance: Decimal
    unpriced: int
    now: datetime

    @property
    def spent_now(self) -> int:
        """The contract's counter in the period at hand; 0 once that is over, though the contract resets it later."""
        start = self.bucket.period_start
        return 0 if start is None or is_due(start, self.now) else self.bucket.spent

    @property
    def utilization(self) -> Decimal:
        """Percent of the limit that is spent, two places; 0 without a limit."""
        limit = self.bucket.monthly_limit
        return (Decimal(100 * self.spent_now) / limit).quantize(PERCENT) if limit else Decimal(0)

    @property
    def is_over(self) -> bool:
        """Whether more than the limit is spent."""
        return self.status == "over_budget"

    @property
    def status(self) -> Status:
        """Healthy to 80 % of the limit, a warning to 100 %, over budget above."""
        return status(self.spent_now, self.bucket.monthly_limit)

    @property
    def spent(self) -> Decimal:
        """Dollars ever spent."""
        return self.activity.spent if self.activity else Decimal(0)

    @property
    def funded(self) -> Decimal:
        """Dollars ever put in."""
        return self.activity.funded if self.activity else Decimal(0)

    @property
    def transactions(self) -> int:
        """Transactions that touched it."""
        return self.activity.transactions if self.activity else 0

    @property
    def is_abandoned(self) -> bool:
        """Whether it holds money that nothing has touched for `ABANDONED_AFTER`."""
        last = self.activity.last if self.activity else None
        return (self.balance > 0 or self.unpriced > 0) and (last is None or last < self.now - ABANDONED_AFTER)


def most(usages: Iterable[Usage], figure: Callable[[Usage], Decimal | int]) -> Usage | None:
    """The one with the highest figure, the first by id of several; None where all are 0."""
    ranked = sorted(usages, key=lambda usage: (-figure(usage), usage.bucket.bucket_id))
    return ranked[0] if ranked and figure(ranked[0]) > 0 else None


def adherence(usages: Iterable[Usage]) -> Decimal:
    """Percent of the active buckets with a limit that keep it; 100 where none has one."""
    limited = [usage for usage in usages if usage.bucket.active and usage.bucket.monthly_limit]
    kept = sum(not usage.is_over for usage in limited)
    return (Decimal(100 * kept) / len(limited)).quantize(PERCENT) if limited else Decimal(100)


def mean(figures: Sequence[Decimal]) -> Decimal:
    """The average, two places; 0 of nothing."""
    return (sum(figures, Decimal(0)) / len(figures)).quantize(PERCENT) if figures else Decimal(0)


def trend(figures: Sequence[Decimal]) -> Trend:
    """Whether the last months' average is well above or below that of as many months before; oldest first."""
    recent, older = figures[-TREND_MONTHS:], figures[-2 * TREND_MONTHS : -TREND_MONTHS]
    if not older:
        return "stable"
    before, after = sum(older) * len(recent), sum(recent) * len(older)  # both averages, without dividing
    if after * 100 > before * (100 + TREND_PERCENT):
        return "increasing"
    return "decreasing" if after * 100 < before * (100 - TREND_PERCENT) else "stable"


def periods(period: Period, first: date, last: date) -> list[date]:
    """First days of every period from the one that holds `first` to the one that holds `last`."""
    day = _start(period, first)
    found = []
    while day <= last:
        found.append(day)
        if period == "day":
            day += timedelta(days=1)
        elif period == "month":
            day = (day + timedelta(days=31)).replace(day=1)
        else:
            day = day.replace(year=day.year + 1)
    return found


def shown(period: Period, day: date) -> str:
    """A period's name: `2026-11-24`, `2026-11` or `2026`."""
    return day.isoformat()[: {"day": 10, "month": 7, "year": 4}[period]]


def _start(period: Period, day: date) -> date:
    if period == "day":
        return day
    return day.replace(day=1) if period == "month" else day.replace(month=1, day=1)


def kept_by_month(months: Sequence[date], spent: Iterable[Spent], limits: dict[str, Decimal]) -> list[Decimal]:
    """Of the buckets with a limit (dollars by id), the part that stayed within it in each calendar month; 1 of none."""
    figures = {(each.bucket_id, each.period): each.spent for each in spent}
    return [
        (Decimal(sum(figures.get((key, month), 0) <= limit for key, limit in limits.items())) / len(limits)).quantize(
            Decimal("0.0001")
        )
        if limits
        else Decimal(1)
        for month in months
    ]
