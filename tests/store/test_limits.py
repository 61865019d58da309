from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.embedded.valkey import Valkey
from store import limits
from store.limits import MICROSECONDS, Cells, Verdict, gcra
from store.redis import Client, answers, open_redis

SIX_SECONDS = 6 * MICROSECONDS


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Client]:
    client = open_redis(redis_url)
    yield client
    await client.aclose()


def key() -> str:
    return f"test:{uuid.uuid4().hex}"


async def test_of_200_calls_at_once_exactly_the_limit_passes(client: Client) -> None:
    cells, cell = Cells(client), key()
    verdicts = await asyncio.gather(*(cells.take(cell, interval_us=SIX_SECONDS, burst=10) for _ in range(200)))
    assert None not in verdicts
    assert sum(verdict.allowed for verdict in verdicts if verdict) == 10
    assert sorted(verdict.remaining for verdict in verdicts if verdict and verdict.allowed) == list(range(10))


async def take(cells: Cells, cell: str, *, burst: int, now_us: int = 0) -> Verdict:
    verdict = await cells.take(cell, interval_us=SIX_SECONDS, burst=burst, now_us=now_us)
    assert verdict is not None
    return verdict


async def test_calls_come_back_one_by_one(client: Client) -> None:
    cells, cell, now = Cells(client), key(), 1_800_000_000 * MICROSECONDS
    for _ in range(10):
        assert (await take(cells, cell, burst=10, now_us=now)).allowed
    refused = await take(cells, cell, burst=10, now_us=now + 1)
    assert (refused.allowed, refused.retry_after_us) == (False, SIX_SECONDS - 1)
    later = now + 1 + refused.retry_after_us
    assert [(await take(cells, cell, burst=10, now_us=later)).allowed for _ in range(2)] == [True, False]


@given(gaps=st.lists(st.integers(0, 20 * MICROSECONDS), min_size=1, max_size=30), per_minute=st.integers(1, 600))
@settings(max_examples=20, deadline=None)
def test_the_script_and_the_function_are_the_same_arithmetic(gaps: list[int], per_minute: int, engines: object) -> None:
    async def run() -> None:
        client = open_redis(engines.redis_url)  # type: ignore[attr-defined]  # hypothesis wants plain annotations
        cells, cell, through = Cells(client), key(), 0
        now = 1_800_000_000 * MICROSECONDS
        interval = 60 * MICROSECONDS // per_minute
        burst = min(per_minute, 5)
        for gap in gaps:
            now += gap
            expected, through = gcra(through, now, interval_us=interval, burst=burst)
            assert await cells.take(cell, interval_us=interval, burst=burst, now_us=now) == expected
        await client.aclose()

    asyncio.run(run())


async def test_cells_are_apart_and_leave_when_they_are_full_again(client: Client) -> None:
    cells, cell = Cells(client), key()
    assert (await take(cells, cell, burst=1)).allowed
    assert (await take(cells, key(), burst=1)).allowed
    assert 0 < await client.pttl(cell) <= 6000


async def test_a_redis_that_forgot_the_script_is_told_again(private_valkey: Valkey) -> None:
    client = open_redis(private_valkey.url)
    cells, cell = Cells(client), key()
    assert (await take(cells, cell, burst=2)).allowed
    await client.script_flush()
    assert [(await take(cells, cell, burst=2)).allowed for _ in range(2)] == [True, False]
    await client.aclose()


async def test_while_redis_is_away_nobody_waits_for_it(private_valkey: Valkey) -> None:
    clock = [0.0]
    client = open_redis(private_valkey.url)
    cells, cell = Cells(client, clock=lambda: clock[0]), key()
    assert await cells.take(cell, interval_us=SIX_SECONDS, burst=2) is not None
    private_valkey.stop()
    assert not await answers(client)
    assert await cells.take(cell, interval_us=SIX_SECONDS, burst=2) is None
    private_valkey.start()
    assert await answers(client)
    assert await cells.take(cell, interval_us=SIX_SECONDS, burst=2) is None, "asked again too soon"
    clock[0] += limits.PAUSE_S
    assert await cells.take(cell, interval_us=SIX_SECONDS, burst=2) is not None
    await client.aclose()
