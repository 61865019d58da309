"""Digests: who is to get one now, and what it tells; jobs/email.py sends it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, get_args
from zoneinfo import ZoneInfo

from handlers.rules.calendar import month_of
from handlers.rules.digest import Budget, Cadence, Digest, Period, Spent, period_due
from jobs.job import Tools
from store import mails, notifications
from store.mails import Addressee
from store.postgres import frozen

BATCH = 1000
"""Users whose letters one statement asks for."""
SPAN: dict[Cadence, str] = {"daily": "day", "weekly": "week"}


async def record_due(tools: Tools) -> int:
    """Ask for every digest that is due in its user's zone, once per user and period; returns how many."""
    if tools.mail is None:
        return 0
    now, asked = tools.deps.now(), 0
    for cadence in get_args(Cadence):
        for zone in await mails.digest_zones(tools.deps.pool, cadence):
            period = period_due(cadence, ZoneInfo(zone), now)
            if period is not None:
                asked += await _record(tools, period, zone, now)
    return asked


async def _record(tools: Tools, period: Period, zone: str, now: datetime) -> int:
    facts = {
        "cadence": period.cadence,
        "firstDay": period.first_day.isoformat(),
        "before": period.before.isoformat(),
        "since": period.since.isoformat(),
        "until": period.until.isoformat(),
    }
    asked = 0
    while count := await mails.record_digests(
        tools.deps.pool, period.cadence, zone, subject=period.subject, facts=facts, at=now, limit=BATCH
    ):
        asked += count
    return asked


async def figures(tools: Tools, person: Addressee, period: Period) -> Digest:
    """All figures of a user's digest, as of one instant."""
    month = month_of(tools.deps.now(), ZoneInfo(person.time_zone))
    async with frozen(tools.deps.pool) as tx:
        spent = await mails.spent(tx, person.user, before=period.before, since=period.since, until=period.until)
        budgets = await mails.budgets(tx, person.user, since=month.start, until=month.end)
        alerts = await mails.alerts(tx, person.user, since=period.since, until=period.until)
        unread = (await notifications.unread(tx, [person.user]))[person.user]
    return Digest(
        period=period,
        spent=[Spent(each.name, each.now, each.before, each.unpriced, each.unpriced_before) for each in spent],
        budgets=[Budget(each.name, each.budget, each.spent, each.unpriced) for each in budgets],
        alerts=alerts,
        unread=unread,
    )


def words(digest: Digest) -> dict[str, Any]:
    """What the template of a digest is filled in with."""
    period, span = digest.period, SPAN[digest.period.cadence]
    last = period.first_day + timedelta(days=0 if period.cadence == "daily" else 6)
    dates = f"{last:%d %B %Y}" if last == period.first_day else f"{period.first_day:%d %B} – {last:%d %B %Y}"
    return {
        "digest": digest,
        "span": span,
        "dates": dates,
        "comparison": _comparison(digest, span),
        "alerts": _alerts(digest, span),
    }


def _comparison(digest: Digest, span: str) -> str:
    if digest.change is None:
        return ""
    if digest.change == 0:
        return f", as much as the {span} before"
    return f", {abs(digest.change)} % {'more' if digest.change > 0 else 'less'} than the {span} before"


def _alerts(digest: Digest, span: str) -> str:
    alerts = f"{digest.alerts} budget alert{'' if digest.alerts == 1 else 's'} this {span}"
    unread = f"{digest.unread} notification{'' if digest.unread == 1 else 's'} not read yet"
    return f"{alerts}, {unread}."
