"""A forecast as it is told: predictions from tomorrow on, who made them, what they mean for the month. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal, localcontext
from zoneinfo import ZoneInfo

from handlers.rules.calendar import DAY, Month
from handlers.rules.forecast import CENT, PRECISION, REST, ZERO, Forecast, Part, Series, forecast
from handlers.rules.forecast_advice import Outlook, recommendations
from handlers.rules.money import dollars
from handlers.rules.month_budget import Budget

RECENT_DAYS = 28
"""Days whose average stands for a category that is too small to be forecast on its own."""


@dataclass(frozen=True, slots=True)
class Past:
    """A user's days: dollars by category from `first` to yesterday, what today has so far, and what has no price."""

    first: date
    history: Mapping[str, Series]
    today: Mapping[str, Decimal]
    unpriced: int


def foreseen(
    past: Past, budgets: Sequence[Budget], days: int, *, month: Month, zone: ZoneInfo, now: datetime
) -> dict[str, object]:
    """The forecast of the `days` days after today, and recommendations for the month that `now` lies in."""
    with localcontext(prec=PRECISION):
        return _foreseen(past, budgets, days, month=month, zone=zone, now=now)


def _foreseen(
    past: Past, budgets: Sequence[Budget], days: int, *, month: Month, zone: ZoneInfo, now: datetime
) -> dict[str, object]:
    today = now.astimezone(zone).date()
    left = ((month.end - DAY / 2).astimezone(zone).date() - today).days + 1
    made = forecast(past.history, past.first, max(days + 1, left))
    outlooks = _outlooks(past, made, today, left)
    return {
        "predictions": [
            {"date": p.day.isoformat(), "amount": dollars(p.amount), "low": dollars(p.low), "high": dollars(p.high)}
            for p in made.predictions[1 : days + 1]
        ],
        "confidence": f"{made.confidence:f}",
        "basis": {
            "historyDays": made.history_days,
            "tests": made.tests,
            "reason": made.reason,
            "unpriced": past.unpriced,
        },
        "byCategory": [_part(part, days) for part in made.parts],
        "recommendations": recommendations(budgets, outlooks, past.history, month=month, now=now),
    }


def _part(part: Part, days: int) -> dict[str, object]:
    amount = sum(part.amounts[1 : days + 1], ZERO).quantize(CENT, ROUND_HALF_UP)
    return {
        "categoryId": None if part.key in {"", REST} else part.key,
        "isRest": part.key == REST,
        "method": part.method,
        "amount": dollars(amount),
    }


def _outlooks(past: Past, made: Forecast, today: date, left: int) -> dict[str | None, Outlook]:
    """The month of every category, and of all together, with what is expected from today to its end."""
    gone = today.day - 1
    expected = {part.key: part.amounts[:left] for part in made.parts}
    found: dict[str | None, Outlook] = {}
    for category in {*past.history, *past.today}:
        series = past.history.get(category, ())
        recent = series[-RECENT_DAYS:]
        usual = sum(recent, ZERO) / len(recent) if recent else ZERO
        before = sum(series[-gone:], ZERO) if gone else ZERO
        found[category] = Outlook(before, past.today.get(category, ZERO), expected.get(category, (usual,) * left))
    every = [sum(day, ZERO) for day in zip(*expected.values(), strict=True)] or [ZERO] * left
    total_before = sum((each.before for each in found.values()), ZERO)
    found[None] = Outlook(total_before, sum(past.today.values(), ZERO), every)
    return found
