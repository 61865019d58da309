"""Both stores side by side: what PostgreSQL and ClickHouse say of a month of a chain, and when that was last asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from store.clickhouse import Analytics
from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("reconciliation")
CLICKHOUSE_SQL = load("clickhouse/reconciliation")


@dataclass(frozen=True, slots=True)
class Figures:
    """Canonical rows of a group of users: how many, sum of base units modulo 2^256, dollars, how many without a price.

    `versions` and `categories` sum what says which state of each row it is, and which category.
    """

    rows: int
    amounts: int
    usd: Decimal
    unpriced: int
    versions: int
    categories: int


NOTHING = Figures(0, 0, Decimal(0), 0, 0, 0)

Groups = Mapping[str, Figures]
"""Figures by the last two digits of the users' addresses."""


async def add_months(conn: Tx | Pool, analytics: Analytics) -> None:
    """Know of every month that either store has."""
    first = [int(month) for (month,) in await analytics.rows(CLICKHOUSE_SQL["first"])]
    since = date(first[0] // 100, first[0] % 100, 1) if first else date.max
    await conn.execute(SQL["add_months"], since)


async def clock(conn: Tx | Pool) -> datetime:
    """Now, by the clock that says when a month was compared."""
    at: datetime = await conn.fetchval(SQL["clock"])
    return at


async def next_month(conn: Tx | Pool, *, before: datetime) -> tuple[int, date] | None:
    """Chain and month to compare next, of those that nobody took since `before`."""
    row = await conn.fetchrow(SQL["next"], before)
    return None if row is None else (row["chain_id"], row["month"])


async def compared(conn: Tx | Pool, chain_id: int, month: date, *, differs: int) -> None:
    """Keep in how many groups the month differed."""
    await conn.execute(SQL["compared"], chain_id, month, differs)


async def differing(conn: Tx | Pool) -> int:
    """How many months differed when they were compared last."""
    return int(await conn.fetchval(SQL["differing"]))


async def unsettled(tx: Tx, chain_id: int, *, limit: int) -> list[Address]:
    """Users of the chain of whose rows a change has not reached ClickHouse, at most `limit`."""
    return [row["user_address"] for row in await tx.fetch(SQL["unsettled"], chain_id, limit)]


async def of_ledger(tx: Tx, chain_id: int, month: date, *, without: Sequence[Address]) -> Groups:
    """What PostgreSQL has."""
    rows = await tx.fetch(SQL["figures"], chain_id, month, list(without))
    return {row["users"]: _figures(*list(row.values())[1:]) for row in rows}


async def of_analytics(analytics: Analytics, chain_id: int, month: date, *, without: Sequence[Address]) -> Groups:
    """What ClickHouse has."""
    number = month.year * 100 + month.month
    rows = await analytics.rows(CLICKHOUSE_SQL["figures"], chain=chain_id, month=number, unsettled=list(without))
    return {users: _figures(*rest) for users, *rest in rows}


def _figures(rows: int, amounts: str, usd: Decimal, unpriced: int, versions: str, categories: str) -> Figures:
    return Figures(rows, int(amounts), Decimal(usd), unpriced, int(versions), int(categories))
