"""A follower at work: a scripted node (or anvil), a ledger in memory, and the task between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiohttp import ClientSession

from config.chains import Chain
from handlers.chain_events import ChainEvent, DecodedBlock, FundsDeposited
from store.rpc import Limits, Rpc
from tests.waiting import until
from tests.watchers.ledger import FakeLedger
from tests.watchers.node import ScriptedNode
from watchers.follower import Follower, follow
from watchers.heads import Heads
from watchers.prices import Feeds


@dataclass
class Run:
    """One run of a follower; leaving `following` stops it and raises what ended it."""

    follower: Follower
    heads: Heads
    ledger: FakeLedger
    task: asyncio.Task[None]
    stop: asyncio.Event
    expected: bool = False
    """Whether the test has seen what ended it."""

    async def ends_with(self, error: type[Exception], match: str | None = None) -> None:
        """Wait for the end of the run, which such an error must be."""
        await asyncio.wait([self.task], timeout=10)
        with pytest.raises(error, match=match):
            await self.task
        self.expected = True

    async def reaches(self, node: ScriptedNode) -> None:
        """Wait until the ledger stands at the node's newest block."""
        await until(lambda: self.task.done() or self.at(node.head.hash), 30, what=f"block {node.head.number}")
        if not self.at(node.head.hash):
            await self.task

    def at(self, block_hash: str) -> bool:
        return self.ledger.tip is not None and self.ledger.tip.hash == block_hash


@asynccontextmanager
async def following(
    chain: Chain,
    ledger: FakeLedger,
    *,
    poll_s: float = 0.02,
    timeout_s: float = 1,
    limits: Limits | None = None,
    every_blocks: int = 150,
) -> AsyncIterator[Run]:
    stop = asyncio.Event()
    async with ClientSession() as session:
        rpc = Rpc(chain.rpc, timeout_s, session, chain_id=chain.id, limits=limits)
        async with Heads(chain, rpc, session=session, poll_s=poll_s, timeout_s=timeout_s, stop=stop) as heads:
            follower = Follower(chain, rpc, ledger, heads, stop, feeds=Feeds(chain, rpc, every_blocks=every_blocks))
            task = asyncio.create_task(follow(follower, heads, stop))
            run = Run(follower, heads, ledger, task, stop)
            try:
                yield run
            finally:
                stop.set()
                await asyncio.wait([task])
            if (error := task.exception()) and not run.expected:
                raise error


def amounts(events: Sequence[ChainEvent]) -> list[int]:
    return [event.amount for event in events if isinstance(event, FundsDeposited)]


def stopping(run: Run, *, at: int) -> Callable[[DecodedBlock], None]:
    """Tells the run to stop while it applies the block of that number."""

    def look(block: DecodedBlock) -> None:
        if block.number == at:
            run.stop.set()

    return look
