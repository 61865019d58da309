"""Workers for tests of documents: they run what a web process asked for, on the same database and storage."""

from __future__ import annotations

from handlers.deps import Deps
from jobs.documents import WRITE_EXPORT
from jobs.job import Tools
from store import outbox
from store.clickhouse import Analytics


async def work(deps: Deps, *, runs: int = 50) -> int:
    """Run export jobs until none is left; returns how many runs that took."""
    analytics = Analytics(deps.settings.clickhouse_url)
    try:
        for done in range(runs):
            row = await deps.pool.fetchrow("SELECT id FROM outbox WHERE job = $1 LIMIT 1", WRITE_EXPORT.name)
            claim = None if row is None else await outbox.begin(deps.pool, row["id"])
            if claim is None:
                return done
            await WRITE_EXPORT.run(Tools(deps, analytics), claim)
    finally:
        await analytics.close()
    raise AssertionError("the jobs do not end")
