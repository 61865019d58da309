"""Challenges at work: measured when the ledger changed and when days ended, and settled when they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

from handlers import challenge_ends, challenge_scores, standings
from handlers.challenge_scores import Rows
from jobs.job import Job, Tools
from store import outbox
from store.challenge_scores import ScoreRow
from store.leaderboards import Leaderboards, Standing
from store.outbox import Claim
from store.postgres import in_transaction

DUE_AT_ONCE = 500
"""Scores that one look at the clock measures before it looks at the clock again."""
BUDGET_S = 10.0
"""Time one look at the clock goes on (s); what is left is found by the next one."""


async def measure(tools: Tools, claim: Claim) -> bool:
    """Measure whom the claim names, bring standings up to it, and end the claim: cut before that, it runs again."""
    await _follow(tools, await challenge_scores.measure(tools.deps, claim))
    return await in_transaction(tools.deps.pool, lambda tx: outbox.done(tx, claim))


async def measure_days(tools: Tools) -> int:
    """Measure those whose day has ended; a long pause is made up for in turns."""
    total, is_over = 0, _deadline()
    while not is_over():
        count, rows = await challenge_scores.measure_due(tools.deps, limit=DUE_AT_ONCE)
        await _follow(tools, rows)
        total += count
        if count < DUE_AT_ONCE:
            break
    return total


async def end(tools: Tools) -> int:
    """Tell of challenges that have ended or were cancelled, and settle those that nothing can change any more."""

    async def follow(challenge: UUID, rows: Sequence[ScoreRow]) -> None:
        await _follow(tools, {challenge: rows})

    return await challenge_ends.advance(tools.deps, follow, is_over=_deadline())


async def _follow(tools: Tools, rows: Rows) -> None:
    """Bring standings up to committed rows; a worker without Redis leaves that to their comparison."""
    if tools.redis is None:
        return
    boards = Leaderboards(tools.redis)
    for challenge, each in rows.items():
        await standings.changed(tools.deps, boards, challenge, [Standing(*row) for row in each])


def _deadline() -> Callable[[], bool]:
    loop = asyncio.get_running_loop()
    ends = loop.time() + BUDGET_S
    return lambda: loop.time() >= ends


MEASURE_CHALLENGES = Job(challenge_scores.MEASURE, "quick", measure, timeout_s=20)
