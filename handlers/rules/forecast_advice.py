"""What a forecast means for the month's budgets, in figures: where it ends over, has room left, or grows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from handlers.rules.calendar import Month
from handlers.rules.forecast import CENT, ZERO, Series
from handlers.rules.money import dollars
from handlers.rules.month_budget import RATIO, Budget, safe_per_day

MOST = 5
"""Recommendations of one answer: more than that nobody acts on."""
SPAN_DAYS = 28
"""Days that are compared with as many before: four whole weeks, so that no weekday counts twice."""
GROWTH, GROWTH_USD = Decimal("1.25"), Decimal(20)
"""What has to have grown by, as a ratio and in dollars, to be worth a word."""
ROOM = Decimal("0.8")
"""Share of a budget below which the month's end leaves room worth moving."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """One category's (or everyone's) month: dollars before today, today so far, and expected from today to its end."""

    before: Decimal
    today: Decimal
    expected: Sequence[Decimal]

    @property
    def spent(self) -> Decimal:
        """Dollars so far."""
        return self.before + self.today

    @property
    def projected(self) -> Decimal:
        """Dollars at the month's end: today is what it is already, or what is expected of it if that is more."""
        return (self.before + max(self.today, *self.expected[:1]) + sum(self.expected[1:], ZERO)).quantize(
            CENT, ROUND_HALF_UP
        )


def recommendations(
    budgets: Iterable[Budget],
    outlooks: Mapping[str | None, Outlook],
    history: Mapping[str, Series],
    *,
    month: Month,
    now: datetime,
) -> list[dict[str, object]]:
    """The most that matters, overruns first, by dollars; `outlooks` by category, None for all of them."""
    found: list[tuple[int, Decimal, dict[str, object]]] = []
    for budget in budgets:
        outlook = outlooks.get(budget.category_id, Outlook(ZERO, ZERO, (ZERO,)))
        over = outlook.projected - budget.amount
        if over > 0:
            found.append((0, over, _over(budget, outlook, over, month, now)))
        elif budget.amount and outlook.projected < budget.amount * ROOM:
            found.append((2, -over, _room(budget, outlook, -over)))
    for category, series in history.items():
        grown = _growth(category, series)
        found += [(1, *grown)] if grown else []
    ranked = sorted(found, key=lambda each: (each[0], -each[1], str(each[2]["categoryId"])))
    return [advice for _, _, advice in ranked[:MOST]]


def _over(budget: Budget, outlook: Outlook, over: Decimal, month: Month, now: datetime) -> dict[str, object]:
    per_day = safe_per_day(outlook.spent, budget.amount, month, now)
    return {
        "kind": "over_budget",
        "categoryId": budget.category_id,
        "figures": {
            **_common(budget, outlook),
            "over": dollars(over),
            "safePerDay": dollars(per_day),
        },
        "reasoning": f"{budget.name}: the month is expected to end at {dollars(outlook.projected)} of "
        f"{dollars(budget.amount)}; {dollars(per_day)} a day keeps it.",
    }


def _room(budget: Budget, outlook: Outlook, room: Decimal) -> dict[str, object]:
    return {
        "kind": "room",
        "categoryId": budget.category_id,
        "figures": {**_common(budget, outlook), "room": dollars(room)},
        "reasoning": f"{budget.name}: {dollars(room)} of {dollars(budget.amount)} are not expected to be needed.",
    }


def _growth(category: str, series: Series) -> tuple[Decimal, dict[str, object]] | None:
    if len(series) < 2 * SPAN_DAYS:
        return None
    last, before = sum(series[-SPAN_DAYS:], ZERO), sum(series[-2 * SPAN_DAYS : -SPAN_DAYS], ZERO)
    if not before or last < before * GROWTH or last - before < GROWTH_USD:
        return None
    change = (last / before - 1).quantize(RATIO, ROUND_HALF_UP)
    return last - before, {
        "kind": "rising",
        "categoryId": category or None,
        "figures": {
            "last28Days": dollars(last),
            "28DaysBefore": dollars(before),
            "more": dollars(last - before),
            "change": f"{change:f}",
        },
        "reasoning": f"{dollars(last)} in the last {SPAN_DAYS} days, {dollars(before)} in the {SPAN_DAYS} before.",
    }


def _common(budget: Budget, outlook: Outlook) -> dict[str, object]:
    return {
        "budget": dollars(budget.amount),
        "spent": dollars(outlook.spent),
        "projected": dollars(outlook.projected),
    }
