"""What happens by the clock: the one list of it. What is due is enqueued by whichever worker notices, once.

Two sweeps are not here, since every worker does them in each turn of its loop: outbox rows that arq may have lost
(`outbox.dispatch`), and jobs whose pause is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from arq.cron import CronJob, cron
from arq.typing import WorkerCoroutine

from config import keys, metrics
from handlers import achievements, budgets, earnings, goals, month_profiles, reconciliation
from jobs import challenges, digests, documents, email, push, standings
from jobs.images import sweep_uploads
from jobs.job import Tools
from store import clickhouse, idempotency, persistence, sessions
from store import log as user_log
from store.outbox import Queue

log = structlog.get_logger(__name__)

UNPERSISTED_S = 5.0
"""Age at which a change's persistence is asked for again (s): some hundred times what a job takes."""
RECONCILE_BUDGET_S = 8.0
"""Time one reconciliation goes on (s): all months of a small history, a few of a large one, which takes turns."""
MONTHS_AT_ONCE = 200
"""Users told of a new month between two looks at the clock."""
PROFILES_AT_ONCE = 100
"""Users whose months are read by one query: half a year of each."""
DAYS_AT_ONCE = 200
"""Users whose goals are looked at for a new day between two looks at the clock."""
CLOSED_AT_ONCE = 200
"""Users whose achievements are looked at for a day that ended between two looks at the clock."""
EVENINGS_AT_ONCE = 200
"""Users whose day's yield is computed by one round of queries."""
PRUNE_BATCH = 2000
"""Rows deleted by one statement: few enough that nobody waits for its locks."""
PRUNE_BUDGET_S = 10.0
"""Time one prune may go on (s); what is left waits for the next one."""
SESSIONS_KEPT = timedelta(days=1)
"""How long a session, token or nonce is kept after its end: an expired one is still told from an unknown one."""
PREIMAGES_KEPT_BLOCKS = 64
"""Blocks below the finalized height that keep their pre-images: `finalized` itself may be told wrongly by a node."""


@dataclass(frozen=True, slots=True)
class Periodic:
    """Something that happens at these minutes or seconds; `run` returns how much it did."""

    name: str
    queue: Queue
    run: Callable[[Tools], Awaitable[int]]
    timeout_s: float
    minutes: frozenset[int] | None = None
    seconds: frozenset[int] = frozenset({0})


async def begin_months(tools: Tools) -> int:
    """Tell users with a budget of their new month: well within a minute of its beginning."""
    return await _batches(lambda: budgets.begin_months(tools.deps, limit=MONTHS_AT_ONCE))


async def learn_months(tools: Tools) -> int:
    """Learn how months usually go, for users with a budget whose month has begun."""
    return await _batches(lambda: month_profiles.learn(tools.deps, limit=PROFILES_AT_ONCE))


async def begin_days(tools: Tools) -> int:
    """Look at goals whose user's day has ended: the days that are left, and what prices have made of them."""
    return await _batches(lambda: goals.begin_days(tools.deps, limit=DAYS_AT_ONCE))


async def close_days(tools: Tools) -> int:
    """Look at the achievements of users whose day has ended, and with it perhaps a month: within a minute."""
    return await _batches(lambda: achievements.close_days(tools.deps, limit=CLOSED_AT_ONCE))


async def tell_evenings(tools: Tools) -> int:
    """Tell users whose evening has begun what their investments earned today."""
    return await _batches(lambda: earnings.tell_evenings(tools.deps, limit=EVENINGS_AT_ONCE))


async def ask_unpersisted(tools: Tools) -> int:
    """Request persistence of what waits though its request was lost; cheap when nothing does."""
    await persistence.adopt(tools.deps.pool)
    asked = await persistence.ask_unpersisted(tools.deps.pool, older_than_s=UNPERSISTED_S)
    if asked:
        await tools.deps.publisher.wake(keys.JOBS_WAKE)
    return asked


async def reconcile(tools: Tools) -> int:
    """Compare what both stores have, month by month; what differs is told as an error and by a gauge."""
    try:
        return await reconciliation.run(tools.deps.pool, tools.analytics, budget_s=RECONCILE_BUDGET_S)
    except clickhouse.AWAY as error:
        log.warning("reconciliation_waits_for_engine", reason=repr(error))
        return 0


async def prune_log(tools: Tools) -> int:
    """Delete log entries past their retention; a client that missed them gets a snapshot."""
    before = tools.deps.now() - timedelta(days=tools.deps.settings.log_retention_days)
    return await _batches(lambda: user_log.prune(tools.deps.pool, before=before, batch=PRUNE_BATCH))


async def prune_sessions(tools: Tools) -> int:
    """Delete what nobody can sign in with any more."""
    before = tools.deps.now() - SESSIONS_KEPT
    return await _batches(lambda: sessions.prune(tools.deps.pool, before=before, batch=PRUNE_BATCH))


async def prune_preimages(tools: Tools) -> int:
    """Delete pre-images of blocks that can't be reverted any more."""
    return await _batches(
        lambda: persistence.prune_preimages(tools.deps.pool, margin_blocks=PREIMAGES_KEPT_BLOCKS, batch=PRUNE_BATCH)
    )


async def prune_idempotency(tools: Tools) -> int:
    """Delete answers that nobody may ask for again."""
    return await _batches(lambda: idempotency.prune(tools.deps.pool, batch=PRUNE_BATCH))


SCHEDULE = (
    Periodic("push", "quick", push.run, timeout_s=push.TIMEOUT_S, seconds=frozenset(range(60))),
    Periodic("record_digests", "slow", digests.record_due, timeout_s=20, minutes=frozenset(range(0, 60, 5))),
    Periodic("record_notice_mails", "slow", email.record_notices, timeout_s=20, seconds=frozenset({10})),
    Periodic("mail", "slow", email.run, timeout_s=email.TIMEOUT_S, seconds=frozenset(range(0, 60, 5))),
    Periodic("prune_mails", "slow", email.prune, timeout_s=20, minutes=frozenset({50})),
    Periodic("prune_pushes", "slow", push.prune, timeout_s=20, minutes=frozenset({45})),
    Periodic("tell_standings", "quick", standings.tell_waiting, timeout_s=10, seconds=frozenset(range(60))),
    Periodic("compare_standings", "slow", standings.compare, timeout_s=20, minutes=frozenset(range(3, 60, 5))),
    Periodic("begin_months", "quick", begin_months, timeout_s=20, seconds=frozenset({0, 20, 40})),
    Periodic("learn_months", "slow", learn_months, timeout_s=20, minutes=frozenset(range(1, 60, 5))),
    Periodic("begin_days", "quick", begin_days, timeout_s=20, seconds=frozenset({10, 30, 50})),
    Periodic("close_days", "quick", close_days, timeout_s=20, seconds=frozenset({15, 35, 55})),
    Periodic("tell_evenings", "quick", tell_evenings, timeout_s=20, seconds=frozenset({5, 25, 45})),
    Periodic("measure_days", "quick", challenges.measure_days, timeout_s=20, seconds=frozenset({12, 32, 52})),
    Periodic("end_challenges", "quick", challenges.end, timeout_s=20, seconds=frozenset(range(3, 60, 10))),
    Periodic("ask_unpersisted", "quick", ask_unpersisted, timeout_s=10, seconds=frozenset(range(0, 60, 5))),
    Periodic("reconcile", "slow", reconcile, timeout_s=20, minutes=frozenset(range(1, 60, 10))),
    Periodic("prune_exports", "slow", documents.prune, timeout_s=20, seconds=frozenset({25})),
    Periodic("prune_log", "slow", prune_log, timeout_s=20, minutes=frozenset(range(2, 60, 10))),
    Periodic("prune_sessions", "slow", prune_sessions, timeout_s=20, minutes=frozenset(range(4, 60, 10))),
    Periodic("prune_idempotency", "slow", prune_idempotency, timeout_s=20, minutes=frozenset(range(8, 60, 10))),
    Periodic("sweep_uploads", "slow", sweep_uploads, timeout_s=20, minutes=frozenset({35})),
    Periodic("prune_preimages", "slow", prune_preimages, timeout_s=20, minutes=frozenset(range(6, 60, 10))),
)


def crons(tools: Tools, queue: Queue) -> list[CronJob]:
    """arq's view of the schedule of one queue."""
    return [
        cron(
            _counted(tools, each),
            name=each.name,
            minute=None if each.minutes is None else set(each.minutes),
            second=set(each.seconds),
            timeout=each.timeout_s,
        )
        for each in SCHEDULE
        if each.queue == queue
    ]


def _counted(tools: Tools, each: Periodic) -> WorkerCoroutine:
    async def run(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:  # noqa: ARG001 - arq's own signature
        began, outcome, count = time.perf_counter(), "done", 0
        try:
            count = await each.run(tools)
        except Exception:
            outcome = "failed"
            log.exception("periodic_failed", job=each.name)
        seconds = time.perf_counter() - began
        metrics.JOBS.labels(each.name, outcome).inc()
        metrics.JOB_SECONDS.labels(each.name).observe(seconds)
        if count:
            log.info("periodic_done", job=each.name, count=count, ms=round(seconds * 1000, 1))

    return run


async def _batches(step: Callable[[], Awaitable[int]]) -> int:
    """Repeat until nothing is left or the budget is spent."""
    deadline = asyncio.get_running_loop().time() + PRUNE_BUDGET_S
    total = 0
    while (count := await step()) and asyncio.get_running_loop().time() < deadline:
        total += count
    return total + count
