"""When each block was first seen: the demo's own subscription to the node, the start of block-to-client times."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping

from web3 import AsyncWeb3, WebSocketProvider

_KEPT = 10_000
"""Blocks remembered: more than any event waits for, less than a demo of days would see."""


@contextlib.asynccontextmanager
async def watch_heads(ws: str) -> AsyncIterator[Mapping[str, float]]:
    """Follow a node's new heads while the block runs; gives block hash -> first sight in ms since 1970, growing."""
    seen: dict[str, float] = {}
    async with AsyncWeb3(WebSocketProvider(ws)) as w3:
        await w3.eth.subscribe("newHeads")
        task = asyncio.create_task(_follow(w3, seen))
        try:
            yield seen
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _follow(w3: AsyncWeb3[WebSocketProvider], seen: dict[str, float]) -> None:
    async for message in w3.socket.process_subscriptions():
        at_ms = time.time() * 1000
        head = message["result"]
        seen.setdefault("0x" + bytes(head["hash"]).hex(), at_ms)
        if len(seen) > _KEPT:
            del seen[next(iter(seen))]
