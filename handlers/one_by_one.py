"""One by one: the clock's work for many users, each in a transaction of their own under their own lock.

A turn that fails costs only its user: it is logged and counted, the others have theirs, and it is due again at the next
look at the clock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import structlog

from config import metrics
from handlers.deps import Deps
from store import log
from store.log import Counter
from store.postgres import Tx, in_transaction, is_passing
from store.records import Address, Frame

logger = structlog.get_logger(__name__)

Turn: TypeAlias = Callable[[Tx, Mapping[Address, Counter]], Awaitable[Sequence[Frame]]]
"""What is done for one user, given the locked counter row; returns what is to be published after the commit."""


async def one_by_one(deps: Deps, turns: Iterable[tuple[Address, Turn]], *, name: str) -> int:
    """Take each user's turn; returns how many went well. Raises what ends every turn alike: the engine is away."""
    done = 0
    for user, turn in turns:
        try:
            await _take(deps, user, turn)
        except Exception as error:  # whatever one user's rows make of it, the others go on
            if is_passing(error):
                raise
            metrics.TURNS_FAILED.labels(name).inc()
            logger.exception("turn_failed", work=name, user=user)
        else:
            done += 1
    return done


async def _take(deps: Deps, user: Address, turn: Turn) -> None:
    async def body(tx: Tx) -> Sequence[Frame]:
        return await turn(tx, await log.lock(tx, [user]))

    frames = await in_transaction(deps.pool, body)
    await deps.publisher.publish([(frame.user, frame.text) for frame in frames])
