from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from config.embedded.valkey import Valkey
from handlers.deps import Deps
from jobs.job import Tools
from store.clickhouse import Analytics
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.jobs.bench import publishing


@pytest.fixture
async def tools(pool: Pool, private_valkey: Valkey, make_settings: MakeSettings) -> AsyncIterator[Tools]:
    """What jobs are given, with a queue of this test's own; ClickHouse is the test's, or away."""
    settings = make_settings(redis_url=private_valkey.url)
    analytics = Analytics(settings.clickhouse_url)
    async with publishing(settings.redis_url) as publisher:
        deps = Deps(settings=settings, chains={}, pool=pool, publisher=publisher, now=lambda: datetime.now(UTC))
        yield Tools(deps, analytics)
    await analytics.close()
