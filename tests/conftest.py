"""Fixtures on real engines. Each xdist worker has its own; ClickHouse starts only for a test that asks."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from store import migrate
from store.postgres import Pool, connect, open_pool
from tests.engines import Anvil, Postgres, Valkey

TEMPLATE = "migrated"
MakeSettings = Callable[..., Settings]


class Engines:
    """The engines of this test process; what a test gets from them is its own database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = Postgres(folder / "postgres")
        self.valkey = Valkey(folder / "valkey")

    @property
    def database_url(self) -> str:
        return self.postgres.url(TEMPLATE)

    @property
    def redis_url(self) -> str:
        return self.valkey.url

    def start(self) -> None:
        self.postgres.start()
        self.valkey.start()
        asyncio.run(make_migrated(self.postgres, TEMPLATE))

    def stop(self) -> None:
        self.valkey.stop()
        self.postgres.stop()


async def make_migrated(postgres: Postgres, name: str) -> None:
    """Create a database with the current schema."""
    admin = await connect(postgres.admin_url)
    await admin.execute(f'CREATE DATABASE "{name}"')
    await admin.close()
    async with migrate.locked(postgres.url(name)) as conn:
        await migrate.postgres(conn)


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    engines = Engines(tmp_path_factory.mktemp("engines"))
    engines.start()
    yield engines
    engines.stop()


@pytest.fixture
async def database_url(engines: Engines) -> AsyncIterator[str]:
    """A migrated database of this test's own."""
    name = f"test_{uuid.uuid4().hex}"
    admin = await connect(engines.postgres.admin_url)
    await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
    yield engines.postgres.url(name)
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
    valkey = Valkey(tmp_path / "valkey")
    valkey.start()
    yield valkey
    valkey.stop()


@pytest.fixture
async def private_postgres(tmp_path: Path) -> AsyncIterator[Postgres]:
    """A PostgreSQL of this test's own, to be killed or restarted; `url("expendi")` is migrated."""
    postgres = Postgres(tmp_path / "postgres")
    postgres.start()
    await make_migrated(postgres, "expendi")
    yield postgres
    postgres.stop()


@pytest.fixture
def anvil(tmp_path: Path) -> Iterator[Anvil]:
    """A fresh chain of this test's own; a block per transaction."""
    anvil = Anvil(tmp_path / "anvil")
    anvil.start()
    yield anvil
    anvil.stop()


@pytest.fixture
def make_settings(request: pytest.FixtureRequest, tmp_path: Path) -> MakeSettings:
    """Settings with the urls of this test; keyword arguments win."""

    def make(**overrides: Any) -> Settings:
        urls = {name: request.getfixturevalue(name) for name in ("database_url", "redis_url") if name not in overrides}
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
