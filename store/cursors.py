"""Blocks and chain cursors: where each chain's ledger stands, moved by compare-and-swap."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from store.postgres import Pool, Tx
from store.records import BlockRef, Cursor, QuarantinedLog
from store.statements import load

SQL = load("cursors")


class CursorMoved(Exception):
    """The cursor is not where this writer left it: another one writes this chain."""


@dataclass(frozen=True, slots=True)
class RevertedBlock:
    """A block just taken back; `generation` is how often it has been reverted now."""

    ref: BlockRef
    parent: BlockRef
    time: datetime
    generation: int
    transactions: int


async def lock_writer(conn: Tx, chain_id: int) -> bool:
    """Try to become the chain's single writer; held as long as the connection lives."""
    return bool(await conn.fetchval(SQL["lock_writer"], str(chain_id)))


async def cursor(conn: Tx | Pool, chain_id: int) -> Cursor | None:
    """Where the chain's ledger stands; None before its first block."""
    row = await conn.fetchrow(SQL["cursor"], chain_id)
    return None if row is None else _cursor(row)


async def cursors(conn: Tx | Pool) -> dict[int, Cursor]:
    """Where every chain stands."""
    return {row["chain_id"]: _cursor(row) for row in await conn.fetch(SQL["cursors"])}


async def move(
    tx: Tx, before: Cursor | None, chain_id: int, to: BlockRef, *, time: datetime, head: int, finalized: int
) -> None:
    """Move the cursor from `before` to a block; CursorMoved when it is not there any more."""
    if before is None:
        moved = await tx.fetchval(
            SQL["start_cursor"], chain_id, to.number, to.hash, time, max(head, to.number), finalized
        )
    else:
        moved = await tx.fetchval(
            SQL["move_cursor"], chain_id, before.number, before.hash, to.number, to.hash, time, head, finalized
        )
    if not moved:
        raise CursorMoved(f"chain {chain_id}: cursor left {before}")


async def rewind(tx: Tx, before: Cursor, to: BlockRef) -> None:
    """Move the cursor back to the parent of a reverted block."""
    if not await tx.fetchval(SQL["rewind_cursor"], before.chain_id, before.number, before.hash, to.number, to.hash):
        raise CursorMoved(f"chain {before.chain_id}: cursor left {before}")


async def move_heights(conn: Tx, chain_id: int, *, head: int, finalized: int) -> None:
    """Record the chain's heights when no block is to be applied."""
    await conn.execute(SQL["move_heights"], chain_id, head, finalized)


async def apply_block(tx: Tx, chain_id: int, ref: BlockRef, *, parent_hash: str, time: datetime) -> int:
    """Make a block canonical; returns its generation."""
    return int(await tx.fetchval(SQL["apply_block"], chain_id, ref.hash, ref.number, parent_hash, time))


async def count_rows(tx: Tx, chain_id: int, block_hash: str, transactions: int) -> None:
    """Record how many ledger rows a block has."""
    await tx.execute(SQL["count_rows"], chain_id, block_hash, transactions)


async def revert_block(tx: Tx, chain_id: int, ref: BlockRef) -> RevertedBlock | None:
    """Take a canonical block back; None when we don't keep it."""
    row = await tx.fetchrow(SQL["revert_block"], chain_id, ref.hash)
    if row is None:
        return None
    parent = BlockRef(row["number"] - 1, row["parent_hash"])
    return RevertedBlock(ref, parent, row["block_time"], row["generation"], row["transactions"])


async def hash_at(conn: Tx | Pool, chain_id: int, number: int) -> str | None:
    """Our canonical hash at that height; None when it is not kept."""
    found: str | None = await conn.fetchval(SQL["hash_at"], chain_id, number)
    return found


async def quarantine(tx: Tx, chain_id: int, block: BlockRef, refused: QuarantinedLog) -> None:
    """Keep a log that could not be decoded or applied, with its reason."""
    log = refused.log
    await tx.execute(
        SQL["quarantine"],
        chain_id,
        block.hash,
        block.number,
        log.log_index,
        log.tx_hash,
        log.address,
        list(log.topics),
        log.data,
        refused.reason,
    )


def _cursor(row: asyncpg.Record) -> Cursor:
    return Cursor(row["chain_id"], row["number"], row["hash"], row["block_time"], row["head"], row["finalized"])
