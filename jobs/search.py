"""The jobs that keep the search index: a block's transactions, those of one change, and large changes in many runs."""

from __future__ import annotations

from handlers import search
from jobs.job import Job, Tools
from store.outbox import Claim


async def run(tools: Tools, claim: Claim) -> bool:
    """Bring the index of what a claim names to the present."""
    return await search.index(tools.deps, claim)


INDEX_BLOCK = Job(search.BLOCK, "quick", run, timeout_s=15)
INDEX_ROWS = Job(search.ROWS, "quick", run, timeout_s=15)
INDEX_MANY = Job(search.MANY, "slow", run, timeout_s=30)
