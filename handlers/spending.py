"""Spending buckets: what each wallet event does to balances, buckets, the ledger and the owner's log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from handlers.chain_events import (
    AccountOperation,
    BucketCreated,
    BucketFunded,
    BucketTransfer,
    BucketUpdated,
    DelegateAdded,
    DelegateRemoved,
    EmergencyWithdraw,
    FundsDeposited,
    MonthlyLimitReset,
    SpentFromBucket,
    UnallocatedWithdraw,
    WalletCreated,
    WalletEvent,
    WalletRegistered,
)
from handlers.rules.accounts import ACCOUNT_TYPES
from handlers.rules.book import Book, Movement, with_delegate
from handlers.rules.budget_impact import bucket_impact
from handlers.rules.periods import is_due, period_end
from store.records import Address, BalanceKey, BucketRow, Direction

OPERATION_DIRECTIONS: tuple[Direction, ...] = ("in", "out", "internal")


def close_periods(book: Book, due: Iterable[BucketRow]) -> None:
    """Close the rolling periods that ended at or before this block, where something was spent, before its logs."""
    for bucket in due:
        end = period_end(bucket.period_start)
        closed = book.keep(replace(bucket, spent=0, period_start=None))
        book.tell_bucket(closed, "closed", end)


def wallet_created(book: Book, event: WalletCreated) -> None:
    """A factory deployed the wallet for its user, who owns it from this log on, whoever registered it before."""
    book.created_wallets[event.wallet] = event.user


def wallet_registered(book: Book, event: WalletRegistered) -> None:
    """Anyone may register any address: it counts only for a wallet that nobody has."""
    if event.wallet not in book.owners and event.wallet not in book.created_wallets:
        book.created_wallets[event.wallet] = event.user


def bucket_created(book: Book, event: BucketCreated) -> None:
    """A new bucket; the contract's clock starts at its block."""
    bucket = book.bucket(event.emitter, event.user, event.name)
    created = replace(
        bucket, active=True, monthly_limit=event.monthly_limit, spent=0, period_start=book.block.time, delegates=()
    )
    book.tell_bucket(book.keep(created), event.tx_hash, event.n)


def bucket_updated(book: Book, event: BucketUpdated) -> None:
    """New limit and activity; what was spent stays."""
    bucket = book.bucket(event.emitter, event.user, event.name)
    changed = replace(bucket, monthly_limit=event.new_limit, active=event.active)
    book.tell_bucket(book.keep(changed), event.tx_hash, event.n)


def delegate_added(book: Book, event: DelegateAdded) -> None:
    """Someone else may spend from the bucket."""
    bucket = book.bucket(event.emitter, event.user, event.name)
    book.tell_bucket(book.keep(with_delegate(bucket, event.delegate, added=True)), event.tx_hash, event.n)


def delegate_removed(book: Book, event: DelegateRemoved) -> None:
    """Someone else may no longer spend from the bucket."""
    bucket = book.bucket(event.emitter, event.user, event.name)
    book.tell_bucket(book.keep(with_delegate(bucket, event.delegate, added=False)), event.tx_hash, event.n)


def limit_reset(book: Book, event: MonthlyLimitReset) -> None:
    """The contract's lazy reset: a new period begins; the spend that caused it follows in the same transaction."""
    bucket = _existing(book, event, event.name)
    reset = book.keep(replace(bucket, spent=0, period_start=book.block.time))
    if bucket.spent:
        book.tell_bucket(reset, event.tx_hash, event.n)


def deposited(book: Book, event: FundsDeposited) -> None:
    """Money arrives as unallocated."""
    touched = [book.move(event.user, "unallocated", wallet=event.emitter, token=event.token, delta=event.amount)]
    movement = Movement("deposit", "in", event.token, event.amount, wallet=event.emitter)
    book.record(event, event.user, movement, touched=touched + _own_leg(book, event))


def funded(book: Book, event: BucketFunded) -> None:
    """Unallocated money moves into a bucket."""
    bucket = _existing(book, event, event.name)
    touched = [
        book.move(event.user, "unallocated", wallet=event.emitter, token=event.token, delta=-event.amount),
        _move_bucket(book, bucket, event.token, event.amount),
    ]
    movement = Movement("bucket_funding", "internal", event.token, event.amount, bucket=bucket, wallet=event.emitter)
    book.record(event, event.user, movement, touched=touched)


def spent(book: Book, event: SpentFromBucket) -> None:
    """Money leaves a bucket and counts against its limit; a delegate who sent it is told too."""
    before = _existing(book, event, event.name)
    if before.period_start is None or is_due(before.period_start, book.block.time):
        before = replace(before, spent=0, period_start=book.block.time)
    bucket = book.keep(replace(before, spent=before.spent + event.amount))
    touched = [_move_bucket(book, bucket, event.token, -event.amount), *_own_leg(book, event)]
    usd_token = book.chain.usd_token
    impact = bucket_impact(
        bucket,
        spent_before=before.spent,
        now=book.block.time,
        decimals=usd_token.decimals if usd_token else None,
    )
    movement = Movement(
        "spend",
        "out",
        event.token,
        event.amount,
        bucket=bucket,
        counterparty=event.recipient,
        spender=event.spender,
        wallet=event.emitter,
    )
    book.record(event, event.user, movement, touched=touched, impact=[impact])
    if book.shares.before:
        usd = book.prices.usd(book.chain, event.token, event.amount)
        book.shares.spend(bucket, event.spender, event.token, event.amount, usd=usd, at=book.block.time)
    if event.spender is not None and event.spender != event.user and event.spender in book.registered:
        book.record(event, event.spender, movement, impact=[impact], role="delegate")


def transferred(book: Book, event: BucketTransfer) -> None:
    """Money moves between two buckets; what was spent stays."""
    source = _existing(book, event, event.from_name)
    target = _existing(book, event, event.to_name)
    touched = [
        _move_bucket(book, source, event.token, -event.amount),
        _move_bucket(book, target, event.token, event.amount),
    ]
    movement = Movement(
        "bucket_transfer",
        "internal",
        event.token,
        event.amount,
        bucket=source,
        to_bucket=target,
        wallet=event.emitter,
    )
    book.record(event, event.user, movement, touched=touched)


def withdrawn(book: Book, event: UnallocatedWithdraw) -> None:
    """Unallocated money leaves the wallet."""
    touched = [book.move(event.user, "unallocated", wallet=event.emitter, token=event.token, delta=-event.amount)]
    movement = Movement(
        "unallocated_withdraw",
        "out",
        event.token,
        event.amount,
        counterparty=event.recipient,
        wallet=event.emitter,
    )
    book.record(event, event.user, movement, touched=touched + _own_leg(book, event))


def emptied(book: Book, event: EmergencyWithdraw) -> None:
    """Unallocated and every bucket of that token are empty now, whatever they held."""
    held = [
        key
        for key in book.balances
        if key.user == event.user and key.wallet == event.emitter and key.token == event.token
    ]
    touched = [book.put(key, 0) for key in held]
    movement = Movement("emergency_withdraw", "out", event.token, event.amount, wallet=event.emitter)
    book.record(event, event.user, movement, touched=touched + _own_leg(book, event))


def operated(book: Book, event: AccountOperation) -> None:
    """Planned V2 contract: an operation of one of the three accounts, kept in the ledger as what it is."""
    movement = Movement(
        "account_operation",
        OPERATION_DIRECTIONS[event.operation_type],
        event.token,
        event.amount,
        wallet=event.emitter,
        account_type=ACCOUNT_TYPES[event.account_type],
        identifier="0x" + event.identifier.hex(),
        account_fee=book.legs.fees.get(event.log_index),
    )
    book.record(event, event.user, movement, touched=_own_leg(book, event))


def _existing(book: Book, event: WalletEvent, raw_name: bytes) -> BucketRow:
    """The bucket an event speaks of; one created before our first block is told before it is used."""
    bucket = book.bucket(event.emitter, event.user, raw_name)
    if bucket.bucket_id not in book.buckets:
        book.tell_bucket(book.keep(bucket), event.tx_hash, event.n, "seen")
    return bucket


def _move_bucket(book: Book, bucket: BucketRow, token: Address, delta: int) -> BalanceKey:
    return book.move(bucket.user, "bucket", wallet=bucket.wallet, bucket=bucket.bucket_id, token=token, delta=delta)


def _own_leg(book: Book, event: WalletEvent) -> list[BalanceKey]:
    """What the event's token leg does to the user's own address."""
    leg = book.legs.of.get(event.log_index)
    return [] if leg is None else book.move_own(event.user, leg)
