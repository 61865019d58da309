"""Challenges end, are settled once, and tell everyone once, whoever goes on with them, and after whatever stop."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from handlers import challenge_ends, challenge_scores, challenges
from handlers.challenge_ends import DONE, Step
from handlers.deps import Deps
from handlers.errors import Conflict
from handlers.events import BY_NAME
from store import challenges as rows
from store import log, notifications
from store.audit import Caller
from store.challenge_scores import ScoreRow
from store.challenges import FIRST
from store.postgres import Pool
from store.records import Address
from tests.conftest import MakeSettings
from tests.exact import exact
from tests.factories import insert_transactions, make_address, make_hash, make_transaction
from tests.handlers.ledger import make_deps, sign_in
from tests.handlers.scripted import make_chain

START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 11, 8, tzinfo=UTC)
CHAINS = (make_chain(8453), make_chain(10))


@dataclass
class World:
    deps: Deps
    challenge: UUID
    now: datetime = START
    people: list[Address] = field(default_factory=list)
    followed: list[ScoreRow] = field(default_factory=list)

    @property
    def pool(self) -> Pool:
        return self.deps.pool

    async def join(self, count: int) -> None:
        """People, of whom the n-th spends on n // 2 days: every two share a rank."""
        self.people = [make_address(self.challenge, number) for number in range(count)]
        await sign_in(self.pool, *self.people)
        await self.pool.executemany(
            "INSERT INTO challenge_participants (challenge_id, user_address, joined_at) VALUES ($1, $2, $3)",
            [(self.challenge, user, START) for user in self.people],
        )
        await self.pool.execute("UPDATE challenges SET participants = $2 WHERE id = $1", self.challenge, count)
        for number, user in enumerate(self.people):
            await self.spend(user, number // 2)

    async def spend(self, user: Address, days: int) -> None:
        made = []
        for day in range(days):
            moment = START + timedelta(days=day, hours=3)
            made.append(
                make_transaction(
                    user=user,
                    chain_id=8453,
                    block_hash=make_hash("day", day),
                    tx_hash=make_hash(user, day),
                    block_number=1000 + day,
                    block_time=moment,
                )
            )
        async with self.pool.acquire() as conn, conn.transaction():
            if made:
                await insert_transactions(conn, made)

    async def final(self, chain_id: int, until: datetime) -> None:
        """The ledger of a chain has a finalized block of this time."""
        number = 2000 + int((until - START).total_seconds())
        await self.pool.execute(
            """INSERT INTO blocks (chain_id, hash, number, parent_hash, block_time, canonical)
               VALUES ($1, $2, $3, $2, $4, true)""",
            chain_id,
            make_hash(chain_id, number),
            number,
            until,
        )
        await self.pool.execute(
            """INSERT INTO chain_cursors (chain_id, number, hash, block_time, finalized) VALUES ($1, $2, $3, $4, $2)
               ON CONFLICT (chain_id) DO UPDATE SET finalized = excluded.number, number = excluded.number""",
            chain_id,
            number,
            make_hash(chain_id, number),
            until,
        )

    async def all_final(self) -> None:
        for chain in CHAINS:
            await self.final(chain.id, END)

    async def follow(self, challenge: UUID, changed: Sequence[ScoreRow]) -> None:
        assert challenge == self.challenge
        self.followed += changed

    async def advance(self, *, steps: int = 10**6) -> int:
        left = iter(range(steps))
        return await challenge_ends.advance(self.deps, self.follow, is_over=lambda: next(left, None) is None)

    async def told(self, user: Address) -> list[tuple[str, dict[str, Any]]]:
        entries = await log.after(self.pool, user, 0, limit=1000, max_bytes=2**30)
        found = [(entry.event, exact(entry.payload)) for entry in entries]
        for event, payload in found:
            BY_NAME[event].model_validate(payload)
        return found

    async def states(self, user: Address) -> list[str]:
        return [
            payload["challenge"]["state"] for event, payload in await self.told(user) if event == "challenge_update"
        ]

    async def ranks(self) -> dict[Address, int]:
        found = await self.pool.fetch(
            "SELECT user_address, final_rank FROM challenge_participants WHERE challenge_id = $1", self.challenge
        )
        return {row[0]: row[1] for row in found}

    async def row(self) -> rows.ChallengeRow:
        found = await rows.one(self.pool, self.challenge)
        assert found is not None
        return found


@pytest.fixture
async def world(pool: Pool, make_settings: MakeSettings) -> World:
    id_ = uuid4()
    await pool.execute(
        """INSERT INTO challenges (id, name, measure, visibility, starts_at, ends_at)
           VALUES ($1, 'No coffee', 'no_spend_days', 'private', $2, $3)""",
        id_,
        START,
        END,
    )
    made = World(make_deps(pool, make_settings(), *CHAINS), id_)
    made.deps = dataclasses.replace(made.deps, now=lambda: made.now)
    return made


async def test_it_is_told_to_have_ended_at_once_and_settled_when_every_chain_is_final(world: World) -> None:
    await world.join(5)
    assert await world.advance() == 0
    world.now = END - timedelta(microseconds=1)
    assert await world.advance() == 0
    world.now = END
    await world.advance()
    assert [await world.states(user) for user in world.people] == [["ended"]] * 5
    await world.final(8453, END + timedelta(hours=1))
    await world.final(10, END - timedelta(seconds=1))
    world.now = END + timedelta(hours=2)
    assert await world.advance() == 0
    assert (await world.row()).settling_at is None
    await world.final(10, END)
    await world.advance()
    assert await world.ranks() == dict(zip(world.people, [1, 1, 3, 3, 5], strict=True))
    first, last = await world.told(world.people[1]), await world.told(world.people[4])
    assert [event for event, _ in first] == ["challenge_update", "challenge_update", "notification"]
    shown = first[1][1]["challenge"]
    assert (shown["state"], shown["myRank"], shown["myProgress"], shown["participantCount"]) == ("settled", 1, "1", 5)
    assert [(each["rank"], each["displayName"]) for each in shown["winners"]] == [(n, "Someone") for n in (1, 1, 3, 3)]
    assert last[2][1]["notification"]["body"] == "You are number 5 of 5."
    assert "0x" not in repr([payload for _, payload in first + last])
    assert {row.score for row in world.followed} == {7, 6, 5}
    pushes = await world.pool.fetch("SELECT user_address, kind, facts FROM pushes")
    assert {(row["user_address"], row["facts"]["rank"]) for row in pushes} == set((await world.ranks()).items())
    assert {row["kind"] for row in pushes} == {"challenge_settled"}
    row = await world.row()
    assert row.closed_at is not None
    assert await world.advance() == 0
    assert await world.row() == row


async def test_a_chain_that_is_away_is_waited_for_no_longer_than_settings_say(world: World) -> None:
    await world.join(2)
    await world.final(8453, END)
    world.now = END + timedelta(hours=24, seconds=-1)
    await world.advance()
    assert (await world.row()).settled_at is None
    world.now += timedelta(seconds=1)
    await world.advance()
    assert (await world.row()).settled_at == world.now


async def test_after_any_downtime_all_of_it_is_made_up_for(world: World) -> None:
    await world.join(3)
    world.now = END + timedelta(days=30)
    await world.advance()
    assert [await world.states(user) for user in world.people] == [["ended", "settled"]] * 3


@pytest.mark.parametrize("seed", range(4))
async def test_workers_that_race_and_stop_anywhere_settle_and_tell_once(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Batches of three, two workers at a time, each killed after some steps or in the middle of one."""
    monkeypatch.setattr(challenge_ends, "BATCH", 3)
    monkeypatch.setattr(challenge_ends, "RANKS", 3)  # splits a tie
    chance = random.Random(seed)
    await world.join(11)
    await world.all_final()
    world.now = END + timedelta(hours=1)

    async def worker() -> None:
        work = asyncio.create_task(world.advance(steps=chance.randrange(1, 6)))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
            for _ in range(chance.randrange(40)):
                await asyncio.sleep(0.0005)
            work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    for _ in range(200):
        await asyncio.gather(worker(), worker())
        if (await world.row()).closed_at is not None:
            break
    assert await world.ranks() == {user: 1 + 2 * (number // 2) for number, user in enumerate(world.people)}
    for user in world.people:
        assert Tally(await world.states(user)) == {"ended": 1, "settled": 1}
        assert (await notifications.unread(world.pool, [user]))[user] == 1
    assert await world.pool.fetchval("SELECT count(*) FROM pushes") == 11


async def test_what_is_settled_stays_whatever_the_ledger_says_later(world: World) -> None:
    await world.join(4)
    await world.all_final()
    world.now = END
    await world.advance()
    before = await world.pool.fetch("SELECT * FROM challenge_participants ORDER BY user_address")
    await world.pool.execute("UPDATE transactions SET canonical = false")
    await challenge_scores.measure_members(world.deps, [rows.Member(world.challenge, user) for user in world.people])
    assert await world.pool.fetch("SELECT * FROM challenge_participants ORDER BY user_address") == before
    assert await world.advance() == 0


async def test_one_who_can_not_be_measured_any_more_holds_up_nobody(world: World) -> None:
    await world.join(3)
    await world.pool.execute(
        "UPDATE challenge_participants SET time_zone = 'Gone/Away' WHERE user_address = $1", world.people[2]
    )
    await world.all_final()
    world.now = END
    await world.advance()
    assert await world.ranks() == dict(zip(world.people, [1, 1, 3], strict=True))


async def another(world: World, *, days: int) -> UUID:
    """A second challenge, which ends so many days after the first."""
    id_ = uuid4()
    await world.pool.execute(
        """INSERT INTO challenges (id, name, measure, visibility, starts_at, ends_at)
           VALUES ($1, 'No tea', 'no_spend_days', 'public', $2, $3)""",
        id_,
        START,
        END + timedelta(days=days),
    )
    return id_


async def test_a_challenge_whose_turn_fails_holds_up_no_other_and_is_looked_at_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.join(2)
    other = await another(world, days=1)
    world.now = END + timedelta(days=9)
    with monkeypatch.context() as patch:
        go_on = challenge_ends.go_on

        async def broken(deps: Deps, challenge: UUID, after: UUID = FIRST) -> Step:
            if challenge == world.challenge:
                raise ValueError("rows nobody thought of")
            return await go_on(deps, challenge, after)

        patch.setattr(challenge_ends, "go_on", broken)
        await world.advance()
    row = await rows.one(world.pool, other)
    assert row is not None
    assert (row.closed_at, (await world.row()).ended_at) == (world.now, None)
    await world.advance()
    assert (await world.row()).closed_at == world.now


async def test_a_long_one_keeps_no_other_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challenge_ends, "BATCH", 1)
    await world.join(8)
    other = await another(world, days=1)
    world.now = END + timedelta(days=9)
    await world.advance(steps=8)
    row = await rows.one(world.pool, other)
    assert row is not None
    assert (row.ended_at, (await world.row()).ended_at) == (world.now, None)


async def test_nobody_comes_or_goes_once_it_was_told_to_have_ended_whatever_their_clock_says(world: World) -> None:
    await world.pool.execute("UPDATE challenges SET visibility = 'public'")
    await world.join(2)
    late = make_address("late", world.challenge)
    await sign_in(world.pool, late)
    world.now = END
    await world.advance()
    world.now = END - timedelta(seconds=2)
    with pytest.raises(Conflict):
        await challenges.join(world.deps, late, world.challenge, caller=Caller())
    with pytest.raises(Conflict):
        await challenges.leave(world.deps, world.people[0], world.challenge, caller=Caller())
    assert set(await world.ranks()) == set(world.people)


async def test_who_has_left_is_neither_ranked_nor_told(world: World) -> None:
    await world.join(3)
    await world.pool.execute(
        "UPDATE challenge_participants SET left_at = $2 WHERE user_address = $1", world.people[0], START
    )
    await world.all_final()
    world.now = END
    await world.advance()
    assert await world.ranks() == dict(zip(world.people, [None, 1, 2], strict=True))
    assert await world.told(world.people[0]) == []


async def test_whom_a_participant_has_blocked_is_nobody_to_them_among_the_winners(world: World) -> None:
    await world.join(3)
    await world.pool.execute("UPDATE users SET display_name = right(address, 4)")
    one, two, three = world.people
    await world.pool.execute(
        "INSERT INTO friends (user_address, other, state, changed_at) VALUES ($1, $2, 'blocked', $3)", one, three, START
    )
    await world.all_final()
    world.now = END
    await world.advance()

    async def names(user: Address) -> set[str]:
        shown = (await world.told(user))[1][1]["challenge"]
        return {each["displayName"] for each in shown["winners"]}

    assert await names(two) == {user[-4:] for user in world.people}
    assert await names(one) == {one[-4:], two[-4:], "Someone"}
    assert await names(three) == {two[-4:], three[-4:], "Someone"}


async def test_a_creator_who_takes_no_part_is_told_too_and_preferences_hold(world: World) -> None:
    await world.join(2)
    creator = make_address("creator", world.challenge)
    await sign_in(world.pool, creator)
    await world.pool.execute("UPDATE challenges SET creator = $1", creator)
    await world.pool.execute(
        "INSERT INTO notification_preferences VALUES ($1, 'challenge_settled', 'inbox', false)", world.people[0]
    )
    await world.all_final()
    world.now = END
    await world.advance()
    assert await world.states(creator) == ["ended", "settled"]
    assert [event for event, _ in await world.told(world.people[0])] == ["challenge_update"] * 2


async def test_what_was_called_off_is_told_to_everyone_and_nothing_else_happens(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(challenge_ends, "BATCH", 2)
    await world.join(5)
    await world.pool.execute("UPDATE challenges SET cancelled_at = $1", START)
    await world.advance()
    world.now = END + timedelta(days=9)
    await world.advance()
    assert [await world.states(user) for user in world.people] == [["cancelled"]] * 5
    assert set((await world.ranks()).values()) == {None}
    assert await challenge_ends.go_on(world.deps, world.challenge) == DONE


async def test_a_challenge_without_anybody_is_settled_all_the_same(world: World) -> None:
    world.now = END + timedelta(days=9)
    await world.advance()
    assert (await world.row()).closed_at == world.now


async def test_days_are_measured_when_they_end_though_nothing_else_happens(world: World) -> None:
    await world.join(2)
    members = [rows.Member(world.challenge, user) for user in world.people]
    await challenge_scores.measure_members(world.deps, members)
    assert (await challenge_scores.measure_due(world.deps, limit=10))[0] == 0
    world.now = START + timedelta(days=3)
    count, changed = await challenge_scores.measure_due(world.deps, limit=10)
    assert count == 2
    assert [row.score for row in changed[world.challenge]] == [3, 3]
    assert (await challenge_scores.measure_due(world.deps, limit=10))[0] == 0


async def test_savings_of_everyone_settle_with_exact_ties(world: World) -> None:
    await world.pool.execute("UPDATE challenges SET measure = 'savings_progress', target = 300")
    await world.join(3)
    for user, usd in zip(world.people, ("100", "100.00", "99.98"), strict=True):
        row = make_transaction(
            user=user,
            block_hash=make_hash("save"),
            tx_hash=make_hash(user, "save"),
            block_number=5000,
            block_time=START + timedelta(days=1),
            type="vault_deposit",
            direction="in",
            amount=3,
            usd=Decimal(usd),
        )
        async with world.pool.acquire() as conn, conn.transaction():
            await insert_transactions(conn, [row])
    await world.all_final()
    world.now = END
    await world.advance()
    assert await world.ranks() == dict(zip(world.people, [1, 1, 3], strict=True))
