"""Idempotency-Key: a call that a client sends again, since it never heard the answer, is not done again.

The key is claimed before the work and its answer kept after it. What dies in between leaves the claim to its lease;
then the call runs again, and whatever it makes takes its id from the key (`Call.cause`), so that it is not made twice.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from hashlib import sha256
from uuid import uuid4

from aiohttp import web

from handlers.errors import Conflict, FieldError, Invalid, Problem
from realtime.rest.call import Call, Reply
from store import idempotency

HEADER = "Idempotency-Key"
RETRY_S = 1.0
"""Pause that is asked of a client whose first call still runs (s)."""

_KEY = re.compile(r"[\x21-\x7e]{1,200}")


class KeyReused(Problem):
    """The key names an earlier call with another body: choose a new key for a new call."""

    code, status, title = "idempotency_key_reused", 422, "The key belongs to another call"


def key_of(request: web.Request) -> str | None:
    """The key of a request, None without one; raises Invalid when it can't be a key."""
    key = request.headers.get(HEADER)
    if key is not None and not _KEY.fullmatch(key):
        words = "should be 1 to 200 visible ASCII characters"
        raise Invalid(f"{HEADER} {words}.", errors=[FieldError(f"/header/{HEADER}", words)])
    return key


def fingerprint(method: str, path: str, body: bytes) -> bytes:
    """What makes two calls the same call."""
    return sha256(b"\0".join((method.encode(), path.encode(), body))).digest()


async def once(call: Call, key: str, print_: bytes, run: Callable[[], Awaitable[Reply]]) -> Reply:
    """Run a call, or answer what it was answered before; raises Conflict or KeyReused.

    A refusal is not kept: nothing was done, so the same key may try again.
    """
    pool, user, claim = call.deps.pool, call.me.user, uuid4()
    kept = await idempotency.claim(pool, user, key, fingerprint=print_, claim=claim)
    if kept is not None:
        if kept.fingerprint != print_:
            raise KeyReused(f"This {HEADER} was used for another call; choose a new one for a new call.")
        if kept.status is None:
            raise Conflict(f"The first call with this {HEADER} is still running.", retry_after_s=RETRY_S)
        return Reply(kept.status, kept.body, kept.headers)
    try:
        reply = await run()
    except Problem:
        await idempotency.release(pool, user, key, claim=claim)
        raise
    await idempotency.keep(
        pool, user, key, claim=claim, status=reply.status, body=reply.body, headers=dict(reply.headers)
    )
    return reply
