"""Pauses between tries, which end early when the process is told to stop."""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """Growing pauses with jitter, so that processes that failed together don't come back together."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self.tries = 0

    def reset(self) -> None:
        """Begin with the shortest pause again."""
        self.tries = 0

    def next_s(self) -> float:
        """The next pause (s): doubled each time, up to the longest, and up to a quarter of it shorter."""
        pause = min(self._longest_s, self._first_s * 2.0 ** min(self.tries, 30))
        self.tries += 1
        return pause * random.uniform(0.75, 1)  # noqa: S311 - jitter, not a secret


async def rest(stop: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until told to stop."""
    await first_of(stop, seconds=seconds)


async def first_of(*events: asyncio.Event, seconds: float) -> None:
    """Wait until one of the events is set, or so long."""
    if any(event.is_set() for event in events):
        return
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
