"""The audit log: what is noted outside sign-in, and what users read of their own."""

from __future__ import annotations

from handlers.deps import Deps
from store import audit
from store.audit import AuditEntry, Caller, Written
from store.records import Address
from store.sessions import Identity

ROOM_MAX = 128
"""Characters of a refused room name that are kept: a client chose it."""


async def refused_join(deps: Deps, identity: Identity, room: str, *, caller: Caller) -> None:
    """Note that someone asked for a room that is not theirs."""
    facts = {"room": audit.shown(room, ROOM_MAX), "sessionId": identity.session_id}
    await audit.record(deps.pool, AuditEntry(identity.user, "join_refused", caller, deps.now(), facts))


async def entries(deps: Deps, user: Address, *, before: int | None, limit: int) -> list[Written]:
    """A user's own entries, newest first, below id `before`."""
    return await audit.audit_of(deps.pool, user, before=before, limit=limit)
