"""`python -m jobs quick|slow`: run the jobs of one queue until stopped. Start as many as the queue needs."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import get_args

import structlog

from config import keys, logs, metrics
from config import settings as configuration
from config.chains import ChainTableError, load_chains
from config.settings import Settings, SettingsError, variable
from handlers.deps import Deps
from jobs.achievements import EVALUATE
from jobs.categorize import CATEGORIZE, CATEGORIZE_AGAIN
from jobs.challenges import MEASURE_CHALLENGES
from jobs.documents import WRITE_EXPORT
from jobs.images import CATEGORY_IMAGE, FORGET_PICTURE, FORGET_UPLOAD
from jobs.job import Tools
from jobs.meaning import EMBED_TEXTS, answer
from jobs.outbound import mail, vectors
from jobs.outbound.opening import opened_models
from jobs.outbound.push import Push
from jobs.persist import PERSIST_BLOCK
from jobs.schedule import crons
from jobs.search import INDEX_BLOCK, INDEX_MANY, INDEX_ROWS
from jobs.sharing import TELL_MEMBERS
from jobs.standings import REPAIR_STANDINGS
from jobs.worker import Worker
from store import outbox
from store.clickhouse import Analytics
from store.feed import Publisher, Subscriber
from store.outbox import Queue
from store.postgres import patient_pool
from store.questions import Desk
from store.redis import open_redis

log = structlog.get_logger(__name__)

JOBS = (
    PERSIST_BLOCK,
    *(INDEX_BLOCK, INDEX_ROWS, INDEX_MANY),
    EVALUATE,
    EMBED_TEXTS,
    *(CATEGORIZE, CATEGORIZE_AGAIN),
    MEASURE_CHALLENGES,
    WRITE_EXPORT,
    TELL_MEMBERS,
    REPAIR_STANDINGS,
    *(CATEGORY_IMAGE, FORGET_UPLOAD, FORGET_PICTURE),
)
"""Every kind of job of the product."""

PATIENCE_S = 5.0
"""Time running jobs have to end after SIGTERM (s); what is cut runs again elsewhere at once."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Work on one queue; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobs", description=__doc__)
    parser.add_argument("queue", choices=get_args(Queue), help="quick: persist, push, answers; slow: AI, images, mail")
    queue: Queue = parser.parse_args(arguments).queue
    try:
        settings = configuration.load()
        logs.configure(settings.log_level, process=f"jobs {queue}")
        asyncio.run(_work(settings, queue))
    except (SettingsError, ChainTableError) as error:
        sys.stderr.write(logs.scrub(f"{error}\n"))
        return 1
    return 0


async def _work(settings: Settings, queue: Queue) -> None:
    if "+cluster" in settings.queue:
        raise SettingsError(f"{variable('queue_url')} must name a Redis that is no cluster: arq can't work on one.")
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    chains = load_chains(settings.chains_file) if settings.chains_file else {}
    pool = await patient_pool(settings.database_url, stop)
    if pool is None:
        return
    async with AsyncExitStack() as closing:
        closing.enter_context(metrics.served(settings.host, settings.metrics_port))
        closing.callback(pool.terminate)  # whoever still waits for it was cancelled before
        publisher = Publisher(settings.redis_url)
        closing.push_async_callback(publisher.close)
        analytics = Analytics(settings.clickhouse_url)
        closing.push_async_callback(analytics.close)
        deps = Deps(settings=settings, chains=chains, pool=pool, publisher=publisher, now=lambda: datetime.now(UTC))
        redis = open_redis(settings.redis_url)
        closing.push_async_callback(redis.aclose)
        push = await closing.enter_async_context(_phones(settings, queue))
        letters = await closing.enter_async_context(mail.opened(settings)) if queue == "slow" else None
        models = await closing.enter_async_context(opened_models(deps, redis)) if queue == "slow" else None
        meaning = vectors.opened(settings, pool, deps.now)
        closing.push_async_callback(meaning.close)
        tools = Tools(deps, analytics, redis=redis, push=push, models=models, mail=letters, meaning=meaning)
        if queue == "quick":
            desk = Desk(redis, partial(answer, tools))
            desk.start()
            closing.push_async_callback(desk.stop)
        worker = Worker(tools, outbox.open_queue(settings.queue, queue), queue, JOBS, crons=crons(tools, queue))
        subscriber = Subscriber(settings.redis_url, lambda *_: worker.wake(), on_lost=_nothing, on_restored=worker.wake)
        await subscriber.start()
        closing.push_async_callback(subscriber.close)
        await _run(worker, subscriber, stop)


@asynccontextmanager
async def _phones(settings: Settings, queue: Queue) -> AsyncIterator[Push | None]:
    """Who delivers to phones, on the queue that pushes; None where nobody does."""
    if settings.fcm_credentials is None or queue != "quick":
        yield None
        return
    from jobs.outbound import fcm  # half a second of loading, which other workers need not wait for

    async with fcm.opened(settings.fcm_credentials, url=settings.fcm_url) as push:
        yield push


async def _run(worker: Worker, subscriber: Subscriber, stop: asyncio.Event) -> None:
    working, stopping = worker.start(), asyncio.create_task(stop.wait())
    try:
        await subscriber.subscribe(keys.JOBS_WAKE)
        log.info("worker_started", queue=worker.queue_name, jobs=sorted(worker.functions))
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        await worker.stop(patience_s=PATIENCE_S)
        log.info("worker_stopped")
    working.result()  # a fault of ours ends the process with its traceback; the supervisor starts another


def _nothing() -> None:
    """Nothing to do while wake-ups are lost: the loop looks by itself."""


if __name__ == "__main__":
    sys.exit(main())
