"""The ledger on its way to ClickHouse: which rows changed, batch by batch, and what has arrived.

Every statement that changes what analytics show of a ledger row gives it a higher `version` and inserts a row in
`ledger_changes`. A chain's one persister (`taken`) takes changes of ended transactions in order (`next_batch`), inserts
the rows as they are now, and ends the batch (`finish`). Whatever is repeated or late changes nothing: a batch keeps its
extent and so its token, and of two versions of a row ClickHouse believes the higher.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Literal
from uuid import UUID

import asyncpg

from store.clickhouse import Analytics
from store.ledger import transaction_row
from store.postgres import Pool, Tx
from store.records import AccountType, Address, Direction, Role, TransactionRow
from store.statements import load

SQL = load("persistence")

TABLE = "transaction_events"
FRESH = "transaction_events_fresh"
"""Filled beside the table while analytics are rebuilt (store/refill.py)."""

Kind = Literal["deposit", "withdrawal", "transfer", "spend"]


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A ledger row, its version, which grows with every change of it, and the id of its category."""

    row: TransactionRow
    version: int
    category_id: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that changed in a chain's transactions up to `xid`, canonical or not, as they are now."""

    chain_id: int
    xid: str
    rows: tuple[LedgerRow, ...]
    generation: int = 0
    """How often tables were replaced: what arrived in the one that is gone must not count as a repeat."""
    refilling: bool = False
    """Whether it goes to the fresh table too."""

    @property
    def token(self) -> str:
        """Names exactly this batch: the same changes, whatever became of their rows meanwhile.

        A row that changed again since is sent again, with the batch of that change.
        """
        named = hashlib.sha256()
        for each in self.rows:
            named.update(f"{each.row.user}:{each.row.block_hash}:{each.row.tx_hash}:{each.row.n},".encode())
        return f"{self.generation}:{self.chain_id}:{self.xid}:{named.hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is left of a chain: something that can be taken now, something of the block that was asked about."""

    ripe: bool
    of_block: bool


@dataclass(frozen=True, slots=True)
class Persisted:
    """What of a user has reached ClickHouse. `version` grows whenever more has.

    `as_of`: chain id -> highest block up to which every change of the user's rows has arrived.
    """

    version: int
    as_of: Mapping[int, int]


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
    category_id: str
    recipient_address: str
    fee_wei: int | None
    gas_used: int | None
    gas_price_wei: int | None
    metadata: str
    version: int
    is_deleted: int


COLUMNS = tuple(field.name for field in fields(TransactionEvent))
_values = attrgetter(*COLUMNS)


@asynccontextmanager
async def taken(pool: Pool, chain_id: int) -> AsyncIterator[Tx | None]:
    """The connection of the chain's only persister meanwhile; None when another one is at it.

    Two at once, after a connection was lost, would do no harm: both take the same batch under the same token.
    """
    async with pool.acquire() as conn:  # giving it back gives the lock back
        yield conn if await conn.fetchval(SQL["take"], chain_id) else None


async def next_batch(conn: Tx, chain_id: int, *, about: int) -> Batch | None:
    """The batch that somebody left, else one of `about` changes: more when one transaction has more; None: all done."""
    plan = await conn.fetchrow(SQL["plan"], chain_id, about)
    if plan is None:
        return None
    rows = await conn.fetch(SQL["rows"], chain_id, plan["xid"])
    return Batch(chain_id, plan["xid"], tuple(map(ledger_row, rows)), plan["generation"], plan["refilling"])


async def insert(analytics: Analytics, events: Sequence[TransactionEvent], *, token: str, table: str = TABLE) -> None:
    """Insert rows and tombstones; harmless the second time: by the token, and FINAL keeps one version of each."""
    await analytics.insert(table, COLUMNS, [_values(event) for event in events], token=token)


async def finish(tx: Tx, batch: Batch) -> frozenset[UUID]:
    """Say in one transaction that the batch has arrived; returns the requests of blocks that ended with it."""
    await tx.execute(SQL["mark"], batch.chain_id, batch.xid)
    return frozenset(row["id"] for row in await tx.fetch(SQL["forget"], batch.chain_id, batch.xid))


async def waiting(conn: Tx | Pool, chain_id: int, block_hash: str) -> Waiting:
    """What a persister that found nothing more to take has left."""
    row = await conn.fetchrow(SQL["waiting"], chain_id, block_hash)
    assert row is not None
    return Waiting(row["ripe"], row["of_block"])


async def persisted(conn: Tx | Pool, user: Address) -> Persisted:
    """What of a user has reached ClickHouse. Ask before the figures are queried: they are then at least as new."""
    rows = await conn.fetch(SQL["persisted"], user)
    as_of = {row["chain_id"]: row["as_of"] for row in rows if row["chain_id"] is not None}
    return Persisted(rows[0]["version"], as_of)


async def ask_unpersisted(conn: Tx | Pool, *, older_than_s: float) -> int:
    """Request persistence of chains with a change that waits longer than `older_than_s`; returns how many.

    One request that was handed out less than so long ago is left alone.
    """
    return len(await conn.fetch(SQL["ask"], older_than_s))


async def adopt(conn: Tx | Pool) -> None:
    """Let changes that were restored from a dump be persisted; there are none otherwise."""
    await conn.execute(SQL["adopt"])


async def lag_s(conn: Tx | Pool) -> float:
    """Age of the oldest committed change that is not persisted (s); 0 when all are."""
    return float(await conn.fetchval(SQL["lag"]))


async def prune_preimages(conn: Tx | Pool, *, margin_blocks: int, batch: int) -> int:
    """Delete one batch of pre-images more than `margin_blocks` below their chain's finalized height."""
    return len(await conn.fetch(SQL["prune_preimages"], margin_blocks, batch))


def ledger_row(row: asyncpg.Record) -> LedgerRow:
    """A ledger row as it was selected, with its version and category."""
    category = row["category_id"]
    return LedgerRow(transaction_row(row), row["version"], None if category is None else str(category))
