"""Answers that are written while they are made: memory holds a piece of them, whatever their size.

The status is told before the body is known, so what fails later can only cut the connection: an answer without its
last chunk is no answer, and every client says so. A reader that stops reading is cut too: what is made for it may hold
a connection to the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import cast

import structlog
from aiohttp import web

from config import metrics
from handlers.errors import Unavailable

log = structlog.get_logger(__name__)

AT_ONCE = 4
"""Streams of one process that may hold a database connection: a fifth of its pool."""
WAIT_S = 10.0
"""Time a stream may wait for its turn (s), after its head was sent."""
STALL_S = 20.0
"""Time a reader may take for one piece (s)."""
LONGEST_S = 600.0
"""Time a whole stream may take (s): 100,000 rows take some seconds, a slow line a minute or two."""


class Streams:
    """The turns of one process."""

    def __init__(self, at_once: int = AT_ONCE, *, stall_s: float = STALL_S) -> None:
        self.turns = asyncio.Semaphore(at_once)
        self.stall_s = stall_s

    def check(self) -> None:
        """Refuse while all turns are taken: raises Unavailable."""
        if self.turns.locked():
            raise Unavailable("Too many exports run at this moment; try again.", retry_after_s=5)


class Writing(web.StreamResponse):
    """A response whose body is made when aiohttp asks for its end, that is after its headers are complete."""

    def __init__(
        self, chunks: AsyncIterator[bytes], streams: Streams, *, headers: Mapping[str, str], holds: bool = True
    ) -> None:
        """`holds`: its making holds a connection to the database, so it needs a turn."""
        super().__init__(status=200, headers=headers)
        self._chunks = cast(AsyncGenerator[bytes], chunks)
        self._streams = streams
        self._holds = holds

    async def write_eof(self, data: bytes = b"") -> None:
        """Write the whole body; raises ConnectionError when it can't be written to its end."""
        outcome = "cut"
        try:
            async with aclosing(self._chunks), asyncio.timeout(LONGEST_S):
                if self._req is not None and self._req.method != "HEAD":
                    await self._write()
            outcome = "done"
        except ConnectionError:
            raise
        except Exception as error:
            outcome = "failed"
            log.warning("stream_failed", reason=repr(error))
            raise ConnectionAbortedError("the answer can't be finished") from error
        finally:
            metrics.STREAMS.labels(outcome).inc()
        await super().write_eof(data)

    async def _write(self) -> None:
        if not self._holds:
            return await self._copy()
        async with asyncio.timeout(WAIT_S):
            await self._streams.turns.acquire()
        try:
            await self._copy()
        finally:
            self._streams.turns.release()

    async def _copy(self) -> None:
        async for chunk in self._chunks:
            async with asyncio.timeout(self._streams.stall_s):
                await self.write(chunk)
