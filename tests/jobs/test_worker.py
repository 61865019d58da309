"""Whatever is asked for runs, soon, and at least once; nothing that breaks around a worker needs a hand."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from arq import VERSION
from arq.worker import Worker as ArqWorker
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from config.embedded.postgres import Postgres
from config.embedded.valkey import Valkey
from handlers.deps import Deps
from jobs import attempt, worker
from jobs.job import Tools
from store import outbox
from store.outbox import Claim
from store.postgres import Pool, open_pool
from tests.conftest import MakeSettings
from tests.factories import insert_transactions, make_transaction
from tests.jobs.bench import Probe, ask, idle, publishing, working
from tests.waiting import until


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(attempt, "AWAY_RETRY_S", 0.05)
    monkeypatch.setattr(worker, "TICK_S", 0.05)
    monkeypatch.setattr(worker, "AWAY_PAUSE_S", 0.02)


async def take_a_while(pool: Pool) -> None:
    """Long enough for other workers to look at the job, and for engines to break meanwhile."""
    for _ in range(20):
        await pool.fetchval("SELECT 1")


async def test_wake_up_starts_a_job_without_waiting_for_a_tick(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "TICK_S", 3600)
    probe = Probe()
    async with working(tools, probe):
        await ask(tools, subject=1)
        await until(lambda: idle(tools.deps.pool))
    assert [claim.args for claim in probe.ran] == [{"subject": 1}]
    assert probe.ran[0].attempts == 1


async def test_lost_wake_up_is_found_by_the_next_tick(tools: Tools) -> None:
    probe = Probe()
    async with working(tools, probe):
        await ask(tools, wake=False)
        await until(lambda: idle(tools.deps.pool))
    assert len(probe.ran) == 1


async def test_more_jobs_than_slots_and_batches_all_run_once(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "TICK_S", 3600)  # neither may wait for the next tick
    monkeypatch.setattr(worker, "MAX_JOBS", 3)
    monkeypatch.setattr(outbox, "BATCH", 10)
    probe = Probe()
    for number in range(45):
        await ask(tools, wake=False, number=number)
    async with working(tools, probe):
        await until(lambda: idle(tools.deps.pool))
    assert Counter(claim.args["number"] for claim in probe.ran) == Counter(range(45))


async def test_workers_beside_each_other_run_each_job_once(tools: Tools) -> None:
    probe = Probe(lambda _: take_a_while(tools.deps.pool))
    async with working(tools, probe), working(tools, probe), working(tools, probe):
        for number in range(40):
            await ask(tools, number=number)
        await until(lambda: idle(tools.deps.pool))
    assert Counter(claim.args["number"] for claim in probe.ran) == Counter(range(40))


async def test_job_that_ended_or_was_put_off_elsewhere_is_not_held(tools: Tools) -> None:
    it = worker.Worker(tools, outbox.open_queue(tools.deps.settings.queue, "quick"), "quick", [Probe().job])
    await it.pool.zadd(it.queue_name, {"off": 10.0**15})
    await it.start_jobs([b"off", b"ended"])
    assert (it.tasks, it.job_counter) == ({}, 0)
    assert await it.pool.keys("arq:in-progress:*") == []
    await it.stop(patience_s=0)


async def test_asked_again_while_it_runs_it_runs_again_at_once(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "TICK_S", 3600)

    async def ask_once_more(claim: Claim) -> None:
        if len(probe.ran) == 1:
            await ask(tools, wake=False, **claim.args)

    probe = Probe(ask_once_more)
    async with working(tools, probe):
        await ask(tools, subject=1)
        await until(lambda: len(probe.ran) == 2)
        await until(lambda: idle(tools.deps.pool))


async def test_failing_job_is_tried_until_it_works(tools: Tools) -> None:
    async def fail_twice(_: Claim) -> None:
        if len(probe.ran) < 3:
            raise ValueError("not yet")

    probe = Probe(fail_twice)
    with capture_logs() as said:
        async with working(tools, probe):
            await ask(tools)
            await until(lambda: idle(tools.deps.pool))
    assert [claim.attempts for claim in probe.ran] == [1, 2, 3]
    failures = [line for line in said if line["event"] == "job_failed"]
    assert [line["reason"] for line in failures] == ["ValueError('not yet')"] * 2


async def test_dead_letter_stays_is_told_as_an_error_and_heals(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "DEAD_RETRY_S", 0.05)
    broken = True

    async def fail(_: Claim) -> None:
        if broken:
            raise ValueError("for ever")

    probe = Probe(fail)
    with capture_logs() as said:
        async with working(tools, probe):
            await ask(tools)
            await until(lambda: any(line["event"] == "job_dead" for line in said))
            assert not await idle(tools.deps.pool)
            broken = False
            await until(lambda: idle(tools.deps.pool))
    (dead, *_) = [line for line in said if line["event"] == "job_dead"]
    assert dead["log_level"] == "error"
    assert dead["attempts"] == attempt.DEAD_AFTER
    assert "for ever" in dead["reason"]


async def test_engine_that_is_away_does_not_count_as_the_jobs_fault(tools: Tools) -> None:
    async def away(_: Claim) -> None:
        if len(probe.ran) < attempt.DEAD_AFTER + 3:
            raise ConnectionRefusedError

    probe = Probe(away)
    async with working(tools, probe):
        await ask(tools)
        await until(lambda: idle(tools.deps.pool))
    assert {claim.attempts for claim in probe.ran} == {1}


async def test_job_past_its_limit_is_cut_and_counts_as_failed(tools: Tools) -> None:
    async def hang_once(_: Claim) -> None:
        if len(probe.ran) == 1:
            await asyncio.Event().wait()

    probe = Probe(hang_once, timeout_s=0.05)
    with capture_logs() as said:
        async with working(tools, probe):
            await ask(tools)
            await until(lambda: idle(tools.deps.pool))
    assert any("did not end within 0.05 s" in str(line.get("reason")) for line in said)


async def test_stop_lets_jobs_end_and_what_it_cuts_runs_at_once_elsewhere(tools: Tools) -> None:
    async def by_number(claim: Claim) -> None:
        await (release if claim.args["number"] == 0 else never).wait()

    release, never = asyncio.Event(), asyncio.Event()
    probe = Probe(by_number)
    async with working(tools, probe, patience_s=0.2) as first:
        await ask(tools, number=0)
        await ask(tools, number=1)
        await until(lambda: len(probe.ran) == 2)
        asyncio.get_running_loop().call_later(0.05, release.set)
    assert first.tasks == {}
    assert await outbox.depth(tools.deps.pool) == 1
    after = Probe()
    async with working(tools, after):
        await until(lambda: idle(tools.deps.pool))
    assert [claim.args["number"] for claim in after.ran] == [1]


async def test_redis_that_restarts_or_forgets_needs_no_hand(
    tools: Tools, private_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MAX_JOBS", 4)
    monkeypatch.setattr(outbox, "LOST_AFTER_S", 0.5)
    probe = Probe(lambda _: take_a_while(tools.deps.pool))
    asked = 0
    async with working(tools, probe) as it:
        for trouble in ("kill", "forget", "kill", "forget"):
            for _ in range(30):
                await ask(tools, number=(asked := asked + 1))
            await until(lambda: it.job_counter > 0)
            if trouble == "kill":
                private_valkey.kill()
                await until(lambda: "queue" in it._away)
                private_valkey.start()
            else:
                await it.pool.flushall()
        await forget_lost_runs(it, tools)
        await until(lambda: idle(tools.deps.pool), timeout_s=20)
        await until(lambda: it.job_counter == 0)
    assert {claim.args["number"] for claim in probe.ran} == set(range(1, asked + 1))


async def test_job_whose_end_redis_did_not_hear_is_released_as_soon_as_it_is_back(
    tools: Tools, private_valkey: Valkey
) -> None:
    probe = Probe(lambda _: until(release.is_set))
    release = asyncio.Event()
    async with working(tools, probe) as it:
        await ask(tools)
        await until(lambda: probe.ran)
        private_valkey.kill()
        release.set()
        await until(lambda: idle(tools.deps.pool))
        await until(lambda: it.tasks == {})
        private_valkey.start()  # its file says that the job runs

        async def forgotten() -> bool:
            return await it.pool.zcard(it.queue_name) == 0

        await until(lambda: "queue" not in it._away)
        await until(forgotten)
    assert len(probe.ran) == 1


async def forget_lost_runs(it: worker.Worker, tools: Tools) -> None:
    """Do what time does: the marks of runs that a killed Redis brought back from its file go after their limit."""

    async def settled() -> bool:
        marks = {key async for key in it.pool.scan_iter("arq:in-progress:*")}
        await it.pool.delete("arq:none", *(mark for mark in marks if mark.decode().rpartition(":")[2] not in it.tasks))
        return await idle(tools.deps.pool)

    await until(settled, timeout_s=20)


async def test_postgres_that_restarts_needs_no_hand(
    private_postgres: Postgres, private_valkey: Valkey, make_settings: MakeSettings, tools: Tools
) -> None:
    pool = await open_pool(private_postgres.url)
    settings = make_settings(database_url=private_postgres.url, redis_url=private_valkey.url)
    async with publishing(settings.redis_url) as publisher:
        deps = Deps(settings=settings, chains={}, pool=pool, publisher=publisher, now=tools.deps.now)
        own = Tools(deps, tools.analytics)
        probe = Probe(lambda _: take_a_while(pool))
        async with working(own, probe):
            for number in range(40):
                await ask(own, number=number)
            await until(lambda: probe.ran)
            private_postgres.kill()
            private_postgres.start()
            await until(lambda: asked_again(own), timeout_s=20)
            await until(lambda: idle(pool), timeout_s=20)
    pool.terminate()
    assert {claim.args["number"] for claim in probe.ran} == set(range(41))


async def asked_again(tools: Tools) -> bool:
    """Ask as a writer does, who tries again what the database did not take."""
    try:
        await ask(tools, number=40)
    except outbox.AWAY:
        return False
    return True


async def test_lag_and_depth_are_measured(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MEASURE_S", 0.02)
    async with tools.deps.pool.acquire() as conn:
        await insert_transactions(conn, [make_transaction()])
    await tools.deps.pool.execute("UPDATE ledger_changes SET changed_at = now() - interval '1 minute'")
    async with working(tools, Probe(lambda _: until(release.is_set))):
        release = asyncio.Event()
        await ask(tools)
        await until(lambda: REGISTRY.get_sample_value("expendi_outbox_depth") == 1)
        await until(lambda: 60 <= (REGISTRY.get_sample_value("expendi_persist_lag_seconds") or 0) < 600)
        await tools.deps.pool.execute("DELETE FROM ledger_changes")
        await until(lambda: REGISTRY.get_sample_value("expendi_persist_lag_seconds") == 0)
        release.set()


async def test_fault_of_ours_ends_the_worker_loudly(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> int:
        raise KeyError("a fault")

    monkeypatch.setattr(outbox, "dispatch", broken)
    ended = working(tools, Probe())
    it = await ended.__aenter__()
    await until(lambda: it.main_task is not None and it.main_task.done())
    with pytest.raises(KeyError, match="a fault"):
        await ended.__aexit__(None, None, None)


@pytest.mark.parametrize(
    ("outcome", "count", "expected"),
    [("again", 1, 0), ("failed", 1, 0.5), ("failed", 5, 8), ("failed", 99, 300), ("dead", 1, 300), ("away", 9, 10)],
)
def test_pauses_grow_to_a_bound(
    monkeypatch: pytest.MonkeyPatch, outcome: attempt.Outcome, count: int, expected: float
) -> None:
    monkeypatch.undo()
    assert attempt.pause_s(outcome, count, chance=0) == expected
    assert expected <= attempt.pause_s(outcome, count, chance=0.999) <= expected * 1.5


def test_arq_is_the_version_whose_parts_are_replaced() -> None:
    assert VERSION.startswith("0.28.")
    assert {"start_jobs", "main", "run_job", "heart_beat"} <= set(dir(ArqWorker))
