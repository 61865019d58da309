"""What a leaderboard has to be and to tell, in plain Python, and what its standings cost by themselves."""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from config import keys
from store.leaderboards import Leaderboards, Pace, Place, Ranked, Standing
from store.redis import Client

Key = tuple[int, bytes]


@dataclass
class Oracle:
    """The whole order in plain Python: who is where, and whom a change concerns."""

    scores: dict[UUID, int] = field(default_factory=dict)
    order: list[Key] = field(default_factory=list)
    """Worst first."""
    told: dict[UUID, tuple[int, int]] = field(default_factory=dict)
    """Rank and score that each was told last."""

    @classmethod
    def of(cls, scores: dict[UUID, int]) -> Oracle:
        return cls(dict(scores), sorted((score, id_.bytes) for id_, score in scores.items()))

    def rank(self, score: int) -> int:
        return 1 + len(self.order) - bisect_left(self.order, (score + 1, b""))

    def ranked(self) -> list[Ranked]:
        found: list[Ranked] = []
        rank = 0
        for number, (score, member) in enumerate(reversed(self.order), start=1):
            rank = rank if found and found[-1].score == score else number
            found.append(Ranked(UUID(bytes=member), score, rank))
        return found

    def _beside(self, key: Key) -> set[UUID]:
        at = bisect_left(self.order, key)
        return {UUID(bytes=self.order[i][1]) for i in (at - 1, at + 1) if 0 <= i < len(self.order)}

    def move(self, id_: UUID, score: int) -> dict[UUID, tuple[int, int]]:
        """Change a score; returns what everybody whom it concerns is to be told: rank and the one told last."""
        old, new = (self.scores[id_], id_.bytes), (score, id_.bytes)
        if old == new:
            return {}
        concerned = self._beside(old)
        del self.order[bisect_left(self.order, old)]
        before = self.rank(old[0])
        insort(self.order, new)
        self.scores[id_] = score
        found = {id_: (self.rank(score), before)}
        for other in concerned | self._beside(new):
            theirs = self.scores[other]
            passed = (score > theirs) - (old[0] > theirs)
            if passed:
                found[other] = (self.rank(theirs), self.rank(theirs) - passed)
        return {each: told for each, (rank, was) in found.items() if (told := self._say(each, rank, was))}

    def _say(self, id_: UUID, rank: int, before: int) -> tuple[int, int] | None:
        last = self.told.get(id_)
        if last == (rank, self.scores[id_]):
            return None  # they know
        self.told[id_] = (rank, self.scores[id_])
        return rank, last[0] if last else before


class Watch:
    """Hears every user's channel: what was told to whom, and when (ns, CLOCK_REALTIME)."""

    def __init__(self, client: Client) -> None:
        self._pubsub = client.pubsub()
        self.heard: list[tuple[str, dict[str, Any], int]] = []

    @classmethod
    @asynccontextmanager
    async def on(cls, client: Client) -> AsyncIterator[Watch]:
        watch = cls(client)
        await watch._pubsub.psubscribe(keys.USER_CHANNEL_PREFIX + "*")
        task = asyncio.create_task(watch._listen())
        try:
            yield watch
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await watch._pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py's own

    async def _listen(self) -> None:
        while True:
            message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=1)
            if message is not None and message["data"].startswith(b'["leaderboard_update"'):
                user = message["channel"].decode().removeprefix(keys.USER_CHANNEL_PREFIX)
                payload = orjson.loads(message["data"])[1]
                self.heard.append((user, payload, time.clock_gettime_ns(time.CLOCK_REALTIME)))


def spread(count: int, chance: random.Random) -> dict[UUID, int]:
    """Participants whose scores have ties, as those of people who save round sums have."""
    return {UUID(int=chance.getrandbits(128), version=4): chance.randrange(count // 5 + 1) for _ in range(count)}


def pages_of(scores: dict[UUID, int], *, change: int = 1) -> Any:
    rows = [Standing(id_, score, change) for id_, score in scores.items()]

    async def read() -> AsyncIterator[Sequence[Standing]]:
        for start in range(0, len(rows), 5000):
            yield rows[start : start + 5000]

    return read


async def everyone(boards: Leaderboards, challenge: UUID) -> list[Ranked]:
    """The whole list as pages of it say."""
    found: list[Ranked] = []
    place: Place | None = None
    while page := await boards.page(challenge, place, limit=2000):
        found += page
        place = Place(page[-1].score, page[-1].id)
    return found


def quantiles(values: Iterable[float]) -> str:
    """p50, p99 and the largest (ms)."""
    ordered = sorted(values)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99)]
    return f"p50 {at[0]:6.2f} ms, p99 {at[1]:6.2f} ms, most {ordered[-1]:6.2f} ms"


@dataclass
class Cost:
    """What Redis did between two looks."""

    calls: int
    input_bytes: int
    output_bytes: int
    script_us: float

    @classmethod
    async def now(cls, client: Any) -> Cost:
        stats, commands = await client.info("stats"), await client.info("commandstats")
        calls = sum(each["calls"] for name, each in commands.items() if name in ("cmdstat_evalsha", "cmdstat_zadd"))
        script = commands.get("cmdstat_evalsha", {"usec": 0})["usec"]
        return cls(calls, stats["total_net_input_bytes"], stats["total_net_output_bytes"], script)


async def measure_store(client: Any, boards: Leaderboards, challenge: UUID, *, count: int, updates: int) -> None:
    """The standings by themselves: memory, what an update costs, pages, and a rebuild beside the live ones."""
    chance = random.Random(7)
    oracle = Oracle.of(spread(count, chance))
    before = (await client.info("memory"))["used_memory"]
    began = time.perf_counter()
    await boards.rebuild(challenge, pages_of(oracle.scores))
    took = time.perf_counter() - began
    memory = ((await client.info("memory"))["used_memory"] - before) / count
    print(f"standings of {count:,}: filled in {took:.2f} s, {memory:.0f} bytes per participant")
    ids, seconds, told = list(oracle.scores), [], 0
    cost = await Cost.now(client)
    for change in range(2, updates + 2):
        id_ = chance.choice(ids)
        score = chance.randrange(count // 5 + 1)
        began = time.perf_counter()
        due = await boards.apply(challenge, [Standing(id_, score, change)], Pace(change * 10_000, 1))
        seconds.append(time.perf_counter() - began)
        assert {each.id: (each.rank, each.previous) for each in due} == oracle.move(id_, score)
        told += len(due)
    spent = await Cost.now(client)
    print(
        f"an update: {quantiles(each * 1e3 for each in seconds)}; one command, "
        f"{(spent.input_bytes - cost.input_bytes) / updates:.0f} bytes in, "
        f"{(spent.output_bytes - cost.output_bytes) / updates:.0f} out, "
        f"{(spent.script_us - cost.script_us) / updates:.0f} us of Redis; {told / updates:.1f} told of {count:,}"
    )
    after = (await client.info("memory"))["used_memory"]
    print(f"what {updates:,} updates told takes {(after - before - memory * count) / max(1, told):.0f} bytes each")
    live = await everyone(boards, challenge)
    began = time.perf_counter()
    await boards.rebuild(challenge, pages_of(oracle.scores, change=updates + 2))
    took = time.perf_counter() - began
    rebuilt = await everyone(boards, challenge)
    assert live == rebuilt == oracle.ranked()
    print(f"rebuilt in {took:.2f} s: all {len(rebuilt):,} ranks equal the live ones and plain Python's")
