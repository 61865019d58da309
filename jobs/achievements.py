"""The job that looks at achievements: of one user, or of everyone whom a block concerned."""

from __future__ import annotations

from handlers import achievements
from handlers.committed import EVALUATE as NAME
from jobs.job import Job, Tools
from store.outbox import Claim


async def run(tools: Tools, claim: Claim) -> bool:
    """Look at those whom a claim names."""
    return await achievements.run(tools.deps, claim)


EVALUATE = Job(NAME, "quick", run, timeout_s=15)
