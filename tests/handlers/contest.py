"""A challenge under test: its participants' rows as a transaction of `challenges` would leave them, and who is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from handlers import standings
from handlers.deps import Deps
from handlers.standings import Page, Span, View
from store import challenges
from store import standings as stored
from store.leaderboards import Leaderboards, Standing
from store.postgres import Pool
from store.records import Address
from tests.factories import make_address
from tests.handlers.ledger import Kept, sign_in

START = datetime(2026, 11, 1, 12, tzinfo=UTC)


@dataclass
class Clock:
    """A clock that goes on when it is told to."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Contest:
    """One challenge. `numbers` name people; their rows change by SQL, standings follow by `changed` alone."""

    deps: Deps
    boards: Leaderboards
    id: UUID
    clock: Clock
    ids: dict[int, UUID] = field(default_factory=dict)

    @property
    def pool(self) -> Pool:
        return self.deps.pool

    async def join(self, *numbers: int) -> list[UUID]:
        await sign_in(self.pool, *(person(number) for number in numbers if number not in self.ids))
        return [await self._write(number, None) for number in numbers]

    async def score(self, number: int, score: int) -> UUID:
        """Commit a score; standings do not know of it yet."""
        return await self._write(number, score)

    async def leave(self, number: int) -> UUID:
        await self.pool.execute(
            """UPDATE challenge_participants SET left_at = now(), score_change = score_change + 1
               WHERE challenge_id = $1 AND user_address = $2 AND left_at IS NULL""",
            self.id,
            person(number),
        )
        return self.ids[number]

    async def _write(self, number: int, score: int | None) -> UUID:
        id_: UUID = await self.pool.fetchval(
            """INSERT INTO challenge_participants AS p (challenge_id, user_address, score)
               VALUES ($1, $2, coalesce($3, 0))
               ON CONFLICT (challenge_id, user_address) DO UPDATE
               SET score = coalesce($3, p.score), left_at = NULL, score_change = p.score_change + 1
               RETURNING participant_id""",
            self.id,
            person(number),
            score,
        )
        self.ids[number] = id_
        return id_

    async def rows(self, ids: Iterable[UUID]) -> list[Standing]:
        return list((await stored.rows_of(self.pool, self.id, list(ids))).values())

    async def read(self, number: int, span: Span) -> Page:
        """The leaderboard as somebody reads it."""
        challenge = await challenges.one(self.pool, self.id)
        assert challenge is not None
        me = (await stored.own(self.pool, person(number), [self.id])).get(self.id)
        return await standings.listed(self.deps, self.boards, View(challenge, person(number), me), span)

    async def follow(self, *ids: UUID) -> None:
        """What a job does after its commit."""
        await standings.changed(self.deps, self.boards, self.id, await self.rows(ids))

    def told(self) -> list[tuple[Address, dict[str, Any]]]:
        """Who was told what since the last call."""
        kept = self.deps.publisher
        assert isinstance(kept, Kept)
        frames, kept.frames = kept.frames, []
        found = []
        for user, text in frames:
            name, payload = orjson.loads(text)
            assert name == "leaderboard_update"
            assert payload["challengeId"] == str(self.id)
            found.append((user, {key: payload[key] for key in ("rank", "previousRank", "progress")}))
        return found

    async def recomputed(self) -> dict[UUID, tuple[int, int]]:
        """Score and rank of everybody, by plain Python from the rows."""
        rows = await self.pool.fetch(
            "SELECT participant_id, score FROM challenge_participants WHERE challenge_id = $1 AND left_at IS NULL",
            self.id,
        )
        scores = [row["score"] for row in rows]
        return {row["participant_id"]: (row["score"], 1 + sum(each > row["score"] for each in scores)) for row in rows}

    async def live(self) -> dict[UUID, tuple[int, int]]:
        """The same as Redis says."""
        found = await self.boards.page(self.id, None, limit=10_000)
        return {each.id: (each.score, each.rank) for each in found}


def person(number: int) -> Address:
    return make_address("participant", number)


async def open_contest(deps: Deps, boards: Leaderboards, clock: Clock) -> Contest:
    id_ = await deps.pool.fetchval(
        """INSERT INTO challenges (name, measure, visibility, starts_at, ends_at)
           VALUES ('Quiet month', 'no_spend_days', 'public', $1, $2) RETURNING id""",
        START,
        START + timedelta(days=1),  # so that progress is the score itself
    )
    return Contest(deps, boards, id_, clock)


def names(told: Sequence[tuple[Address, dict[str, Any]]]) -> set[Address]:
    return {user for user, _ in told}
