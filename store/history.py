"""The ledger as users read it back: lists, single transactions, and what of it is not final."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from store.ledger import transaction_row
from store.postgres import Pool, Tx
from store.records import Address, TransactionRow
from store.search import Hits
from store.statements import load

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.cursor import Cursor

SQL = load("history")

BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
END = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list that is newest first: what follows is older, or as old with a lower id."""

    block_time: datetime
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a list is narrowed to; None: not. `bucket` is an id or a name, usd bounds are inclusive.

    `prefixes` each begin the counterparty or the transaction hash; `hits` are what a search found.
    """

    chain_ids: Sequence[int]
    types: Sequence[str] | None = None
    account_type: str | None = None
    bucket: str | None = None
    token: Address | None = None
    since: datetime = BEGINNING
    until: datetime = END
    """Exclusive."""
    min_usd: Decimal | None = None
    max_usd: Decimal | None = None
    prefixes: Sequence[str] | None = None
    hits: Hits | None = None
    category: UUID | None = None


async def transactions(
    conn: Tx | Pool, user: Address, filters: Filters, *, below: Position | None, limit: int
) -> list[TransactionRow]:
    """A user's canonical transactions, newest first, from `below` on, at most `limit`."""
    sql, arguments = _asked(user, filters, below=below, limit=limit)
    return [transaction_row(row) for row in await conn.fetch(sql, *arguments)]


async def read_through(tx: Tx, user: Address, filters: Filters, *, batch: int) -> AsyncIterator[list[TransactionRow]]:
    """All of a user's transactions that are asked for, newest first, through a cursor: `batch` are held at a time."""
    cursor = await _cursor(tx, user, filters)
    while rows := await cursor.fetch(batch):
        yield [transaction_row(row) for row in rows]


async def count(tx: Tx, user: Address, filters: Filters, *, most: int) -> int:
    """How many transactions are asked for, counted no further than `most`."""
    return await (await _cursor(tx, user, filters)).forward(most)


async def _cursor(tx: Tx, user: Address, filters: Filters) -> Cursor[asyncpg.Record]:
    sql, arguments = _asked(user, filters, below=None, limit=None)
    return await tx.cursor(sql, *arguments)


def _asked(
    user: Address, filters: Filters, *, below: Position | None, limit: int | None
) -> tuple[str, tuple[object, ...]]:
    """The statement of a list and its arguments."""
    end = Position(filters.until, "")  # every id is above '', so that `until` itself is out
    start = end if below is None else min(below, end, key=lambda position: (position.block_time, position.id))
    few = filters.hits is not None and filters.hits.ids is not None
    return SQL["transactions_among"] if few else SQL["transactions"], (
        user,
        list(filters.chain_ids),
        None if filters.types is None else list(filters.types),
        filters.account_type,
        filters.bucket,
        filters.token,
        filters.min_usd,
        filters.max_usd,
        None if filters.prefixes is None else list(filters.prefixes),
        filters.since,
        start.block_time,
        start.id,
        limit,
        filters.category,
        _found(filters.hits),
    )


def _found(hits: Hits | None) -> list[Any] | None:
    return None if hits is None else list(hits.texts if hits.ids is None else hits.ids)


async def transaction(conn: Tx | Pool, user: Address, id_: str, *, chain_id: int) -> TransactionRow | None:
    """A user's transaction by its id; one that was reverted for good comes back as not canonical."""
    row = await conn.fetchrow(SQL["transaction"], user, id_)
    if row is None:
        row = await conn.fetchrow(SQL["reverted_transaction"], user, id_, chain_id)
    return None if row is None else transaction_row(row)


async def unfinal(
    conn: Tx | Pool, users: Sequence[Address], finalized: Mapping[int, int]
) -> dict[Address, dict[int, int]]:
    """Highest block number with a transaction above the finalized height, by user and chain; others are left out."""
    found: dict[Address, dict[int, int]] = {}
    for row in await conn.fetch(SQL["unfinal"], list(users), list(finalized), list(finalized.values())):
        found.setdefault(row["user_address"], {})[row["chain_id"]] = row["number"]
    return found
