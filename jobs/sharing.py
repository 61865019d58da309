"""The job that tells a user's new name to those who share a bucket with them."""

from __future__ import annotations

from handlers import sharing
from jobs.job import Job, Tools
from store.outbox import Claim


async def run(tools: Tools, claim: Claim) -> bool:
    """Tell the members of some of the user's shared buckets."""
    return await sharing.renamed(tools.deps, claim)


TELL_MEMBERS = Job(sharing.RENAMED, "quick", run, timeout_s=15)
