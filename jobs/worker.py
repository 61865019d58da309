"""The worker: arq's, woken by pub/sub, and at work again by itself after Redis or PostgreSQL was away.

Each turn of its loop hands due outbox rows to arq (`outbox.dispatch`) and starts what arq has. A turn comes at once
after a wake-up or the end of a job, else every TICK_S. Of arq's worker three parts are replaced: its `main` ends with
the first error of Redis, its `start_jobs` loses a slot for each and asks Redis three times for what takes one
question, and its polling starts at most one batch of jobs per pause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

import arq.worker
import structlog
from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix
from arq.cron import CronJob
from arq.utils import timestamp_ms

from config import keys, metrics
from jobs.attempt import attempt
from jobs.job import Job, Tools
from store import outbox, persistence
from store.outbox import Queue

log = structlog.get_logger(__name__)

TICK_S = 0.5
"""Longest pause between two turns (s): finds what a lost wake-up did not tell, and jobs whose pause is over."""
AWAY_PAUSE_S = 1.0
"""Pause (s) after a turn that met an engine away."""
FEED_TIMEOUT_S = 5.0
"""Time one look into the outbox may take (s): a database that hangs must not keep jobs from starting."""
MEASURE_S = 5.0
MAX_JOBS = 20
"""Jobs at once: they wait for databases, and the pool has ten connections that each of them needs for moments."""
READ_LIMIT = 500
"""Queued jobs looked at in one turn; those that run elsewhere are among them."""
ARQ_EXTRA_S = 10.0
"""What arq's own limit adds to a job's (s): time to begin and end; it only cuts what the attempt could not."""
UNLIMITED_TRIES = 2**31
"""arq must not give a job up: its outbox row says when it is done."""


class Worker(arq.worker.Worker):
    """Runs the jobs of one queue in one process; `start`, then `stop`."""

    def __init__(
        self, tools: Tools, redis: ArqRedis, queue: Queue, jobs: Sequence[Job], *, crons: Sequence[CronJob] = ()
    ) -> None:
        """`jobs` of other queues are passed over. Closes `redis` when stopped."""
        super().__init__(
            functions=[_function(tools, job) for job in jobs if job.queue == queue],
            cron_jobs=list(crons),
            queue_name=keys.queue_name(queue),
            redis_pool=redis,
            handle_signals=False,
            max_jobs=MAX_JOBS,
            keep_result=0,
            queue_read_limit=READ_LIMIT,
            poll_delay=TICK_S,
            job_serializer=redis.job_serializer,
            job_deserializer=redis.job_deserializer,
            log_results=False,
        )
        self._db = tools.deps.pool
        self._queue = queue
        self._woken = asyncio.Event()
        self._stopped = asyncio.Event()
        self._asked = True
        self._feed_at = 0.0
        self._measure_at = 0.0
        self._untold: set[str] = set()
        self._away: set[str] = set()

    def wake(self) -> None:
        """Look into the outbox at once: something was requested."""
        self._asked = True
        self._woken.set()

    def start(self) -> asyncio.Task[None]:
        """Begin; the task ends with `stop`, or with a fault of ours, which is its exception."""
        self.main_task = asyncio.create_task(self.main())
        return self.main_task

    async def stop(self, *, patience_s: float) -> None:
        """Take nothing more, give running jobs `patience_s`, then cancel them: they run again elsewhere."""
        self.allow_pick_jobs = False
        self._stopped.set()
        self._woken.set()
        if self.main_task is not None:
            await asyncio.wait([self.main_task])
        running = list(self.tasks.values())
        if running:
            _, late = await asyncio.wait(running, timeout=patience_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        await self.pool.aclose(close_connection_pool=True)

    async def main(self) -> None:
        """Turn until `stop`."""
        while not self._stopped.is_set():
            self._woken.clear()
            steps = {"outbox": self._feed, "queue": self._fetch, "gauges": self._measure}
            well = [await self._survived(name, step) for name, step in steps.items()]
            # While an engine is away nothing but the end cuts the pause short: jobs that fail would make the loop spin.
            await _pause(self._woken if all(well) else self._stopped, TICK_S if all(well) else AWAY_PAUSE_S)

    async def _survived(self, name: str, step: Callable[[], Awaitable[None]]) -> bool:
        try:
            await step()
        except outbox.AWAY as error:
            if isinstance(error, ValueError):  # asyncpg's word for a bad argument: ours, and it never passes
                raise
            if name not in self._away:
                log.warning("worker_waits_for_engine", step=name, reason=repr(error))
            self._away.add(name)
            return False
        if name in self._away:
            log.info("worker_goes_on", step=name)
        self._away.discard(name)
        return True

    async def _feed(self) -> None:
        now = self.loop.time()
        if not self._asked and now < self._feed_at:
            return
        self._asked = False
        async with asyncio.timeout(FEED_TIMEOUT_S):
            sent = await outbox.dispatch(self._db, self.pool, self._queue)
        self._feed_at = now + TICK_S
        if sent == outbox.BATCH:
            self.wake()

    async def _fetch(self) -> None:
        if untold := list(self._untold):
            await self.pool.delete(*map(_in_progress, untold))
            self._untold.difference_update(untold)
        if self.job_counter < self.max_jobs:
            job_ids = await self.pool.zrangebyscore(
                self.queue_name, min="-inf", max=timestamp_ms(), start=0, num=self.queue_read_limit
            )
            await self.start_jobs(cast(list[bytes], job_ids))
        await self.heart_beat()

    async def _measure(self) -> None:
        now = self.loop.time()
        if now < self._measure_at:
            return
        self._measure_at = now + MEASURE_S
        async with asyncio.timeout(FEED_TIMEOUT_S):
            metrics.OUTBOX_DEPTH.set(await outbox.depth(self._db))
            metrics.PERSIST_LAG_SECONDS.set(await persistence.lag_s(self._db))

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Start those of these jobs that nobody runs, as far as there are slots."""
        for raw in job_ids:
            if self.job_counter >= self.max_jobs or not self.allow_pick_jobs:
                return
            job_id = raw.decode()
            if job_id in self.tasks:
                continue
            score = await self._claim(job_id)
            if score is not None:
                self.job_counter += 1
                task = self.loop.create_task(self.run_job(job_id, score))
                task.add_done_callback(partial(self._ended, job_id))
                self.tasks[job_id] = task

    async def _claim(self, job_id: str) -> int | None:
        """Take a job for this process; its score, or None when it runs elsewhere, has ended or is not due."""
        async with self.pool.pipeline(transaction=True) as pipe:
            pipe.set(_in_progress(job_id), b"1", nx=True, px=int(self.in_progress_timeout_s * 1000))
            pipe.zscore(self.queue_name, job_id)
            taken, score = await pipe.execute()
        if not taken:
            return None
        if score is None or score > timestamp_ms():
            await self.pool.delete(_in_progress(job_id))
            return None
        return int(score)

    def _ended(self, job_id: str, task: asyncio.Task[Any]) -> None:
        self.job_counter -= 1
        del self.tasks[job_id]
        self._woken.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Redis was not told that the job ended: it counts as running there until we say otherwise.
            self._untold.add(job_id)
            log.warning("job_end_not_told", id=job_id, reason=repr(error))


def _function(tools: Tools, job: Job) -> arq.worker.Function:
    async def run(ctx: dict[str, Any]) -> None:
        await attempt(tools, job, ctx["job_id"], tries=ctx["job_try"])

    return arq.worker.func(run, name=job.name, timeout=job.timeout_s + ARQ_EXTRA_S, max_tries=UNLIMITED_TRIES)


def _in_progress(job_id: str) -> str:
    return in_progress_key_prefix + job_id


async def _pause(until: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await until.wait()
