"""Spending by period: which instants a user's hours, days, weeks, months and years begin at, and a row as it is told.

Pure: zone, range and clock are arguments. Hours are absolute ones (UTC), so that a clock set back makes two of them;
all longer periods begin at a local midnight of the user's zone, weeks on Monday. ClickHouse is given the instants, so
that there is one calendar only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal
from zoneinfo import ZoneInfo

from handlers.rules.money import dollars
from handlers.rules.periods import iso
from handlers.rules.prices import EXACT

Timeframe = Literal["hour", "day", "week", "month", "year"]

DEFAULT_PERIODS: Mapping[Timeframe, int] = {"hour": 48, "day": 30, "week": 12, "month": 12, "year": 5}
"""Periods that are told when nobody says from when: what a screen shows, the current one among them."""
MOST_PERIODS: Mapping[Timeframe, int] = {"hour": 32 * 24, "day": 2 * 366, "week": 10 * 53, "month": 20 * 12, "year": 50}
"""Most periods of one answer: what a chart can still show, and what one query reads without others waiting."""
EARLIEST, LATEST = datetime(1971, 1, 1, tzinfo=UTC), datetime(2199, 1, 1, tzinfo=UTC)
"""Bounds of every range: no chain is older, and no clock of ours is later."""
HOUR = timedelta(hours=1)
AVERAGE = Decimal("0.000001")
"""Places of an average (dollars), half up: as many as the tokens that people spend have."""


class Unfit(ValueError):
    """A range that is not answered; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Window:
    """A range [since, until) and the instants at which its periods begin, ascending; the first may begin before it."""

    since: datetime
    until: datetime
    starts: tuple[datetime, ...]


def window(
    timeframe: Timeframe, *, since: datetime | None, until: datetime | None, now: datetime, zone: ZoneInfo
) -> Window:
    """The range that is asked for, by default the last periods up to the end of the current one; raises Unfit."""
    until = _next(timeframe, _start(timeframe, _inside(now), zone), zone) if until is None else _inside(until)
    if since is None:
        since = _back(timeframe, _start(timeframe, until - timedelta(seconds=1), zone), zone)
    since = _inside(since)
    if since >= until:
        raise Unfit("`from` has to be earlier than `to`.")
    most = MOST_PERIODS[timeframe]
    starts: list[datetime] = []
    for start in _starts(timeframe, since, zone):
        if start >= until:
            break
        if len(starts) == most:
            raise Unfit(f"At most {most} {timeframe}s are answered at once: ask for a shorter range or longer periods.")
        starts.append(start)
    return Window(since, until, tuple(starts))


def trend(period: datetime, category_id: str, spent: Decimal, count: int, unpriced: int) -> dict[str, object]:
    """One row: dollars of what has a price; the average is of those, null when none has one."""
    priced = count - unpriced
    average = EXACT.divide(spent, Decimal(priced)).quantize(AVERAGE, ROUND_HALF_UP, EXACT) if priced else None
    return {
        "period": iso(period),
        "categoryId": category_id or None,
        "totalSpent": dollars(spent),
        "transactionCount": count,
        "avgTransaction": None if average is None else dollars(average),
        "unpriced": unpriced,
    }


def day_of(moment: datetime, zone: ZoneInfo) -> date:
    """The user's calendar day of an instant."""
    return moment.astimezone(zone).date()


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """The instant at which a day begins in the zone: where the clock leaps over midnight, the leap (UTC)."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def _inside(moment: datetime) -> datetime:
    if not EARLIEST <= moment <= LATEST:
        raise Unfit(f"Times from {EARLIEST.year} to {LATEST.year} are answered.")
    return moment


def _starts(timeframe: Timeframe, since: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Beginnings of periods from the one on that holds `since`."""
    start = _start(timeframe, since, zone)
    while True:
        yield start
        start = _next(timeframe, start, zone)


def _start(timeframe: Timeframe, moment: datetime, zone: ZoneInfo) -> datetime:
    """The beginning of the period that holds an instant."""
    if timeframe == "hour":
        return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return midnight(_first_day(timeframe, day_of(moment, zone)), zone)


def _next(timeframe: Timeframe, start: datetime, zone: ZoneInfo) -> datetime:
    if timeframe == "hour":
        return start + HOUR
    day, following = day_of(start, zone), start
    while following <= start:  # a zone may have left out a whole day
        day = _step(timeframe, day)
        following = midnight(day, zone)
    return following


def _back(timeframe: Timeframe, start: datetime, zone: ZoneInfo) -> datetime:
    """The beginning of the first of the default periods, the last of which begins at `start`."""
    count = DEFAULT_PERIODS[timeframe] - 1
    if timeframe == "hour":
        return start - count * HOUR
    day = _first_day(timeframe, day_of(start, zone))
    match timeframe:
        case "day" | "week":
            day -= timedelta(days=count * (7 if timeframe == "week" else 1))
        case "month":
            months = day.year * 12 + day.month - 1 - count
            day = date(months // 12, months % 12 + 1, 1)
        case "year":
            day = date(day.year - count, 1, 1)
    return midnight(day, zone)


def _first_day(timeframe: Timeframe, day: date) -> date:
    match timeframe:
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "year":
            return day.replace(month=1, day=1)
    return day


def _step(timeframe: Timeframe, day: date) -> date:
    """The first day of the next period, given the first of one."""
    match timeframe:
        case "week":
            return day + timedelta(days=7)
        case "month":
            return date(day.year + day.month // 12, day.month % 12 + 1, 1)
        case "year":
            return date(day.year + 1, 1, 1)
    return day + timedelta(days=1)
