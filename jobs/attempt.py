"""One attempt of a job, from its outbox row to its outcome: nothing that fails here is forgotten.

A job that fails is tried again by arq, later and later; its row stays, its attempts are counted there. After DEAD_AFTER
attempts it is a dead letter: logged as an error with its reason each time, and tried again slowly, for ever. When Redis
forgets it, the dispatch of its row brings it back.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import Any, Literal
from uuid import UUID

import structlog
from arq.worker import Retry

from config import metrics
from jobs.job import Job, Tools
from store import clickhouse, outbox
from store.outbox import Claim

log = structlog.get_logger(__name__)

Outcome = Literal["done", "again", "gone", "away", "failed", "dead"]

DEAD_AFTER = 8
"""Attempts that failed for another reason than an engine being away: about two minutes of trying."""
DEAD_RETRY_S = 300.0
"""Pause before a dead letter is tried again (s): rare enough to cost nothing, often enough to heal by itself."""
FIRST_RETRY_S = 0.5
AWAY_RETRY_S = 10.0
"""Longest pause while an engine is away (s): how long after its return everything is under way again."""
BEGIN_TIMEOUT_S = 5.0


class Overdue(Exception):
    """The job took longer than its limit: a fault of its own, unlike an engine that does not answer in time."""


async def attempt(tools: Tools, job: Job, row_id: str, *, tries: int) -> None:
    """Run a job once for its outbox row; raises arq's Retry when it has to run again. `tries` as arq counts them."""
    began = time.perf_counter()
    claim: Claim | None = None
    error: Exception | None = None
    outcome: Outcome = "gone"
    try:
        async with asyncio.timeout(BEGIN_TIMEOUT_S):
            claim = await outbox.begin(tools.deps.pool, UUID(row_id))
        if claim is not None:
            outcome = "done" if await _run(tools, job, claim) else "again"
    except Exception as caught:  # noqa: BLE001 - whatever a job raises costs this attempt only, and is told below
        error, outcome = caught, _failure(caught, claim)
    seconds = time.perf_counter() - began
    metrics.JOBS.labels(job.name, outcome).inc()
    metrics.JOB_SECONDS.labels(job.name).observe(seconds)
    facts = {"job": job.name, "id": row_id, "outcome": outcome, "ms": round(seconds * 1000, 1), "tries": tries}
    _tell(facts if claim is None else {**facts, "attempts": claim.attempts, "args": claim.args}, outcome, error)
    if outcome == "away" and claim is not None:
        await _forgive(tools, claim)
    if outcome not in {"done", "gone"}:
        count = tries if outcome == "away" or claim is None else claim.attempts
        raise Retry(defer=pause_s(outcome, count, chance=random.random()))  # noqa: S311 - jitter, not a secret


async def _run(tools: Tools, job: Job, claim: Claim) -> bool:
    limit = asyncio.timeout(job.timeout_s)
    try:
        async with limit:
            return await job.run(tools, claim)
    except TimeoutError as error:
        if limit.expired():
            raise Overdue(f"{job.name} did not end within {job.timeout_s:g} s") from error
        raise


async def _forgive(tools: Tools, claim: Claim) -> None:
    """An engine that was away is no fault of the job: the attempt does not count, unless PostgreSQL is away itself."""
    with suppress(*outbox.AWAY):
        await outbox.forgive(tools.deps.pool, claim)


def _failure(error: Exception, claim: Claim | None) -> Outcome:
    if isinstance(error, (*clickhouse.AWAY, *outbox.AWAY)) and not isinstance(error, ValueError):
        return "away"  # a ValueError among asyncpg's is a bad argument
    return "dead" if claim is not None and claim.attempts >= DEAD_AFTER else "failed"


def pause_s(outcome: Outcome, count: int, *, chance: float) -> float:
    """Pause after the `count`th attempt (s); `chance` in [0, 1) spreads jobs that failed together."""
    if outcome == "again":
        return 0
    longest = AWAY_RETRY_S if outcome == "away" else DEAD_RETRY_S
    growing = longest if outcome == "dead" else FIRST_RETRY_S * 2.0 ** min(count - 1, 12)
    return min(growing, longest) * (1 + chance / 2)


def _tell(facts: dict[str, Any], outcome: Outcome, error: Exception | None) -> None:
    if error is None:
        log.debug("job_ended", **facts)
    elif outcome == "dead":
        log.error("job_dead", **facts, reason=repr(error), exc_info=error)
    elif outcome == "failed":
        log.warning("job_failed", **facts, reason=repr(error), exc_info=error)
    else:
        # Told once per job: thousands may wait for the same engine.
        tell = log.warning if facts["tries"] == 1 else log.debug
        tell("job_waits_for_engine", **facts, reason=repr(error))
