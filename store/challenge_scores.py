"""How far participants of challenges are: what is measured, the scores that come of it, and what is left at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import asyncpg

from store.challenges import Member, ParticipantRow, participant
from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("challenges")

PRICE_PLACES = 140
"""Places of a price of one base unit: as many as keep any uint256 of them exact to far below a cent."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What somebody set aside of one token, in base units, and took out again.

    Prices are of one base unit, in 10^-PRICE_PLACES dollars: the lowest at which any came in, the highest at which any
    moved; None where nothing had one. `unpriced`: how many came in without a price, which are not in `ins`.
    """

    ins: int
    outs: int
    lowest: int | None
    highest: int | None
    unpriced: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What counted for budgets since somebody joined, and the days of their zone, from the start on, that have some."""

    usd: Decimal = Decimal(0)
    unpriced: int = 0
    days: frozenset[date] = frozenset()


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """What a participant's row is to say from now on."""

    challenge_id: UUID
    user: Address
    score: int
    amount: Decimal | None
    unpriced: int
    due_at: datetime | None


@dataclass(frozen=True, slots=True)
class WinnerRow:
    """Somebody with one of the first ranks, and what they show of themselves."""

    user: Address
    rank: int
    score: int
    display_name: str | None
    avatar_url: str | None


class ScoreRow(NamedTuple):
    """A participant as the leaderboard knows them: `score` None once they left."""

    participant_id: UUID
    score: int | None
    change: int


async def scores(conn: Tx | Pool, challenge: UUID, users: Sequence[Address]) -> dict[Address, ScoreRow]:
    """What the leaderboard has to know of these users, as far as they ever took part."""
    rows = await conn.fetch(SQL["scores"], challenge, users)
    return {row[0]: ScoreRow(row[1], row[2], row[3]) for row in rows}


async def running_of(conn: Tx | Pool, users: Iterable[Address]) -> list[Member]:
    """In which challenges these users have a score that may still change: not cancelled, and not being settled."""
    return [Member(*row) for row in await conn.fetch(SQL["running_of"], list(users))]


async def of_block(conn: Tx | Pool, chain_id: int, block_hash: str) -> list[Address]:
    """Participants who have a ledger row of a block, canonical or not."""
    return [row[0] for row in await conn.fetch(SQL["of_block"], chain_id, block_hash)]


async def request_measure(tx: Tx, job: str, args: Mapping[str, object], users: Iterable[Address]) -> None:
    """Ask for a job where one of these users has a score that may change; else nothing."""
    await tx.execute(SQL["request_measure"], job, dict(args), list(users))


async def due(conn: Tx | Pool, now: datetime, *, limit: int) -> list[Member]:
    """Whose score the clock alone has changed."""
    return [Member(*row) for row in await conn.fetch(SQL["due"], now, limit)]


# Scores ------------------------------------------------------------------------------------------------------------


async def saved(conn: Tx | Pool, members: Sequence[Member]) -> dict[Member, list[Saved]]:
    """What these set aside in their challenges' windows since they joined, by token."""
    found: dict[Member, list[Saved]] = {}
    for row in await _of(conn, "saved", members):
        lowest, highest = (None if row[n] is None else int(row[n]) for n in ("lowest", "highest"))
        one = Saved(int(row["ins"]), int(row["outs"]), lowest, highest, row["unpriced"])
        found.setdefault(Member(row["challenge_id"], row["user_address"]), []).append(one)
    return found


async def spent(conn: Tx | Pool, members: Sequence[Member]) -> dict[Member, Spent]:
    """What these spent in their challenges' windows."""
    return {
        Member(row["challenge_id"], row["user_address"]): Spent(row["usd"], row["unpriced"], frozenset(row["days"]))
        for row in await _of(conn, "spent", members)
    }


async def _of(conn: Tx | Pool, name: str, members: Sequence[Member]) -> Sequence[asyncpg.Record]:
    if not members:
        return []
    return await conn.fetch(SQL[name], [each.challenge_id for each in members], [each.user for each in members])


async def set_scores(tx: Tx, changes: Sequence[ScoreChange], *, at: datetime, final: bool = False) -> None:
    """Write scores where they changed, of those who still take part; `final` ones never change again."""
    if changes:
        rows = [(c.challenge_id, c.user, c.score, _text(c.amount), c.unpriced, c.due_at) for c in changes]
        await tx.execute(SQL["set_scores"], *map(list, zip(*rows, strict=True)), at, final)


async def keep_score(challenge: UUID, user: Address, tx: Tx) -> None:
    """Let the last score of somebody be their final one."""
    await tx.execute(SQL["keep_score"], challenge, user)


# Ends --------------------------------------------------------------------------------------------------------------


async def unfinished(conn: Tx | Pool, now: datetime) -> list[UUID]:
    """Challenges that have ended or were cancelled and of which something is left to do, the longest ended first."""
    return [row[0] for row in await conn.fetch(SQL["unfinished"], now)]


async def final_times(conn: Tx | Pool, chain_ids: Sequence[int]) -> dict[int, datetime | None]:
    """Time of the newest finalized block that each of these chains' ledgers have; None: there is none yet."""
    return {row[0]: row[1] for row in await conn.fetch(SQL["final_times"], list(chain_ids))}


async def not_final(conn: Tx | Pool, challenge: UUID, *, after: UUID, limit: int) -> list[ParticipantRow]:
    """Participants without a final score, in the order of their ids."""
    return [participant(row) for row in await conn.fetch(SQL["not_final"], challenge, after, limit)]


async def give_ranks(tx: Tx, challenge: UUID, *, limit: int) -> int:
    """Give the next best participants their final ranks; returns how many. The challenge is locked."""
    return int(await tx.fetchval(SQL["give_ranks"], challenge, limit))


async def untold(conn: Tx | Pool, challenge: UUID, told: int, *, after: UUID, limit: int) -> list[ParticipantRow]:
    """Participants to whom less than `told` was told, in the order of their ids."""
    return [participant(row) for row in await conn.fetch(SQL["untold"], challenge, told, after, limit)]


async def set_told(tx: Tx, challenge: UUID, users: Sequence[Address], told: int) -> None:
    """Note what these were told."""
    await tx.execute(SQL["set_told"], challenge, list(users), told)


async def winners(
    conn: Tx | Pool, challenges: Sequence[UUID], *, ranks: int, limit: int
) -> dict[UUID, list[WinnerRow]]:
    """Who has the first so many ranks of these challenges, best first, at most so many of each."""
    found: dict[UUID, list[WinnerRow]] = {each: [] for each in challenges}
    for row in await conn.fetch(SQL["winners"], list(challenges), ranks, limit):
        found[row[0]].append(WinnerRow(*tuple(row)[1:]))
    return found


async def strangers(
    conn: Tx | Pool, users: Sequence[Address], others: Sequence[Address]
) -> dict[Address, set[Address]]:
    """For each of these users, those of the others with whom either has blocked the other."""
    found: dict[Address, set[Address]] = {}
    for row in await conn.fetch(SQL["strangers"], list(users), list(others)):
        found.setdefault(row[0], set()).add(row[1])
    return found


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)
