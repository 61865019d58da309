"""Shared money: who spent what from buckets that several may spend from, and which of those a user sees."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import asyncpg

from store.history import Position
from store.postgres import Pool, Tx
from store.records import Address, BlockRef, BucketRow
from store.spending import bucket_row
from store.statements import load

SQL = load("sharing")

LATEST = 2**62
"""Above every block number."""


class SpentKey(NamedTuple):
    """Whose spending from which bucket in which token; spender is '' where the chain does not say."""

    bucket_id: str
    spender: str
    token: Address


@dataclass(frozen=True, slots=True)
class SpentRow:
    """What was spent under a key, in base units; dollars are None once anything had no price.

    `period_*` is of the rolling period that began at `period_start`, and says nothing of any other.
    """

    amount: int
    usd: Decimal | None
    count: int
    last_at: datetime
    period_start: datetime | None
    period_amount: int
    period_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class SpendRow:
    """One spend from a bucket; amount in base units, dollars at its block."""

    id: str
    chain_id: int
    tx_hash: str
    block_number: int
    block_time: datetime
    token: Address
    symbol: str | None
    decimals: int | None
    amount: int
    usd: Decimal | None
    recipient: Address | None
    spender: Address | None


# Figures -----------------------------------------------------------------------------------------------------------


async def spending(conn: Tx | Pool, bucket_ids: Sequence[str]) -> dict[SpentKey, SpentRow]:
    """What was spent from these buckets, by whom."""
    return _spending(await conn.fetch(SQL["spending"], bucket_ids)) if bucket_ids else {}


async def count(tx: Tx, buckets: Sequence[BucketRow], *, until: int = LATEST) -> dict[SpentKey, SpentRow]:
    """The same from the ledger alone, up to block `until`, with the periods that these rows stand in."""
    if not buckets:
        return {}
    columns = zip(*((row.bucket_id, row.period_start) for row in buckets), strict=True)
    return _spending(await tx.fetch(SQL["count"], *map(list, columns), until))


def _spending(rows: Iterable[asyncpg.Record]) -> dict[SpentKey, SpentRow]:
    return {
        SpentKey(row["bucket_id"], row["spender"], row["token"]): SpentRow(
            amount=int(row["amount"]),
            usd=row["usd"],
            count=row["count"],
            last_at=row["last_at"],
            period_start=row["period_start"],
            period_amount=int(row["period_amount"]),
            period_usd=row["period_usd"],
        )
        for row in rows
    }


async def save(tx: Tx, chain_id: int, block: BlockRef | None, figures: Mapping[SpentKey, SpentRow]) -> None:
    """Write figures as they are now; with a block, keep what they were before it first."""
    if not figures:
        return
    keys = list(map(list, zip(*figures, strict=True)))
    if block is not None:
        await tx.execute(SQL["keep"], chain_id, block.number, block.hash, *keys)
    rows = [
        (
            str(row.amount),
            _text(row.usd),
            row.count,
            row.last_at,
            row.period_start,
            str(row.period_amount),
            _text(row.period_usd),
        )
        for row in figures.values()
    ]
    await tx.execute(SQL["save"], chain_id, *keys, *map(list, zip(*rows, strict=True)))


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)


async def drop(tx: Tx, chain_id: int, bucket_ids: Sequence[str], *, preimages_from: int) -> None:
    """Remove the figures of these buckets, and what was kept of them from a block on."""
    await tx.execute(SQL["drop"], bucket_ids)
    await tx.execute(SQL["drop_preimages"], chain_id, preimages_from, bucket_ids)


# What members see --------------------------------------------------------------------------------------------------


async def delegated(conn: Tx | Pool, user: Address, chain_id: int | None, *, among: int) -> list[BucketRow]:
    """Buckets of others with a user `among` the first delegates, on one chain or (None) on all."""
    return [bucket_row(row) for row in await conn.fetch(SQL["delegated"], user, chain_id, among)]


async def bucket(conn: Tx | Pool, bucket_id: str) -> BucketRow | None:
    """A bucket, whoever may see it."""
    row = await conn.fetchrow(SQL["bucket"], bucket_id)
    return None if row is None else bucket_row(row)


async def bucket_ids(conn: Tx | Pool, user: Address, *, after: str = "", limit: int) -> list[str]:
    """Buckets that a user shares with others, on either side, in the order of their ids beyond `after`."""
    return [row["bucket_id"] for row in await conn.fetch(SQL["bucket_ids"], user, after, limit)]


async def held(conn: Tx | Pool, rows: Iterable[BucketRow]) -> dict[str, list[tuple[Address, int]]]:
    """(token, base units) in each of these buckets, zeros included; empty ones are left out."""
    owners = {row.bucket_id: row.user for row in rows}
    found: dict[str, list[tuple[Address, int]]] = {}
    if owners:
        for row in await conn.fetch(SQL["held"], sorted(set(owners.values())), list(owners)):
            found.setdefault(row["bucket_id"], []).append((row["token"], int(row["amount"])))
    return found


async def names(conn: Tx | Pool, addresses: Collection[Address]) -> dict[Address, str]:
    """What these call themselves; those without a name are left out."""
    return {row[0]: row[1] for row in await conn.fetch(SQL["names"], list(addresses))} if addresses else {}


async def spends(
    conn: Tx | Pool,
    bucket_id: str,
    *,
    spender: Address | None,
    since: datetime,
    below: Position,
    limit: int,
) -> list[SpendRow]:
    """Spends from a bucket, newest first, from `below` on."""
    found = await conn.fetch(SQL["spends"], bucket_id, spender, since, below.block_time, below.id, limit)
    return [
        SpendRow(
            id=each["id"],
            chain_id=each["chain_id"],
            tx_hash=each["tx_hash"],
            block_number=each["block_number"],
            block_time=each["block_time"],
            token=each["token"],
            symbol=each["symbol"],
            decimals=each["decimals"],
            amount=int(each["amount"]),
            usd=each["usd"],
            recipient=each["counterparty"],
            spender=each["spender"],
        )
        for each in found
    ]
