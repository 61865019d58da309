"""PostgreSQL: pool, transactions with their retry class, health. The truth lives here."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import asyncpg
import orjson
import structlog

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Tx: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    Tx = Connection = asyncpg.Connection
    Pool = asyncpg.Pool

T = TypeVar("T")

log = structlog.get_logger(__name__)

ATTEMPTS = 8
"""Tries of one transaction on deadlock or serialization failure; by then the other side has long finished."""

OPEN_RETRY_S = 1.0
"""Pause between two tries of a process that waits for its database (s)."""

RETRYABLE = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)

LOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a server killed in the middle of an answer leaves the protocol in no known state
    asyncpg.TooManyConnectionsError,
    asyncio.TimeoutError,
)
"""The server is away or the connection broke: nothing was decided, the same step may be tried again later."""


def is_passing(error: BaseException) -> bool:
    """Whether the same step may succeed later without a change: the server is away, or it asked for a retry.

    asyncpg's errors about bad arguments are InterfaceErrors too; they are ValueErrors and never pass.
    """
    return isinstance(error, (*LOST, *RETRYABLE)) and not isinstance(error, ValueError)


async def _prepare(conn: Tx) -> None:
    await conn.set_type_codec("jsonb", encoder=_encode_json, decoder=orjson.loads, schema="pg_catalog")


def _encode_json(value: Any) -> str:
    return orjson.dumps(value).decode()


async def open_pool(url: str, *, size: int = 10, command_timeout_s: float = 30) -> Pool:
    """Open a pool of up to `size` connections; jsonb travels as Python values."""
    pool: Pool = await asyncpg.create_pool(
        url, min_size=1, max_size=size, init=_prepare, command_timeout=command_timeout_s, timeout=10
    )
    return pool


async def patient_pool(url: str, stop: asyncio.Event, *, size: int = 10) -> Pool | None:
    """Open the pool as soon as PostgreSQL is there, saying once that it is not; None when told to stop before."""
    told = False
    while not stop.is_set():
        try:
            return await open_pool(url, size=size)
        except LOST as error:
            if not told:
                log.warning("waiting_for_database", reason=repr(error))
            told = True
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), OPEN_RETRY_S)
    return None


async def connect(url: str, *, command_timeout_s: float = 60) -> Connection:
    """Open one connection outside any pool, for locks that live as long as it does."""
    conn: Connection = await asyncpg.connect(url, command_timeout=command_timeout_s, timeout=10)
    await _prepare(conn)
    return conn


async def retrying(body: Callable[[], Awaitable[T]]) -> T:
    """Run a whole transaction again on 40P01 and 40001; every other error is the caller's."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await body()
        except RETRYABLE:
            if attempt == ATTEMPTS:
                raise
            await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - jitter, not a secret
    raise AssertionError("unreachable")


async def in_transaction(pool: Pool, body: Callable[[Tx], Awaitable[T]]) -> T:
    """Run `body` in one READ COMMITTED transaction of the pool, again as a whole on deadlock."""

    async def once() -> T:
        async with pool.acquire() as conn, conn.transaction():
            return await body(conn)

    return await retrying(once)


@asynccontextmanager
async def frozen(pool: Pool) -> AsyncIterator[Tx]:
    """One read-only REPEATABLE READ transaction: every read in it sees the same instant."""
    async with pool.acquire() as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        yield conn


async def version(pool: Pool) -> str:
    """Server version, as `18.6`; raises one of LOST when it does not answer."""
    return str(await pool.fetchval("SHOW server_version"))
