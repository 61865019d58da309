"""A reorg is an event, not an edit: a block's effects are taken back and every user is told what was corrected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from config.chains import Chain
from handlers.blocks import Committed, block_message, request_persistence
from handlers.events import BucketUpdate, NewTransaction, Resync, TransactionReverted
from handlers.rules import wire
from handlers.rules.budget_impact import bucket_impact
from handlers.rules.ids import event_id
from store import cursors, ledger, log, spending
from store.cursors import RevertedBlock
from store.log import Told
from store.postgres import Tx
from store.records import Address, BalanceKey, BucketRow, Cursor, Draft


@dataclass(frozen=True, slots=True)
class Restored:
    """State of everyone concerned after the block was taken back."""

    chain: Chain
    block: RevertedBlock
    buckets: Mapping[str, BucketRow]
    balances: Mapping[BalanceKey, int]
    held: Mapping[str, list[tuple[Address, int]]] = field(default_factory=dict)

    def bucket_resource(self, row: BucketRow) -> dict[str, object]:
        """A bucket as it is again."""
        return wire.bucket(row, self.held.get(row.bucket_id, ()), chain=self.chain)


async def revert(tx: Tx, chain: Chain, *, before: Cursor, now: datetime) -> Committed:
    """Take the block that `before` stands at back; the caller commits. Raises CursorMoved and LookupError."""
    block = await cursors.revert_block(tx, chain.id, before.ref)
    if block is None:
        raise LookupError(f"chain {chain.id}: block {before.number} {before.hash} is not kept, so it can't be reverted")
    await cursors.rewind(tx, before, block.parent)
    cause = f"{block.ref.hash}:{block.generation - 1}"
    concerned = await ledger.concerned(tx, chain.id, block.ref.hash, cause=cause)
    counters = await log.lock(tx, concerned)
    told = await log.of_cause(tx, chain.id, cause)
    await ledger.restore_preimages(tx, chain.id, block.ref.hash)
    await ledger.revert(tx, chain.id, block.ref.hash)
    users = sorted(concerned)
    restored = _restored(
        chain,
        block,
        await spending.buckets_of(tx, chain.id, users),
        await spending.balances_of(tx, chain.id, users),
    )
    silent = concerned - {entry.user for entry in told}
    drafts = [_correction(restored, entry) for entry in told] + [_bulk(restored, user) for user in sorted(silent)]
    frames = await log.append(tx, counters, drafts, at=now)
    if block.transactions:
        await request_persistence(tx, chain.id, block.ref)
    message = block_message(
        chain.id,
        block.ref,
        block.parent.hash,
        time=block.time,
        kind="revert",
        transactions=block.transactions,
        users=concerned,
    )
    return Committed(block.parent, frames, message, block.transactions, frozenset(concerned))


def _restored(
    chain: Chain, block: RevertedBlock, buckets: Iterable[BucketRow], balances: Mapping[BalanceKey, int]
) -> Restored:
    held: dict[str, list[tuple[Address, int]]] = {}
    for key, raw in balances.items():
        if key.bucket_id:
            held.setdefault(key.bucket_id, []).append((key.token, raw))
    return Restored(chain, block, {row.bucket_id: row for row in buckets}, balances, held)


def _correction(restored: Restored, told: Told) -> Draft:
    """The event that takes one told event back."""
    payload = orjson.loads(told.payload)
    if told.event == NewTransaction.name:
        event, body = TransactionReverted.name, _reverted_body(restored, told, payload)
    elif told.event == BucketUpdate.name:
        event, body = BucketUpdate.name, _bucket_body(restored, payload)
    else:
        event, body = Resync.name, {"reason": "correction"}
    return Draft(
        user=told.user,
        event_id=event_id(event, told.user, "corrects", told.event_id),
        event=event,
        version=1,
        body=body,
        corrects=(told.event_id,),
        chain_id=restored.chain.id,
        transaction_id=told.transaction_id,
    )


def _bulk(restored: Restored, user: Address) -> Draft:
    """For a user whose state changed though the block told them nothing (signed in after it): a snapshot."""
    cause = (restored.block.ref.hash, restored.block.generation)
    return Draft(
        user=user,
        event_id=event_id(Resync.name, user, "corrects", *cause),
        event=Resync.name,
        version=1,
        body={"reason": "correction"},
        chain_id=restored.chain.id,
    )


def _reverted_body(restored: Restored, told: Told, payload: Mapping[str, Any]) -> dict[str, object]:
    return {
        "transactionId": told.transaction_id,
        "reason": "reorg",
        "updatedBalances": [_balance(restored, told.user, entry) for entry in payload["updatedBalances"]],
        "budgetImpact": [
            impact for entry in payload["budgetImpact"] if (impact := _impact(restored, entry)) is not None
        ],
    }


def _balance(restored: Restored, user: Address, entry: Mapping[str, Any]) -> dict[str, object]:
    key = BalanceKey(
        user,
        entry["chainId"],
        entry["scope"],
        entry["wallet"] or "",
        entry["bucketId"] or "",
        entry["amount"]["token"],
    )
    return wire.balance(key, restored.balances.get(key, 0), chain=restored.chain, bucket=entry["bucket"])


def _impact(restored: Restored, entry: Mapping[str, Any]) -> dict[str, object] | None:
    """The bucket's budget without the spend; None when the bucket itself is gone with the block."""
    bucket = restored.buckets.get(entry["bucketId"])
    if bucket is None:
        return None
    return bucket_impact(
        bucket, spent_before=int(entry["spentAfter"]), now=restored.block.time, decimals=entry["decimals"]
    )


def _bucket_body(restored: Restored, payload: Mapping[str, Any]) -> dict[str, object]:
    bucket = restored.buckets.get(payload["bucket"]["id"])
    if bucket is None:
        return {"bucket": payload["bucket"] | {"active": False, "balances": []}, "removed": True}
    return {"bucket": restored.bucket_resource(bucket)}
