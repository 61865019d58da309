"""Persistence: what changed in the ledger goes to ClickHouse as it is now, reverted rows as tombstones.

A job per block is the wake-up; what it writes is decided by `ledger_changes`, of which a chain's persister leaves none.
Killed between any two steps it is simply run again: a batch keeps its extent until the transaction that ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal, localcontext
from uuid import UUID

import orjson

from store import outbox, persistence
from store.clickhouse import Analytics
from store.outbox import Claim
from store.persistence import Batch, Kind, LedgerRow, TransactionEvent
from store.postgres import Pool, Tx, in_transaction, retrying
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


BATCH = 5000
"""Changes of one insert, about: large enough for ClickHouse, and some 10 MB here."""
BUDGET_S = 4.0
"""Time a job goes on taking batches (s); with the slowest insert still well within the job's limit."""
PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Waits for transactions that began before the block's ended (s): blocks of other chains take about so long."""

Sleep = Callable[[float], Awaitable[object]]


async def persist(pool: Pool, analytics: Analytics, claim: Claim, *, sleep: Sleep = asyncio.sleep) -> bool:
    """Persist what of the claim's chain has changed; False when something of its block is left: run again.

    While another persister is at it, its request is left to that one: it looks again after it has let go.
    """
    chain_id, block_hash = claim.args["chainId"], claim.args["hash"]
    until = asyncio.get_running_loop().time() + BUDGET_S
    pauses = iter(PAUSES_S)
    ended = False
    while asyncio.get_running_loop().time() < until:
        async with persistence.taken(pool, chain_id) as conn:
            if conn is None:
                return True
            ended |= await drain(conn, analytics, chain_id, until=until, claim=claim)
        left = await persistence.waiting(pool, chain_id, block_hash)
        if not left.ripe and not left.of_block:
            return ended or await in_transaction(pool, lambda tx: outbox.done(tx, claim))
        if not left.ripe:
            pause = next(pauses, None)
            if pause is None:
                return False
            await sleep(pause)
    return False


async def drain(conn: Tx, analytics: Analytics, chain_id: int, *, until: float, claim: Claim | None = None) -> bool:
    """Take batches until nothing is left or the loop's time is `until`; whether the claim's request ended with one."""
    ended = False
    while batch := await persistence.next_batch(conn, chain_id, about=BATCH):
        await _insert(analytics, batch)
        requests = await _finish(conn, batch)
        ended |= claim is not None and claim.id in requests
        if asyncio.get_running_loop().time() >= until:
            break
    return ended


async def _insert(analytics: Analytics, batch: Batch) -> None:
    events = [event(each) for each in batch.rows]
    if not events:
        return
    if batch.refilling:  # first, so that nothing is missing there when it takes the table's place in between
        await persistence.insert(analytics, events, token=batch.token, table=persistence.FRESH)
    await persistence.insert(analytics, events, token=batch.token)


async def _finish(conn: Tx, batch: Batch) -> frozenset[UUID]:
    async def once() -> frozenset[UUID]:
        async with conn.transaction():
            return await persistence.finish(conn, batch)

    return await retrying(once)


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
        category_id=ledger.category_id or "",
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
