"""Prices of tokens as their feeds said at blocks: the history of each, and the newest of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from store.postgres import Pool, Tx
from store.records import Address, BlockRef
from store.statements import load

SQL = load("prices")


@dataclass(frozen=True, slots=True)
class PriceRow:
    """Dollars per whole token at a block; None: the feed failed there or was stale. `updated_at` is the feed's own."""

    token: Address
    usd: Decimal | None
    updated_at: datetime | None = None


async def record(tx: Tx, chain_id: int, block: BlockRef, rows: Sequence[PriceRow]) -> None:
    """Keep what was read at a block; an answer that is the newest already is left out."""
    if rows:
        columns = zip(*((row.token, row.usd, row.updated_at) for row in rows), strict=True)
        await tx.execute(SQL["record"], chain_id, block.number, block.hash, *map(list, columns))


async def revert(tx: Tx, chain_id: int, block_hash: str) -> None:
    """Drop what was read at a block that a reorg takes back: the answer before it is the newest again."""
    await tx.execute(SQL["revert"], chain_id, block_hash)


async def latest(conn: Tx | Pool) -> dict[tuple[int, Address], Decimal | None]:
    """The newest price by (chain id, token), as `handlers.rules.prices.Prices` takes them."""
    return {(row["chain_id"], row["token"]): row["usd"] for row in await conn.fetch(SQL["latest"])}
