"""The clock of runs: waiting costs nothing, and nothing times out while an engine works."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from store.postgres import connect
from tests.sim.clock import Process, Stuck, VirtualLoop
from tests.sim.engines import Engines


def on(engines: Engines, work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(postgres_port=engines.postgres.port)) as runner:
        return runner.run(work)


def test_an_hour_of_sleep_passes_at_once(sim_engines: Engines) -> None:
    async def sleep() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(3600)
        return loop.time() - began

    assert on(sim_engines, sleep()) == pytest.approx(3600)


def test_time_stands_still_while_the_database_works(sim_engines: Engines) -> None:
    async def ask() -> float:
        conn = await connect(await sim_engines.fresh_database())
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(0.01):
            await conn.execute("SELECT pg_sleep(0.2)")
        took_s = asyncio.get_running_loop().time() - began
        await conn.close()
        return took_s

    assert on(sim_engines, ask()) < 0.01


def test_a_killed_process_runs_no_further(sim_engines: Engines) -> None:
    async def stubborn(steps: list[int]) -> None:
        for i in range(1000):
            steps.append(i)
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                steps.append(-1)
                raise

    async def kill() -> list[int]:
        process, steps = Process("stubborn"), []  # type: tuple[Process, list[int]]
        process.spawn(stubborn(steps))
        await asyncio.sleep(2.5)
        await process.kill()
        await asyncio.sleep(100)
        return steps

    assert on(sim_engines, kill()) == [0, 1, 2, -1]


def test_a_run_in_which_nothing_can_happen_ends_by_itself(
    sim_engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.sim.clock.STUCK_S", 0.01)

    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck):
        on(sim_engines, forever())
