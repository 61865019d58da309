"""Who calls: access tokens to identities, for REST and sockets alike."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from time import monotonic

from handlers import auth
from handlers.auth import fingerprint
from handlers.deps import Deps
from handlers.errors import Unauthenticated, Unavailable
from store import sessions
from store.postgres import LOST
from store.sessions import Identity

CACHE_S = 1.0
"""Longest time (s) that a verified token is believed without asking again: a revoked one works that long at most."""
CACHE_SIZE = 20_000
"""Tokens remembered by one process, some 10 MB."""


class Tokens:
    """Verifies access tokens; the database is the truth, a second of memory its relief."""

    def __init__(self, deps: Deps, *, clock: Callable[[], float] = monotonic) -> None:
        self._deps = deps
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()

    async def verify(self, token: str) -> Identity:
        """Whose token this is; raises Unauthenticated, TokenExpired or (the database is away) Unavailable."""
        key, asked = fingerprint(token), self._clock()
        known = self._known.get(key)
        if known is not None and asked < known[0] + CACHE_S:
            auth.refuse_expired(known[1], now=self._deps.now())
            return known[1]
        try:
            identity = await auth.authenticate(self._deps, token)
        except Unauthenticated:
            self._known.pop(key, None)
            raise
        except LOST as error:
            raise Unavailable("The database does not answer; try again.") from error
        # The age counts from before the question: a revocation while it travelled is missed for a second at most.
        self._known[key] = (asked, identity)
        self._known.move_to_end(key)
        if len(self._known) > CACHE_SIZE:
            self._known.popitem(last=False)
        return identity

    def forget(self) -> None:
        """Ask again for every token: something was revoked."""
        self._known.clear()

    async def revoked_since(self, since: datetime) -> list[str]:
        """Ids of sessions revoked at or after `since` (aware UTC)."""
        return await sessions.revoked_since(self._deps.pool, since)
