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


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A link to take part by, so many times, until it expires."""

    id: UUID
    challenge_id: UUID
    inviter: Address
    uses_left: int
    expires_at: datetime
    created_at: datetime


class Member(NamedTuple):
    """A user in a challenge."""

    challenge_id: UUID
    user: Address


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


async def of_ids(conn: Tx | Pool, ids: Iterable[UUID]) -> dict[UUID, ChallengeRow]:
    """These challenges, as far as there are some."""
    return {row["id"]: _challenge(row) for row in await conn.fetch(SQL["of_ids"], list(ids))}


async def describe(tx: Tx, challenge: UUID, *, name: str, description: str, at: datetime) -> ChallengeRow:
    """Change what a challenge is called."""
    row = await tx.fetchrow(SQL["describe"], challenge, name, description, at)
    assert row is not None  # it is locked
    return _challenge(row)


async def mark(
    tx: Tx, challenge: UUID, what: Literal["cancelled", "ended", "settling", "settled", "closed"], *, at: datetime
) -> ChallengeRow:
    """Note that a challenge has come so far; the first time counts."""
    row = await tx.fetchrow(SQL["mark"], challenge, what, at)
    assert row is not None  # it is locked
    return _challenge(row)


async def count_created(tx: Tx, user: Address) -> int:
    """How many challenges of a user's making are not over."""
    return int(await tx.fetchval(SQL["count_created"], user))


async def count_joined(tx: Tx, user: Address) -> int:
    """In how many challenges that are not over a user takes part."""
    return int(await tx.fetchval(SQL["count_joined"], user))


# Lists -------------------------------------------------------------------------------------------------------------


async def mine(conn: Tx | Pool, user: Address, *, below: Place, limit: int) -> list[ChallengeRow]:
    """Challenges that a user takes part in or made, newest first."""
    return [_challenge(row) for row in await conn.fetch(SQL["mine"], user, below.at, below.id, limit)]


async def invited(conn: Tx | Pool, user: Address, *, at: datetime, below: Place, limit: int) -> list[ChallengeRow]:
    """Challenges that friends invited a user to and that can be joined still, newest first."""
    return [_challenge(row) for row in await conn.fetch(SQL["invited"], user, at, below.at, below.id, limit)]


async def open_to_all(conn: Tx | Pool, user: Address, *, at: datetime, below: Place, limit: int) -> list[ChallengeRow]:
    """Public challenges that can be joined and that a user does not take part in, newest first."""
    return [_challenge(row) for row in await conn.fetch(SQL["open_to_all"], user, at, below.at, below.id, limit)]


# Invitations -------------------------------------------------------------------------------------------------------


async def is_invited(conn: Tx | Pool, challenge: UUID, user: Address) -> bool:
    """Whether a friend who still is one invited a user, who did not decline."""
    return bool(await conn.fetchval(SQL["is_invited"], challenge, user))


async def friends_of(conn: Tx | Pool, user: Address, ids: Sequence[UUID]) -> dict[UUID, Address]:
    """Friends of a user by the ids that they have for the user; what else has these ids is left out."""
    return {row[0]: row[1] for row in await conn.fetch(SQL["friends_of"], user, list(ids))}


async def invite(tx: Tx, challenge: UUID, inviter: Address, users: Sequence[Address], *, at: datetime) -> list[Address]:
    """Invite these; returns those who were not invited before."""
    return [row[0] for row in await tx.fetch(SQL["invite"], challenge, inviter, list(users), at)]


async def decline(tx: Tx, challenge: UUID, user: Address, *, at: datetime) -> None:
    """Let an invitation be none any more."""
    await tx.execute(SQL["decline"], challenge, user, at)


async def make_link(
    tx: Tx, challenge: UUID, inviter: Address, token_hash: bytes, *, uses: int, expires_at: datetime, at: datetime
) -> LinkRow:
    """Make a link to take part by."""
    row = await tx.fetchrow(SQL["make_link"], challenge, inviter, token_hash, uses, expires_at, at)
    assert row is not None  # RETURNING
    return LinkRow(*row)


async def links(conn: Tx | Pool, challenge: UUID, *, at: datetime, below: Place, limit: int) -> list[LinkRow]:
    """Links of a challenge that stand, newest first."""
    return [LinkRow(*row) for row in await conn.fetch(SQL["links"], challenge, at, below.at, below.id, limit)]


async def count_links(tx: Tx, challenge: UUID, *, at: datetime) -> int:
    """How many links of a challenge stand."""
    return int(await tx.fetchval(SQL["count_links"], challenge, at))


async def link(conn: Tx | Pool, token_hash: bytes, user: Address, *, at: datetime) -> LinkRow | None:
    """The link of a token, if it stands and neither of its maker and this user has blocked the other."""
    row = await conn.fetchrow(SQL["link"], token_hash, user, at)
    return None if row is None else LinkRow(*row)


async def use_link(tx: Tx, id_: UUID) -> bool:
    """Count a use; False when none was left."""
    return bool(await tx.fetchval(SQL["use_link"], id_))


async def revoke_link(tx: Tx, challenge: UUID, id_: UUID, *, at: datetime) -> bool:
    """End a link; False when the challenge has none of this id that stands."""
    return bool(await tx.fetchval(SQL["revoke_link"], challenge, id_, at))


# Participants ------------------------------------------------------------------------------------------------------


async def frozen_of(conn: Tx | Pool, user: Address) -> Frozen:
    """What a user would be measured by if they joined now."""
    row = await conn.fetchrow(SQL["frozen_of"], user)
    assert row is not None  # signed in
    return Frozen(row[0], row[1], tuple(row[2]))


async def join(tx: Tx, challenge: UUID, user: Address, frozen: Frozen, *, at: datetime) -> ParticipantRow:
    """Take part, or again: who left is who they were. The challenge is locked."""
    budget = None if frozen.monthly_budget is None else str(frozen.monthly_budget)
    row = await tx.fetchrow(SQL["join"], challenge, user, at, frozen.time_zone, budget, list(frozen.buckets))
    assert row is not None  # RETURNING after an upsert
    await tx.execute(SQL["count"], challenge, 1)
    return participant(row)


async def leave(tx: Tx, challenge: UUID, user: Address, *, at: datetime) -> ParticipantRow | None:
    """Take part no longer; None for somebody who does not. The challenge is locked."""
    row = await tx.fetchrow(SQL["leave"], challenge, user, at)
    if row is not None:
        await tx.execute(SQL["count"], challenge, -1)
    return None if row is None else participant(row)


async def participants(conn: Tx | Pool, challenge: UUID, *, after: UUID = FIRST, limit: int) -> list[ParticipantRow]:
    """Those who take part, in the order of their ids."""
    return [participant(row) for row in await conn.fetch(SQL["participants"], challenge, after, limit)]


async def participation(conn: Tx | Pool, challenge: UUID, user: Address) -> ParticipantRow | None:
    """A user's part in a challenge, also one that they left."""
    return (await parts(conn, [Member(challenge, user)])).get(Member(challenge, user))


async def parts(conn: Tx | Pool, members: Iterable[Member]) -> dict[Member, ParticipantRow]:
    """The parts of these in their challenges, also those that they left."""
    keys = list(members)
    rows = await conn.fetch(SQL["parts"], [key.challenge_id for key in keys], [key.user for key in keys])
    return {Member(row["challenge_id"], row["user_address"]): participant(row) for row in rows}


def _challenge(row: asyncpg.Record) -> ChallengeRow:
    return ChallengeRow(**dict(row))


def participant(row: asyncpg.Record) -> ParticipantRow:
    """A row with all of a participant's columns."""
    values = dict(row)
    return ParticipantRow(user=values.pop("user_address"), buckets=tuple(values.pop("buckets")), **values)
