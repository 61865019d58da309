"""Buckets, balances, wallets and whose own addresses are followed: the chain-owned rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from store.postgres import Pool, Tx
from store.records import Address, BalanceKey, BucketRow
from store.statements import load

SQL = load("spending")


@dataclass(frozen=True, slots=True)
class Registered:
    """A registered user on a chain: since which block their own balance is followed, and the accounts that are open."""

    followed_since: int | None = None
    accounts: frozenset[str] = frozenset()


async def registered(tx: Tx, chain_id: int, candidates: Iterable[Address]) -> dict[Address, Registered]:
    """The registered of these addresses."""
    rows = await tx.fetch(SQL["registered"], chain_id, list(candidates))
    return {row["address"]: Registered(row["opened_block"], frozenset(row["accounts"])) for row in rows}


async def register(tx: Tx, chain_id: int, users: Sequence[Address]) -> None:
    """Make these addresses registered users whose own balance waits to be opened on the chain."""
    await tx.execute(SQL["register"], users)
    await tx.execute(SQL["await_opening"], chain_id, users)


async def pending_openings(tx: Tx, chain_id: int, *, limit: int) -> list[Address]:
    """Users whose own balance on the chain has not been read yet, at most `limit`."""
    return [row["user_address"] for row in await tx.fetch(SQL["pending_openings"], chain_id, limit)]


async def unopened(tx: Tx, chain_id: int, users: Sequence[Address]) -> list[Address]:
    """Of these addresses, those whose own balance is not followed yet."""
    return [row["user_address"] for row in await tx.fetch(SQL["unopened"], chain_id, users)]


async def open_scopes(tx: Tx, chain_id: int, users: Sequence[Address], *, number: int) -> None:
    """Follow these users' own addresses from block `number` on."""
    await tx.execute(SQL["open_scopes"], chain_id, users, number)


async def due_buckets(tx: Tx, chain_id: int, *, started_by: datetime) -> list[BucketRow]:
    """Buckets with spending whose period began at or before `started_by`."""
    return [bucket_row(row) for row in await tx.fetch(SQL["due_buckets"], chain_id, started_by)]


async def buckets_of(conn: Tx | Pool, chain_id: int | None, users: Sequence[Address]) -> list[BucketRow]:
    """Every bucket of these owners, on one chain or (None) on all."""
    return [bucket_row(row) for row in await conn.fetch(SQL["buckets_of"], chain_id, users)]


async def balances_of(conn: Tx | Pool, chain_id: int | None, users: Sequence[Address]) -> dict[BalanceKey, int]:
    """Every balance of these users in base units, zeros included, on one chain or (None) on all."""
    rows = await conn.fetch(SQL["balances_of"], chain_id, users)
    return {BalanceKey(*values[:6]): int(values[6]) for values in map(tuple, rows)}


async def save_buckets(tx: Tx, buckets: Sequence[BucketRow]) -> None:
    """Write buckets as they are now."""
    if not buckets:
        return
    rows = [
        (
            b.chain_id,
            b.wallet,
            b.user,
            b.bucket_id,
            b.name,
            b.raw_name,
            b.active,
            str(b.monthly_limit),
            str(b.spent),
            b.period_start,
            ",".join(b.delegates),
            b.shared,
        )
        for b in buckets
    ]
    await tx.execute(SQL["save_buckets"], *map(list, zip(*rows, strict=True)))


async def save_balances(tx: Tx, balances: Mapping[BalanceKey, int]) -> None:
    """Write balances as they are now."""
    if not balances:
        return
    columns = list(map(list, zip(*balances, strict=True)))
    await tx.execute(SQL["save_balances"], *columns, list(map(str, balances.values())))


async def wallets_of_chain(conn: Tx | Pool, chain_id: int) -> dict[Address, Address | None]:
    """Wallets that factories made known, with their owners."""
    rows = await conn.fetch(SQL["wallets_of_chain"], chain_id)
    return {row["address"]: row["user_address"] for row in rows}


async def save_wallets(tx: Tx, chain_id: int, wallets: Mapping[Address, Address], *, number: int) -> None:
    """Make wallets known, created in block `number`."""
    if wallets:
        await tx.execute(SQL["save_wallets"], chain_id, list(wallets), list(wallets.values()), number)


def bucket_row(row: asyncpg.Record) -> BucketRow:
    """A bucket as it was selected: every column by its name, amounts as text."""
    return BucketRow(
        chain_id=row["chain_id"],
        wallet=row["wallet"],
        user=row["user_address"],
        bucket_id=row["bucket_id"],
        name=row["name"],
        raw_name=row["raw_name"],
        active=row["active"],
        monthly_limit=int(row["monthly_limit"]),
        spent=int(row["spent"]),
        period_start=row["period_start"],
        delegates=tuple(row["delegates"]),
        shared=row["shared"],
    )
