"""Letters as their reader ends them: a link in each one stops its kind, without signing in."""

from __future__ import annotations

from handlers.deps import Deps
from handlers.errors import NotFound
from handlers.rules.unsubscribe import letter_of
from store import mails, notifications
from store.mails import DIGEST
from store.postgres import Tx, in_transaction
from store.records import Address


async def kind_of(deps: Deps, token: str) -> str:
    """Which kind of letter a link ends; raises NotFound for one that is not ours."""
    return (await _origin(deps, token))[1]


async def unsubscribe(deps: Deps, token: str) -> str:
    """End the kind of letter that a link came with, and return it; the second time is a no-op. Raises NotFound."""
    user, kind = await _origin(deps, token)

    async def body(tx: Tx) -> None:
        if kind == DIGEST:
            await mails.stop_digest(tx, user, at=deps.now())
        else:
            await notifications.set_preferences(tx, user, {(kind, "email"): False})

    await in_transaction(deps.pool, body)
    return kind


async def _origin(deps: Deps, token: str) -> tuple[Address, str]:
    letter = letter_of(deps.settings, token)
    origin = None if letter is None else await mails.origin(deps.pool, letter)
    if origin is None:
        raise NotFound("This link is not one of ours, or its letter was sent very long ago.")
    return origin
