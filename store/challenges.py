"""Challenges, who takes part, and who may: rows as the leaderboard and the feature above read and write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal, NamedTuple
from uuid import UUID

import asyncpg

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("challenges")

Measure = Literal["savings_progress", "budget_kept", "no_spend_days"]
Visibility = Literal["private", "public"]


class Place(NamedTuple):
    """A place in a list, which is newest first: what follows is older, or as old with a lower id."""

    at: datetime
    id: UUID


FIRST = UUID(int=0)
"""Before every participant."""
TOP = Place(datetime(9999, 12, 31, tzinfo=UTC), UUID(int=2**128 - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeRow:
    """A challenge; its window begins at `starts_at` and ends before `ends_at`. `target` is in dollars."""

    id: UUID
    creator: Address | None
    name: str
    description: str
    measure: Measure
    visibility: Visibility
    target: Decimal | None
    starts_at: datetime
    ends_at: datetime
    participants: int = 0
    cancelled_at: datetime | None = None
    ended_at: datetime | None = None
    settling_at: datetime | None = None
    settled_at: datetime | None = None
    closed_at: datetime | None = None
    revision: int = 1
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantRow:
    """Somebody who takes part, or did; with what they are measured by, and what was measured last."""

    challenge_id: UUID
    user: Address
    participant_id: UUID
    joined_at: datetime
    left_at: datetime | None
    time_zone: str
    monthly_budget: Decimal | None
    buckets: tuple[str, ...]
    score: int
    score_change: int
    amount: Decimal | None
    unpriced: int
    measured_at: datetime | None
    due_at: datetime | None
    final_score: int | None
    final_rank: int | None
    told: int


class ScoreRow(NamedTuple):
    """A participant as the leaderboard knows them: `score` None once they left."""

    participant_id: UUID
    score: int | None
    change: int


@dataclass(frozen=True, slots=True)
class Frozen:
    """What a user is measured by from their joining on; the budget is dollars a month."""

    time_zone: str
    monthly_budget: Decimal | None
    buckets: tuple[str, ...]


# Challenges --------------------------------------------------------------------------------------------------------


async def insert(tx: Tx, row: ChallengeRow) -> bool:
    """Write a new challenge; False when there is one of its id."""
    found = await tx.fetchval(
        SQL["insert"],
        row.id,
        row.creator,
        row.name,
        row.description,
        row.measure,
        row.visibility,
        row.target,
        row.starts_at,
        row.ends_at,
        row.created_at,
    )
    return found is not None


async def one(conn: Tx | Pool, challenge: UUID) -> ChallengeRow | None:
    """A challenge, whoever may see it."""
    row = await conn.fetchrow(SQL["one"], challenge)
    return None if row is None else _challenge(row)


async def locked(tx: Tx, challenge: UUID) -> ChallengeRow | None:
    """The same, locked: who joins and leaves goes one by one. After the users' locks."""
    row = await tx.fetchrow(SQL["locked"], challenge)
    return None if row is None else _challenge(row)


# Participants ------------------------------------------------------------------------------------------------------


async def participants(conn: Tx | Pool, challenge: UUID, *, after: UUID = FIRST, limit: int) -> list[ParticipantRow]:
    """Those who take part, in the order of their ids."""
    return [_participant(row) for row in await conn.fetch(SQL["participants"], challenge, after, limit)]


async def participation(conn: Tx | Pool, challenge: UUID, user: Address) -> ParticipantRow | None:
    """A user's part in a challenge, also one that they left."""
    row = await conn.fetchrow(SQL["participation"], challenge, user)
    return None if row is None else _participant(row)


async def scores(conn: Tx | Pool, challenge: UUID, users: Sequence[Address]) -> dict[Address, ScoreRow]:
    """What the leaderboard has to know of these users, as far as they ever took part."""
    rows = await conn.fetch(SQL["scores"], challenge, users)
    return {row[0]: ScoreRow(row[1], row[2], row[3]) for row in rows}


async def running_of(conn: Tx | Pool, users: Iterable[Address]) -> dict[Address, list[UUID]]:
    """Challenges of these users whose scores may still change: begun, neither cancelled nor being settled."""
    found: dict[Address, list[UUID]] = {}
    for row in await conn.fetch(SQL["running_of"], list(users)):
        found.setdefault(row[0], []).append(row[1])
    return found


def _challenge(row: asyncpg.Record) -> ChallengeRow:
    return ChallengeRow(**dict(row))


def _participant(row: asyncpg.Record) -> ParticipantRow:
    values = dict(row)
    return ParticipantRow(user=values.pop("user_address"), buckets=tuple(values.pop("buckets")), **values)
