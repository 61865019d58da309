"""Standings as PostgreSQL has them: what Redis is made from and held against, and what answers while Redis is away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from store.leaderboards import EXACT, Place, Ranked, Standing, ranked
from store.postgres import Pool, Tx, frozen
from store.records import Address
from store.statements import load

SQL = load("standings")

PAGE = 5000
"""Participants that one statement reads where all are: some 10 ms."""
TOP = Place(EXACT, UUID(int=2**128 - 1))
"""A place above everybody's."""


class Shown(NamedTuple):
    """What a user is shown of a participant; neither name nor picture where either has blocked the other."""

    is_me: bool
    display_name: str | None
    avatar_url: str | None


async def every_row(pool: Pool, challenge: UUID) -> AsyncIterator[Sequence[Standing]]:
    """All rows of a challenge as of one instant, those who left, too, in parts and in the order of ids."""
    async with frozen(pool) as tx:
        after = UUID(int=0)
        while found := await tx.fetch(SQL["rows"], challenge, after, PAGE):
            yield [Standing(*row) for row in found]
            after = found[-1][0]


async def rows_of(conn: Tx | Pool, challenge: UUID, ids: Sequence[UUID]) -> dict[UUID, Standing]:
    """The rows of these participants, as far as there are some."""
    return {row[0]: Standing(*row) for row in await conn.fetch(SQL["rows_of"], challenge, list(ids))}


async def recipients(conn: Tx | Pool, challenge: UUID, ids: Sequence[UUID]) -> Mapping[UUID, Address]:
    """Who these participants are; without those who left."""
    return {row[0]: row[1] for row in await conn.fetch(SQL["recipients"], challenge, list(ids))}


async def people(conn: Tx | Pool, challenge: UUID, ids: Sequence[UUID], *, viewer: Address) -> Mapping[UUID, Shown]:
    """What a user is shown of these participants."""
    found = await conn.fetch(SQL["people"], challenge, list(ids), viewer)
    return {row[0]: Shown(*tuple(row)[1:]) for row in found}


async def own(conn: Tx | Pool, user: Address, challenges: Sequence[UUID]) -> dict[UUID, Place]:
    """A user's own places in those of these challenges that they take part in."""
    rows = await conn.fetch(SQL["own"], user, list(challenges))
    return {row[0]: Place(row[1], row[2]) for row in rows}


async def page(tx: Tx, challenge: UUID, after: Place, *, limit: int) -> list[Ranked]:
    """The next places after one, best first; one transaction sees one order."""
    found = await tx.fetch(SQL["page"], challenge, after.score, after.id, limit)
    return await _ranked(tx, challenge, [Place(row[1], row[0]) for row in found])


async def around(tx: Tx, challenge: UUID, me: Place, *, limit: int) -> list[Ranked]:
    """`limit` places with one in the middle, as far as there are some, and one more if there is one."""
    above = [Place(row[1], row[0]) for row in await tx.fetch(SQL["above"], challenge, me.score, me.id, limit)]
    below = [Place(row[1], row[0]) for row in await tx.fetch(SQL["page"], challenge, me.score, me.id, limit)]
    before = before_of(limit, above=len(above), below=len(below))
    return await _ranked(tx, challenge, [*reversed(above[:before]), me, *below[: limit - before]])


async def rank(conn: Tx | Pool, challenge: UUID, place: Place) -> int:
    """The rank of a place."""
    return int((await _counts(conn, challenge, place))[1]) + 1


async def _ranked(tx: Tx, challenge: UUID, places: Sequence[Place]) -> list[Ranked]:
    if not places:
        return []
    before, better = await _counts(tx, challenge, places[0])
    return ranked(places, at=before, rank=better + 1)


async def _counts(conn: Tx | Pool, challenge: UUID, place: Place) -> tuple[int, int]:
    """How many come before a place, and how many of them have a higher score."""
    row = await conn.fetchrow(SQL["counts"], challenge, place.score, place.id)
    assert row is not None  # an aggregate
    return row[0], row[1]


async def final_page(tx: Tx, challenge: UUID, after: Place, *, limit: int) -> list[Ranked]:
    """The same of a settled challenge, by the ranks that were written down."""
    return [Ranked(*row) for row in await tx.fetch(SQL["final_page"], challenge, after.score, after.id, limit)]


async def final_around(tx: Tx, challenge: UUID, me: Place, *, limit: int) -> list[Ranked]:
    """The same of a settled challenge."""
    above = [Ranked(*row) for row in await tx.fetch(SQL["final_above"], challenge, me.score, me.id, limit)]
    with_me = Place(me.score, UUID(int=me.id.int + 1))  # random ids are never the last there is
    below = await final_page(tx, challenge, with_me, limit=limit + 1)
    before = before_of(limit, above=len(above), below=len(below) - 1)
    return [*reversed(above[:before]), *below[: limit - before + 1]]


def before_of(limit: int, *, above: int, below: int) -> int:
    """How many of `limit` places come before the one in the middle: half of them, more where few follow."""
    return min(above, max(limit // 2, limit - 1 - below))


async def running(conn: Tx | Pool) -> list[UUID]:
    """Challenges whose standings are needed."""
    return [row[0] for row in await conn.fetch(SQL["running"])]
