"""Challenges: made, joined and left by their users. Who sees which, and what is measured: docs/adr/0018.

A private challenge exists for its creator, for those who take part and for those whom a friend invited; for everybody
else it is not there, whatever they knew of it before. How far people are is measured elsewhere (challenge_scores.py).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID, uuid4

from config import keys
from handlers.challenge_scores import MEASURE, look_at
from handlers.deps import Deps
from handlers.errors import Conflict, FieldError, Invalid, NotFound, PreconditionFailed
from handlers.rules import challenges as rules
from store import audit, log, outbox
from store import challenge_scores as scores
from store import challenges as rows
from store.audit import Action, AuditEntry, Caller
from store.challenges import ChallengeRow, Measure, ParticipantRow, Place, Visibility
from store.log import Counter
from store.postgres import Pool, Tx, in_transaction
from store.records import Address, Draft

Shown = Mapping[str, object]
Which = Literal["mine", "invited", "open"]

LONGEST_AHEAD = timedelta(days=366)
"""A beginning further away is a slip of the finger."""
CLOCKS = timedelta(minutes=1)
"""A beginning that is past by no more is meant to be now: clocks differ, and calls take time."""
SHORTEST = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Base:
    """A challenge to make; `starts_at` None: now. `target` is in dollars."""

    name: str
    description: str
    measure: Measure
    visibility: Visibility
    target: Decimal | None
    starts_at: datetime | None
    ends_at: datetime
    joins: bool
    """Whether its creator takes part."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some challenges, newest first, and where the next page begins (None: there is none)."""

    resources: Sequence[Shown]
    next: Place | None


@dataclass(slots=True)
class Change:
    """A change by one user, under their lock; what it tells them."""

    deps: Deps
    tx: Tx
    user: Address
    caller: Caller
    now: datetime
    counters: Mapping[Address, Counter]
    drafts: list[Draft]

    async def note(self, action: Action, row: ChallengeRow, **facts: object) -> None:
        """Write the change into the user's audit log."""
        facts = {"challengeId": str(row.id), **facts}
        await audit.record(self.tx, AuditEntry(self.user, action, self.caller, self.now, facts))

    async def shown(self, challenge: UUID) -> Shown:
        """A challenge as it is now, as the user sees it."""
        return (await resources(self.deps, self.tx, self.user, [await existing(self.tx, challenge)], at=self.now))[0]

    async def tell(self, challenge: UUID, *cause: object) -> Shown:
        """Tell the user of a challenge as it is now; returns it as they see it."""
        shown = await self.shown(challenge)
        self.drafts.append(rules.draft(self.user, shown, *cause))
        return shown


async def changing(deps: Deps, user: Address, caller: Caller, body: Callable[[Change], Any]) -> Any:
    """Run a change in one transaction under the user's lock, and publish after it."""

    async def run(tx: Tx) -> tuple[Any, list[Any]]:
        counters = await log.lock(tx, [user])
        change = Change(deps, tx, user, caller, deps.now(), counters, [])
        answer = await body(change)
        return answer, await log.append(tx, counters, change.drafts, at=change.now)

    answer, frames = await in_transaction(deps.pool, run)
    await deps.publisher.publish([(frame.user, frame.text) for frame in frames])
    await deps.publisher.wake(keys.JOBS_WAKE)
    return answer


# Who sees what -----------------------------------------------------------------------------------------------------


async def seen(conn: Tx | Pool, user: Address, challenge: UUID) -> tuple[ChallengeRow, ParticipantRow | None]:
    """A challenge that exists for a user, with their part in it, a left one too; raises NotFound for every other."""
    row = await rows.one(conn, challenge)
    part = None if row is None else await rows.participation(conn, challenge, user)
    if row is None or not await _may_see(conn, user, row, part):
        raise unknown()
    return row, part


async def _may_see(conn: Tx | Pool, user: Address, row: ChallengeRow, part: ParticipantRow | None) -> bool:
    if row.creator == user or (part is not None and part.left_at is None):
        return True
    if row.visibility == "public":
        return row.creator is None or not await scores.strangers(conn, [user], [row.creator])
    return await rows.is_invited(conn, row.id, user)


async def existing(tx: Tx, challenge: UUID) -> ChallengeRow:
    """A challenge, whoever may see it; raises NotFound."""
    row = await rows.one(tx, challenge)
    if row is None:
        raise unknown()
    return row


async def own(change: Change, challenge: UUID) -> ChallengeRow:
    """A challenge of the user's own making, locked; raises NotFound for every other."""
    row = await rows.locked(change.tx, challenge)
    if row is None or row.creator != change.user:
        raise unknown()
    return row


def unknown() -> NotFound:
    """What is answered for a challenge that is not there, or not for this user."""
    return NotFound("There is no such challenge.")


async def resources(
    deps: Deps, conn: Tx | Pool, user: Address, found: Sequence[ChallengeRow], *, at: datetime
) -> list[Shown]:
    """These challenges as a user sees them."""
    parts = await rows.parts(conn, [rows.Member(row.id, user) for row in found])
    settled = [row.id for row in found if row.settled_at is not None]
    won = await scores.winners(conn, settled, ranks=rules.WINNERS, limit=rules.WINNERS_SHOWN) if settled else {}
    winners = {each.user for every in won.values() for each in every}
    hidden = (await scores.strangers(conn, [user], sorted(winners))).get(user, set()) if winners else set()
    return [
        rules.resource(
            row,
            user,
            parts.get(rows.Member(row.id, user)),
            now=at,
            winners=won.get(row.id, ()),
            hidden=hidden,
            cdn_url=deps.settings.cdn_url,
        )
        for row in found
    ]


async def read(deps: Deps, user: Address, challenge: UUID) -> Shown:
    """One challenge; raises NotFound."""
    row, _ = await seen(deps.pool, user, challenge)
    return (await resources(deps, deps.pool, user, [row], at=deps.now()))[0]


async def listed(deps: Deps, user: Address, which: Which, *, below: Place | None, limit: int) -> Page:
    """A user's own challenges, those that friends invited them to, or public ones that can be joined; newest first."""
    now, below = deps.now(), below or rows.TOP
    if which == "mine":
        found = await rows.mine(deps.pool, user, below=below, limit=limit + 1)
    elif which == "invited":
        found = await rows.invited(deps.pool, user, at=now, below=below, limit=limit + 1)
    else:
        found = await rows.open_to_all(deps.pool, user, at=now, below=below, limit=limit + 1)
    first = found[:limit]
    shown = await resources(deps, deps.pool, user, first, at=now)
    return Page(shown, Place(first[-1].created_at, first[-1].id) if len(found) > limit else None)


# Making, changing, cancelling --------------------------------------------------------------------------------------


async def create(deps: Deps, user: Address, base: Base, *, caller: Caller, cause: str | None = None) -> Shown:
    """Make a challenge; raises Invalid or Conflict. The same `cause` makes one challenge."""

    async def body(change: Change) -> Shown:
        tx, now = change.tx, change.now
        id_ = _id_of(deps, user, cause)
        if cause is not None and await rows.one(tx, id_) is not None:
            return await change.tell(id_, "created")  # the call died after this; it runs again for its answer
        starts_at = _begin(base.starts_at, now)
        _check_times(deps, starts_at, base.ends_at, now)
        most = deps.settings.challenges_per_user
        if await rows.count_created(tx, user) >= most:
            raise Conflict(f"You have made {most} challenges that are not over.")
        row = ChallengeRow(
            id=id_,
            creator=user,
            name=base.name,
            description=base.description,
            measure=base.measure,
            visibility=base.visibility,
            target=base.target,
            starts_at=starts_at,
            ends_at=base.ends_at,
            created_at=now,
        )
        await rows.insert(tx, row)
        await change.note("challenge_created", row)
        if base.joins:
            await _take_part(change, row)
        return await change.tell(id_, "created")

    shown: Shown = await changing(deps, user, caller, body)
    return shown


def _id_of(deps: Deps, user: Address, cause: str | None) -> UUID:
    """A random id; the same for the same cause, and without the secret nobody can tell whose."""
    if cause is None:
        return uuid4()
    key = deps.settings.secret_key.get_secret_value().encode()
    return UUID(bytes=hmac.digest(key, f"challenge\0{user}\0{cause}".encode(), "sha256")[:16], version=4)


def _begin(wanted: datetime | None, now: datetime) -> datetime:
    return now if wanted is None or now - CLOCKS < wanted < now else wanted


def _check_times(deps: Deps, starts_at: datetime, ends_at: datetime, now: datetime) -> None:
    longest = timedelta(days=deps.settings.challenge_max_days)
    if starts_at < now:
        raise _bad_time("/startsAt", "is past")
    if starts_at > now + LONGEST_AHEAD:
        raise _bad_time("/startsAt", f"is more than {LONGEST_AHEAD.days} days away")
    if ends_at - starts_at < SHORTEST:
        raise _bad_time("/endsAt", "should be a day or more after the start")
    if ends_at - starts_at > longest:
        raise _bad_time("/endsAt", f"should be at most {longest.days} days after the start")


def _bad_time(pointer: str, words: str) -> Invalid:
    return Invalid("A challenge can't have these times.", errors=[FieldError(pointer, words)])


async def describe(
    deps: Deps,
    user: Address,
    challenge: UUID,
    changes: Mapping[str, str],
    *,
    caller: Caller,
    unless: Callable[[Shown], bool],
) -> Shown:
    """Change name or description before the start; raises NotFound, Conflict, and PreconditionFailed by `unless`."""

    async def body(change: Change) -> Shown:
        row = await own(change, challenge)
        if unless((await resources(deps, change.tx, user, [row], at=change.now))[0]):
            raise PreconditionFailed("The challenge was changed meanwhile; read it again.")
        _check_upcoming(row, change.now, "changed")
        name, description = changes.get("name", row.name), changes.get("description", row.description)
        now = await rows.describe(change.tx, challenge, name=name, description=description, at=change.now)
        await change.note("challenge_changed", row)
        return await change.tell(challenge, "changed", now.revision)

    shown: Shown = await changing(deps, user, caller, body)
    return shown


async def cancel(deps: Deps, user: Address, challenge: UUID, *, caller: Caller) -> Shown:
    """Call a challenge off before its start; raises NotFound or Conflict. Twice is once; a worker tells the others."""

    async def body(change: Change) -> Shown:
        row = await own(change, challenge)
        if row.cancelled_at is None:
            _check_upcoming(row, change.now, "cancelled")
            await rows.mark(change.tx, challenge, "cancelled", at=change.now)
            await change.note("challenge_cancelled", row)
        return await change.tell(challenge, "cancelled")

    shown: Shown = await changing(deps, user, caller, body)
    return shown


def _check_upcoming(row: ChallengeRow, now: datetime, what: str) -> None:
    if rules.state(row, now) != "upcoming":
        raise Conflict(f"Only a challenge that has not begun can be {what}.")


# Taking part -------------------------------------------------------------------------------------------------------


async def join(deps: Deps, user: Address, challenge: UUID, *, caller: Caller) -> Shown:
    """Take part; raises NotFound or Conflict. Twice is once."""

    async def body(change: Change) -> Shown:
        row, _ = await seen(change.tx, user, challenge)
        return await joined(change, row.id)

    shown: Shown = await changing(deps, user, caller, body)
    return shown


async def joined(change: Change, challenge: UUID) -> Shown:
    """Take part in a challenge that the user may take part in."""
    row = await rows.locked(change.tx, challenge)
    if row is None:
        raise unknown()
    part = await rows.participation(change.tx, challenge, change.user)
    if part is None or part.left_at is not None:
        part = await _take_part(change, row)
        await change.tell(challenge, "joined", part.participant_id, part.score_change)
    return (
        await resources(change.deps, change.tx, change.user, [await existing(change.tx, challenge)], at=change.now)
    )[0]


async def _take_part(change: Change, row: ChallengeRow) -> ParticipantRow:
    tx, user, settings = change.tx, change.user, change.deps.settings
    if rules.state(row, change.now) not in ("upcoming", "running"):
        raise Conflict("This challenge is over.")
    if row.participants >= settings.challenge_participants:
        raise Conflict(f"This challenge has {settings.challenge_participants} participants, which is the most.")
    if await rows.count_joined(tx, user) >= settings.challenges_per_user:
        raise Conflict(f"You take part in {settings.challenges_per_user} challenges; leave one first.")
    before = await rows.participation(tx, row.id, user)
    frozen = await rows.frozen_of(tx, user)
    budget = frozen.monthly_budget if before is None else before.monthly_budget
    if row.measure == "budget_kept" and not budget:
        raise Conflict("Set a monthly budget first: this challenge measures how much of it you keep.")
    await rows.join(tx, row.id, user, frozen, at=change.now)
    await look_at(tx, [rows.Member(row.id, user)], now=change.now)
    await _follow(change, row)
    await change.note("challenge_joined", row)
    part = await rows.participation(tx, row.id, user)
    assert part is not None  # just written
    return part


async def leave(deps: Deps, user: Address, challenge: UUID, *, caller: Caller) -> None:
    """Take part no longer; raises NotFound, or Conflict once it has ended. Twice is once."""

    async def body(change: Change) -> None:
        part = await rows.participation(change.tx, challenge, user)
        if part is not None and part.left_at is not None:
            return  # asked first, since a private challenge is not there any more for who has left it
        row, _ = await seen(change.tx, user, challenge)
        locked = await rows.locked(change.tx, row.id)
        if locked is None:
            raise unknown()
        if part is None:
            return
        if rules.state(locked, change.now) not in ("upcoming", "running"):
            raise Conflict("This challenge is over; who took part stays in it.")
        left = await rows.leave(change.tx, challenge, user, at=change.now)
        assert left is not None  # locked
        await _follow(change, row)
        await change.note("challenge_left", row)
        await change.tell(challenge, "left", left.participant_id, left.score_change)

    await changing(deps, user, caller, body)


async def _follow(change: Change, row: ChallengeRow) -> None:
    """Have the standings follow who came or went."""
    await outbox.request(change.tx, "quick", MEASURE, {"challengeId": str(row.id), "user": change.user})
