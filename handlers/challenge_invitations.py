"""Invitations to challenges: of friends, and by links that whoever has them can take part by. The creator's alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from secrets import token_urlsafe
from uuid import UUID

from config import keys
from handlers.challenges import Change, Page, Shown, changing, joined, own, seen, unknown
from handlers.deps import Deps
from handlers.errors import Conflict, NotFound
from handlers.rules import challenges as rules
from handlers.rules.inbox import Inbox
from handlers.rules.periods import iso
from store import challenges as rows
from store import friends, log, notifications, pushes
from store.audit import Caller
from store.challenges import ChallengeRow, Member, Place
from store.postgres import Tx, in_transaction
from store.records import Address, Draft, Frame

TOKEN_PREFIX = "exi_"  # noqa: S105 - what a token begins with is no secret; the request log cuts such words out
MAX_LINKS = 20
"""Standing links of one challenge."""


async def invite(deps: Deps, user: Address, challenge: UUID, ids: Sequence[UUID], *, caller: Caller) -> None:
    """Invite friends by the ids that the user has for them; raises NotFound, or Conflict once it has ended.

    Twice is once. The invitation holds as long as both are friends; whoever declined is not asked again.
    """
    known = await rows.friends_of(deps.pool, user, ids)

    async def body(tx: Tx) -> list[Frame]:
        counters = await log.lock(tx, {user, *known.values()})
        now = deps.now()
        change = Change(deps, tx, user, caller, now, counters, [])
        row = await own(change, challenge)
        still = {key: who for key, who in (await rows.friends_of(tx, user, ids)).items() if who in counters}
        if set(ids) - still.keys():
            raise NotFound("You have no friend of this id.")
        _check_open(row, change)
        fresh = await rows.invite(tx, challenge, user, sorted(still.values()), at=now)
        if not fresh:
            return []
        await change.note("challenge_invited", row, friendIds=[str(key) for key, who in still.items() if who in fresh])
        inboxes, drafts = await _told(change, row, fresh)
        await notifications.record(tx, [notice for inbox in inboxes for notice in inbox.kept])
        frames = await log.append(tx, counters, drafts, at=now)
        intents = [intent for inbox in inboxes for intent in inbox.intents]
        await pushes.record(tx, intents, at=now, hold_s=deps.settings.push_hold_s)
        return frames

    frames = await in_transaction(deps.pool, body)
    await deps.publisher.publish([(frame.user, frame.text) for frame in frames])
    await deps.publisher.wake(keys.JOBS_WAKE)


async def _told(change: Change, row: ChallengeRow, users: Sequence[Address]) -> tuple[list[Inbox], list[Draft]]:
    """What those who are invited are told: of the challenge, and of who invites them."""
    tx, cdn = change.tx, change.deps.settings.cdn_url
    name = (await friends.profile(tx, change.user)).display_name
    allowed, unread = await notifications.allowed(tx, users), await notifications.unread(tx, users)
    inboxes = [Inbox(user, allowed[user], unread[user]) for user in sorted(users)]
    drafts: list[Draft] = []
    parts = await rows.parts(tx, [Member(row.id, user) for user in users])
    for inbox in inboxes:
        part = parts.get(Member(row.id, inbox.user))
        shown = rules.resource(row, inbox.user, part, now=change.now, cdn_url=cdn)
        told = rules.draft(inbox.user, shown, "invited", iso(change.now))
        notice = rules.invited_notice(inbox.user, row, name, about=told.event_id, at=change.now)
        drafts += [told, *inbox.add(notice, None)]
    return inboxes, drafts


def _check_open(row: ChallengeRow, change: Change) -> None:
    if rules.state(row, change.now) not in ("upcoming", "running"):
        raise Conflict("This challenge is over.")


async def decline(deps: Deps, user: Address, challenge: UUID, *, caller: Caller) -> None:
    """Let an invitation be none; whoever invited is not told. Raises NotFound. Twice is not found."""

    async def body(change: Change) -> None:
        row, _ = await seen(change.tx, user, challenge)
        if not await rows.is_invited(change.tx, challenge, user):
            raise unknown()
        await rows.decline(change.tx, challenge, user, at=change.now)
        await change.note("challenge_declined", row)

    await changing(deps, user, caller, body)


# Links -------------------------------------------------------------------------------------------------------------


async def links(deps: Deps, user: Address, challenge: UUID, *, below: Place | None, limit: int) -> Page:
    """Links of a challenge of the user's own that stand; their tokens are not known any more. Raises NotFound."""
    row = await rows.one(deps.pool, challenge)
    if row is None or row.creator != user:
        raise unknown()
    found = await rows.links(deps.pool, challenge, at=deps.now(), below=below or rows.TOP, limit=limit + 1)
    first = found[:limit]
    more = Place(first[-1].created_at, first[-1].id) if len(found) > limit else None
    return Page([rules.link(each) for each in first], more)


async def make_link(
    deps: Deps, user: Address, challenge: UUID, *, uses: int, lives: timedelta, caller: Caller
) -> Shown:
    """Make a link; its token is in this answer alone. Raises NotFound, or Conflict beyond MAX_LINKS."""
    token = TOKEN_PREFIX + token_urlsafe(32)

    async def body(change: Change) -> Shown:
        row = await own(change, challenge)
        _check_open(row, change)
        if await rows.count_links(change.tx, challenge, at=change.now) >= MAX_LINKS:
            raise Conflict(f"This challenge has {MAX_LINKS} links; revoke one first.")
        made = await rows.make_link(
            change.tx,
            challenge,
            user,
            _hash(token),
            uses=uses,
            expires_at=change.now + lives,
            at=change.now,
        )
        await change.note("challenge_link_made", row, linkId=str(made.id), uses=uses)
        return rules.link(made)

    shown: Shown = await changing(deps, user, caller, body)
    return {**shown, "token": token}


async def revoke_link(deps: Deps, user: Address, challenge: UUID, id_: UUID, *, caller: Caller) -> None:
    """End a link; who came by it stays. Raises NotFound."""

    async def body(change: Change) -> None:
        row = await own(change, challenge)
        if not await rows.revoke_link(change.tx, challenge, id_, at=change.now):
            raise NotFound("This challenge has no link of this id.")
        await change.note("challenge_link_revoked", row, linkId=str(id_))

    await changing(deps, user, caller, body)


async def follow(deps: Deps, user: Address, token: str, *, caller: Caller) -> Shown:
    """Take part by a link; raises NotFound for one that does not stand, whatever the reason, and Conflict."""

    async def body(change: Change) -> Shown:
        link = await rows.link(change.tx, _hash(token), user, at=change.now)
        if link is None:
            raise _no_link()
        part = await rows.participation(change.tx, link.challenge_id, user)
        is_in = part is not None and part.left_at is None
        # The last use goes to one of those who come at once.
        if not is_in and not await rows.use_link(change.tx, link.id):
            raise _no_link()
        return await joined(change, link.challenge_id)

    shown: Shown = await changing(deps, user, caller, body)
    return shown


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", errors="replace")).digest()


def _no_link() -> NotFound:
    return NotFound("There is no such invitation, or it has ended.")
