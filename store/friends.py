"""Friends, requests and invitations, each from the side of one user; who may see what is decided above."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple
from uuid import UUID

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("friends")

State = Literal["received", "declined", "friends", "blocked", "gone"]


class Place(NamedTuple):
    """A place in a list, which is newest first: what follows is older, or as old with a lower id."""

    at: datetime
    id: UUID


TOP = Place(datetime(9999, 12, 31, tzinfo=UTC), UUID(int=2**128 - 1))


@dataclass(frozen=True, slots=True)
class FriendRow:
    """What `other` is to `user`; `typed`: the user typed the address, `called`: the name when they were blocked."""

    id: UUID
    user: Address
    other: Address
    state: State
    typed: bool
    called: str | None
    changed_at: datetime
    notified_at: datetime | None


@dataclass(frozen=True, slots=True)
class RequestRow:
    """An address that a user typed to become friends; it says nothing of who that is."""

    id: UUID
    user: Address
    other: Address
    is_open: bool
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class InvitationRow:
    """A link that makes friends of its owner and whoever follows it, so many times, until it expires."""

    id: UUID
    user: Address
    uses_left: int
    expires_at: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """What a user shows of themselves."""

    display_name: str | None
    avatar_url: str | None


NOBODY = ProfileRow(None, None)


async def is_person(conn: Tx | Pool, address: Address) -> bool:
    """Whether an address has an account."""
    return bool(await conn.fetchval(SQL["is_person"], address))


async def profile(conn: Tx | Pool, address: Address) -> ProfileRow:
    """What a user shows of themselves; nothing for one who is gone."""
    row = await conn.fetchrow(SQL["profile"], address)
    return NOBODY if row is None else ProfileRow(*row)


# Friends -----------------------------------------------------------------------------------------------------------


async def pair(tx: Tx, user: Address, other: Address) -> tuple[FriendRow | None, FriendRow | None]:
    """What each of two is to the other: from the side of `user`, then of `other`."""
    rows = {row["user_address"]: FriendRow(*row) for row in await tx.fetch(SQL["rows"], user, other)}
    return rows.get(user), rows.get(other)


async def own(conn: Tx | Pool, user: Address, id_: UUID) -> FriendRow | None:
    """A row of a user by its id."""
    row = await conn.fetchrow(SQL["own"], user, id_)
    return None if row is None else FriendRow(*row)


async def save(
    tx: Tx,
    user: Address,
    other: Address,
    state: State,
    *,
    at: datetime,
    typed: bool = False,
    called: str | None = None,
    notified_at: datetime | None = None,
) -> FriendRow:
    """Write what `other` is to `user` from now on; its id stays what it was."""
    row = await tx.fetchrow(SQL["save"], user, other, state, typed, called, at, notified_at)
    assert row is not None  # RETURNING after an upsert
    return FriendRow(*row)


async def count_friends(tx: Tx, user: Address) -> int:
    """How many friends a user has."""
    return int(await tx.fetchval(SQL["count_friends"], user))


async def listed(
    conn: Tx | Pool, user: Address, state: Literal["friends", "received"], *, below: Place, limit: int
) -> list[tuple[FriendRow, ProfileRow]]:
    """Friends of a user, or who asked to be, with their profiles; newest first, in one query."""
    rows = await conn.fetch(SQL["listed"], user, state, below.at, below.id, limit)
    return [(FriendRow(*tuple(row)[:8]), ProfileRow(*tuple(row)[8:])) for row in rows]


async def blocked(conn: Tx | Pool, user: Address, *, below: Place, limit: int) -> list[FriendRow]:
    """Whom a user has blocked, newest first."""
    return [FriendRow(*row) for row in await conn.fetch(SQL["blocked"], user, below.at, below.id, limit)]


# Requests ----------------------------------------------------------------------------------------------------------


async def request(tx: Tx, user: Address, address: Address) -> RequestRow | None:
    """The request of a user to an address, a closed one too."""
    row = await tx.fetchrow(SQL["request"], user, address)
    return None if row is None else RequestRow(*row)


async def own_request(conn: Tx | Pool, user: Address, id_: UUID) -> RequestRow | None:
    """An open request of a user by its id."""
    row = await conn.fetchrow(SQL["own_request"], user, id_)
    return None if row is None else RequestRow(*row)


async def asked_since(tx: Tx, user: Address, since: datetime, *, beside: Address) -> tuple[int, datetime | None]:
    """How many addresses beside this one a user asked since, withdrawn requests too, and when the oldest was."""
    row = await tx.fetchrow(SQL["asked_since"], user, beside, since)
    assert row is not None  # an aggregate
    return row[0], row[1]


async def count_requests(tx: Tx, user: Address, *, beside: Address) -> int:
    """How many open requests a user has beside one to this address."""
    return int(await tx.fetchval(SQL["count_requests"], user, beside))


async def ask(tx: Tx, user: Address, address: Address, *, is_open: bool, at: datetime) -> RequestRow:
    """Write down that a user asked an address."""
    row = await tx.fetchrow(SQL["ask"], user, address, is_open, at)
    assert row is not None  # RETURNING after an upsert
    return RequestRow(*row)


async def close_request(tx: Tx, user: Address, address: Address) -> None:
    """End a request; that it was made still counts."""
    await tx.execute(SQL["close_request"], user, address)


async def requests(conn: Tx | Pool, user: Address, *, below: Place, limit: int) -> list[RequestRow]:
    """Open requests of a user, newest first."""
    return [RequestRow(*row) for row in await conn.fetch(SQL["requests"], user, below.at, below.id, limit)]


# Invitations -------------------------------------------------------------------------------------------------------


async def invite(
    tx: Tx, user: Address, token_hash: bytes, *, uses: int, expires_at: datetime, at: datetime
) -> InvitationRow:
    """Make an invitation."""
    row = await tx.fetchrow(SQL["invite"], user, token_hash, uses, expires_at, at)
    assert row is not None  # RETURNING
    return InvitationRow(*row)


async def count_invitations(tx: Tx, user: Address, *, at: datetime) -> int:
    """How many invitations of a user stand."""
    return int(await tx.fetchval(SQL["count_invitations"], user, at))


async def invitations(conn: Tx | Pool, user: Address, *, at: datetime, below: Place, limit: int) -> list[InvitationRow]:
    """Invitations of a user that stand, newest first."""
    rows = await conn.fetch(SQL["invitations"], user, at, below.at, below.id, limit)
    return [InvitationRow(*row) for row in rows]


async def invitation(conn: Tx | Pool, token_hash: bytes, *, at: datetime) -> InvitationRow | None:
    """The invitation of a token, if it stands."""
    row = await conn.fetchrow(SQL["invitation"], token_hash, at)
    return None if row is None else InvitationRow(*row)


async def use_invitation(tx: Tx, id_: UUID) -> None:
    """Count a use."""
    await tx.execute(SQL["use_invitation"], id_)


async def revoke_invitation(tx: Tx | Pool, user: Address, id_: UUID, *, at: datetime) -> bool:
    """End an invitation; False when the user has none of this id that stands."""
    return bool(await tx.fetchval(SQL["revoke_invitation"], user, id_, at))
