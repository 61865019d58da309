"""What a user will probably spend, by day: seasonal naive and damped smoothing, judged on the user's own past. Pure.

A series is dollars by day, the last one yesterday. Each category is forecast by the method that would have been
nearest on it before (rolling origin: forecast from a past day, compare with what came). The same back-test gives the
interval, in which four of five days lay, and the confidence. All of it is Decimal arithmetic: no float is near.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from types import MappingProxyType
from typing import Literal

Series = Sequence[Decimal]
Method = Literal["weekday", "damped", "month_day", "mean"]

WEEK = 7
WEEKS_BACK = 4
"""Weeks whose same weekday is averaged: one alone is noise, more forget that habits change."""
ALPHA, BETA, PHI = Decimal("0.3"), Decimal("0.1"), Decimal("0.9")
"""Smoothing of the weekly level, of its trend, and how fast the trend dies: what damped methods commonly begin with."""
MONTHS_BACK = 3
"""Months whose same day is averaged; with less history a rent on the first can't be told from chance."""
MONTHLY_DAYS = 93
"""Days that hold MONTHS_BACK whole months, whichever they are."""
TRAINING_DAYS = 28
"""Least history that a tested forecast is made from."""
HORIZON_DAYS = 28
"""How far back-tests look: a month of weekdays."""
ORIGINS = 8
"""Back-tests, a week apart: with all of them the confidence is what it says."""
TRIED_FROM_DAYS = TRAINING_DAYS + WEEK
"""History from which on a forecast is tested."""
SERIES_MAX = 8
"""Categories that are forecast each on its own, largest first; the rest is one."""
INTERVAL = (Decimal("0.1"), Decimal("0.9"))
CENT, RATIO = Decimal("0.01"), Decimal("0.01")
PRECISION = 60
"""Digits of the arithmetic: no sum of ClickHouse's amounts has as many before its cents."""
ZERO = Decimal(0)
REST = "rest"
"""Stands for all categories beyond SERIES_MAX."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One day: dollars expected, and between which four of five such days lay."""

    day: date
    amount: Decimal
    low: Decimal
    high: Decimal


@dataclass(frozen=True, slots=True)
class Part:
    """A category's share of the forecast: the method that knew it best, and dollars by day."""

    key: str
    method: Method
    amounts: tuple[Decimal, ...]


@dataclass(frozen=True, slots=True)
class Forecast:
    """Predictions from the day after the history on; confidence 0 to 1, with its reason."""

    predictions: tuple[Prediction, ...]
    parts: tuple[Part, ...]
    confidence: Decimal
    history_days: int
    tests: int
    reason: str


def forecast(history: Mapping[str, Series], first: date, days: int) -> Forecast:
    """Forecast `days` days after the history, whose series (by category) all begin on `first`."""
    with localcontext(prec=PRECISION):
        length = max((len(series) for series in history.values()), default=0)
        largest = _largest(history)
        if length < TRIED_FROM_DAYS:
            return _warming_up(largest, first, days, length)
        origins = _origins(length)
        judged = {key: _best(series, first, origins) for key, series in largest.items()}
        parts = tuple(
            Part(key, method, tuple(METHODS[method](largest[key], first, days))) for key, method in judged.items()
        )
        errors, confidence = _tested(largest, judged, first, origins)
        reason = f"Tested {len(origins)} times on {length} days of history."
        return Forecast(_predictions(parts, first, length, errors), parts, confidence, length, len(origins), reason)


# Methods: a series, the day it begins on, and how many days to go on -----------------------------------------------


def weekday(series: Series, _first: date, days: int) -> list[Decimal]:
    """Each day as the same weekday of the last weeks was."""
    end = len(series)
    means = []
    for offset in range(WEEK):
        same = [series[end - WEEK * k + offset] for k in range(1, WEEKS_BACK + 1) if end - WEEK * k + offset >= 0]
        means.append(sum(same, ZERO) / len(same) if same else ZERO)
    return [means[h % WEEK] for h in range(days)]


def damped(series: Series, _first: date, days: int) -> list[Decimal]:
    """Weekly totals smoothed with a trend that dies away, spread over the week as the last weeks were."""
    weeks = [sum(series[at : at + WEEK], ZERO) for at in range(len(series) % WEEK, len(series), WEEK)]
    level, trend = weeks[0], ZERO
    for total in weeks[1:]:
        before = level
        level = ALPHA * total + (1 - ALPHA) * (level + PHI * trend)
        trend = BETA * (level - before) + (1 - BETA) * PHI * trend
    shares = _shares(series)
    made: list[Decimal] = []
    ahead, power = ZERO, Decimal(1)
    for _ in range(0, days, WEEK):
        power *= PHI
        ahead += power
        week = max(ZERO, level + ahead * trend)
        made += [week * share for share in shares]
    return made[:days]


def month_day(series: Series, first: date, days: int) -> list[Decimal]:
    """Each day as the same day of the last months was; a short month's last day stands for those it lacks."""
    made = []
    for h in range(days):
        day = first + timedelta(days=len(series) + h)
        before = [_months_before(day, k) for k in range(1, MONTHS_BACK + 3)]
        places = [place for each in before if 0 <= (place := (each - first).days) < len(series)][:MONTHS_BACK]
        made.append(sum((series[place] for place in places), ZERO) / len(places) if places else ZERO)
    return made


def mean(series: Series, _first: date, days: int) -> list[Decimal]:
    """Every day as the average one."""
    return [sum(series, ZERO) / len(series)] * days if series else [ZERO] * days


METHODS: Mapping[Method, Callable[[Series, date, int], list[Decimal]]] = MappingProxyType(
    {"weekday": weekday, "damped": damped, "month_day": month_day, "mean": mean}
)


def _shares(series: Series) -> list[Decimal]:
    """How a week's spending is spread over its days, the first being the one after the series."""
    end, weeks = len(series), min(2 * WEEKS_BACK, len(series) // WEEK)
    sums = [sum((series[end - WEEK * k + offset] for k in range(1, weeks + 1)), ZERO) for offset in range(WEEK)]
    total = sum(sums, ZERO)
    return [each / total for each in sums] if total else [Decimal(1) / WEEK] * WEEK


def _months_before(day: date, count: int) -> date:
    month = day.year * 12 + day.month - 1 - count
    year, number = divmod(month, 12)
    following = date(year + (number + 1) // 12, (number + 1) % 12 + 1, 1)
    last = (following - timedelta(days=1)).day
    return date(year, number + 1, min(day.day, last))


# Back-tests --------------------------------------------------------------------------------------------------------


def _origins(length: int) -> list[int]:
    """Where back-tests stand, newest first: as many days were known there."""
    return [length - WEEK * k for k in range(1, ORIGINS + 1) if length - WEEK * k >= TRAINING_DAYS]


def _best(series: Series, first: date, origins: Sequence[int]) -> Method:
    """The method whose squared errors on days that came were least: of two as good the first."""
    methods: list[Method] = ["damped", "weekday"]
    monthly = [origin for origin in origins if origin >= MONTHLY_DAYS]
    if len(monthly) >= ORIGINS // 2:  # methods are compared on the same days
        methods, origins = [*methods, "month_day"], monthly
    return min(methods, key=lambda method: sum((_missed(series, first, method, o) for o in origins), ZERO))


def _missed(series: Series, first: date, method: Method, origin: int) -> Decimal:
    came = series[origin : origin + HORIZON_DAYS]
    made = METHODS[method](series[:origin], first, len(came))
    return sum(((a - b) ** 2 for a, b in zip(came, made, strict=True)), ZERO)


def _tested(
    history: Mapping[str, Series], judged: Mapping[str, Method], first: date, origins: Sequence[int]
) -> tuple[list[Decimal], Decimal]:
    """Errors of the total by day (what came less what was forecast), ascending; and the confidence that they leave."""
    errors: list[Decimal] = []
    missed, spent = ZERO, ZERO
    for origin in origins:
        came, made = _totals(history, judged, first, origin)
        errors += [a - b for a, b in zip(came, made, strict=True)]
        for at in range(0, len(came), WEEK):
            missed += abs(sum(came[at : at + WEEK], ZERO) - sum(made[at : at + WEEK], ZERO))
            spent += sum(came[at : at + WEEK], ZERO)
    right = max(ZERO, 1 - missed / spent) if spent else ZERO
    confidence = right * min(len(origins), ORIGINS) / ORIGINS
    return sorted(errors), confidence.quantize(RATIO, ROUND_HALF_UP)


def _totals(
    history: Mapping[str, Series], judged: Mapping[str, Method], first: date, origin: int
) -> tuple[list[Decimal], list[Decimal]]:
    came = [sum(day, ZERO) for day in zip(*(s[origin : origin + HORIZON_DAYS] for s in history.values()), strict=True)]
    parts = [METHODS[judged[key]](series[:origin], first, len(came)) for key, series in history.items()]
    return came, [sum(day, ZERO) for day in zip(*parts, strict=True)]


def _predictions(parts: Sequence[Part], first: date, length: int, errors: Sequence[Decimal]) -> tuple[Prediction, ...]:
    below, above = (errors[int(part * (len(errors) - 1))] for part in INTERVAL)
    made = []
    for h, amounts in enumerate(zip(*(part.amounts for part in parts), strict=True)):
        amount = sum(amounts, ZERO)
        low, high = max(ZERO, min(amount, amount + below)), max(amount, amount + above)
        made.append(Prediction(first + timedelta(days=length + h), _cents(amount), _cents(low), _cents(high)))
    return tuple(made)


def _warming_up(history: Mapping[str, Series], first: date, days: int, length: int) -> Forecast:
    """Too little to be tested: the average day, between nothing and the dearest day, and no confidence."""
    if not any(any(series) for series in history.values()):
        reason = "Nothing with a price was spent before today: there is nothing to go by."
        return Forecast((), (), ZERO, length, 0, reason)
    parts = tuple(Part(key, "mean", tuple(mean(series, first, days))) for key, series in history.items())
    dearest = max(sum(day, ZERO) for day in zip(*history.values(), strict=True))
    amount = sum((part.amounts[0] for part in parts), ZERO) if days else ZERO
    made = [
        Prediction(first + timedelta(days=length + h), _cents(amount), _cents(ZERO), _cents(dearest))
        for h in range(days)
    ]
    reason = f"Only {length} days of history: an average, not tested. From {TRIED_FROM_DAYS} days on it is."
    return Forecast(tuple(made), parts, ZERO, length, 0, reason)


def _largest(history: Mapping[str, Series]) -> dict[str, Series]:
    """The categories with the most money, each on its own, and all others as one."""
    ranked = sorted(history, key=lambda key: (-sum(history[key], ZERO), key))
    found = {key: history[key] for key in ranked[:SERIES_MAX]}
    if rest := ranked[SERIES_MAX:]:
        found[REST] = [sum(day, ZERO) for day in zip(*(history[key] for key in rest), strict=True)]
    return found


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(CENT, ROUND_HALF_UP)
