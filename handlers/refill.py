"""`expendi analytics rebuild`: what ClickHouse has, made again from the ledger while traffic goes on.

Fresh tables are filled beside the old ones; from before the first row is read until after the last month is in place,
every batch of persistence goes to both, so nothing that changes meanwhile is lost, whichever of the two comes first: a
row's higher version counts. Stopped at any point it goes on where it was.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import uuid4

from handlers.persistence import event
from store import persistence, refill
from store.clickhouse import Analytics
from store.persistence import TransactionEvent
from store.postgres import Pool
from store.refill import Refill

CHUNK = 20_000
"""Rows of one insert: few parts, and some 40 MB here."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild has come: a day was copied or a month put in place; `copied` of about `rows` rows are done."""

    step: str
    at: date | None
    copied: int
    rows: int


class Busy(Exception):
    """Another process rebuilds analytics right now; it goes on by itself."""


async def run(
    pool: Pool, analytics: Analytics, *, chain_id: int | None = None, since: date | None = None
) -> AsyncGenerator[Progress]:
    """Begin a rebuild, or go on with the one that was stopped, whatever it was asked for; yields what is done."""
    async with refill.only(pool) as alone:
        if not alone:
            raise Busy("analytics are being rebuilt by another process: let it end.")
        job = await _begun(pool, analytics, chain_id=chain_id, since=since)
        yield Progress("begun", job.next_day, job.copied, job.rows)
        async for progress in _copy(pool, analytics, job):
            yield progress
        async for progress in _place(pool, analytics, job):
            yield progress
        await refill.end(pool)
        await _let_go(pool)
        await refill.drop(analytics)
        yield Progress("done", None, job.rows, job.rows)


async def _begun(pool: Pool, analytics: Analytics, *, chain_id: int | None, since: date | None) -> Refill:
    if not await refill.under_way(pool) or not await refill.exists(analytics):
        await refill.end(pool)
        await _let_go(pool)
        await refill.make(analytics)
        await refill.begin(pool, chain_id=chain_id, since=since)
    # Whoever planned a batch before it could know of the fresh table has ended with it after this.
    await _let_go(pool)
    await refill.measure(pool)
    return await refill.current(pool)


async def _copy(pool: Pool, analytics: Analytics, job: Refill) -> AsyncGenerator[Progress]:
    copied = job.copied
    for day in (job.next_day + timedelta(n) for n in range((job.until - job.next_day).days)):
        count = await _copy_day(pool, analytics, day, chain_id=job.chain_id)
        await refill.copied(pool, day, count)
        copied += count
        if count:
            yield Progress("copied", day, copied, job.rows)


async def _copy_day(pool: Pool, analytics: Analytics, day: date, *, chain_id: int | None) -> int:
    count = 0
    waiting: list[TransactionEvent] = []
    async for rows in refill.rows_of(pool, day, chain_id=chain_id):
        waiting += map(event, rows)
        count += len(rows)
        if len(waiting) >= CHUNK:
            await _insert(analytics, waiting)
            waiting = []
    if waiting:
        await _insert(analytics, waiting)
    return count


async def _insert(analytics: Analytics, events: list[TransactionEvent]) -> None:
    # No chunk is ever the same again: a day that is copied twice is as good as once, since versions decide.
    await persistence.insert(analytics, events, token=uuid4().hex, table=persistence.FRESH)


async def _place(pool: Pool, analytics: Analytics, job: Refill) -> AsyncGenerator[Progress]:
    for month in await refill.months(analytics):
        if month < job.next_month:
            continue
        async with refill.quiet(pool):
            await refill.place(analytics, month, chain_id=job.chain_id)
            await refill.placed(pool, month)
        await persistence.ask_unpersisted(pool, older_than_s=0)
        yield Progress("placed", month, job.rows, job.rows)


async def _let_go(pool: Pool) -> None:
    async with refill.quiet(pool):
        pass
    await persistence.ask_unpersisted(pool, older_than_s=0)
