"""Evenings: what investments earned on each user's day, told once when it comes to its evening.

A day has one row (store/earnings.py), written in the transaction that tells of it: two workers, or a second run, tell
nothing twice. A worker that was away in the evening tells today's when it is back; a day that is over is not told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from zoneinfo import ZoneInfo

import structlog

from handlers.deps import Deps
from handlers.events import YieldUpdate
from handlers.one_by_one import one_by_one
from handlers.rules import earnings as rules
from handlers.rules import wire
from handlers.rules.inbox import Inbox
from handlers.rules.prices import Prices
from handlers.rules.summary import Total
from handlers.rules.trends import midnight
from handlers.rules.yields import priced, totals
from handlers.yields import update_body
from store import earnings, log, notifications, prices, pushes, yields
from store.earnings import DayRow, Evening
from store.log import Counter
from store.postgres import Pool, Tx, is_passing
from store.records import Address, Draft, Frame
from store.yields import Position

logger = structlog.get_logger(__name__)


async def tell_evenings(deps: Deps, *, limit: int) -> int:
    """Look at the days of at most `limit` users that have come to their evening; returns at how many."""
    now = deps.now()
    due = await earnings.evenings(deps.pool, now, hour=deps.settings.yield_evening_hour, limit=limit)
    if not due:
        return 0
    try:
        silent = await _settle_silent(deps, due, now)
    except Exception as error:  # one user's rows must not silence everyone: each is looked at alone
        if is_passing(error):
            raise
        logger.exception("evenings_not_settled_at_once", users=len(due))
        silent = frozenset()
    turns = [(each.user, partial(_tell, deps, each, now)) for each in due if each.user not in silent]
    return len(silent) + await one_by_one(deps, turns, name="tell_evenings")


async def _settle_silent(deps: Deps, due: Sequence[Evening], now: datetime) -> frozenset[Address]:
    """Record the days of those who have nothing to be told, all at once."""
    newest = Prices(await prices.latest(deps.pool))
    held = await _positions(deps.pool, deps, [each.user for each in due], newest)
    days = await _days(deps.pool, deps, due, held, newest, now)
    silent = [each for each in due if rules.in_cents(days[each.user].usd) == 0]
    await earnings.record(deps.pool, [_row(each, days[each.user]) for each in silent], at=now)
    return frozenset(each.user for each in silent)


async def _tell(
    deps: Deps, evening: Evening, now: datetime, tx: Tx, counters: Mapping[Address, Counter]
) -> list[Frame]:
    # Figures are read again under the user's lock: no block can move a position between them and the telling.
    newest = Prices(await prices.latest(tx))
    held = await _positions(tx, deps, [evening.user], newest)
    today = (await _days(tx, deps, [evening], held, newest, now))[evening.user]
    first = await earnings.record(tx, [_row(evening, today)], at=now)
    if not first or rules.in_cents(today.usd) == 0:
        return []
    inbox = await _inbox(tx, evening.user)
    mine = held.get(evening.user, ())
    total = totals(mine).earned
    told = inbox.add(rules.notice(evening.user, evening.day, today, total_yield=total, at=now), None)
    await notifications.record(tx, inbox.kept)
    draft = _update(deps, evening, mine, newest)
    frames = await log.append(tx, counters, [draft, *told], at=now)
    await pushes.record(tx, inbox.intents, at=now, hold_s=deps.settings.push_hold_s)
    return frames


def _update(deps: Deps, evening: Evening, positions: Sequence[Position], newest: Prices) -> Draft:
    """`yield_update` with every open position as it is, which is what the notification is about."""
    shown = [wire.position(one, chain=deps.chains[one.chain_id], prices=newest) for one in positions if one.is_open]
    return Draft(
        user=evening.user,
        event_id=rules.told_id(evening.user, evening.day),
        event=YieldUpdate.name,
        version=YieldUpdate.version,
        body=update_body(shown, positions),
    )


async def _inbox(tx: Tx, user: Address) -> Inbox:
    return Inbox(user, (await notifications.allowed(tx, [user]))[user], (await notifications.unread(tx, [user]))[user])


async def _positions(
    conn: Tx | Pool, deps: Deps, users: Sequence[Address], newest: Prices
) -> Mapping[Address, Sequence[Position]]:
    """Positions of these users at the newest prices, closed ones too."""
    found: dict[Address, list[Position]] = {}
    for one in await yields.positions_of(conn, users):
        if one.chain_id in deps.chains:
            found.setdefault(one.user, []).append(priced(one, deps.chains[one.chain_id], newest))
    return found


async def _days(
    conn: Tx | Pool,
    deps: Deps,
    due: Sequence[Evening],
    held: Mapping[Address, Sequence[Position]],
    newest: Prices,
    now: datetime,
) -> dict[Address, Total]:
    """What each user's positions earned since the day began in their zone."""
    began = {each.user: midnight(each.day, ZoneInfo(each.time_zone)) for each in due}
    past = await yields.values_at_each(conn, [*began.items(), *((user, now) for user in began)])
    return {
        user: rules.earned(
            held.get(user, ()),
            past.get((user, start), ()),
            past.get((user, now), ()),
            chains=deps.chains,
            prices=newest,
        )
        for user, start in began.items()
    }


def _row(evening: Evening, today: Total) -> DayRow:
    return DayRow(evening.user, evening.day, today.usd, today.unpriced)
