"""What the signed-in user is told of itself: profile and audit log."""

from __future__ import annotations

from collections.abc import Mapping

from handlers import audit, auth
from handlers.errors import Invalid
from handlers.rules.periods import iso
from realtime.rest import shapes
from realtime.rest.api import endpoint
from realtime.rest.call import Answer, Call
from realtime.rest.paging import DEFAULT_LIMIT, CursorText, Limit, cursor_of, page, place_of


@endpoint("GET", "/v1/me", tag="me", answers=shapes.User, tagged=True)
async def me(call: Call) -> Mapping[str, object]:
    """Read the user's profile."""
    return auth.user_resource(await auth.profile(call.deps, call.me))


@endpoint("GET", "/v1/me/audit", tag="me", answers=shapes.AuditEntries, tagged=True, problems=(Invalid,))
async def audit_log(call: Call, *, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Answer:
    """List what happened to the account, newest first.

    Sign-ins (refused ones that named this address too), refreshes, sessions that were ended, rooms that were refused.
    """
    before = None if cursor is None else int(place_of(call.deps.settings, "audit", cursor)[0])
    entries = await audit.entries(call.deps, call.me.user, before=before, limit=limit + 1)
    data = [
        {
            "id": entry.id,
            "action": entry.action,
            "metadata": entry.metadata,
            "ipAddress": entry.ip_address,
            "userAgent": entry.user_agent,
            "timestamp": iso(entry.at),
        }
        for entry in entries[:limit]
    ]
    following = cursor_of(call.deps.settings, "audit", entries[limit - 1].id) if len(entries) > limit else None
    return page(call, data, following)


ROUTES = (me, audit_log)
