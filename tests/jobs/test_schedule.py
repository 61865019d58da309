"""What happens by the clock happens once, in bounded steps, and failing costs only itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from jobs import schedule
from jobs.job import Job, Tools
from jobs.schedule import SCHEDULE, Periodic
from jobs.worker import Worker
from store import outbox, persistence
from tests.factories import insert_transactions, make_address, make_transaction
from tests.jobs.bench import Probe
from tests.waiting import until

OFTEN = frozenset(range(60))


def worker(tools: Tools, jobs: list[Job]) -> Worker:
    redis = outbox.open_queue(tools.deps.settings.queue, "quick")
    return Worker(tools, redis, "quick", jobs, crons=schedule.crons(tools, "quick"))


async def test_due_things_run_once_among_workers(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[float] = []

    async def note(_: Tools) -> int:
        ran.append(tools.deps.now().timestamp())
        return 1

    monkeypatch.setattr(schedule, "SCHEDULE", (Periodic("note", "quick", note, timeout_s=5, seconds=OFTEN),))
    workers = [worker(tools, [Probe().job]) for _ in range(3)]
    for each in workers:
        each.start()
    await until(lambda: len(ran) >= 3)
    for each in workers:
        await each.stop(patience_s=1)
    seconds = [int(at) for at in ran]
    assert len(seconds) == len(set(seconds))


async def test_failure_is_told_and_the_next_time_comes(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    async def fail(_: Tools) -> int:
        ran.append(1)
        raise ValueError("no luck")

    monkeypatch.setattr(schedule, "SCHEDULE", (Periodic("fail", "quick", fail, timeout_s=5, seconds=OFTEN),))
    it = worker(tools, [Probe().job])
    with capture_logs() as said:
        it.start()
        await until(lambda: len(ran) >= 2)
        await it.stop(patience_s=1)
    assert any(line["event"] == "periodic_failed" and line["job"] == "fail" for line in said)


async def test_unpersisted_block_is_asked_for_by_the_clock(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    async with tools.deps.pool.acquire() as conn:
        await insert_transactions(conn, [make_transaction()])
    await tools.deps.pool.execute("UPDATE blocks SET changed_at = now() - interval '1 minute'")
    often = tuple(replace(each, seconds=OFTEN) for each in SCHEDULE if each.name == "ask_unpersisted")
    monkeypatch.setattr(schedule, "SCHEDULE", often)
    probe = Probe()
    it = worker(tools, [replace(probe.job, name="persist_block")])
    it.start()
    await until(lambda: probe.ran)
    await it.stop(patience_s=1)
    assert probe.ran[0].args["number"] == 100


def test_each_queue_has_its_own_part_of_the_schedule(tools: Tools) -> None:
    quick, slow = (schedule.crons(tools, queue) for queue in ("quick", "slow"))
    assert {"ask_unpersisted", "begin_months"} <= {each.name for each in quick}
    assert {"prune_log", "prune_sessions", "prune_preimages"} <= {each.name for each in slow}
    assert not {each.name for each in quick} & {each.name for each in slow}
    # A dead worker's jobs wait for its longest limit: it stays short.
    assert all(each.timeout_s is not None and each.timeout_s <= 20 for each in quick + slow)


async def test_old_log_entries_sessions_and_preimages_go_in_batches(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "PRUNE_BATCH", 3)
    pool, user, now = tools.deps.pool, make_address("user"), tools.deps.now()
    kept = timedelta(days=tools.deps.settings.log_retention_days)
    await pool.execute("INSERT INTO user_counters (user_address, seq, opened_at) VALUES ($1, 10, now())", user)
    await pool.execute(
        """INSERT INTO user_log (user_address, seq, event_id, event, payload, ts)
           SELECT $1, n, n::text, 'e', '{}', CASE WHEN n <= 7 THEN $2::timestamptz ELSE $3 END
           FROM generate_series(1, 10) AS n""",
        user,
        now - kept - timedelta(hours=1),
        now - kept + timedelta(hours=1),
    )
    await pool.execute(
        """INSERT INTO auth_nonces (nonce, expires_at)
           SELECT n::text, now() - n * interval '9 h' FROM generate_series(0, 9) AS n"""
    )
    assert await schedule.prune_log(tools) == 7
    assert await pool.fetchval("SELECT first_seq FROM user_counters") == 8
    assert await schedule.prune_sessions(tools) == 7
    assert await schedule.prune_preimages(tools) == 0


async def test_prune_stops_at_its_budget(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "PRUNE_BUDGET_S", 0)
    steps: list[int] = []

    async def endless(*_: object, **__: object) -> int:
        steps.append(1)
        return 5

    monkeypatch.setattr(persistence, "prune_preimages", endless)
    assert await schedule.prune_preimages(tools) == 5
    assert len(steps) == 1
