"""Fixtures on real engines. Each xdist worker has its own; ClickHouse starts only for a test that asks."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config.embedded.chain import Anvil
from config.embedded.clickhouse import ClickHouse
from config.embedded.postgres import Postgres
from config.embedded.valkey import Valkey
from config.settings import Settings
from store import migrate
from store.clickhouse import Analytics, database_of
from store.postgres import Pool, connect, open_pool

MakeSettings = Callable[..., Settings]

UNSAFE = {"fsync": "off", "full_page_writes": "off"}
"""A test's database may be lost with the machine, not with its process: commits still reach the kernel."""


class Engines:
    """The engines of this test process; what a test gets from them is its own database."""

    def __init__(self, folder: Path) -> None:
        self.postgres = Postgres(folder, options=UNSAFE)
        self.valkey = Valkey(folder)
        self.clickhouse = ClickHouse(folder)

    @property
    def database_url(self) -> str:
        """The migrated template that every test's database is cloned from: never connect to it."""
        return self.postgres.url

    @property
    def admin_url(self) -> str:
        return in_database(self.postgres.url, "postgres")

    @property
    def redis_url(self) -> str:
        return self.valkey.url

    @property
    def clickhouse_url(self) -> str:
        """Starts it with the first test that asks: it takes a second and 300 MB."""
        return self.clickhouse.start().url

    def start(self) -> None:
        for engine in (self.postgres, self.valkey):
            engine.begin()
        for engine in (self.postgres, self.valkey):
            engine.ready()
        asyncio.run(apply_schema(self.database_url))

    def stop(self) -> None:
        for engine in (self.clickhouse, self.valkey, self.postgres):
            engine.stop()


def in_database(url: str, name: str) -> str:
    return f"{url.rpartition('/')[0]}/{name}"


async def apply_schema(url: str) -> None:
    async with migrate.locked(url) as conn:
        await migrate.postgres(conn)


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    engines = Engines(tmp_path_factory.mktemp("engines"))
    try:
        engines.start()
        yield engines
    finally:
        engines.stop()


@pytest.fixture
async def database_url(engines: Engines) -> AsyncIterator[str]:
    """A migrated database of this test's own."""
    name = f"test_{uuid.uuid4().hex}"
    template = engines.database_url.rpartition("/")[2]
    admin = await connect(engines.admin_url)
    await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    yield in_database(engines.database_url, name)
    await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await admin.close()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    pool = await open_pool(database_url)
    yield pool
    await pool.close()


@pytest.fixture
def redis_url(engines: Engines) -> str:
    """Shared by the tests of this process: use keys of your own, and never FLUSHALL."""
    return engines.redis_url


@pytest.fixture
def private_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey of this test's own, to be killed, restarted or flushed."""
    with Valkey(tmp_path / "private") as valkey:
        yield valkey


@pytest.fixture
async def private_postgres(tmp_path: Path) -> AsyncIterator[Postgres]:
    """A migrated PostgreSQL of this test's own, to be killed or restarted."""
    with Postgres(tmp_path / "private", options=UNSAFE) as postgres:
        await apply_schema(postgres.url)
        yield postgres


@pytest.fixture
async def analytics(engines: Engines) -> AsyncIterator[Analytics]:
    """A migrated ClickHouse database of this test's own, and a client on it."""
    analytics = Analytics(in_database(engines.clickhouse_url, f"test_{uuid.uuid4().hex}"))
    await migrate.clickhouse(analytics)
    yield analytics
    await analytics.command("DROP DATABASE {database:Identifier}", database=database_of(analytics.url))
    await analytics.close()


@pytest.fixture
def clickhouse_url(analytics: Analytics) -> str:
    return analytics.url


@pytest.fixture
def private_clickhouse(tmp_path: Path) -> Iterator[ClickHouse]:
    """A ClickHouse of this test's own, to be killed or restarted; not migrated."""
    with ClickHouse(tmp_path / "private") as clickhouse:
        yield clickhouse


@pytest.fixture
def anvil(tmp_path: Path) -> Iterator[Anvil]:
    """A fresh chain of this test's own; each transaction gets a block at once."""
    with Anvil(tmp_path / "private", block_time=None) as anvil:
        yield anvil


@pytest.fixture
def make_settings(request: pytest.FixtureRequest, tmp_path: Path) -> MakeSettings:
    """Settings with the urls of this test's engines; keyword arguments win.

    ClickHouse's is given to a test that asks for `analytics` or `clickhouse_url`; others get one that answers nobody.
    """
    urls = {name: request.getfixturevalue(name) for name in ("database_url", "redis_url")}
    wanted = {"analytics", "clickhouse_url"} & set(request.fixturenames)
    urls["clickhouse_url"] = request.getfixturevalue("clickhouse_url") if wanted else "http://127.0.0.1:9/unused"

    def make(**overrides: Any) -> Settings:
        defaults = {"data_dir": tmp_path / "data", "secret_key": "k" * 32, "chains_file": tmp_path / "chains.toml"}
        return Settings(**{**defaults, **urls, **overrides})

    return make


@pytest.fixture(autouse=True)
def no_task_left(request: pytest.FixtureRequest) -> None:
    """Every task has an owner who awaits it: fail an async test that leaves one pending."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_tasks_ended")


@pytest.fixture
async def _tasks_ended() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task() and not task.done()]
    assert not left, f"tasks left pending: {left}"
