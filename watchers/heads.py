"""The newest head of a chain: as the websocket announces it, and by polling whenever that is silent."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Self

import aiohttp

from config.chains import Chain
from store.chain import Header, heights
from store.heads import heads
from store.rpc import Rpc
from watchers.pacing import first_of

FINALIZED_EVERY_S = 2.0
"""How often the finalized height is asked for (s) while heads come by websocket."""


class Heads:
    """Heads of one chain, newest only: whoever is slow finds a gap and fills it. `async with` runs the websocket."""

    def __init__(
        self,
        chain: Chain,
        rpc: Rpc,
        *,
        session: aiohttp.ClientSession,
        poll_s: float,
        timeout_s: float,
        stop: asyncio.Event,
    ) -> None:
        self.head = 0
        """Highest number that a node told."""
        self.finalized = 0
        """Highest finalized number that a node told."""
        self._chain = chain
        self._rpc = rpc
        self._session = session
        self._poll_s = poll_s
        self._timeout_s = timeout_s
        self._stop = stop
        self._announced: Header | None = None
        self._news = asyncio.Event()
        self._hurry = True
        self._polled_at = 0.0
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._chain.ws is not None:
            self._listener = asyncio.create_task(self._listen(self._chain.ws))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._listener is not None:
            self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener

    async def next(self) -> Header | None:
        """The newest head: as soon as it is announced, else polled when none was for `poll_s`; None when stopping."""
        if self._listener is not None and self._listener.done():
            self._listener.result()  # an exception that nobody expected ends the one who reads
        if not self._hurry and self._announced is None:
            await first_of(self._news, self._stop, seconds=self._poll_s)
        if self._stop.is_set():
            return None
        self._news.clear()
        self._hurry = False
        head, self._announced = self._announced, None
        return head if head is not None else await self.poll()

    async def poll(self) -> Header:
        """Ask a node for its newest head and what is final."""
        head, finalized = await heights(self._rpc, finality_depth=self._chain.finality_depth)
        self.head = max(self.head, head.number)
        self.finalized = max(self.finalized, finalized)
        self._polled_at = asyncio.get_running_loop().time()
        return head

    async def refresh(self) -> None:
        """Poll if that has not happened for a while, so that `head` and `finalized` stay true."""
        if asyncio.get_running_loop().time() - self._polled_at >= FINALIZED_EVERY_S:
            await self.poll()

    def again(self, head: Header | None) -> None:
        """Give this head once more if no newer one was announced; None: poll at once."""
        self._announced = self._announced or head
        self._hurry = True

    async def _listen(self, url: str) -> None:
        announced = heads(url, self._session, chain_id=self._chain.id, timeout_s=self._timeout_s)
        async with aclosing(announced):
            async for header in announced:
                self._announced = header
                self.head = max(self.head, header.number)
                self._news.set()
