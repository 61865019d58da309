"""A month's spending against a budget in dollars. Pure: figures, month and clock are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Literal

from handlers.rules.budget_impact import Status
from handlers.rules.calendar import DAY, Month
from handlers.rules.money import dollars
from handlers.rules.periods import iso

CENT = Decimal("0.01")
RATIO = Decimal("0.000001")
WARNING = Decimal("0.8")
"""Utilization above which a budget is a warning; above 1 it is over."""

Scope = Literal["category", "total"]


@dataclass(frozen=True, slots=True)
class Figure:
    """What was spent of one budget in one month: dollars, and how many amounts had no price."""

    spent: Decimal = Decimal(0)
    unpriced: int = 0

    def plus(self, usd: Decimal | None) -> Figure:
        """With one more amount; one without a price is counted, not guessed."""
        return Figure(self.spent, self.unpriced + 1) if usd is None else Figure(self.spent + usd, self.unpriced)

    def minus(self, usd: Decimal | None) -> Figure:
        """Without one amount that was counted."""
        return Figure(self.spent, self.unpriced - 1) if usd is None else Figure(self.spent - usd, self.unpriced)


NOTHING = Figure()


@dataclass(frozen=True, slots=True)
class Pace:
    """How a month usually goes (month_profile.py): the part of its spending that is done by now, and all of it."""

    done: Decimal
    """0 to 1."""
    typical: Decimal
    """Dollars."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A monthly budget in dollars. 0 is a budget: nothing may be spent. `category_id` is None for the total."""

    scope: Scope
    category_id: str | None
    name: str
    amount: Decimal


def status(spent: Decimal, budget: Decimal) -> Status:
    """Healthy to 80 %, warning to 100 %, over_budget above; of a budget of 0 anything is too much."""
    if spent > budget:
        return "over_budget"
    return "warning" if spent > budget * WARNING else "healthy"


def utilization(spent: Decimal, budget: Decimal) -> str | None:
    """Spent / budget rounded half up to six places; None where the budget is 0."""
    if not budget:
        return None
    text = f"{(spent / budget).quantize(RATIO, ROUND_HALF_UP):f}".rstrip("0").rstrip(".")
    return text or "0"


def projected(spent: Decimal, month: Month, now: datetime, pace: Pace | None = None) -> Decimal:
    """What the month will have cost if spending goes on as it did (dollars); its first day counts as a whole one.

    With a pace, what usually still comes is added to what was spent: so much of a month that lies between a typical
    one and this one at its own pace, the nearer to this one the more of it is done.
    """
    if pace is not None:
        left = 1 - pace.done
        return spent + left * (left * pace.typical + spent)
    elapsed = min(max(now - month.start, DAY), month.length)
    return spent * Decimal(month.length // timedelta(seconds=1)) / Decimal(elapsed // timedelta(seconds=1))


def safe_per_day(spent: Decimal, budget: Decimal, month: Month, now: datetime) -> Decimal:
    """What may be spent each day that is left without passing the budget (dollars, rounded down to cents)."""
    return (max(Decimal(0), budget - spent) / month.days_left(now)).quantize(CENT, ROUND_DOWN)


def overrun(spent: Decimal, budget: Decimal, month: Month, now: datetime, pace: Pace | None = None) -> Decimal:
    """Dollars over the budget at the month's end at this pace (rounded to cents), 0 when it holds."""
    return max(Decimal(0), projected(spent, month, now, pace) - budget).quantize(CENT, ROUND_HALF_UP)


def month_impact(
    budget: Budget, before: Figure, after: Figure, *, month: Month, now: datetime, pace: Pace | None = None
) -> dict[str, object]:
    """The `budgetImpact` entry of scope category or total, in dollars."""
    return state(budget, after, month) | {
        "spentBefore": dollars(before.spent),
        "spentAfter": dollars(after.spent),
        "safeToSpendPerDay": dollars(safe_per_day(after.spent, budget.amount, month, now)),
        "projectedOverrun": dollars(overrun(after.spent, budget.amount, month, now, pace)),
    }


def state(budget: Budget, figure: Figure, month: Month) -> dict[str, object]:
    """What an impact and a budget of the snapshot have in common: nothing in it depends on the clock."""
    return {
        "scope": budget.scope,
        "categoryId": budget.category_id,
        "name": budget.name,
        "periodStart": iso(month.start),
        "periodEnd": iso(month.end),
        "budget": dollars(budget.amount),
        "remaining": dollars(budget.amount - figure.spent),
        "utilization": utilization(figure.spent, budget.amount),
        "status": status(figure.spent, budget.amount),
        "unpriced": figure.unpriced,
    }


def month_state(budget: Budget, figure: Figure, month: Month) -> dict[str, object]:
    """An entry of `budgets` in the snapshot and in `budget_update`."""
    return state(budget, figure, month) | {"spent": dollars(figure.spent)}
