"""What a user's history says: spending by period, and what it leads one to expect. Read from ClickHouse, kept in Redis.

Every answer names the block of each chain up to which everything is in it, and counts amounts without a price beside
the totals that they are missing from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import orjson

from handlers.deps import Figures
from handlers.errors import FieldError, Invalid, Unauthenticated
from handlers.rules import trends as rules
from handlers.rules.calendar import month_of
from handlers.rules.forecast import ZERO
from handlers.rules.foreseen import Past, foreseen
from handlers.rules.looks import amounts_of, looks_of
from handlers.rules.periods import iso
from handlers.rules.purse import budgets_of
from handlers.rules.trends import Timeframe, Unfit
from store import analytics, budgets, people, persistence
from store.answers import Question
from store.clickhouse import Analytics
from store.people import PersonRow
from store.persistence import Persisted
from store.records import Address

MOST_ROWS = 10_000
"""Rows of one answer: 2 MB of JSON, more than any chart shows."""
HISTORY_DAYS = 400
"""Days that a forecast looks back: a year and a month, so that last year's month is whole."""
FORECAST_ROWS = 100_000
"""Most rows of a day and a category in them: as many as there can be with a spend a day in 250 categories."""


@dataclass(frozen=True, slots=True)
class Told:
    """A finished answer: JSON text, and the tag of the state that it is an answer of."""

    body: bytes
    tag: str


async def trends(
    figures: Figures,
    user: Address,
    *,
    timeframe: Timeframe,
    categories: Sequence[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Told:
    """Spending by period and category, newest first. `categories` are ids, '' for none. Raises Invalid."""
    zone = await zone_of(figures, user)
    try:
        window = rules.window(timeframe, since=since, until=until, now=figures.deps.now(), zone=zone)
    except Unfit as error:
        raise _unfit(str(error)) from None
    wanted = None if categories is None else sorted(set(categories))

    async def make() -> Mapping[str, object]:
        rows = await analytics.trends(
            figures.analytics,
            user,
            since=window.since,
            until=window.until,
            starts=window.starts,
            categories=wanted,
            limit=MOST_ROWS + 1,
        )
        if len(rows) > MOST_ROWS:
            raise _unfit(f"This has more than {MOST_ROWS} rows: ask for a shorter range or name `categoryIds`.")
        return {
            "data": [rules.trend(row.period, row.category_id, row.usd, row.count, row.unpriced) for row in rows],
            "timeframe": timeframe,
            "timeZone": zone.key,
            "from": iso(window.since),
            "to": iso(window.until),
        }

    parameters = {
        "timeframe": timeframe,
        "zone": zone.key,
        "from": iso(window.since),
        "to": iso(window.until),
        "categories": wanted,
    }
    return await _told(figures, user, "trends", parameters, make)


async def forecast(figures: Figures, user: Address, *, days: int) -> Told:
    """Spending to be expected on each of the `days` days after today, and what it means for the month's budgets."""
    pool, now = figures.deps.pool, figures.deps.now()
    person = await _person(figures, user)
    zone, today = ZoneInfo(person.time_zone), rules.day_of(now, ZoneInfo(person.time_zone))
    rows, customs = await budgets.looks(pool, [user])
    looks = looks_of([user], rows, customs, cdn_url=figures.deps.settings.cdn_url)[user]
    held = budgets_of(amounts_of(customs).get(user, ()), person.monthly_budget, looks)

    async def make() -> Mapping[str, object]:
        past = await _daily(figures.analytics, user, today, zone)
        # Some ten milliseconds of arithmetic that the loop need not wait for.
        told = await asyncio.to_thread(foreseen, past, held, days, month=month_of(now, zone), zone=zone, now=now)
        return {**told, "timeZone": zone.key}

    parameters = {
        "days": days,
        "today": today.isoformat(),
        "zone": zone.key,
        "budgets": [[budget.category_id, budget.name, str(budget.amount)] for budget in held],
    }
    return await _told(figures, user, "forecast", parameters, make)


async def _daily(store: Analytics, user: Address, today: date, zone: ZoneInfo) -> Past:
    """A user's days up to today, by category: from the first with spending on, at most HISTORY_DAYS of them."""
    starts = [rules.midnight(today - timedelta(days=back), zone) for back in range(HISTORY_DAYS, -2, -1)]
    rows = await analytics.trends(
        store, user, since=starts[0], until=starts[-1], starts=starts[:-1], categories=None, limit=FORECAST_ROWS
    )
    days = [(rules.day_of(row.period, zone), row) for row in rows]
    first = min((day for day, _ in days), default=today)
    length = (today - first).days
    series: dict[str, list[Decimal]] = {row.category_id: [ZERO] * (length + 1) for row in rows}
    for day, row in days:
        series[row.category_id][(day - first).days] += row.usd
    return Past(
        first,
        {category: amounts[:length] for category, amounts in series.items()},
        {category: amounts[length] for category, amounts in series.items()},
        sum(row.unpriced for row in rows),
    )


async def zone_of(figures: Figures, user: Address) -> ZoneInfo:
    """The zone of a user's calendar."""
    return ZoneInfo((await _person(figures, user)).time_zone)


async def _person(figures: Figures, user: Address) -> PersonRow:
    person = await people.person(figures.deps.pool, user)
    if person is None:
        raise Unauthenticated("This account is gone; sign in again.")
    return person


async def _told(
    figures: Figures,
    user: Address,
    route: str,
    parameters: Mapping[str, object],
    make: Callable[[], Awaitable[Mapping[str, object]]],
) -> Told:
    """The answer to a question of the user's persisted version, which is read before anything it is made from.

    While that version stands, the figures stand, too, for every block that has come since: only `asOfBlock` moves on.
    """
    persisted = await persistence.persisted(figures.deps.pool, user)
    question = Question(user, persisted.version, route, parameters)

    async def made() -> bytes:
        return orjson.dumps(await make())

    body = await figures.answers.answer(question, made)
    return Told(body[:-1] + b',"asOfBlock":' + orjson.dumps(as_of(persisted)) + b"}", question.tag)


def as_of(persisted: Persisted) -> dict[str, int]:
    """`asOfBlock`: by chain id, the block up to which everything of the user's is in an answer."""
    return {str(chain_id): number for chain_id, number in sorted(persisted.as_of.items())}


def _unfit(message: str) -> Invalid:
    return Invalid(message, errors=[FieldError("/query/from", message)])
