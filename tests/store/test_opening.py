from __future__ import annotations

import asyncio

import pytest

from config.embedded.postgres import Postgres
from store.opening import DatabaseUnfit, open_when_ready
from store.postgres import connect
from tests.conftest import Engines, apply_schema, in_database
from tests.waiting import until


async def test_it_waits_for_a_database_that_comes_up_and_is_migrated(private_postgres: Postgres) -> None:
    private_postgres.stop()
    opening = asyncio.create_task(open_when_ready(private_postgres.url, size=1, timeout_s=30, stop=asyncio.Event()))
    await asyncio.sleep(0)
    private_postgres.start()
    pool = await opening
    assert pool is not None
    assert await pool.fetchval("SELECT 1") == 1
    await pool.close()


async def test_it_waits_for_the_schema(engines: Engines) -> None:
    url = in_database(engines.database_url, "unmigrated")
    admin = await connect(engines.admin_url)
    await admin.execute("CREATE DATABASE unmigrated")
    try:
        with pytest.raises(DatabaseUnfit, match="python -m store migrate"):
            await open_when_ready(url, size=1, timeout_s=0, stop=asyncio.Event())
        opening = asyncio.create_task(open_when_ready(url, size=1, timeout_s=30, stop=asyncio.Event()))
        await apply_schema(url)
        pool = await opening
        assert pool is not None
        await pool.close()
    finally:
        await admin.execute("DROP DATABASE unmigrated WITH (FORCE)")
        await admin.close()


async def test_it_gives_up_with_a_sentence() -> None:
    with pytest.raises(DatabaseUnfit, match=r"does not answer .* EXPENDI_DATABASE_URL"):
        await open_when_ready("postgresql://x@127.0.0.1:1/x", size=1, timeout_s=0, stop=asyncio.Event())


async def test_a_database_that_refuses_us_is_said_at_once(engines: Engines) -> None:
    url = in_database(engines.database_url, "no_such_database")
    with pytest.raises(DatabaseUnfit, match="refuses us"):
        await open_when_ready(url, size=1, timeout_s=30, stop=asyncio.Event())


async def test_a_stop_ends_the_wait() -> None:
    stop = asyncio.Event()
    opening = asyncio.create_task(open_when_ready("postgresql://x@127.0.0.1:1/x", size=1, timeout_s=60, stop=stop))
    await asyncio.sleep(0)
    stop.set()
    await until(opening.done)
    assert opening.result() is None
