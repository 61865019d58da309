"""What keeps standings: told to those who had to wait, compared with PostgreSQL, made again where they are gone.

`python -m jobs.standings rebuild|check [--challenge ID]` does by hand what `compare` does every five minutes: one line
of JSON for each challenge.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import orjson
import structlog

from config import logs
from config import settings as configuration
from config.settings import Settings, SettingsError
from handlers import standings
from handlers.deps import Deps
from jobs.job import Job, Tools
from store import outbox
from store import standings as rows
from store.feed import Publisher
from store.leaderboards import Leaderboards
from store.outbox import Claim
from store.postgres import LOST, open_pool
from store.redis import AWAY, Client, open_redis

log = structlog.get_logger(__name__)

COMPARE_BUDGET_S = 15.0
"""Time one round of comparisons goes on (s); 100,000 participants take about a second."""


async def run(tools: Tools, claim: Claim) -> bool:
    """Make one challenge's standings what PostgreSQL says."""
    await standings.repair(tools.deps, _boards(tools.redis), UUID(claim.args["challengeId"]))
    async with tools.deps.pool.acquire() as conn, conn.transaction():
        return await outbox.done(conn, claim)


REPAIR_STANDINGS = Job(standings.REPAIR, "quick", run, timeout_s=20)


async def tell_waiting(tools: Tools) -> int:
    """Tell participants who moved again within the interval."""
    try:
        return await standings.tell_waiting(tools.deps, _boards(tools.redis))
    except AWAY:
        return 0  # best effort: nobody waits for it any more once Redis is back


async def compare(tools: Tools) -> int:
    """Compare running challenges with PostgreSQL, in another order each time; returns how many rows differed."""
    loop, differing = asyncio.get_running_loop(), 0
    deadline = loop.time() + COMPARE_BUDGET_S
    challenges = await rows.running(tools.deps.pool)
    secrets.SystemRandom().shuffle(challenges)
    for challenge in challenges:
        if loop.time() > deadline:
            break
        try:
            differing += abs(await standings.repair(tools.deps, _boards(tools.redis), challenge))
        except AWAY as error:
            log.warning("comparison_waits_for_redis", reason=repr(error))
            break
    return differing


def _boards(redis: Client | None) -> Leaderboards:
    assert redis is not None  # every worker has one
    return Leaderboards(redis)


# By hand -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one challenge: participants of standings made again, or rows that differed and were mended."""

    challenge: str
    participants: int | None = None
    differed: int | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 1 when something differed, or could not be made."""
    parser = argparse.ArgumentParser(prog="expendi leaderboards", description=__doc__)
    parser.add_argument("verb", choices=("rebuild", "check"), help="make again, or compare and mend")
    parser.add_argument("--challenge", type=UUID, metavar="ID", help="only this one (all that run)")
    asked = parser.parse_args(arguments)
    try:
        settings = configuration.load()
        logs.configure(settings.log_level, process="leaderboards")
        return asyncio.run(_by_hand(settings, asked.verb, asked.challenge))
    except (SettingsError, *LOST, *AWAY) as error:
        sys.stderr.write(logs.scrub(f"{error}\n"))
        return 1


async def _by_hand(settings: Settings, verb: str, only: UUID | None) -> int:
    async with AsyncExitStack() as closing:
        pool = await open_pool(settings.database_url, size=2)
        closing.push_async_callback(pool.close)
        publisher = Publisher(settings.redis_url)
        closing.push_async_callback(publisher.close)
        redis = open_redis(settings.redis_url)
        closing.push_async_callback(redis.aclose)
        deps = Deps(settings, {}, pool, publisher, now=lambda: datetime.now(UTC))
        well = True
        async for outcome in each(deps, Leaderboards(redis), verb, only):
            sys.stdout.write(orjson.dumps(outcome).decode() + "\n")
            sys.stdout.flush()
            well = well and (outcome.participants is not None if verb == "rebuild" else not outcome.differed)
        return 0 if well else 1


async def each(deps: Deps, boards: Leaderboards, verb: str, only: UUID | None = None) -> AsyncIterator[Outcome]:
    """Do a verb for one challenge, or for all that run."""
    for challenge in [only] if only else await rows.running(deps.pool):
        if verb == "rebuild":
            yield Outcome(str(challenge), participants=await standings.rebuild(deps, boards, challenge))
        else:
            yield Outcome(str(challenge), differed=await standings.repair(deps, boards, challenge))


if __name__ == "__main__":
    sys.exit(main())
