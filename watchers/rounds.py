"""One feed's past, found by the time of its rounds in the chain's newest state: nodes need no archive for it.

Catching up reads a thousand old blocks a second. What a feed said at each of them is the last round answered by then:
a search of few requests finds the place, and the rounds after it are read ahead in one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from store.records import Address
from store.rounds import PHASE_BITS, Round, newest_round, phases, rounds_by_id
from store.rpc import Rpc

AT_ONCE = 64
"""Rounds of one request: read ahead, and probes of a search. Four requests find one among 16 million."""

BEHIND = 8


class History:
    """The rounds of one feed. Not for concurrent use."""

    def __init__(self, rpc: Rpc, feed: Address) -> None:
        self._rpc = rpc
        self._feed = feed
        self._asof = -1
        self._phases: list[tuple[int, int]] = []
        self._ahead: list[Round] = []
        self._next = 0
        """Place of the first round after those read ahead."""

    @property
    def _count(self) -> int:
        return sum(count for _, count in self._phases)

    async def at(self, time: int) -> Round | None:
        """The last round answered by a time (s since 1970); None when the feed had answered nothing yet."""
        if time > self._asof:
            await self._open()
        if not self._ahead or time < self._ahead[0].updated_at:
            await self._go_to(await self._search(-1, self._count, time))
        elif time >= self._ahead[-1].updated_at and self._next < self._count:
            await self._go_to(self._next - 1)
            if self._ahead and time >= self._ahead[-1].updated_at and self._next < self._count:
                await self._go_to(await self._search(self._next - 1, self._count, time))
        found = bisect_right(self._ahead, time, key=lambda each: each.updated_at)
        return self._ahead[found - 1] if found else None

    async def _open(self) -> None:
        newest, asof = await newest_round(self._rpc, self._feed)
        self._phases = [] if newest is None else await phases(self._rpc, self._feed, newest)
        self._ahead, self._next, self._asof = [], 0, asof

    async def _go_to(self, place: int) -> None:
        """Read ahead from a place on, and a little before it: a round may have been left unanswered."""
        start = max(0, place - BEHIND)
        self._next = min(start + AT_ONCE, self._count)
        found = await self._read(range(start, self._next))
        self._ahead = [each for each in found if each is not None]

    async def _search(self, low: int, high: int, time: int) -> int:
        """The last place below `high` whose round was answered by `time`; `low` when there is none above it."""
        while high - low > 1:
            was = low, high
            places = range(low + 1, high, -(-(high - low - 1) // AT_ONCE))
            for place, each in zip(places, await self._read(places), strict=True):
                if each is None:
                    continue  # left unanswered: it says nothing of its neighbours
                if each.updated_at > time:
                    high = place
                    break
                low = place
            if (low, high) == was:
                break  # nothing between them was ever answered
        return low

    async def _read(self, places: Sequence[int]) -> list[Round | None]:
        return await rounds_by_id(self._rpc, self._feed, [self._id(place) for place in places]) if places else []

    def _id(self, place: int) -> int:
        for phase, count in self._phases:
            if place < count:
                return (phase << PHASE_BITS) + place + 1
            place -= count
        raise IndexError(place)
