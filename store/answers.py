"""Finished analytics answers in Redis, each under its user's persisted version: asked again, it costs no query.

No answer is older than what was persisted when it was asked for: the version is read before the figures are, and
whatever reaches ClickHouse changes it. Losing Redis costs time, nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic

import orjson

from config import keys, metrics
from store.records import Address
from store.redis import AWAY, Client, bounded

TTL_S = 600
"""Time an answer is kept (s): what is asked again within a sitting. A new version leaves the old ones to it."""
PAUSE_S = 1.0
"""After a failure Redis is not asked for this long (s): callers must not queue up behind its timeout."""
LARGEST = 1 << 20
"""Answers above this (bytes) are made each time: Redis is shared with what must be quick."""
LAYOUT = 1
"""Grows when answers change their shape, so that a deploy reads none of the old."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: by whom, of which persisted version, on which route, with which normalised parameters."""

    user: Address
    version: int
    route: str
    parameters: Mapping[str, object]

    @property
    def tag(self) -> str:
        """Names the question and the state it is asked of; the same tag has the same answer."""
        asked = [LAYOUT, self.user, self.version, self.route, self.parameters]
        return sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]

    @property
    def key(self) -> str:
        """Key of its answer."""
        return keys.analytics_answer(self.user, self.version, f"{self.route}:{self.tag}")


class Answers:
    """Answers that Redis keeps, shared by all processes."""

    def __init__(self, client: Client, *, clock: Callable[[], float] = monotonic) -> None:
        self._client = client
        self._clock = clock
        self._ask_again_at = 0.0

    async def answer(self, question: Question, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """The kept answer, else the one that `make` makes, which is kept."""
        kept = await self._bounded(lambda: self._client.get(question.key))
        metrics.ANSWERS.labels(question.route, "kept" if kept else "made").inc()
        if isinstance(kept, bytes):
            return kept
        made = await make()
        if len(made) <= LARGEST:
            await self._bounded(lambda: self._client.set(question.key, made, ex=TTL_S))
        return made

    async def _bounded(self, call: Callable[[], Awaitable[object]]) -> object:
        """What Redis says; None when it does not."""
        if self._clock() < self._ask_again_at:
            return None
        try:
            return await bounded(call())
        except AWAY:
            self._ask_again_at = self._clock() + PAUSE_S
            return None
