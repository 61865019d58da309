"""The outbox: jobs requested by the transaction that needs them, handed to arq by the workers, deleted by the job.

1. A writer calls `request` in its transaction and, after the commit, `Publisher.wake(keys.JOBS_WAKE)`. It never talks
   to arq: a Redis that hangs can't hold up a block.
2. Every worker hears the wake-up (and looks each second anyway) and runs `dispatch`: rows nobody enqueued yet, and rows
   enqueued so long ago that arq may have lost them. It enqueues first and records that after; whatever dies in between,
   the row is still due. The row's id is arq's job id, so enqueuing twice is a no-op there.
3. The job calls `begin`, does its work, and calls `done` in the transaction of its own effects. Only `done` deletes.

A request for a job that is running must not be lost: the job may have read its subject before the request's transaction
committed. `created_at` moves with every request; `done` deletes only the value that `begin` observed, and says False
otherwise: run again. Either the request commits before `begin` (and the job sees its effects), or `done` sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import asyncpg
import orjson
from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from config import keys
from store.postgres import LOST, RETRYABLE, Pool, Tx
from store.statements import load

SQL = load("outbox")

Queue = Literal["quick", "slow"]

LOST_AFTER_S = 30.0
"""Age (s) at which an enqueued row is enqueued again: longer than a job waits and runs when all is well."""
BATCH = 100
"""Rows handed to arq by one `dispatch`: small enough (some 30 ms) that the first of them need not wait for the last."""
REDIS_TIMEOUT_S = 2.0
"""Time one Redis command of the queue may take (s); a worker's loop waits no longer."""
CONNECTIONS = 64
"""Connections to the queue's Redis per process; a job needs one only at its start and end."""

QUEUE_AWAY = (RedisError, OSError)
"""The queue's Redis does not answer or refuses: nothing is lost, the same step is tried again later."""
AWAY = (*QUEUE_AWAY, *LOST, *RETRYABLE, asyncpg.InternalClientError)
"""Either store of the outbox does not answer. asyncpg's own state error is what a connection says that was cut at a bad
moment; it is gone with that connection."""


@dataclass(frozen=True, slots=True)
class Due:
    """A row that arq should know of."""

    id: UUID
    job: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A row as its job found it; `attempts` counts this one, `asked_at` tells whether someone asked again since."""

    id: UUID
    job: str
    args: Mapping[str, Any]
    attempts: int
    asked_at: datetime


async def request(tx: Tx, queue: str, job: str, args: Mapping[str, object]) -> None:
    """Ask for a job once this transaction commits; asked twice before it ran, it runs once.

    `queue` is one of Queue (the table refuses others), `args` a JSON object.
    """
    await tx.execute(SQL["request"], queue, job, dict(args))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A job to ask for; see `request`."""

    queue: str
    job: str
    args: Mapping[str, object]


async def request_each(tx: Tx, wanted: Sequence[Wanted]) -> None:
    """Ask for several different jobs in one statement, without one for none."""
    if not wanted:
        return
    columns = zip(*((each.queue, each.job, orjson.dumps(each.args).decode()) for each in wanted), strict=True)
    await tx.execute(SQL["request_each"], *map(list, columns))


async def due(conn: Tx | Pool, queue: Queue, *, older_than_s: float, limit: int) -> list[Due]:
    """Rows nobody enqueued yet, then those enqueued more than `older_than_s` ago, oldest first."""
    rows = await conn.fetch(SQL["due"], queue, older_than_s, limit)
    return [Due(row["id"], row["job"]) for row in rows]


async def begin(conn: Tx | Pool, row_id: UUID) -> Claim | None:
    """Count an attempt and say what is asked; None when it was done meanwhile."""
    row = await conn.fetchrow(SQL["begin"], row_id)
    if row is None:
        return None
    return Claim(row["id"], row["job"], row["args"], row["attempts"], row["created_at"])


async def forgive(conn: Tx | Pool, claim: Claim) -> None:
    """Take the attempt back: it failed for no fault of the job."""
    await conn.execute(SQL["forgive"], claim.id)


async def done(tx: Tx, claim: Claim) -> bool:
    """Delete the row in the transaction of the job's effects; False when it was asked for again: run again."""
    return bool(await tx.fetchval(SQL["done"], claim.id, claim.asked_at))


async def depth(conn: Tx | Pool) -> int:
    """How many jobs nobody has finished."""
    return int(await conn.fetchval(SQL["depth"]))


async def dispatch(conn: Pool, redis: ArqRedis, queue: Queue) -> int:
    """Hand due rows of a queue to arq; returns how many. Call again at once while it returns BATCH.

    Holds no row lock while it talks to Redis: a block that requests the same job must not wait for that.
    """
    rows = await due(conn, queue, older_than_s=LOST_AFTER_S, limit=BATCH)
    if rows:
        for row in rows:
            # None when arq has this job already. Then it will begin after this moment, or runs and will find out in
            # `done`: either way the row counts as sent.
            await redis.enqueue_job(row.job, _job_id=str(row.id), _queue_name=keys.queue_name(queue))
        await conn.execute(SQL["sent"], [row.id for row in rows])
    return len(rows)


def open_queue(url: str, queue: Queue) -> ArqRedis:
    """Open arq's client for one queue; connects when first used. Jobs travel as JSON, never pickled."""
    pool = ConnectionPool.from_url(
        url,
        socket_timeout=REDIS_TIMEOUT_S,
        socket_connect_timeout=REDIS_TIMEOUT_S,
        max_connections=CONNECTIONS,
        # Once more at once: after a restart of Redis the first command of each pooled connection fails.
        retry=Retry(NoBackoff(), 1),
    )
    return ArqRedis(
        pool, job_serializer=encode, job_deserializer=orjson.loads, default_queue_name=keys.queue_name(queue)
    )


def encode(value: Any) -> bytes:
    """JSON of what arq stores; an exception in a result becomes its text."""
    return orjson.dumps(value, default=repr)
