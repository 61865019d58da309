"""Learns once a month how the spending of users with a budget spreads over their months: what projections go by."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

from handlers.deps import Deps
from handlers.rules.calendar import month_of
from handlers.rules.month_profile import MOST_MONTHS, learned
from handlers.rules.trends import midnight
from store import month_profiles
from store.records import Address


async def learn(deps: Deps, *, limit: int) -> int:
    """Learn from the months of at most `limit` users whose month has begun; returns how many were due."""
    now = deps.now()
    due = await month_profiles.due(deps.pool, now, limit=limit)
    asked = {user: _span(ZoneInfo(zone), now) for user, zone in due}
    days = await month_profiles.days(deps.pool, [_question(user, zone, *asked[user]) for user, zone in due])
    rows = [(user, until, learned(days.get(user, {}), until)) for user, (_, until) in asked.items()]
    await month_profiles.save(deps.pool, rows)
    return len(due)


def _span(zone: ZoneInfo, now: datetime) -> tuple[date, date]:
    """First days of the oldest month that is read, since history may begin in it, and of the open one."""
    until = month_of(now, zone).start.astimezone(zone).date()
    months = until.year * 12 + until.month - 1 - MOST_MONTHS - 1
    return date(months // 12, months % 12 + 1, 1), until


def _question(user: Address, zone: str, since: date, until: date) -> tuple[Address, str, datetime, datetime]:
    calendar = ZoneInfo(zone)
    return user, zone, midnight(since, calendar), midnight(until, calendar)
