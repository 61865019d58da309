"""The newest head of a chain: as the websocket announces it, and by polling whenever that is silent.

Beside it the probe compares the chain's nodes (store/probe.py).
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Self

import aiohttp

from config.chains import Chain
from store.chain import Header, ends
from store.heads import heads
from store.probe import probe
from store.records import BlockRef
from store.rpc import Rpc
from watchers.pacing import first_of, rest

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
        self.final: BlockRef | None = None
        """The block that the node polled last named final; None where it has no such tag."""
        self._told = (0, 0)
        self._lies = rpc.lies
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
        self._beside: list[asyncio.Task[None]] = []

    @property
    def head(self) -> int:
        """Highest number that a node told when polled; 0 when one that told has turned out a liar since."""
        return self._told[0] if self._lies == self._rpc.lies else 0

    @property
    def finalized(self) -> int:
        """Highest finalized number that a node told when polled; 0 as above."""
        return self._told[1] if self._lies == self._rpc.lies else 0

    async def __aenter__(self) -> Self:
        if self._chain.ws is not None:
            self._beside.append(asyncio.create_task(self._listen(self._chain.ws)))
        if len(self._chain.rpc) > 1:
            self._beside.append(asyncio.create_task(self._probe()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._beside:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def next(self) -> Header | None:
        """The newest head: as soon as it is announced, else polled when none was for `poll_s`; None when stopping."""
        for task in self._beside:
            if task.done():
                task.result()  # an exception that nobody expected ends the one who reads
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
        while True:
            lies = self._rpc.lies
            head, final = await ends(self._rpc)
            if lies == self._rpc.lies:
                break
        by_depth = max(0, head.number - self._chain.finality_depth)
        self._told = (max(self.head, head.number), max(self.finalized, final.number if final else by_depth))
        self.final = final
        self._lies = lies
        self._polled_at = asyncio.get_running_loop().time()
        return head

    async def refresh(self) -> None:
        """Poll if that has not happened for a while, so that `head` and `finalized` stay true."""
        if self._lies != self._rpc.lies or asyncio.get_running_loop().time() - self._polled_at >= FINALIZED_EVERY_S:
            await self.poll()

    def again(self, head: Header | None) -> None:
        """Give this head once more if no newer one was announced; None: poll at once."""
        self._announced = self._announced or (head if self._lies == self._rpc.lies else None)
        self._hurry = True

    async def _listen(self, url: str) -> None:
        announced = heads(url, self._session, chain_id=self._chain.id, timeout_s=self._timeout_s)
        async with aclosing(announced):
            async for header in announced:
                # Its number is believed when the block has been read from a node that is compared with others.
                self._announced = header
                self._news.set()

    async def _probe(self) -> None:
        """Compare the chain's nodes every few seconds, beside the calls that follow it."""
        while not self._stop.is_set():
            await rest(self._stop, self._rpc.limits.probe_s)
            await probe(self._rpc, within_s=self._timeout_s)
