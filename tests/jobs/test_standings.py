"""Workers keep standings by the clock and when asked, and an operator makes or checks them by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import orjson
import pytest

from handlers import standings as handling
from jobs import standings
from jobs.job import Tools
from store import outbox
from store.leaderboards import Leaderboards
from store.outbox import Queue
from store.redis import open_redis
from tests.handlers.contest import Clock, Contest, open_contest, person
from tests.handlers.ledger import Kept


@pytest.fixture
async def working(tools: Tools) -> AsyncIterator[Tools]:
    """Tools of a worker, with a clock that stands still and a publisher that keeps."""
    redis = open_redis(tools.deps.settings.redis_url)
    deps = dataclasses.replace(tools.deps, now=Clock(), publisher=Kept())
    yield dataclasses.replace(tools, deps=deps, redis=redis)
    await redis.aclose()


@pytest.fixture
async def contest(working: Tools) -> Contest:
    clock = working.deps.now
    assert isinstance(clock, Clock)
    assert working.redis is not None
    made = await open_contest(working.deps, Leaderboards(working.redis), clock)
    await made.join(0, 1, 2)
    return made


async def requested(tools: Tools, queue: Queue = "quick") -> outbox.Claim:
    (due,) = await outbox.due(tools.deps.pool, queue, older_than_s=30, limit=5)
    claim = await outbox.begin(tools.deps.pool, due.id)
    assert claim is not None
    return claim


async def test_a_comparison_that_was_asked_for_makes_what_is_missing_and_is_done(
    working: Tools, contest: Contest
) -> None:
    await handling.ask_repair(working.deps, contest.id)
    claim = await requested(working)
    assert claim.job == standings.REPAIR_STANDINGS.name
    assert await standings.REPAIR_STANDINGS.run(working, claim)
    assert await contest.live() == await contest.recomputed()
    assert await outbox.depth(working.deps.pool) == 0


async def test_running_challenges_are_compared_by_the_clock_and_settled_ones_are_left_alone(
    working: Tools, contest: Contest
) -> None:
    assert await standings.compare(working) == 1
    await contest.score(1, 7)
    assert await standings.compare(working) == 1
    assert await standings.compare(working) == 0
    assert await contest.live() == await contest.recomputed()
    await contest.score(1, 9)
    await working.deps.pool.execute("UPDATE challenges SET settled_at = now()")
    assert await standings.compare(working) == 0


async def test_who_waited_is_told_by_the_clock(working: Tools, contest: Contest) -> None:
    await standings.compare(working)
    for score in (5, 6):
        await contest.follow(await contest.score(0, score))
    contest.told()
    assert await standings.tell_waiting(working) == 0
    contest.clock.wait(1)
    assert await standings.tell_waiting(working) == 1
    assert contest.told() == [(person(0), {"rank": 1, "previousRank": 1, "progress": "6"})]


@pytest.mark.parametrize("only", [False, True])
async def test_by_hand_each_challenge_is_a_line(working: Tools, contest: Contest, only: bool) -> None:
    id_ = contest.id if only else None
    deps, boards = working.deps, contest.boards

    async def lines(verb: str) -> list[dict[str, object]]:
        return [orjson.loads(orjson.dumps(each)) async for each in standings.each(deps, boards, verb, id_)]

    named = {"challenge": str(contest.id)}
    assert await lines("rebuild") == [named | {"participants": 3, "differed": None}]
    assert await lines("check") == [named | {"participants": None, "differed": 0}]
    await contest.score(2, 1)
    assert await lines("check") == [named | {"participants": None, "differed": 1}]


def test_a_verb_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        standings.main(["destroy"])
    assert "rebuild" in capsys.readouterr().err
