"""A reorg is an event, not an edit: a block's effects are taken back and every user is told what was corrected."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson

from config.chains import Chain
from handlers import budgets, challenge_scores, goals, sharing
from handlers import yields as investments
from handlers.committed import Committed, block_message, request_what_follows
from handlers.events import (
    BucketUpdate,
    BudgetAlert,
    NewTransaction,
    NotificationAdded,
    Resync,
    TransactionReverted,
    UnreadCount,
    YieldUpdate,
)
from handlers.rules import members, wire
from handlers.rules.budget_impact import bucket_impact
from handlers.rules.goals import Corrected
from handlers.rules.ids import event_id
from handlers.rules.inbox import told_id, unread_body
from handlers.rules.members import MAX_MEMBERS, Shares, role_in
from handlers.rules.month_budget import Figure
from handlers.rules.notices import ALERT_KIND
from handlers.rules.prices import Prices
from handlers.rules.purse import Purse
from store import accounts, cursors, ledger, log, notifications, prices, pushes, spending, yields
from store.cursors import RevertedBlock
from store.log import Told
from store.postgres import Tx
from store.records import Address, BalanceKey, BucketRow, Cursor, Draft, Role
from store.yields import Position


@dataclass(frozen=True, slots=True)
class Restored:
    """State of everyone concerned after the block was taken back."""

    chain: Chain
    block: RevertedBlock
    buckets: Mapping[str, BucketRow]
    balances: Mapping[BalanceKey, int]
    purses: Mapping[Address, Purse]
    prices: Prices
    held: Mapping[str, list[tuple[Address, int]]] = field(default_factory=dict)
    positions: Sequence[Position] = ()
    """Of everyone who was told of one by the block."""
    shares: Shares = field(default_factory=Shares)
    """Who spent what from the shared buckets that the block told of."""

    def bucket_resource(self, row: BucketRow, role: Role) -> dict[str, object]:
        """A bucket as it is again, as its owner or a delegate sees it."""
        lines = self.shares.lines(row, self.chain)
        held = self.held.get(row.bucket_id, ())
        return wire.bucket(row, held, chain=self.chain, prices=self.prices, role=role, members=lines)


async def revert(tx: Tx, chain: Chain, *, before: Cursor, now: datetime) -> Committed:
    """Take the block that `before` stands at back; the caller commits. Raises CursorMoved and LookupError."""
    block = await cursors.revert_block(tx, chain.id, before.ref)
    if block is None:
        raise LookupError(f"chain {chain.id}: block {before.number} {before.hash} is not kept, so it can't be reverted")
    await cursors.rewind(tx, before, block.parent)
    cause = f"{block.ref.hash}:{block.generation - 1}"
    concerned = await ledger.concerned(tx, chain.id, block.ref.hash, cause=cause, members=MAX_MEMBERS)
    counters = await log.lock(tx, concerned)
    told = await log.of_cause(tx, chain.id, cause)
    await accounts.revert(tx, chain.id, block.ref.hash)
    await yields.revert(tx, chain.id, block.ref.hash)
    await ledger.restore_preimages(tx, chain.id, block.ref.hash)
    await ledger.revert(tx, chain.id, block.ref.hash)
    await prices.revert(tx, chain.id, block.ref.hash)
    users = sorted(concerned)
    restored = _restored(
        chain,
        block,
        await spending.buckets_of(tx, chain.id, users),
        await spending.balances_of(tx, chain.id, users),
        await budgets.load(tx, users, at=block.time, transactions=_transactions(told)),
        Prices(await prices.latest(tx)),
    )
    saving = [user for user, purse in restored.purses.items() if purse.has_goals]
    less = await goals.after_revert(tx, chain, block, users=saving, told=told, prices=restored.prices, now=now)
    if any(entry.event == YieldUpdate.name for entry in told):
        restored = replace(restored, positions=await yields.positions_of(tx, users))
    if shared := _shared(restored.buckets, told):
        restored = replace(restored, shares=await sharing.as_restored(tx, shared))
    drafts: list[Draft] = []
    for user in users:
        mine = [entry for entry in told if entry.user == user]
        drafts += await _corrections(tx, restored, user, mine, less.get(user, ()), now=now)
    await budgets.save(tx, restored.purses.values())
    frames = await log.append(tx, counters, drafts, at=now)
    await request_what_follows(
        tx,
        chain.id,
        block.ref,
        generation=block.generation - 1,
        has_rows=bool(block.transactions),
        has_told=bool(frames),
    )
    if block.transactions:
        await challenge_scores.request_of_block(tx, chain.id, block.ref, concerned)
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


def _shared(buckets: Mapping[str, BucketRow], told: Iterable[Told]) -> list[BucketRow]:
    """Buckets with members that a block told of, as they are again."""
    ids = {orjson.loads(entry.payload)["bucket"]["id"] for entry in told if entry.event == BucketUpdate.name}
    return [buckets[key] for key in sorted(ids & buckets.keys()) if buckets[key].shared]


def _transactions(told: Iterable[Told]) -> list[tuple[Address, str]]:
    """Whose transactions are taken back: their categories say which budgets they touched."""
    return [(entry.user, entry.transaction_id) for entry in told if entry.transaction_id is not None]


def _restored(
    chain: Chain,
    block: RevertedBlock,
    buckets: Iterable[BucketRow],
    balances: Mapping[BalanceKey, int],
    purses: Mapping[Address, Purse],
    newest: Prices,
) -> Restored:
    held: dict[str, list[tuple[Address, int]]] = {}
    for key, raw in balances.items():
        if key.bucket_id:
            held.setdefault(key.bucket_id, []).append((key.token, raw))
    return Restored(chain, block, {row.bucket_id: row for row in buckets}, balances, purses, newest, held)


async def _corrections(
    tx: Tx, restored: Restored, user: Address, told: Sequence[Told], less: Sequence[Corrected], *, now: datetime
) -> list[Draft]:
    """What one user is told: every told event corrected, alerts that no longer hold, the inbox without them.

    `less`: the user's goals without the block.
    """
    purse = restored.purses.get(user)
    undone = set(purse.taken_back(restored.buckets, restored.block.time)) if purse else set()
    gone = undone | {entry.event_id for entry in told if entry.event == NewTransaction.name}
    gone |= {milestone.event_id for goal in less for milestone in goal.gone}
    gone |= {entry.event_id for entry in told if entry.event == BucketUpdate.name}
    unread = await notifications.correct(tx, user, sorted(gone), at=now)
    await pushes.take_back(tx, user, sorted(gone), at=now)
    drafts: list[Draft] = [] if told else [_bulk(restored, user)]
    alerts = undone - {entry.event_id for entry in told}  # of earlier blocks, which hold no longer
    elsewhere = {key for alert in alerts for key in (alert, told_id(user, alert))}
    for entry in told:
        if entry.event == NewTransaction.name:
            together = [other for other in told if other.transaction_id == entry.transaction_id]
            corrects = [other.event_id for other in together if _is_undone(other, undone)]
            drafts.append(_reverted(restored, entry, together, corrects=[*corrects, *sorted(elsewhere)]))
            elsewhere = set()
        elif entry.event in (BucketUpdate.name, Resync.name, YieldUpdate.name):
            drafts.append(_correction(restored, entry, {other.event_id for other in told}))
    drafts += [draft for goal in less for draft in goal.drafts]
    if unread:
        left = (await notifications.unread(tx, [user]))[user]
        drafts.append(_uncounted(restored, user, left))
    return drafts


def _is_undone(entry: Told, undone: Collection[str]) -> bool:
    """Whether the revert takes this event of a reverted transaction back; an alert may still hold without it."""
    if entry.event == BudgetAlert.name:
        return entry.event_id in undone
    if entry.event == NotificationAdded.name:
        about = orjson.loads(entry.payload)["notification"]
        return about["kind"] != ALERT_KIND or about["eventId"] in undone
    return True


def _uncounted(restored: Restored, user: Address, unread: int) -> Draft:
    """The inbox's count after notifications were taken back by what came before."""
    cause = (restored.block.ref.hash, restored.block.generation)
    return Draft(
        user=user,
        event_id=event_id(UnreadCount.name, user, "corrects", *cause),
        event=UnreadCount.name,
        version=UnreadCount.version,
        body=unread_body(unread),
        chain_id=restored.chain.id,
    )


def _correction(restored: Restored, told: Told, known: Collection[str]) -> Draft:
    """The event that takes a told `bucket_update`, `yield_update` or `resync` back, and what the inbox said of it.

    `known` is everything that the block told the user.
    """
    payload = orjson.loads(told.payload)
    event = told.event
    body: dict[str, object] = {"reason": "correction"}
    if event == BucketUpdate.name:
        body = _bucket_body(restored, payload, told.user)
    elif event == YieldUpdate.name:
        again = {one.position_id: one for one in restored.positions if one.user == told.user}
        body = investments.corrected_body(payload["positions"], again, chain=restored.chain, prices=restored.prices)
    return Draft(
        user=told.user,
        event_id=event_id(event, told.user, "corrects", told.event_id),
        event=event,
        version=1,
        body=body,
        corrects=(told.event_id, *({told_id(told.user, told.event_id)} & set(known))),
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


def _reverted(restored: Restored, told: Told, together: Sequence[Told], *, corrects: Sequence[str]) -> Draft:
    """`transaction_reverted`: balances and budgets as they are without the transaction and what followed from it."""
    payload = orjson.loads(told.payload)
    impacts = _impacts(orjson.loads(entry.payload).get("budgetImpact", ()) for entry in reversed(together))
    body = {
        "transactionId": told.transaction_id,
        "reason": "reorg",
        "updatedBalances": [_balance(restored, told.user, entry) for entry in payload["updatedBalances"]],
        "budgetImpact": [
            *(again for entry in impacts if (again := _impact(restored, told.user, entry)) is not None),
            *_untold(restored.purses.get(told.user), payload["transaction"], impacts, at=restored.block.time),
        ],
    }
    return Draft(
        user=told.user,
        event_id=event_id(TransactionReverted.name, told.user, "corrects", told.event_id),
        event=TransactionReverted.name,
        version=TransactionReverted.version,
        body=body,
        corrects=tuple(corrects),
        chain_id=restored.chain.id,
        transaction_id=told.transaction_id,
    )


def _impacts(told: Iterable[Iterable[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """The last impact told on each budget; a change of category may have moved others than the transaction did."""
    last = {
        (entry["scope"], entry.get("bucketId") or entry.get("categoryId")): entry
        for entries in told
        for entry in entries
    }
    return list(last.values())


def _untold(
    purse: Purse | None, transaction: Mapping[str, Any], impacts: Iterable[Mapping[str, Any]], *, at: datetime
) -> list[dict[str, object]]:
    """Budgets that were made after the spend: nobody was told what it did to them, yet they counted it."""
    if purse is None or transaction["role"] != "owner":
        return []
    decided = purse.decided.get(transaction["id"])
    is_paid = transaction["type"] == "transfer" and transaction["direction"] == "out" and decided is not None
    if transaction["type"] != "spend" and not is_paid:
        return []
    told = {(entry["scope"], entry.get("categoryId")) for entry in impacts}
    category = decided.assignment.category_id if decided else None
    missed = [
        budget
        for budget in purse.budgets
        if (budget.scope == "total" or budget.category_id == category)
        and (budget.scope, budget.category_id) not in told
    ]
    usd = transaction["amount"]["usd"]
    before = {budget: purse.figure(budget).plus(None if usd is None else Decimal(usd)) for budget in missed}
    return purse.impacts(missed, before, at=at)


def _balance(restored: Restored, user: Address, entry: Mapping[str, Any]) -> dict[str, object]:
    key = BalanceKey(
        user,
        entry["chainId"],
        entry["scope"],
        entry["wallet"] or "",
        entry["bucketId"] or "",
        entry["amount"]["token"],
    )
    raw = restored.balances.get(key, 0)
    return wire.balance(key, raw, chain=restored.chain, bucket=entry["bucket"], prices=restored.prices)


def _impact(restored: Restored, user: Address, entry: Mapping[str, Any]) -> dict[str, object] | None:
    """A budget without the spend; None when the bucket itself is gone with the block, or the budget since."""
    if entry["scope"] != "bucket":
        return _month_impact(restored.purses.get(user), entry, at=restored.block.time)
    bucket = restored.buckets.get(entry["bucketId"])
    if bucket is None:
        return None
    return bucket_impact(
        bucket, spent_before=int(entry["spentAfter"]), now=restored.block.time, decimals=entry["decimals"]
    )


def _month_impact(purse: Purse | None, entry: Mapping[str, Any], *, at: datetime) -> dict[str, object] | None:
    budget = (
        next((b for b in purse.budgets if (b.scope, b.category_id) == (entry["scope"], entry["categoryId"])), None)
        if purse
        else None
    )
    if purse is None or budget is None:
        return None
    before = Figure(Decimal(entry["spentAfter"]), entry["unpriced"])
    return purse.impacts([budget], {budget: before}, at=at)[0]


def _bucket_body(restored: Restored, payload: Mapping[str, Any], user: Address) -> dict[str, object]:
    bucket = restored.buckets.get(payload["bucket"]["id"])
    if bucket is None:
        return {"bucket": payload["bucket"] | {"active": False, "balances": []}, "removed": True}
    role = role_in(bucket, user)
    if role is None:
        return {"bucket": members.gone(bucket), "removed": True}
    return {"bucket": restored.bucket_resource(bucket, role)}
