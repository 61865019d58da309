"""The database at a process's start: it may come up beside us, or be migrated right now; wait, but not for ever."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg
import structlog

from config.settings import variable
from store import migrate
from store.postgres import LOST, Pool, connect, open_pool

logger = structlog.get_logger(__name__)

DATABASE = variable("database_url")
RETRY_S = 0.5
"""Pause between attempts (s)."""


class DatabaseUnfit(Exception):
    """The database can't be used; the message says why and what to do."""


async def open_when_ready(url: str, *, size: int, timeout_s: float, stop: asyncio.Event) -> Pool | None:
    """Open a pool once the database answers and has our schema; None when `stop` is set before.

    Raises DatabaseUnfit after `timeout_s`, or at once when it refuses us.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not stop.is_set():
        try:
            return await _migrated(url, size)
        except DatabaseUnfit as error:
            unfit = error
        except LOST as error:
            why = str(error) or type(error).__name__
            unfit = DatabaseUnfit(f"PostgreSQL does not answer ({why}): start it, or correct {DATABASE}.")
        except asyncpg.PostgresError as error:
            raise DatabaseUnfit(f"PostgreSQL refuses us ({error}): correct {DATABASE}.") from error
        if loop.time() > deadline:
            raise unfit
        logger.warning("database_not_ready", reason=str(unfit))
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await stop.wait()
    return None


async def _migrated(url: str, size: int) -> Pool:
    conn = await connect(url)
    try:
        missing = await migrate.pending_postgres(conn)
    finally:
        conn.terminate()
    if missing:
        raise DatabaseUnfit(f"The database lacks {', '.join(missing)}: run `python -m store migrate`.")
    return await open_pool(url, size=size)
