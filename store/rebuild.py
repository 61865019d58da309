"""Rebuilding a chain's past: checkpoints, missing ledger rows, and state put in place of what was there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from store.postgres import Pool, Tx
from store.records import Address, BlockRef, Cursor, TransactionRow
from store.statements import load

SQL = load("rebuild")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A rebuild that was stopped: rows are asked for from `first` on, `next` is the block to read next."""

    first: int
    next: int
    state: Any


async def checkpoint(conn: Tx | Pool, chain_id: int) -> Checkpoint | None:
    """Where a stopped rebuild of the chain stands."""
    row = await conn.fetchrow(SQL["checkpoint"], chain_id)
    return None if row is None else Checkpoint(row["first"], row["next"], row["state"])


async def save_checkpoint(conn: Tx | Pool, chain_id: int, at: Checkpoint) -> None:
    """Keep where the rebuild stands."""
    await conn.execute(SQL["save_checkpoint"], chain_id, at.first, at.next, at.state)


async def forget_checkpoint(conn: Tx | Pool, chain_id: int) -> None:
    """The rebuild is done."""
    await conn.execute(SQL["forget_checkpoint"], chain_id)


async def lock_cursor(tx: Tx, chain_id: int) -> Cursor | None:
    """The chain's cursor, held until this transaction ends."""
    row = await tx.fetchrow(SQL["lock_cursor"], chain_id)
    return None if row is None else Cursor(*row.values())


async def missing_rows(tx: Tx, rows: Sequence[TransactionRow]) -> list[TransactionRow]:
    """Which of these rows, all of one block, the ledger lacks."""
    if not rows:
        return []
    columns = (list(column) for column in zip(*((r.user, r.tx_hash, r.n) for r in rows), strict=True))
    found = await tx.fetch(SQL["missing_rows"], rows[0].chain_id, rows[0].block_hash, *columns)
    missing = {tuple(row.values()) for row in found}
    return [row for row in rows if (row.user, row.tx_hash, row.n) in missing]


async def add_block(tx: Tx, chain_id: int, ref: BlockRef, *, parent_hash: str, time: datetime) -> None:
    """Keep a past block, or mark a kept one changed, before rows are added to it."""
    await tx.execute(SQL["add_block"], chain_id, ref.hash, ref.number, parent_hash, time)


async def recount(tx: Tx, chain_id: int, block_hash: str) -> None:
    """Count a block's ledger rows anew."""
    await tx.execute(SQL["recount"], chain_id, block_hash)


async def owners(tx: Tx, chain_id: int) -> set[Address]:
    """Everyone who holds something in a wallet contract of the chain."""
    return {row["user_address"] for row in await tx.fetch(SQL["owners"], chain_id)}


async def delegates(tx: Tx, chain_id: int) -> set[Address]:
    """Everyone who may spend from a bucket of someone else on the chain."""
    return {row["address"] for row in await tx.fetch(SQL["delegates"], chain_id)}


async def drop_state(tx: Tx, chain_id: int, users: Sequence[Address], *, preimages_from: int) -> None:
    """Remove these users' buckets and wallet-contract balances, and the pre-images that were made of them."""
    await tx.execute(SQL["drop_buckets"], chain_id, users)
    await tx.execute(SQL["drop_balances"], chain_id, users)
    await tx.execute(SQL["drop_preimages"], chain_id, preimages_from, users)
