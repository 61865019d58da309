"""Shared money: what owner and delegates of a bucket are told of it, and what they read. Who sees what: docs/adr/0019.

A bucket that a user neither owns nor may spend from does not exist for them, whatever they knew of it before.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Literal

from config.chains import Chain
from handlers.chain_events import (
    BucketTransfer,
    ChainEvent,
    DelegateAdded,
    DelegateRemoved,
    EmergencyWithdraw,
    WalletEvent,
)
from handlers.deps import Deps
from handlers.errors import NotFound
from handlers.events import BucketUpdate
from handlers.rules import members as rules
from handlers.rules import wire
from handlers.rules.book import Book
from handlers.rules.ids import bucket_id, event_id
from handlers.rules.inbox import Inbox
from handlers.rules.members import MAX_MEMBERS, Shares
from handlers.rules.prices import Prices
from store import log, notifications, outbox, prices, sharing, spending
from store.history import BEGINNING, END, Position
from store.outbox import Claim
from store.postgres import Tx, frozen, in_transaction
from store.records import Address, BlockRef, BucketRow, Draft, Frame, Role

Shown = Mapping[str, object]

RENAMED = "tell_members"
"""Job that tells a user's new name to those who share a bucket with them."""
CHUNK = 50
"""Buckets of one run of it."""

_ID = re.compile(r"[0-9]{1,18}:0x[0-9a-f]{40}:0x[0-9a-f]{40}:[0-9a-f]{32}")


# What a block does -------------------------------------------------------------------------------------------------


def touched(
    chain_id: int, rows: Iterable[BucketRow], events: Sequence[ChainEvent], due: Iterable[BucketRow]
) -> dict[str, BucketRow | None]:
    """Shared buckets that these events may change, and those that begin to be shared; None: not known before.

    Looks at the events only where someone shares a bucket.
    """
    shared = [row for row in rows if row.shared]
    added = [event for event in events if isinstance(event, DelegateAdded)]
    if not shared and not added:
        return {}
    known = {row.bucket_id: row for row in rows}
    named: set[tuple[Address, Address, bytes | None]] = set()
    for event in events:
        if isinstance(event, BucketTransfer):
            named |= {(event.emitter, event.user, event.from_name), (event.emitter, event.user, event.to_name)}
        elif isinstance(event, EmergencyWithdraw):
            named.add((event.emitter, event.user, None))
        elif isinstance(event, WalletEvent) and hasattr(event, "name"):
            named.add((event.emitter, event.user, event.name))
    closing = {row.bucket_id for row in due}
    found: dict[str, BucketRow | None] = {
        row.bucket_id: row for row in shared if row.bucket_id in closing or not named.isdisjoint(_names(row))
    }
    for one in added:
        key = bucket_id(chain_id, one.emitter, one.user, one.name)
        found.setdefault(key, known.get(key))
    return found


def _names(row: BucketRow) -> tuple[tuple[Address, Address, bytes | None], ...]:
    return ((row.wallet, row.user, row.raw_name), (row.wallet, row.user, None))


def concerned(before: Mapping[str, BucketRow | None], events: Sequence[ChainEvent]) -> set[Address]:
    """Everyone who may be told of these buckets, so that their counter rows are locked with the block's."""
    if not before:
        return set()
    moves = [event for event in events if isinstance(event, DelegateAdded | DelegateRemoved)]
    named = {user for event in moves for user in (event.user, event.delegate)}
    # Whoever comes next becomes a member when one of the first goes.
    places = MAX_MEMBERS + sum(isinstance(event, DelegateRemoved) for event in events)
    for row in before.values():
        if row is not None:
            named.update((row.user, *row.delegates[:places]))
    return named


async def load(
    tx: Tx, before: Mapping[str, BucketRow | None], *, users: Collection[Address], followed: Collection[Address]
) -> Shares:
    """What was spent from these buckets; of one that begins to be shared, what its ledger says."""
    if not before:
        return Shares()
    known = [key for key, row in before.items() if row is not None and row.shared]
    fresh = await sharing.count(tx, [row for row in before.values() if row is not None and not row.shared])
    return Shares(
        before=before,
        spent={**await sharing.spending(tx, known), **fresh},
        names=await sharing.names(tx, users),
        followed=followed,
        changed=dict.fromkeys(fresh),
    )


async def tell(tx: Tx, book: Book, events: Sequence[ChainEvent]) -> None:
    """Tell every member how a bucket is after the events, once; those who are members no more, that it is gone."""
    shares = book.shares
    if not shares.before:
        return
    moved = {*book.changed_buckets, *(key.bucket_id for key in book.changed_balances)}
    causes = {
        (bucket_id(book.chain.id, event.emitter, event.user, event.name), event.delegate): event
        for event in events
        if isinstance(event, DelegateAdded | DelegateRemoved)
    }
    changes = [_Change.of(shares.before[key], book.buckets[key]) for key in sorted(moved & shares.before.keys())]
    told = {user for change in changes for user in (*change.joined, *change.left)} & set(shares.followed)
    await _open_inboxes(tx, book, {user for _, user in causes if user in told})
    last = (events[-1].tx_hash, events[-1].n) if events else ("closed",)
    for change in changes:
        if change.row.bucket_id in shares.untold:
            book.tell_bucket(change.row, "members", *last)
        for draft in _drafts(book, change, last):
            book.drafts.append(draft)
            cause = causes.get((change.row.bucket_id, draft.user))
            inbox = book.inboxes.get(draft.user)
            if cause is None or inbox is None or draft.user not in (*change.joined, *change.left):
                continue
            notice = rules.notice(
                draft.user,
                change.row,
                added=draft.user in change.joined,
                about=draft.event_id,
                subject=f"{cause.tx_hash}:{cause.n}",
                at=book.now,
            )
            book.drafts += [replace(each, chain_id=book.chain.id) for each in inbox.add(notice, book.cause)]


@dataclass(frozen=True, slots=True)
class _Change:
    row: BucketRow
    members: tuple[Address, ...]
    joined: frozenset[Address]
    left: tuple[Address, ...]

    @classmethod
    def of(cls, before: BucketRow | None, row: BucketRow) -> _Change:
        was = rules.delegates_of(before) if before is not None else ()
        now = rules.delegates_of(row)
        return cls(row, now, frozenset(now) - frozenset(was), tuple(user for user in was if user not in now))


def _drafts(book: Book, change: _Change, last: tuple[object, ...]) -> list[Draft]:
    row, followed = change.row, book.shares.followed
    shown = {"bucket": book.bucket_resource(row, "delegate")} if any(u in followed for u in change.members) else {}
    bodies: list[tuple[Address, Mapping[str, object]]] = [(user, shown) for user in change.members]
    bodies += [(user, {"bucket": rules.gone(row), "removed": True}) for user in change.left]
    return [
        Draft(
            user=user,
            event_id=event_id(BucketUpdate.name, user, book.cause, row.bucket_id, "members", *last),
            event=BucketUpdate.name,
            version=BucketUpdate.version,
            body=body,
            chain_id=book.chain.id,
            cause=book.cause,
        )
        for user, body in bodies
        if user in followed
    ]


async def _open_inboxes(tx: Tx, book: Book, users: Iterable[Address]) -> None:
    missing = sorted(set(users) - book.inboxes.keys())
    if missing:
        allowed, unread = await notifications.allowed(tx, missing), await notifications.unread(tx, missing)
        book.inboxes = {**book.inboxes, **{user: Inbox(user, allowed[user], unread[user]) for user in missing}}


async def save(tx: Tx, book: Book) -> None:
    """Write the figures that a block changed, with what they were before it."""
    shares = book.shares
    figures = {key: shares.spent[key] for key in shares.changed}
    await sharing.save(tx, book.chain.id, BlockRef(book.block.number, book.block.hash), figures)


async def as_restored(tx: Tx, rows: Sequence[BucketRow]) -> Shares:
    """Figures of these buckets as they stand."""
    shared = [row for row in rows if row.shared]
    if not shared:
        return Shares()
    return Shares(spent=await sharing.spending(tx, [r.bucket_id for r in shared]), names=await _names_in(tx, shared))


async def recount(tx: Tx, chain_id: int, rows: Sequence[BucketRow], *, at: BlockRef | None, until: int) -> None:
    """Make the figures of these buckets what the ledger says up to block `until`; with `at`, that can be taken back.

    The buckets are as they were after the block.
    """
    await sharing.save(tx, chain_id, at, await sharing.count(tx, [row for row in rows if row.shared], until=until))


async def forget(tx: Tx, chain_id: int, bucket_ids: Iterable[str], *, preimages_from: int) -> None:
    """Drop the figures of these buckets, and what was kept of them from a block on: they are counted anew."""
    await sharing.drop(tx, chain_id, sorted(bucket_ids), preimages_from=preimages_from)


async def _names_in(tx: Tx, rows: Iterable[BucketRow]) -> dict[Address, str]:
    return await sharing.names(tx, {user for row in rows for user in (row.user, *rules.delegates_of(row))})


# What members read -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Page:
    """Some buckets, and the id after which the next page begins (None: there is none)."""

    resources: Sequence[Shown]
    next: str | None


@dataclass(frozen=True, slots=True)
class SpendPage:
    """Some spends, and where the next page begins (None: there is none)."""

    resources: Sequence[Shown]
    next: Position | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """What a list of spends is narrowed to; `until` is exclusive."""

    spender: Address | None = None
    since: datetime = BEGINNING
    until: datetime = END


async def visible(
    tx: Tx, user: Address, *, chains: Mapping[int, Chain], chain_id: int | None = None, role: Role | None = None
) -> list[BucketRow]:
    """Buckets that a user owns or may spend from, in the order of their ids; none of chains that left the table."""
    own = await spending.buckets_of(tx, chain_id, [user]) if role != "delegate" else []
    others = await sharing.delegated(tx, user, chain_id, among=MAX_MEMBERS) if role != "owner" else []
    return sorted((row for row in (*own, *others) if row.chain_id in chains), key=lambda row: row.bucket_id)


async def resources(
    tx: Tx, user: Address, rows: Sequence[BucketRow], *, chains: Mapping[int, Chain], newest: Prices
) -> list[Shown]:
    """These buckets as a user who is a member of each sees them."""
    held = await sharing.held(tx, rows)
    shares = await as_restored(tx, rows)
    return [
        wire.bucket(
            row,
            held.get(row.bucket_id, ()),
            chain=chains[row.chain_id],
            prices=newest,
            role="owner" if row.user == user else "delegate",
            members=shares.lines(row, chains[row.chain_id]),
        )
        for row in rows
    ]


async def page(
    deps: Deps,
    user: Address,
    *,
    chain_id: int | None,
    role: Literal["owner", "delegate"] | None,
    after: str | None,
    limit: int,
) -> Page:
    """A user's own buckets and those they may spend from, in the order of their ids."""
    async with frozen(deps.pool) as tx:
        rows = await visible(tx, user, chains=deps.chains, chain_id=chain_id, role=role)
        rest = [row for row in rows if after is None or row.bucket_id > after]
        newest = Prices(await prices.latest(tx))
        shown = await resources(tx, user, rest[:limit], chains=deps.chains, newest=newest)
    return Page(shown, rest[limit - 1].bucket_id if len(rest) > limit else None)


async def bucket(deps: Deps, user: Address, id_: str) -> Shown:
    """One bucket; raises NotFound for one that the user neither owns nor may spend from."""
    async with frozen(deps.pool) as tx:
        row = await _seen(tx, deps, user, id_)
        newest = Prices(await prices.latest(tx))
        return (await resources(tx, user, [row], chains=deps.chains, newest=newest))[0]


async def spends(
    deps: Deps, user: Address, id_: str, narrowed: Narrowed, *, below: Position | None, limit: int
) -> SpendPage:
    """Who spent what from a bucket, newest first; raises NotFound as `bucket` does, on every page."""
    end = Position(narrowed.until, "")
    start = end if below is None else min(below, end, key=lambda place: (place.block_time, place.id))
    async with frozen(deps.pool) as tx:
        row = await _seen(tx, deps, user, id_)
        found = await sharing.spends(
            tx, row.bucket_id, spender=narrowed.spender, since=narrowed.since, below=start, limit=limit + 1
        )
        # A name is shown to the others of the bucket as `members` shows it: these have spent.
        names = await _names_in(tx, [row])
    first = found[:limit]
    more = Position(first[-1].block_time, first[-1].id) if len(found) > limit else None
    return SpendPage([rules.spend(each, row, names) for each in first], more)


async def _seen(tx: Tx, deps: Deps, user: Address, id_: str) -> BucketRow:
    row = await sharing.bucket(tx, id_) if _ID.fullmatch(id_) else None
    if row is None or row.chain_id not in deps.chains or rules.role_in(row, user) is None:
        raise NotFound("You have no bucket of this id.")
    return row


# A member's new name -----------------------------------------------------------------------------------------------


async def renamed(deps: Deps, claim: Claim) -> bool:
    """Tell those who share a bucket with a user how they are called now, some buckets at a time."""
    user, after = claim.args["user"], claim.args.get("after", "")
    ids = await sharing.bucket_ids(deps.pool, user, after=after, limit=CHUNK)
    for key in ids:
        frames = await in_transaction(
            deps.pool, partial(_tell_name, deps, key, f"{claim.id}:{claim.asked_at.isoformat()}")
        )
        await deps.publisher.publish([(frame.user, frame.text) for frame in frames])

    async def end(tx: Tx) -> bool:
        if len(ids) == CHUNK:
            await outbox.request(tx, "quick", RENAMED, {"user": user, "after": ids[-1]})
        return await outbox.done(tx, claim)

    return await in_transaction(deps.pool, end)


async def _tell_name(deps: Deps, key: str, cause: str, tx: Tx) -> list[Frame]:
    """Tell a bucket's members of it as it is under their locks."""
    row = await sharing.bucket(tx, key)
    chain = deps.chains.get(row.chain_id) if row is not None else None
    if row is None or chain is None:
        return []
    counters = await log.lock(tx, (row.user, *rules.delegates_of(row)))
    row = await sharing.bucket(tx, key)
    if row is None:
        return []
    newest = Prices(await prices.latest(tx))
    held = await sharing.held(tx, [row])
    shown = (await as_restored(tx, [row])).lines(row, chain)
    now = deps.now()
    drafts: list[Draft] = []
    for user in (row.user, *rules.delegates_of(row)):
        role: Role = "owner" if user == row.user else "delegate"
        if user in counters and counters[user].opened:  # whoever joined since is told by their block
            body = {"bucket": wire.bucket(row, held.get(key, ()), chain=chain, prices=newest, role=role, members=shown)}
            told = event_id(BucketUpdate.name, user, key, "names", cause)
            drafts.append(Draft(user, told, BucketUpdate.name, BucketUpdate.version, body, chain_id=row.chain_id))
    return await log.append(tx, counters, drafts, at=now)
