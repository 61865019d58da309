"""A worker under test: real queue and database, jobs that do what the test says."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from config import keys
from jobs.job import Job, Tools
from jobs.worker import Worker
from store import outbox
from store.feed import Publisher, Subscriber
from store.outbox import Claim
from store.postgres import Pool

Body = Callable[[Claim], Awaitable[None]]


async def nothing(_: Claim) -> None:
    """A job without work."""


@dataclass
class Probe:
    """A job that records its runs; `body` is its work."""

    body: Body = nothing
    timeout_s: float = 5
    ran: list[Claim] = field(default_factory=list)

    @property
    def job(self) -> Job:
        return Job("probe", "quick", self._run, self.timeout_s)

    async def _run(self, tools: Tools, claim: Claim) -> bool:
        self.ran.append(claim)
        await self.body(claim)
        async with tools.deps.pool.acquire() as conn, conn.transaction():
            return await outbox.done(conn, claim)


async def ask(tools: Tools, *, wake: bool = True, **args: object) -> None:
    """Request a probe, as a writer does."""
    async with tools.deps.pool.acquire() as conn, conn.transaction():
        await outbox.request(conn, "quick", "probe", args or {"id": uuid.uuid4().hex})
    if wake:
        await tools.deps.publisher.wake(keys.JOBS_WAKE)


async def idle(pool: Pool) -> bool:
    return await outbox.depth(pool) == 0


@asynccontextmanager
async def publishing(url: str) -> AsyncIterator[Publisher]:
    publisher = Publisher(url)
    try:
        yield publisher
    finally:
        await publisher.close()


@asynccontextmanager
async def working(tools: Tools, probe: Probe, *, patience_s: float = 1) -> AsyncIterator[Worker]:
    """A worker of its own, woken as jobs/__main__.py does it; nothing may go wrong in a callback of the loop."""
    strays: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: strays.append(context))
    settings = tools.deps.settings
    worker = Worker(tools, outbox.open_queue(settings.queue, "quick"), "quick", [probe.job])
    subscriber = Subscriber(settings.redis_url, lambda *_: worker.wake(), lambda: None, worker.wake)
    await subscriber.start()
    await subscriber.subscribe(keys.JOBS_WAKE)
    task = worker.start()
    try:
        yield worker
    finally:
        await subscriber.close()
        await worker.stop(patience_s=patience_s)
    task.result()
    assert strays == []
