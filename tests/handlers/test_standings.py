"""Standings follow committed scores, whatever is lost, doubled or late; each participant is told their own place."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import keys
from config.embedded.valkey import Valkey
from handlers import standings
from handlers.events import LeaderboardUpdate
from handlers.standings import Span
from store import outbox
from store.leaderboards import Leaderboards, NotBuilt, Standing
from store.postgres import Pool
from store.redis import Client, open_redis
from tests.conftest import MakeSettings
from tests.handlers.contest import Clock, Contest, open_contest, person
from tests.handlers.ledger import make_deps


@pytest.fixture
async def redis(private_valkey: Valkey) -> AsyncIterator[Client]:
    client = open_redis(private_valkey.url)
    yield client
    await client.aclose()


@pytest.fixture
async def contest(pool: Pool, redis: Client, make_settings: MakeSettings) -> Contest:
    clock = Clock()
    deps = dataclasses.replace(make_deps(pool, make_settings()), now=clock)
    return await open_contest(deps, Leaderboards(redis), clock)


async def begun(contest: Contest, *scores: int) -> Contest:
    """With participants 0, 1, … of these scores, of whom nobody was told anything."""
    await contest.join(*range(len(scores)))
    for number, score in enumerate(scores):
        await contest.score(number, score)
    await standings.rebuild(contest.deps, contest.boards, contest.id)
    return contest


async def test_the_mover_and_whom_they_passed_are_told_their_own_places_and_nobody_else(contest: Contest) -> None:
    await begun(contest, 100, 90, 80, 70, 60, 50, 40)
    await contest.follow(await contest.score(5, 85))
    # from between 60 and 40 to between 90 and 80: 100, 90, 70 and 40 keep silent, though 70 was passed, too
    told = contest.told()
    assert sorted(told, key=lambda each: each[1]["rank"]) == [
        (person(5), {"rank": 3, "previousRank": 6, "progress": told[0][1]["progress"]}),
        (person(2), {"rank": 4, "previousRank": 3, "progress": dict(told)[person(2)]["progress"]}),
        (person(4), {"rank": 6, "previousRank": 5, "progress": dict(told)[person(4)]["progress"]}),
    ]
    assert len({each["progress"] for _, each in told}) == 3
    for _, payload in told:
        LeaderboardUpdate.model_validate({"challengeId": str(contest.id), **payload})


async def test_what_is_told_holds_no_id_and_no_address_of_anyone(contest: Contest) -> None:
    await begun(contest, 3, 2, 1)
    await contest.follow(await contest.score(2, 9))
    texts = b"".join(text for _, text in contest.deps.publisher.frames)  # type: ignore[attr-defined]  # Kept
    assert texts
    for number, id_ in contest.ids.items():
        assert str(id_).encode() not in texts
        assert person(number).encode() not in texts
    assert b"0x" not in texts


async def test_the_same_commit_told_twice_and_an_older_one_after_it_change_nothing(contest: Contest) -> None:
    await begun(contest, 3, 2, 1)
    old = await contest.rows([await contest.score(2, 5)])
    new = await contest.rows([await contest.score(2, 1)])
    for rows in (new, new, old, new, old):
        await standings.changed(contest.deps, contest.boards, contest.id, rows)
    assert await contest.live() == await contest.recomputed()
    assert contest.told() == []  # the score is what it was


async def test_who_joins_is_in_and_who_leaves_is_out_at_once_and_only_others_are_told_of_that(contest: Contest) -> None:
    await begun(contest, 3, 1)
    await contest.join(7)
    await contest.follow(await contest.score(7, 2))
    assert dict(contest.told()) == {
        person(7): {"rank": 2, "previousRank": None, "progress": "2"},
        person(1): {"rank": 3, "previousRank": 2, "progress": "1"},
    }
    contest.clock.wait(5)
    await contest.follow(await contest.leave(7))
    assert contest.told() == [(person(1), {"rank": 2, "previousRank": 3, "progress": "1"})]
    assert contest.ids[7] not in await contest.live()


async def test_many_moves_within_the_interval_are_one_event_with_the_rank_told_last(contest: Contest) -> None:
    await begun(contest, 50, 40, 30, 0)
    boards, deps = contest.boards, contest.deps
    for score in (35, 45, 55):
        await contest.follow(await contest.score(3, score))
    assert [each["rank"] for user, each in contest.told() if user == person(3)] == [3]
    assert await standings.tell_waiting(deps, boards) == 0
    contest.clock.wait(1)
    assert await standings.tell_waiting(deps, boards) > 0
    mine = [each for user, each in contest.told() if user == person(3)]
    assert mine == [{"rank": 1, "previousRank": 3, "progress": "55"}]
    contest.clock.wait(1)
    assert await standings.tell_waiting(deps, boards) == 0


async def test_who_left_before_they_could_be_told_is_told_nothing(contest: Contest) -> None:
    await begun(contest, 50, 40)
    rows = await contest.rows([await contest.score(1, 60)])
    await contest.leave(1)
    await standings.changed(contest.deps, contest.boards, contest.id, rows)
    assert [user for user, _ in contest.told()] == [person(0)]


async def test_flushed_standings_come_back_with_the_next_change_and_the_mover_is_told(
    contest: Contest, redis: Client
) -> None:
    await begun(contest, 50, 40)
    await redis.flushall()
    await contest.follow(await contest.score(1, 60))
    assert await contest.live() == await contest.recomputed()
    assert contest.told() == [(person(1), {"rank": 1, "previousRank": None, "progress": "60"})]


async def test_a_change_that_was_lost_is_found_by_the_comparison(contest: Contest) -> None:
    await begun(contest, 5, 4, 3)
    await contest.score(2, 9)
    await contest.leave(0)
    await contest.join(8)
    assert await standings.repair(contest.deps, contest.boards, contest.id) == 3
    assert await contest.live() == await contest.recomputed()
    assert await standings.repair(contest.deps, contest.boards, contest.id) == 0


@pytest.mark.parametrize("how", ["restored", "score", "stranger"])
async def test_what_can_not_come_from_any_commit_is_made_again(contest: Contest, redis: Client, how: str) -> None:
    """PostgreSQL went back to an earlier time; a score was lost in between; somebody's row is gone."""
    await begun(contest, 5, 4, 3)
    scores = keys.leaderboard(contest.id, "scores")
    if how == "restored":
        await contest.boards.apply(contest.id, [Standing(contest.ids[1], 77, 10**6)], standings._pace(contest.deps))
    elif how == "score":
        await redis.zadd(scores, {contest.ids[1].bytes: 6})
    else:
        await contest.pool.execute("DELETE FROM challenge_participants WHERE participant_id = $1", contest.ids[1])
    assert await standings.repair(contest.deps, contest.boards, contest.id) == 1
    assert await contest.live() == await contest.recomputed()
    assert await standings.repair(contest.deps, contest.boards, contest.id) == 0


async def test_without_redis_a_change_asks_for_a_comparison_and_raises_nothing(
    contest: Contest, private_valkey: Valkey
) -> None:
    await begun(contest, 5, 4)
    private_valkey.kill()
    await contest.follow(await contest.score(1, 9))
    assert contest.told() == []
    (due,) = await outbox.due(contest.pool, "quick", older_than_s=30, limit=5)
    assert due.job == standings.REPAIR
    private_valkey.start()
    await standings.repair(contest.deps, contest.boards, contest.id)
    assert await contest.live() == await contest.recomputed()


steps = st.one_of(
    st.tuples(st.sampled_from(["score"] * 6), st.integers(0, 5), st.integers(-1, 4)),
    st.tuples(st.sampled_from(["join", "leave"]), st.integers(0, 5), st.just(0)),
    st.tuples(st.sampled_from(["flush", "lose", "rebuild", "compare", "evict", "wait"]), st.just(0), st.just(0)),
)


@given(history=st.lists(steps, min_size=10, max_size=40), seed=st.integers(0, 2**16))
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_standings_are_the_ranks_of_the_rows_whatever_happens_to_jobs_and_redis(
    pool: Pool, redis: Client, contest: Contest, history: list[tuple[str, int, int]], seed: int
) -> None:
    """Jobs come late, twice, in any order or never; Redis is flushed, or loses a key; people join, leave, come back."""
    chance = random.Random(seed)
    world = await open_contest(contest.deps, contest.boards, contest.clock)
    await world.join(*range(5))
    late: list[list[Standing]] = []
    told_last: dict[str, int] = {}

    async def deliver(rows: list[Standing]) -> None:
        await standings.changed(world.deps, world.boards, world.id, rows)
        ranks = await world.recomputed()
        by_user = {person(number): id_ for number, id_ in world.ids.items()}
        for user, payload in world.told():
            assert by_user[user] in ranks
            if user in told_last and payload["previousRank"] is not None:
                assert payload["previousRank"] == told_last[user]
            told_last[user] = payload["rank"]

    for kind, number, score in history:
        if kind in ("score", "join", "leave"):
            if kind != "join" and number not in world.ids:
                continue
            ids = [await world.leave(number)] if kind == "leave" else []
            ids += [await world.score(number, score)] if kind == "score" else []
            ids += await world.join(number) if kind == "join" else []
            if kind == "leave":
                told_last.pop(person(number), None)
            late.append(await world.rows(ids))
            for rows in chance.sample(late, k=chance.randrange(len(late) + 1)):
                await deliver(rows)
                if chance.random() < 0.5:
                    late.remove(rows)
        elif kind == "flush":
            await redis.flushall()
            told_last.clear()
        elif kind == "lose" and late:
            late.pop(chance.randrange(len(late)))
        elif kind == "evict":
            await redis.delete(keys.leaderboard(world.id, chance.choice(["scores", "changes", "journal"])))
        elif kind == "rebuild":
            await standings.rebuild(world.deps, world.boards, world.id)
        elif kind == "compare":
            await standings.repair(world.deps, world.boards, world.id)
            assert await world.live() == await world.recomputed()
        else:
            world.clock.wait(chance.choice([0.3, 1.1]))
    for rows in late:
        await deliver(rows)
    await standings.repair(world.deps, world.boards, world.id)
    assert await world.live() == await world.recomputed()


async def test_rows_answer_as_redis_does(contest: Contest, redis: Client) -> None:
    """Pages, those around somebody, and single places: the same from PostgreSQL, while the standings are gone."""
    await begun(contest, 5, 4, 4, 4, 1, 0, 0)

    async def answers() -> list[object]:
        found: list[object] = []
        for limit in (1, 2, 3, 50):
            found += [await contest.read(number, Span(limit, around=True)) for number in contest.ids]
            span: Span | None = Span(limit)
            while span is not None:
                found.append(page := await contest.read(3, span))
                span = None if page.next is None else Span(limit, page.next)
        found += [await standings.ranks(contest.deps, contest.boards, person(n), [contest.id]) for n in contest.ids]
        return found

    live = await answers()
    await contest.boards.drop(contest.id)
    with pytest.raises(NotBuilt):
        await contest.boards.count(contest.id)
    assert await answers() == live
    (due,) = await outbox.due(contest.pool, "quick", older_than_s=30, limit=5)
    assert due.job == standings.REPAIR
