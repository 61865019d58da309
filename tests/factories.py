"""Rows for tests: every field has a plausible value, a test names only those that it is about."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from store import ledger
from store.postgres import Pool, Tx
from store.records import TransactionRow

TIME = datetime(2026, 11, 24, 10, tzinfo=UTC)
USDC = "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913"


def make_hash(*parts: object) -> str:
    """A 32-byte hash, the same for the same parts."""
    return "0x" + hashlib.sha256(repr(parts).encode()).hexdigest()


def make_address(*parts: object) -> str:
    """An address, the same for the same parts."""
    return make_hash("address", *parts)[:42]


def make_transaction(**overrides: Any) -> TransactionRow:
    """A spend of 12.50 USDC in block 100 of chain 8453."""
    fields: dict[str, Any] = {
        "user": make_address("user"),
        "chain_id": 8453,
        "block_hash": make_hash("block", 100),
        "tx_hash": make_hash("tx", 1),
        "n": 0,
        "role": "owner",
        "log_index": 7,
        "block_number": 100,
        "block_time": TIME,
        "type": "spend",
        "account_type": "spending",
        "direction": "out",
        "token": USDC,
        "symbol": "USDC",
        "decimals": 6,
        "amount": 12_500_000,
        "usd": Decimal("12.50"),
        "wallet": make_address("wallet"),
        "counterparty": make_address("shop"),
        **overrides,
    }
    fields.setdefault("event_id", make_hash(fields["user"], fields["block_hash"], fields["tx_hash"], fields["n"])[2:34])
    return TransactionRow(**fields)


async def insert_block(conn: Tx | Pool, row: TransactionRow, *, transactions: int = 1) -> None:
    """The canonical, unpersisted block of a row."""
    await conn.execute(
        """INSERT INTO blocks (chain_id, hash, number, parent_hash, block_time, canonical, transactions)
           VALUES ($1, $2, $3, $4, $5, true, $6)""",
        row.chain_id,
        row.block_hash,
        row.block_number,
        make_hash("block", row.block_number - 1),
        row.block_time,
        transactions,
    )


async def insert_transactions(conn: Tx, rows: Sequence[TransactionRow]) -> None:
    """Ledger rows as the writer makes them; their blocks are made when missing."""
    blocks = {(row.chain_id, row.block_hash): row for row in rows}
    known = {
        (each["chain_id"], each["hash"])
        for each in await conn.fetch("SELECT chain_id, hash FROM blocks WHERE hash = ANY ($1)", [b for _, b in blocks])
    }
    for key, row in blocks.items():
        if key not in known:
            await insert_block(conn, row, transactions=sum((r.chain_id, r.block_hash) == key for r in rows))
    await ledger.record(conn, rows)
    taken_back = [(row.user, row.block_hash, row.tx_hash, row.n) for row in rows if not row.canonical]
    await conn.executemany(
        """WITH changed AS (
               UPDATE transactions SET canonical = false, version = nextval('ledger_version')
               WHERE (user_address, block_hash, tx_hash, n) = ($1, $2, $3, $4) RETURNING *)
           INSERT INTO ledger_changes (user_address, chain_id, block_number, block_hash, tx_hash, n)
           SELECT user_address, chain_id, block_number, block_hash, tx_hash, n FROM changed""",
        taken_back,
    )
