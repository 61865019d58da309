"""Questions of web processes to workers, answered within a moment: by meaning, what a text is like.

A web process loads no model. It lays a question on a list, a quick worker takes it and lays the answer on a list of its
own, which the asker waits for. Both are gone seconds later: who asked in vain asks again.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import orjson
import structlog

from config import keys
from store.redis import AWAY, Client, bounded

log = structlog.get_logger(__name__)

ANSWER_S = 4.0
"""Time an answer may take (s): some 30 ms from a model that is loaded, a second when it has to be."""
LOOK_S = 0.4
"""Longest time one look at a list lasts (s): below what a Redis command may take."""
KEPT_S = 10
"""Life of a question or an answer that nobody takes (s)."""
AT_ONCE = 8
"""Questions of one process that wait: each holds one of its connections to Redis."""
WAITING_MAX = 200
"""Questions that may wait for workers: more could not be answered in time."""
WORKING = 8
"""Questions that a worker is at at the same time."""
PAUSE_S = 0.5

Answering = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, object]]]


class NoAnswer(Exception):
    """Nobody answered in time: no worker is there, all are busy, or Redis is away."""


class Questions:
    """The asking side of one process."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def ask(self, question: Mapping[str, object]) -> Mapping[str, Any]:
        """The answer of a worker; raises NoAnswer."""
        if self._turns.locked():
            raise NoAnswer("too many questions wait")
        async with self._turns:
            try:
                return await self._ask(question, secrets.token_hex(16))
            except AWAY as error:
                raise NoAnswer(f"Redis does not answer: {error!r}") from error

    async def _ask(self, question: Mapping[str, object], name: str) -> Mapping[str, Any]:
        until = time.time() + ANSWER_S
        text = orjson.dumps({**question, "name": name, "until": until})
        waiting = await bounded(self._client.rpush(keys.QUESTIONS, text))
        await bounded(self._client.expire(keys.QUESTIONS, KEPT_S))
        if waiting > WAITING_MAX:
            await bounded(self._client.lrem(keys.QUESTIONS, 1, text.decode()))
            raise NoAnswer("too many questions wait")
        while time.time() < until:
            found = await bounded(self._client.blpop([keys.answer(name)], timeout=LOOK_S))
            if found is not None:
                answer: Mapping[str, Any] = orjson.loads(found[1])
                return answer
        raise NoAnswer("no worker answered in time")


class Desk:
    """The answering side of one worker: `start`, then `stop`."""

    def __init__(self, client: Client, answer: Answering) -> None:
        self._client = client
        self._answer = answer
        self._turns = asyncio.Semaphore(WORKING)
        self._working: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to take questions."""
        self._loop = asyncio.create_task(self._take())

    async def stop(self) -> None:
        """Take nothing more; what is under way is let go: whoever waits for it asks again."""
        tasks = [*self._working, *([self._loop] if self._loop else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self) -> None:
        away = False
        while True:
            await self._turns.acquire()
            found = None
            try:
                found = await bounded(self._client.blpop([keys.QUESTIONS], timeout=LOOK_S))
                away = False
            except AWAY as error:
                if not away:
                    log.warning("questions_wait_for_redis", reason=repr(error))
                away = True
                await asyncio.sleep(PAUSE_S)
            if found is None:
                self._turns.release()
                continue
            task = asyncio.create_task(self._work(found[1]))
            self._working.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self._turns.release()

    async def _work(self, text: bytes | str) -> None:
        question = orjson.loads(text)
        if question["until"] < time.time():
            return
        answer = await self._answer(question)
        name = keys.answer(question["name"])
        with suppress(*AWAY):
            await bounded(self._client.rpush(name, orjson.dumps(answer)))
            await bounded(self._client.expire(name, KEPT_S))
