"""`persist_block`: one job per block with ledger rows, requested by the block's own transaction."""

from __future__ import annotations

from handlers import persistence
from jobs.job import Job, Tools
from store.outbox import Claim


async def run(tools: Tools, claim: Claim) -> bool:
    """Bring ClickHouse's rows of the block's chain to what the ledger has now."""
    return await persistence.persist(tools.deps.pool, tools.analytics, claim)


PERSIST_BLOCK = Job("persist_block", "quick", run, timeout_s=15)
