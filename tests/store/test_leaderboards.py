"""Standings in Redis equal standings in plain Python, and so does who is told, in whatever order changes come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import keys
from config.embedded.valkey import Valkey
from store import leaderboards
from store.leaderboards import Due, Leaderboards, NotBuilt, Pace, Pages, Place, Ranked, Standing
from store.redis import AWAY, Client, open_redis

CHALLENGE = UUID(int=7)


def who(number: int) -> UUID:
    """Ids whose order is not that of their numbers, with bytes of every kind."""
    return UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128)


@pytest.fixture
async def redis(private_valkey: Valkey) -> AsyncIterator[Client]:
    client = open_redis(private_valkey.url)
    yield client
    await client.aclose()


@pytest.fixture
def boards(redis: Client) -> Leaderboards:
    return Leaderboards(redis)


def pages(*rows: Standing, size: int = 3) -> Pages:
    async def read() -> AsyncIterator[Sequence[Standing]]:
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    return read


def ordered(scores: dict[UUID, int]) -> list[Ranked]:
    """The whole list, best first: what everything is held against."""
    best = sorted(scores, key=lambda id_: (scores[id_], id_.bytes), reverse=True)
    return [Ranked(id_, scores[id_], 1 + sum(each > scores[id_] for each in scores.values())) for id_ in best]


@dataclass
class Model:
    """Rows as PostgreSQL has them, and what everyone was told."""

    rows: dict[UUID, Standing] = field(default_factory=dict)
    told: dict[UUID, tuple[int, int, int]] = field(default_factory=dict)
    waiting: dict[UUID, int] = field(default_factory=dict)

    @property
    def scores(self) -> dict[UUID, int]:
        return {id_: row.score for id_, row in self.rows.items() if row.score is not None}

    def beside(self, id_: UUID) -> set[UUID]:
        ids = [each.id for each in ordered(self.scores)]
        at = ids.index(id_)
        return {ids[i] for i in (at - 1, at + 1) if 0 <= i < len(ids)}

    def apply(self, changes: Sequence[Standing], pace: Pace) -> list[Due]:
        before = {each.id: each for each in ordered(self.scores)}
        news: dict[UUID, Standing] = {}
        for change in changes:
            known = news.get(change.id) or self.rows.get(change.id)
            if known is None or known.change < change.change:
                news[change.id] = change
        concerned = set().union(*(self.beside(id_) for id_ in news if id_ in before)) if news else set()
        self.rows.update(news)
        for id_, row in news.items():
            if row.score is None:
                self.told.pop(id_, None)
                self.waiting.pop(id_, None)
            else:
                concerned |= self.beside(id_)
        after = {each.id: each for each in ordered(self.scores)}
        movers = [id_ for id_ in news if id_ in after and (id_ not in before or before[id_].score != after[id_].score)]
        others = [id_ for id_ in concerned - set(news) if id_ in after and after[id_].rank != before[id_].rank]
        return [
            due
            for id_ in [*movers, *others]
            if (due := self.tell(after[id_], before[id_].rank if id_ in before else None, pace))
        ]

    def tell(self, now: Ranked, before: int | None, pace: Pace) -> Due | None:
        last = self.told.get(now.id)
        self_due = None
        if last and last[:2] == (now.rank, now.score):
            self.waiting.pop(now.id, None)
        elif last and pace.now_ms < last[2] + pace.interval_ms:
            self.waiting.setdefault(now.id, last[2] + pace.interval_ms)
        else:
            self.waiting.pop(now.id, None)
            self.told[now.id] = (now.rank, now.score, pace.now_ms)
            self_due = Due(now.id, now.score, now.rank, last[0] if last else before)
        return self_due

    def flush(self, pace: Pace) -> list[Due]:
        after = {each.id: each for each in ordered(self.scores)}
        ripe = [id_ for id_, at in self.waiting.items() if at <= pace.now_ms]
        return [due for id_ in ripe if (due := self.tell(after[id_], None, pace))]


async def whole(boards: Leaderboards, *, limit: int = 2) -> list[Ranked]:
    """Every page of the list."""
    found: list[Ranked] = []
    place: Place | None = None
    while page := await boards.page(CHALLENGE, place, limit=limit):
        found += page
        place = Place(page[-1].score, page[-1].id)
    return found


async def assert_equal(boards: Leaderboards, model: Model) -> None:
    expected = ordered(model.scores)
    assert await whole(boards) == expected
    assert await boards.count(CHALLENGE) == len(expected)
    assert [await boards.ranked(CHALLENGE, each.id) for each in expected] == expected
    assert await boards.states(CHALLENGE, list(model.rows)) == list(model.rows.values())


people = st.integers(0, 7)
scores = st.one_of(st.integers(-2, 4), st.sampled_from([0, -(2**53) + 1, 2**53 - 1, 2**53 - 2]))
changes = st.tuples(st.just("change"), st.lists(st.tuples(people, st.none() | scores), min_size=1, max_size=4))
steps = st.one_of(
    changes,
    changes,
    changes,
    st.tuples(st.just("again"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.integers(1, 1500)),
    st.tuples(st.just("rebuild"), st.lists(st.tuples(people, st.none() | scores), max_size=3)),
)


@given(history=st.lists(steps, min_size=1, max_size=14))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_order_of_changes_gives_the_standings_and_tells_whom_it_concerns(
    redis: Client, boards: Leaderboards, history: list[tuple[str, object]]
) -> None:
    await boards.drop(CHALLENGE)
    model, now, number = Model(), 1_700_000_000_000, 0
    assert await boards.rebuild(CHALLENGE, pages()) == 0
    sent: list[list[Standing]] = []

    def made(given: object) -> list[Standing]:
        nonlocal number
        assert isinstance(given, list)
        rows = []
        for person, score in given:
            number += 1
            rows.append(Standing(who(person), score, number))
        return rows

    for kind, given_ in history:
        pace = Pace(now, 1000)
        if kind == "wait":
            assert isinstance(given_, int)
            now += given_
            pace = Pace(now, 1000)
            assert sorted(await boards.flush(CHALLENGE, pace)) == sorted(model.flush(pace))
        elif kind == "again" and sent:  # an old change comes once more, after newer ones
            assert isinstance(given_, int)
            old = sent[given_ % len(sent)]
            assert sorted(await boards.apply(CHALLENGE, old, pace)) == sorted(model.apply(old, pace))
        elif kind == "change":
            batch = made(given_)
            sent.append(batch)
            assert sorted(await boards.apply(CHALLENGE, batch, pace)) == sorted(model.apply(batch, pace))
        elif kind == "rebuild":
            rows, late = list(model.rows.values()), made(given_)

            async def read(
                rows: Sequence[Standing] = rows, late: Sequence[Standing] = late, pace: Pace = pace
            ) -> AsyncIterator[Sequence[Standing]]:
                yield rows[:2]
                # what commits while the rebuild reads, and is not in what it reads
                expected = model.apply(late, pace)
                assert sorted(await boards.apply(CHALLENGE, late, pace)) == sorted(expected)
                yield rows[2:]

            assert await boards.rebuild(CHALLENGE, read) is not None
        await assert_equal(boards, model)
    left = await redis.keys(f"leaderboard:{{{CHALLENGE}}}:*")
    parts = {bytes(key).rpartition(b":")[2] for key in left if isinstance(key, bytes)}
    assert len(left) == len(parts)
    assert parts <= {b"scores", b"changes", b"told", b"waiting"}


PACE = Pace(1_700_000_000_000, 1000)
ROWS = [Standing(who(number), score, number + 1) for number, score in enumerate([5, 3, 3, 1, 0])]
BEST = ordered({row.id: row.score for row in ROWS if row.score is not None})


async def test_ties_share_a_rank_and_the_next_one_counts_them(boards: Leaderboards) -> None:
    assert await boards.rebuild(CHALLENGE, pages(*ROWS)) == 5
    assert [each.rank for each in await boards.page(CHALLENGE, None, limit=9)] == [1, 2, 2, 4, 5]
    assert [each.rank for each in await boards.page(CHALLENGE, Place(BEST[1].score, BEST[1].id), limit=2)] == [2, 4]


@pytest.mark.parametrize(("at", "expected"), [(0, (0, 4)), (1, (0, 4)), (2, (1, 5)), (3, (2, 5)), (4, (2, 5))])
async def test_around_somebody_is_a_full_page_wherever_they_are(
    boards: Leaderboards, at: int, expected: tuple[int, int]
) -> None:
    await boards.rebuild(CHALLENGE, pages(*ROWS))
    assert await boards.around(CHALLENGE, BEST[at].id, limit=3) == BEST[slice(*expected)]
    assert await boards.around(CHALLENGE, BEST[at].id, limit=50) == BEST
    assert await boards.around(CHALLENGE, who(99), limit=3) == []


async def test_a_list_goes_on_where_it_was_when_the_last_one_of_the_page_moved_or_left(boards: Leaderboards) -> None:
    await boards.rebuild(CHALLENGE, pages(*ROWS))
    place = Place(BEST[1].score, BEST[1].id)
    for number, score in enumerate([9, None, 3]):
        await boards.apply(CHALLENGE, [Standing(BEST[1].id, score, 100 + number)], PACE)
        after = [each.id for each in await boards.page(CHALLENGE, place, limit=9)]
        assert after == [each.id for each in BEST[2:]]
    await boards.apply(CHALLENGE, [Standing(who(50), 3, 1)], PACE)
    after = [each.id for each in await boards.page(CHALLENGE, place, limit=9)]
    assert (who(50) in after) == (who(50).bytes < place.id.bytes)


@pytest.mark.parametrize("lost", ["scores", "changes", "all"])
async def test_a_key_that_is_gone_is_no_empty_list(redis: Client, boards: Leaderboards, lost: str) -> None:
    await boards.rebuild(CHALLENGE, pages(*ROWS))
    await (redis.flushall() if lost == "all" else redis.delete(keys.leaderboard(CHALLENGE, lost)))
    change = [Standing(who(1), 9, 99)]
    for call in (
        lambda: boards.page(CHALLENGE, None, limit=5),
        lambda: boards.around(CHALLENGE, who(1), limit=5),
        lambda: boards.ranked(CHALLENGE, who(1)),
        lambda: boards.count(CHALLENGE),
        lambda: boards.states(CHALLENGE, [who(1)]),
        lambda: boards.apply(CHALLENGE, change, PACE),
        lambda: boards.tell(CHALLENGE, [who(1)], PACE),
    ):
        with pytest.raises(NotBuilt) as refused:
            await call()
        assert not refused.value.building
    assert await boards.flush(CHALLENGE, PACE) == []
    assert await boards.rebuild(CHALLENGE, pages(*ROWS)) == 5
    assert await whole(boards) == BEST


async def test_a_challenge_without_participants_is_there_and_empty(boards: Leaderboards) -> None:
    assert await boards.rebuild(CHALLENGE, pages(Standing(who(1), None, 3))) == 0
    assert await boards.page(CHALLENGE, None, limit=5) == []
    assert await boards.apply(CHALLENGE, [Standing(who(1), 4, 2)], PACE) == []  # older than their leaving
    assert await boards.count(CHALLENGE) == 0


async def test_one_rebuilds_at_a_time_and_changes_given_meanwhile_are_in_what_comes(boards: Leaderboards) -> None:
    late = Standing(who(1), 77, 50)

    async def read() -> AsyncIterator[Sequence[Standing]]:
        yield ROWS[:2]
        assert await boards.rebuild(CHALLENGE, pages(*ROWS)) is None
        with pytest.raises(NotBuilt) as refused:
            await boards.apply(CHALLENGE, [late, Standing(who(4), None, 51)], PACE)
        assert refused.value.building
        with pytest.raises(NotBuilt):
            await boards.apply(CHALLENGE, [Standing(who(1), 3, 49)], PACE)
        yield ROWS[2:]

    assert await boards.rebuild(CHALLENGE, read) == 5
    expected = {row.id: row.score for row in ROWS if row.score is not None} | {late.id: 77}
    del expected[who(4)]
    assert await whole(boards) == ordered(expected)


async def test_a_change_given_while_it_is_built_does_not_undo_a_newer_row_that_was_read(boards: Leaderboards) -> None:
    async def read() -> AsyncIterator[Sequence[Standing]]:
        with pytest.raises(NotBuilt):
            await boards.apply(CHALLENGE, [Standing(who(1), 77, 4), Standing(who(2), None, 4)], PACE)
        yield [Standing(who(1), 5, 5), Standing(who(2), 6, 5)]

    assert await boards.rebuild(CHALLENGE, read) == 2
    assert await whole(boards) == ordered({who(1): 5, who(2): 6})


async def test_a_rebuild_that_lost_redis_on_its_way_puts_nothing_in_place(redis: Client, boards: Leaderboards) -> None:
    async def read() -> AsyncIterator[Sequence[Standing]]:
        yield ROWS[:2]
        await redis.flushall()
        yield ROWS[2:]

    assert await boards.rebuild(CHALLENGE, read) is None
    assert await redis.keys("*") == []
    with pytest.raises(NotBuilt):
        await boards.count(CHALLENGE)


@pytest.mark.parametrize("lost", ["scores", "changes"])
async def test_a_part_lost_while_it_was_built_is_not_put_in_place(
    redis: Client, boards: Leaderboards, lost: str
) -> None:
    async def read() -> AsyncIterator[Sequence[Standing]]:
        yield ROWS[:2]
        await redis.delete(*await redis.keys(f"*{lost}:*"))
        yield ROWS[2:]

    assert await boards.rebuild(CHALLENGE, read) is None
    assert await boards.rebuild(CHALLENGE, pages(*ROWS)) == 5


async def test_whoever_was_thought_dead_does_not_undo_the_one_that_took_over(
    redis: Client, boards: Leaderboards
) -> None:
    async def read() -> AsyncIterator[Sequence[Standing]]:
        yield ROWS[:2]
        await redis.delete(keys.leaderboard(CHALLENGE, "lease"))  # as when it runs out
        assert await boards.rebuild(CHALLENGE, pages(*ROWS[:4])) == 4
        yield ROWS[2:]

    assert await boards.rebuild(CHALLENGE, read) is None
    assert await boards.count(CHALLENGE) == 4
    assert sorted(await redis.keys("*:new*")) == []


async def test_journal_of_a_rebuild_that_died_does_not_pass_for_one_that_runs(
    redis: Client, boards: Leaderboards
) -> None:
    async def read() -> AsyncIterator[Sequence[Standing]]:
        await redis.delete(keys.leaderboard(CHALLENGE, "lease"))
        with pytest.raises(NotBuilt) as refused:
            await boards.apply(CHALLENGE, [Standing(who(1), 1, 9)], PACE)
        assert not refused.value.building
        yield ROWS

    assert await boards.rebuild(CHALLENGE, read) is None


async def test_who_moves_often_is_told_once_an_interval_with_the_rank_told_last(boards: Leaderboards) -> None:
    await boards.rebuild(CHALLENGE, pages(*ROWS))
    low = who(4)

    async def move(score: int, change: int, at_ms: int) -> list[Due]:
        return await boards.apply(CHALLENGE, [Standing(low, score, change)], Pace(PACE.now_ms + at_ms, 1000))

    first = await move(2, 10, 0)
    assert [each for each in first if each.id == low] == [Due(low, 2, 4, 5)]
    assert [each for each in await move(4, 11, 300) if each.id == low] == []
    assert [each for each in await move(6, 12, 600) if each.id == low] == []
    assert await boards.waiting(PACE.now_ms + 999, limit=5) == []
    assert await boards.waiting(PACE.now_ms + 1000, limit=5) == [CHALLENGE]
    assert await boards.waiting(PACE.now_ms + 1000, limit=5) == []
    told = await boards.flush(CHALLENGE, Pace(PACE.now_ms + 1000, 1000))
    assert Due(low, 6, 1, 4) in told
    assert await boards.flush(CHALLENGE, Pace(PACE.now_ms + 1000, 1000)) == []


async def test_who_is_back_where_they_were_told_to_be_is_told_nothing(boards: Leaderboards) -> None:
    await boards.rebuild(CHALLENGE, pages(*ROWS))
    assert await boards.apply(CHALLENGE, [Standing(who(4), 9, 10)], PACE)
    assert await boards.apply(CHALLENGE, [Standing(who(4), 0, 11)], PACE) == []
    assert await boards.apply(CHALLENGE, [Standing(who(4), 9, 12)], PACE) == []
    assert await boards.flush(CHALLENGE, Pace(PACE.now_ms + 5000, 1000)) == []


async def test_more_changes_than_one_call_takes_are_all_taken(boards: Leaderboards) -> None:
    many = [Standing(who(number), number % 50, 1) for number in range(leaderboards.AT_ONCE * 2 + 7)]
    await boards.rebuild(CHALLENGE, pages())
    await boards.apply(CHALLENGE, many, PACE)
    assert await whole(boards, limit=100) == ordered({row.id: row.score for row in many if row.score is not None})
    assert sorted([id_ async for ids in boards.members(CHALLENGE) for id_ in ids]) == sorted(row.id for row in many)


async def test_a_score_beyond_what_a_sorted_set_holds_is_refused(boards: Leaderboards) -> None:
    await boards.rebuild(CHALLENGE, pages())
    for score in (2**53, -(2**53)):
        with pytest.raises(ValueError, match="beyond"):
            await boards.apply(CHALLENGE, [Standing(who(1), score, 1)], PACE)


async def test_without_redis_it_says_so(tmp_path: Path) -> None:
    client = open_redis(f"unix://{tmp_path}/none")
    with pytest.raises(AWAY):
        await Leaderboards(client).page(uuid4(), None, limit=5)
    await client.aclose()


async def test_changes_from_all_sides_at_once_end_in_one_order(boards: Leaderboards) -> None:
    """Workers beside each other, each with its own changes in any order, while it is rebuilt from older rows."""
    await boards.rebuild(CHALLENGE, pages())
    rows = {who(number): Standing(who(number), (number * 7) % 13, 20) for number in range(30)}
    older = [Standing(id_, 99, change) for id_ in rows for change in range(1, 20, 3)]

    async def worker(mine: Sequence[Standing]) -> None:
        for start in range(0, len(mine), 10):
            await boards.apply(CHALLENGE, mine[start : start + 10], PACE)

    everything = [*rows.values(), *older]
    snapshots = (boards.rebuild(CHALLENGE, pages(*older[-30:])) for _ in range(3))
    await asyncio.gather(*(worker(everything[start::4]) for start in range(4)), *snapshots)
    assert await whole(boards, limit=7) == ordered(
        {row.id: row.score for row in rows.values() if row.score is not None}
    )
