"""The ledger on its way to ClickHouse: a block's rows as one instant has them, and the mark that says they arrived."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Literal

import asyncpg

from store.clickhouse import Analytics
from store.ledger import transaction_row
from store.postgres import Pool, Tx
from store.records import AccountType, Address, Direction, Role, TransactionRow
from store.statements import load

SQL = load("persistence")

TABLE = "transaction_events"

Kind = Literal["deposit", "withdrawal", "transfer", "spend"]


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A ledger row and its version, which grows with every change of it."""

    row: TransactionRow
    version: int


@dataclass(frozen=True, slots=True)
class BlockRows:
    """All ledger rows of a block, canonical or not, at one `revision` of it."""

    chain_id: int
    hash: str
    revision: int
    rows: tuple[LedgerRow, ...]

    @property
    def token(self) -> str:
        """Names exactly this state of the block's rows: the same token never stands for two.

        The versions are part of it, since a row may change (a category, say) without the block.
        """
        versions = ",".join(str(each.version) for each in self.rows)
        return f"{self.chain_id}:{self.hash}:{self.revision}:{hashlib.sha256(versions.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class TransactionEvent:
    """One row of ClickHouse's transaction_events; fields are its columns."""

    transaction_id: str
    event_id: str
    chain_id: int
    user_id: Address
    role: Role
    transaction_hash: str
    n: int
    log_index: int
    block_number: int
    block_hash: str
    timestamp: datetime
    type: str
    transaction_type: Kind
    account_type: AccountType
    direction: Direction
    amount_raw: int
    token_decimals: int | None
    amount: Decimal | None
    amount_usd: Decimal | None
    token_address: Address
    recipient_address: str
    fee_wei: int | None
    gas_used: int | None
    gas_price_wei: int | None
    metadata: str
    version: int
    is_deleted: int


COLUMNS = tuple(field.name for field in fields(TransactionEvent))
_values = attrgetter(*COLUMNS)


async def read(tx: Tx, chain_id: int, block_hash: str) -> BlockRows | None:
    """A block's rows; None when the block is not kept. Call in a `frozen` transaction: two reads, one instant."""
    revision = await tx.fetchval(SQL["block"], chain_id, block_hash)
    if revision is None:
        return None
    rows = await tx.fetch(SQL["rows"], chain_id, block_hash)
    return BlockRows(chain_id, block_hash, revision, tuple(map(_ledger_row, rows)))


async def insert(analytics: Analytics, events: Sequence[TransactionEvent], *, token: str) -> None:
    """Insert rows and tombstones; harmless the second time: by the token, and FINAL keeps one version of each."""
    await analytics.insert(TABLE, COLUMNS, [_values(event) for event in events], token=token)


async def mark(tx: Tx, block: BlockRows) -> bool:
    """Say that these rows are persisted; False when the block has changed since they were read."""
    return bool(await tx.fetchval(SQL["mark"], block.chain_id, block.hash, block.revision))


async def ask_unpersisted(conn: Tx | Pool, *, older_than_s: float, limit: int) -> int:
    """Request persistence of blocks that wait longer than `older_than_s` and are on nobody's list; returns how many."""
    return len(await conn.fetch(SQL["ask"], older_than_s, limit))


async def lag_s(conn: Tx | Pool) -> float:
    """Age of the oldest committed change that is not persisted (s); 0 when all are."""
    return float(await conn.fetchval(SQL["lag"]))


async def prune_preimages(conn: Tx | Pool, *, margin_blocks: int, batch: int) -> int:
    """Delete one batch of pre-images more than `margin_blocks` below their chain's finalized height."""
    return len(await conn.fetch(SQL["prune_preimages"], margin_blocks, batch))


def _ledger_row(row: asyncpg.Record) -> LedgerRow:
    return LedgerRow(transaction_row(row), row["version"])
