"""The savings block: goals together, and what is worth knowing of them, with its figures. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from decimal import ROUND_CEILING, Decimal

from handlers.rules.goals import days_remaining, on_track, resource
from handlers.rules.money import dollars
from handlers.rules.prices import EXACT
from handlers.rules.wire import ratio
from store.goals import GoalRow

CENT = Decimal("0.01")


def block(goals: Sequence[GoalRow], today: date) -> dict[str, object]:
    """`savings` of CONTRACT for one user's active goals."""
    return {
        "totalBalance": dollars(_sum(goal.current for goal in goals)),
        "totalYield": dollars(_sum(goal.yield_earned or Decimal(0) for goal in goals)),
        "goalsProgress": [resource(goal, today) for goal in goals],
        "completedGoals": sum(goal.completed_at is not None for goal in goals),
        "averageAPY": average_apy(goals),
        "unpriced": sum(goal.unpriced for goal in goals),
    }


def average_apy(goals: Iterable[GoalRow]) -> str | None:
    """APY of the goals that have one, weighted by what is in them; None where nothing is."""
    earning = [(goal.current, goal.apy) for goal in goals if goal.apy is not None and goal.current > 0]
    whole = _sum(value for value, _ in earning)
    if whole == 0:
        return None
    weighted = _sum(EXACT.multiply(value, apy) for value, apy in earning)
    return ratio(EXACT.divide(weighted, whole))


def insights(goals: Sequence[GoalRow], today: date) -> list[dict[str, object]]:
    """What is worth knowing, highest priority first."""
    found = [each for goal in goals for each in _about(goal, today)]
    if not goals:
        found = [_insight(40, "No savings goal yet", "Set a goal to see how far you are.", {}, ["create_goal"])]
    return sorted(found, key=lambda each: -int(str(each["priority"])))


def needed_per_day(goal: GoalRow, today: date) -> Decimal | None:
    """Dollars a day that would meet the goal in time, up to the next cent; None without a date or days left."""
    left = days_remaining(goal, today)
    if not left:
        return None
    missing = max(EXACT.subtract(goal.target, goal.current), Decimal(0))
    return EXACT.divide(missing, Decimal(left)).quantize(CENT, ROUND_CEILING, EXACT)


def _about(goal: GoalRow, today: date) -> list[dict[str, object]]:
    found = []
    missing = dollars(max(EXACT.subtract(goal.target, goal.current), Decimal(0)))
    facts: dict[str, object] = {"goalId": goal.goal_id, "missing": missing}
    pace = needed_per_day(goal, today)
    if goal.completed_at is not None:
        body = f"{goal.name} is completed."
        found.append(_insight(50, "Goal completed", body, facts, ["create_goal"]))
    elif goal.target_date is not None and goal.target_date <= today:
        body = f"{goal.name} is due and ${missing} are missing."
        found.append(_insight(90, "Goal is due", body, facts, ["edit_goal"]))
    elif on_track(goal, today) is False and pace is not None:
        facts |= {"neededPerDay": dollars(pace), "daysRemaining": days_remaining(goal, today)}
        body = f"{goal.name} needs ${dollars(pace)} a day from now on."
        found.append(_insight(80, "Goal is behind", body, facts, ["edit_goal", "fund_goal"]))
    elif goal.target_date is None:
        found.append(
            _insight(20, "Goal without a date", f"Give {goal.name} a date to see its pace.", facts, ["edit_goal"])
        )
    if goal.unpriced:
        body = f"{goal.unpriced} amounts of {goal.name} have no price and are not counted."
        found.append(_insight(60, "Amounts without a price", body, facts | {"unpriced": goal.unpriced}, []))
    return found


def _insight(priority: int, title: str, body: str, figures: dict[str, object], actions: list[str]) -> dict[str, object]:
    return {
        "kind": "savings",
        "priority": priority,
        "title": title,
        "body": body,
        "figures": figures,
        "actions": actions,
    }


def _sum(values: Iterable[Decimal]) -> Decimal:
    total = Decimal(0)
    for value in values:
        total = EXACT.add(total, value)
    return total
