"""The real engines of runs, and a fresh database for each."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.embedded.postgres import Postgres
from config.embedded.valkey import Valkey
from store import migrate
from store.postgres import connect

UNSAFE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "jit": "off"}
"""A run's database may be lost with its process."""


class Engines:
    """PostgreSQL with a migrated template, and Valkey. `postgres` may be one that tests share."""

    def __init__(self, postgres: Postgres, valkey: Valkey) -> None:
        self.postgres, self.valkey = postgres, valkey
        self._last: str | None = None

    async def fresh_database(self) -> str:
        """Url of a migrated database; the one before is dropped."""
        base = self.postgres.url.rpartition("/")[0]
        template = self.postgres.url.rpartition("/")[2]
        name = f"sim_{uuid.uuid4().hex}"
        admin = await connect(f"{base}/postgres?sslmode=disable")
        try:
            if self._last is not None:
                await admin.execute(f'DROP DATABASE IF EXISTS "{self._last}" WITH (FORCE)')
            await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        finally:
            await admin.close()
        self._last = name
        return f"{base}/{name}?sslmode=disable"


@contextmanager
def own_engines(folder: Path) -> Iterator[Engines]:
    """Engines of this process's own."""
    with Postgres(folder, options=UNSAFE) as postgres, Valkey(folder) as valkey:
        asyncio.run(_migrate(postgres.url))
        yield Engines(postgres, valkey)


async def _migrate(url: str) -> None:
    async with migrate.locked(url) as conn:
        await migrate.postgres(conn)
