"""Persistence: a block's ledger rows go to ClickHouse as they are now, reverted ones as tombstones.

Killed between any two steps it is simply run again: the insert is idempotent, the mark names the revision that was
read, and the request stays until mark and deletion commit together.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, localcontext

import orjson

from store import outbox, persistence
from store.clickhouse import Analytics
from store.outbox import Claim
from store.persistence import BlockRows, Kind, LedgerRow, TransactionEvent
from store.postgres import Pool, Tx, frozen, in_transaction
from store.records import Direction, TransactionRow

KINDS: Mapping[str, Kind] = {
    "deposit": "deposit",
    "stranded_deposit": "deposit",
    "vault_deposit": "deposit",
    "yield_lock": "deposit",
    "withdrawal": "withdrawal",
    "unallocated_withdraw": "withdrawal",
    "emergency_withdraw": "withdrawal",
    "vault_withdraw": "withdrawal",
    "yield_unlock": "withdrawal",
    "transfer": "transfer",
    "bucket_funding": "transfer",
    "bucket_transfer": "transfer",
    "spend": "spend",
}
"""The plan's four kinds. An account_operation is not here: its direction says which of them it is."""

OF_DIRECTION: Mapping[Direction, Kind] = {"in": "deposit", "out": "withdrawal", "internal": "transfer"}

PLACES = 18
"""Decimal places of ClickHouse's amounts: as many as any listed token has."""
CEILING = Decimal(10) ** 20
"""Amounts from here on have no decimal in ClickHouse (38 digits in all); their integer is kept all the same."""


async def persist(pool: Pool, analytics: Analytics, claim: Claim) -> bool:
    """Persist the block that a claim names; False when it changed meanwhile and has to be persisted again."""
    async with frozen(pool) as tx:
        block = await persistence.read(tx, claim.args["chainId"], claim.args["hash"])
    if block is not None and block.rows:
        await persistence.insert(analytics, [event(each) for each in block.rows], token=block.token)
    return await in_transaction(pool, lambda tx: _finish(tx, block, claim))


async def _finish(tx: Tx, block: BlockRows | None, claim: Claim) -> bool:
    # In the order in which a block's transaction takes these locks.
    if block is not None and not await persistence.mark(tx, block):
        return False
    return await outbox.done(tx, claim)


def event(ledger: LedgerRow) -> TransactionEvent:
    """The analytics row of a ledger row; reverted, it is the tombstone of the very row it was before."""
    row = ledger.row
    return TransactionEvent(
        transaction_id=row.id,
        event_id=row.event_id,
        chain_id=row.chain_id,
        user_id=row.user,
        role=row.role,
        transaction_hash=row.tx_hash,
        n=row.n,
        log_index=row.log_index,
        block_number=row.block_number,
        block_hash=row.block_hash,
        timestamp=row.block_time,
        type=row.type,
        transaction_type=kind(row),
        account_type=row.account_type,
        direction=row.direction,
        amount_raw=row.amount,
        token_decimals=row.decimals,
        amount=None if row.decimals is None else fitted(Decimal(row.amount), shift=-row.decimals),
        amount_usd=None if row.usd is None else fitted(row.usd),
        token_address=row.token,
        recipient_address=(row.counterparty or "") if row.direction == "out" else "",
        fee_wei=row.fee_wei,
        gas_used=row.gas_used,
        gas_price_wei=row.gas_price,
        metadata=_metadata(row),
        version=ledger.version,
        is_deleted=int(not row.canonical),
    )


def kind(row: TransactionRow) -> Kind:
    """Which of the plan's four kinds a ledger row is."""
    return KINDS.get(row.type) or OF_DIRECTION[row.direction]


def fitted(value: Decimal, *, shift: int = 0) -> Decimal | None:
    """`value * 10**shift` at 18 places, half to even beyond them; None when it has more than 20 digits before them."""
    with localcontext(prec=120):
        scaled = value.scaleb(shift)
        return scaled.quantize(Decimal(1).scaleb(-PLACES)) if abs(scaled) < CEILING else None


def _metadata(row: TransactionRow) -> str:
    facts = {
        "symbol": row.symbol,
        "wallet": row.wallet,
        "bucketId": row.bucket_id,
        "bucket": row.bucket,
        "toBucketId": row.to_bucket_id,
        "toBucket": row.to_bucket,
        "counterparty": row.counterparty,
        "spender": row.spender,
    }
    return orjson.dumps({name: value for name, value in facts.items() if value is not None}).decode()
