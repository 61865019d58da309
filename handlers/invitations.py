"""Invitations: links that make friends of their maker and whoever follows them, until they end."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from secrets import token_urlsafe
from uuid import UUID

from handlers.deps import Deps
from handlers.errors import Conflict, NotFound
from handlers.friends import Change, Page, Shown, befriend, between, paged, shown
from handlers.rules import friends as shapes
from store import audit, log
from store import friends as rows
from store.audit import AuditEntry, Caller
from store.friends import InvitationRow, Place
from store.postgres import Tx, in_transaction
from store.records import Address

TOKEN_PREFIX = "exi_"  # noqa: S105 - what a token begins with is no secret
MAX_INVITATIONS = 50
"""Standing invitations of one user."""


async def invitations(deps: Deps, user: Address, *, below: Place | None, limit: int) -> Page:
    """Invitations of a user that stand; their tokens are not known any more."""
    found = await rows.invitations(deps.pool, user, at=deps.now(), below=below or rows.TOP, limit=limit + 1)
    return paged([(shapes.invitation(row), Place(row.created_at, row.id)) for row in found], limit)


async def invite(deps: Deps, user: Address, *, uses: int, lives: timedelta, caller: Caller) -> Shown:
    """Make an invitation; its token is in this answer alone. Raises Conflict beyond MAX_INVITATIONS."""
    token = TOKEN_PREFIX + token_urlsafe(32)

    async def body(tx: Tx) -> InvitationRow:
        await log.lock(tx, [user])
        now = deps.now()
        if await rows.count_invitations(tx, user, at=now) >= MAX_INVITATIONS:
            raise Conflict(f"You have {MAX_INVITATIONS} invitations; revoke one first.")
        row = await rows.invite(tx, user, _hash(token), uses=uses, expires_at=now + lives, at=now)
        facts = {"invitationId": str(row.id), "uses": uses}
        await audit.record(tx, AuditEntry(user, "friend_invited", caller, now, facts))
        return row

    row = await in_transaction(deps.pool, body)
    return {**shapes.invitation(row), "token": token}


async def revoke(deps: Deps, user: Address, id_: UUID, *, caller: Caller) -> None:
    """End an invitation; raises NotFound."""

    async def body(tx: Tx) -> None:
        await log.lock(tx, [user])
        now = deps.now()
        if not await rows.revoke_invitation(tx, user, id_, at=now):
            raise NotFound("You have no invitation of this id.")
        entry = AuditEntry(user, "friend_invitation_revoked", caller, now, {"invitationId": str(id_)})
        await audit.record(tx, entry)

    await in_transaction(deps.pool, body)


async def follow(deps: Deps, user: Address, token: str, *, caller: Caller) -> Shown:
    """Become friends with who made an invitation; raises NotFound for one that does not stand, whatever the reason."""
    found = await rows.invitation(deps.pool, _hash(token), at=deps.now())
    if found is None:
        raise _no_invitation()
    if found.user == user:
        raise Conflict("It is your own invitation.")

    async def body(change: Change) -> Shown:
        invitation = await rows.invitation(change.tx, _hash(token), at=change.now)
        mine, theirs = await rows.pair(change.tx, user, change.other)
        if invitation is None or any(row is not None and row.state == "blocked" for row in (mine, theirs)):
            raise _no_invitation()
        if mine is not None and mine.state == "friends":
            return await shown(change, mine)
        await rows.use_invitation(change.tx, invitation.id)
        return await befriend(change, typed=False)

    answer = await between(deps, user, found.user, caller, body)
    assert answer is not None
    return answer


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", errors="replace")).digest()


def _no_invitation() -> NotFound:
    return NotFound("There is no such invitation, or it has ended.")
