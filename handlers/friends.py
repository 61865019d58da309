"""Friends: asked by address or invited by link, told to both, ended by either. What each side may learn: docs/adr/0015.

Every change locks both users in address order before it reads anything of them; what a caller is answered does not
depend on who the other is, or whether they are anyone at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from config import keys
from handlers.committed import request_evaluation
from handlers.deps import Deps
from handlers.errors import Conflict, Invalid, NotFound, RateLimited
from handlers.rules import friends as shapes
from handlers.rules.inbox import Inbox
from store import audit, log, notifications, pushes
from store import friends as rows
from store.audit import Action, AuditEntry, Caller
from store.friends import FriendRow, Place, RequestRow
from store.log import Counter
from store.postgres import Tx, in_transaction
from store.records import Address, Draft, Frame

Shown = Mapping[str, object]
Status = Literal["friends", "received", "requested"]

DAY = timedelta(days=1)
MAX_FRIENDS = 500
"""Friends of one user: a cohort is read whole, and nobody knows more people well enough to compare with."""
MAX_REQUESTS = 200
"""Open requests of one user."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, newest first, and where the next page begins (None: there is none)."""

    resources: Sequence[Shown]
    next: Place | None


@dataclass(slots=True)
class Change:
    """One change between two users, under both their locks: what it tells whom."""

    deps: Deps
    tx: Tx
    user: Address
    other: Address
    caller: Caller
    now: datetime
    counters: Mapping[Address, Counter]
    drafts: list[Draft] = field(default_factory=list)
    inboxes: list[Inbox] = field(default_factory=list)

    async def note(self, action: Action, **facts: object) -> None:
        """Write the change into the user's audit log."""
        await audit.record(self.tx, AuditEntry(self.user, action, self.caller, self.now, facts))

    async def tell(self, row: FriendRow, kind: Literal["friend_request", "friend_accepted"]) -> None:
        """Tell the owner of a row about the one whom it names, by name alone."""
        allowed = (await notifications.allowed(self.tx, [row.user]))[row.user]
        unread = (await notifications.unread(self.tx, [row.user]))[row.user]
        inbox = Inbox(row.user, allowed, unread)
        name = (await rows.profile(self.tx, row.other)).display_name
        notice = shapes.notice(row, kind, name, at=self.now)
        self.drafts += inbox.add(notice, None)
        self.inboxes.append(inbox)

    async def finish(self) -> list[Frame]:
        """Append what is told; the last step of the transaction."""
        await notifications.record(self.tx, [notice for inbox in self.inboxes for notice in inbox.kept])
        frames = await log.append(self.tx, self.counters, self.drafts, at=self.now)
        intents = [intent for inbox in self.inboxes for intent in inbox.intents]
        await pushes.record(self.tx, intents, at=self.now, hold_s=self.deps.settings.push_hold_s)
        return frames


Body = Callable[[Change], Awaitable[Shown | None]]


async def between(deps: Deps, user: Address, other: Address, caller: Caller, body: Body) -> Shown | None:
    """Run a change between two users in one transaction that holds both locks, and publish after it."""

    async def run(tx: Tx) -> tuple[Shown | None, list[Frame]]:
        # An address without an account has no row to lock, and gets none: nobody makes rows by typing addresses.
        both = [user, other] if await rows.is_person(tx, other) else [user]
        counters = await log.lock(tx, both)
        change = Change(deps, tx, user, other, caller, deps.now(), counters)
        answer = await body(change)
        return answer, await change.finish()

    answer, frames = await in_transaction(deps.pool, run)
    await deps.publisher.publish([(frame.user, frame.text) for frame in frames])
    await deps.publisher.wake(keys.JOBS_WAKE)
    return answer


# What users read ---------------------------------------------------------------------------------------------------


async def listed(deps: Deps, user: Address, status: Status, *, below: Place | None, limit: int) -> Page:
    """Friends of a user, who asked to be, or whom the user asked; newest first."""
    below, cdn = below or rows.TOP, deps.settings.cdn_url
    if status == "requested":
        asked = await rows.requests(deps.pool, user, below=below, limit=limit + 1)
        return paged([(shapes.asked(row), Place(row.asked_at, row.id)) for row in asked], limit)
    found = await rows.listed(deps.pool, user, status, below=below, limit=limit + 1)
    people = [(shapes.friend(row, each, cdn), Place(row.changed_at, row.id)) for row, each in found]
    return paged(people, limit)


async def blocked(deps: Deps, user: Address, *, below: Place | None, limit: int) -> Page:
    """Whom a user has blocked, newest first."""
    found = await rows.blocked(deps.pool, user, below=below or rows.TOP, limit=limit + 1)
    return paged([(shapes.blocked(row), Place(row.changed_at, row.id)) for row in found], limit)


def paged(found: Sequence[tuple[Shown, Place]], limit: int) -> Page:
    """A page of what was read for it and one more."""
    first = found[:limit]
    return Page([resource for resource, _ in first], first[-1][1] if len(found) > limit else None)


# Requests ----------------------------------------------------------------------------------------------------------


async def request(deps: Deps, user: Address, address: Address, *, caller: Caller) -> Shown:
    """Ask an address to be friends; the answer is the same whoever that is. Raises Invalid, Conflict, RateLimited."""
    if address == user:
        raise Invalid("That is your own address.")

    async def body(change: Change) -> Shown:
        tx, now = change.tx, change.now
        await _check_limits(change, address)
        mine, theirs = await rows.pair(tx, user, address)
        shut = mine is not None and mine.state == "blocked"
        if mine is not None and shut and mine.typed:
            raise Conflict("You have blocked this address; unblock it first.")
        known = await rows.request(tx, user, address)
        if known is not None and known.is_open:
            row = known if now - known.asked_at < DAY else await rows.ask(tx, user, address, is_open=True, at=now)
        else:
            row = await rows.ask(tx, user, address, is_open=True, at=now)
            await change.note("friend_requested", requestId=str(row.id))
        if mine is not None and mine.state == "friends" and mine.typed:
            await rows.close_request(tx, user, address)
            return await shown(change, mine)
        if mine is not None and mine.state in ("received", "declined") and await _asked_by(change, address):
            return await befriend(change, typed=True)
        # Whom the user blocked without knowing their address, they can't find by typing it: it looks like any other.
        if address in change.counters and not shut:
            await _deliver(change, theirs)
        return shapes.asked(row)

    answer = await between(deps, user, address, caller, body)
    assert answer is not None
    return answer


async def _check_limits(change: Change, address: Address) -> None:
    """Raise RateLimited or Conflict by what the user asked alone, whoever they asked."""
    limit = change.deps.settings.friend_requests_per_day
    count, oldest = await rows.asked_since(change.tx, change.user, change.now - DAY, beside=address)
    if count >= limit and oldest is not None:
        wait_s = (oldest + DAY - change.now).total_seconds()
        raise RateLimited(f"You asked {limit} people today, which is the most.", retry_after_s=max(1.0, wait_s))
    if await rows.count_requests(change.tx, change.user, beside=address) >= MAX_REQUESTS:
        raise Conflict(f"You have {MAX_REQUESTS} open requests; withdraw one first.")


async def _asked_by(change: Change, address: Address) -> bool:
    """Whether the other has an open request to the user."""
    row = await rows.request(change.tx, address, change.user)
    return row is not None and row.is_open


async def _deliver(change: Change, theirs: FriendRow | None) -> None:
    """Let the other see the request, unless they have decided about the user already; told once a day at most."""
    if theirs is not None and theirs.state != "gone":
        return
    quiet = theirs is not None and theirs.notified_at is not None and change.now - theirs.notified_at < DAY
    told = None if quiet else change.now
    row = await rows.save(change.tx, change.other, change.user, "received", at=change.now, notified_at=told)
    if not quiet:
        await change.tell(row, "friend_request")


async def accept(deps: Deps, user: Address, id_: UUID, *, caller: Caller) -> Shown:
    """Become friends with who asked; raises NotFound, or Conflict beyond MAX_FRIENDS. Twice is once."""
    found = await _own(deps, user, id_)

    async def body(change: Change) -> Shown:
        row = await _mine(change, id_)
        if row.state == "friends":
            return await shown(change, row)
        if row.state != "received":
            raise _unknown()
        return await befriend(change, typed=row.typed)

    answer = await between(deps, user, found.other, caller, body)
    assert answer is not None
    return answer


async def befriend(change: Change, *, typed: bool) -> Shown:
    """Make friends of both, and tell the other; `typed`: the user knows the other's address."""
    tx, user, other, now = change.tx, change.user, change.other, change.now
    if await rows.count_friends(tx, user) >= MAX_FRIENDS:
        raise Conflict(f"You have {MAX_FRIENDS} friends, which is the most; remove one first.")
    theirs_typed = await _asked_by(change, other)
    mine = await rows.save(tx, user, other, "friends", typed=typed, at=now)
    theirs = await rows.save(tx, other, user, "friends", typed=theirs_typed, at=now)
    await rows.close_request(tx, user, other)
    await rows.close_request(tx, other, user)
    await change.note("friend_accepted", friendId=str(mine.id))
    await change.tell(theirs, "friend_accepted")
    await request_evaluation(tx, [user, other])
    return await shown(change, mine)


async def decline(deps: Deps, user: Address, id_: UUID, *, caller: Caller) -> None:
    """Leave a request unanswered for good; who asked is not told. Raises NotFound."""
    found = await _own(deps, user, id_)

    async def body(change: Change) -> None:
        row = await _mine(change, id_)
        if row.state == "received":
            await rows.save(change.tx, user, row.other, "declined", typed=row.typed, at=change.now)
            await change.note("friend_declined", friendId=str(id_))
        elif row.state != "declined":
            raise _unknown()

    await between(deps, user, found.other, caller, body)


async def remove(deps: Deps, user: Address, id_: UUID, *, caller: Caller) -> None:
    """End a friendship, on both sides at once, or withdraw a request; the other is not told. Raises NotFound."""
    found = await _own(deps, user, id_)

    async def body(change: Change) -> None:
        tx, now = change.tx, change.now
        mine, theirs = await rows.pair(tx, user, change.other)
        if isinstance(found, RequestRow):
            await rows.close_request(tx, user, change.other)
            if theirs is not None and theirs.state == "received":
                await rows.save(tx, change.other, user, "gone", at=now)
            await change.note("friend_request_withdrawn", requestId=str(id_))
            return
        if mine is None or mine.state != "friends":
            raise _unknown()
        await rows.save(tx, user, change.other, "gone", at=now)
        if theirs is not None and theirs.state == "friends":
            await rows.save(tx, change.other, user, "gone", at=now)
        await change.note("friend_removed", friendId=str(id_))

    await between(deps, user, found.other, caller, body)


# Blocking ----------------------------------------------------------------------------------------------------------


async def block(deps: Deps, user: Address, id_: UUID, *, caller: Caller) -> Shown:
    """See nothing of someone any more and let them see nothing; they are not told. Raises NotFound. Twice is once."""
    found = await _own(deps, user, id_)
    other = found.other

    async def body(change: Change) -> Shown:
        tx, now = change.tx, change.now
        mine, theirs = await rows.pair(tx, user, other)
        if mine is not None and mine.state == "blocked":
            return shapes.blocked(mine)
        seen = mine is not None and mine.state in ("friends", "received", "declined")
        called = (await rows.profile(tx, other)).display_name if seen else None
        typed = isinstance(found, RequestRow) or (mine is not None and mine.typed)
        row = await rows.save(tx, user, other, "blocked", typed=typed, called=called, at=now)
        await rows.close_request(tx, user, other)
        if theirs is not None and theirs.state in ("friends", "received"):
            await rows.save(tx, other, user, "gone", at=now)
        await change.note("friend_blocked", friendId=str(row.id))
        return shapes.blocked(row)

    answer = await between(deps, user, other, caller, body)
    assert answer is not None
    return answer


async def unblock(deps: Deps, user: Address, id_: UUID, *, caller: Caller) -> None:
    """Let someone ask again; what was before does not come back. Raises NotFound."""
    found = await _own(deps, user, id_)

    async def body(change: Change) -> None:
        row = await _mine(change, id_)
        if row.state != "blocked":
            raise _unknown()
        await rows.save(change.tx, user, row.other, "gone", at=change.now)
        await change.note("friend_unblocked", friendId=str(id_))

    await between(deps, user, found.other, caller, body)


# Rows of one's own -------------------------------------------------------------------------------------------------


async def _own(deps: Deps, user: Address, id_: UUID) -> FriendRow | RequestRow:
    """What an id of the user's names, before anything is locked: whom to lock. Raises NotFound."""
    found = await rows.own(deps.pool, user, id_) or await rows.own_request(deps.pool, user, id_)
    if found is None:
        raise _unknown()
    return found


async def _mine(change: Change, id_: UUID) -> FriendRow:
    """The row of an id, under the lock; raises NotFound."""
    row = await rows.own(change.tx, change.user, id_)
    if row is None:
        raise _unknown()
    return row


async def shown(change: Change, row: FriendRow) -> Shown:
    """A friend as a resource, read in the change."""
    return shapes.friend(row, await rows.profile(change.tx, row.other), change.deps.settings.cdn_url)


def _unknown() -> NotFound:
    return NotFound("You have no friend or request of this id.")
