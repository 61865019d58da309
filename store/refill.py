"""Filling ClickHouse's tables anew beside the old ones, and putting them in place month by month (docs/adr/0011)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date

from store.clickhouse import Analytics
from store.persistence import LedgerRow, ledger_row
from store.postgres import Pool, Tx
from store.statements import load

SQL = load("refill")
CLICKHOUSE_SQL = load("clickhouse/refill")

AT_ONCE = 5000
"""Rows fetched at a time: some 10 MB."""


@dataclass(frozen=True, slots=True)
class Refill:
    """Under way: days from `next_day` to before `until` are to be copied, then months from `next_month` on placed.

    `copied` of about `rows` rows are done; `chain_id` None: every chain.
    """

    chain_id: int | None
    next_day: date
    until: date
    next_month: date
    copied: int
    rows: int


async def under_way(conn: Tx | Pool) -> bool:
    """Whether a refill was begun and has not ended."""
    return await conn.fetchrow(SQL["current"]) is not None


async def current(conn: Tx | Pool) -> Refill:
    """The refill that is under way, as it was measured."""
    row = await conn.fetchrow(SQL["current"])
    assert row is not None
    return Refill(*row)


async def begin(conn: Tx | Pool, *, chain_id: int | None, since: date | None) -> None:
    """From now on every batch goes to the fresh table too; nothing when a refill is under way."""
    await conn.execute(SQL["begin"], chain_id, since)


async def measure(conn: Tx | Pool) -> None:
    """Find what is to be copied, once."""
    await conn.execute(SQL["measure"])


@asynccontextmanager
async def only(pool: Pool) -> AsyncIterator[bool]:
    """Whether nobody else is refilling; nobody begins to meanwhile."""
    async with pool.acquire() as conn:
        yield bool(await conn.fetchval(SQL["only"]))


async def exists(analytics: Analytics) -> bool:
    """Whether the fresh table is there."""
    return bool((await analytics.rows(CLICKHOUSE_SQL["exists"]))[0][0])


async def make(analytics: Analytics) -> None:
    """Make empty fresh tables."""
    await drop(analytics)
    for name in ("make_events", "make_hours"):
        await analytics.command(CLICKHOUSE_SQL[name])


async def drop(analytics: Analytics) -> None:
    """Remove the fresh tables, and what is in them."""
    for name in ("drop_events", "drop_hours"):
        await analytics.command(CLICKHOUSE_SQL[name])


async def chains(conn: Tx | Pool) -> list[int]:
    """Every chain that may have a persister."""
    return [row["chain_id"] for row in await conn.fetch(SQL["chains"])]


@asynccontextmanager
async def quiet(pool: Pool) -> AsyncIterator[None]:
    """No persister is at work meanwhile. Whoever holds this asks for what was left waiting, after it."""
    async with pool.acquire() as conn:
        for chain_id in await chains(conn):
            await conn.execute(SQL["quieten"], chain_id)
        yield


async def rows_of(pool: Pool, day: date, *, chain_id: int | None) -> AsyncIterator[list[LedgerRow]]:
    """The ledger's rows of a day (UTC) as one instant has them, some thousands at a time."""
    async with pool.acquire() as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        cursor = await conn.cursor(SQL["day"], day, chain_id)
        while rows := await cursor.fetch(AT_ONCE):
            yield [ledger_row(row) for row in rows]


async def copied(conn: Tx | Pool, day: date, count: int) -> None:
    """Keep that the day's rows are in the fresh table."""
    await conn.execute(SQL["copied"], day, count)


async def months(analytics: Analytics) -> list[date]:
    """Months that either table has, oldest first."""
    found = await analytics.rows(CLICKHOUSE_SQL["months"])
    return [date(int(month) // 100, int(month) % 100, 1) for (month,) in found]


async def place(analytics: Analytics, month: date, *, chain_id: int | None) -> None:
    """Put a month of the fresh table in place of the old one, and fold its hours anew. Call while it is `quiet`."""
    number, name = month.year * 100 + month.month, f"{month:%Y%m}"
    if chain_id is not None:
        await analytics.command(CLICKHOUSE_SQL["keep_others"], month=number, chain=chain_id)
    filled = bool((await analytics.rows(CLICKHOUSE_SQL["has_events"], month=name))[0][0])
    await analytics.command(CLICKHOUSE_SQL["place_events" if filled else "drop_month"], month=name)
    await analytics.command(CLICKHOUSE_SQL["clear_hours"])
    await analytics.command(CLICKHOUSE_SQL["fold_hours"], month=number)
    folded = bool((await analytics.rows(CLICKHOUSE_SQL["has_hours"]))[0][0])
    await analytics.command(CLICKHOUSE_SQL["place_hours" if folded else "drop_hours_month"], month=name)


async def placed(conn: Tx | Pool, month: date) -> None:
    """Keep that the month is in place: cached answers end, and the month is compared next."""
    await conn.execute(SQL["swapped"], month)


async def end(conn: Tx | Pool) -> None:
    """Batches go to one table again."""
    await conn.execute(SQL["ended"])
