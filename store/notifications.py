"""The inbox and what of it a user wants where: recorded with its cause, read on one device, read on all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, NamedTuple
from uuid import UUID, uuid5

import asyncpg

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("notifications")

Channel = Literal["inbox", "push", "email"]
Severity = Literal["info", "warning", "critical"]

FAMILY = UUID("6f1d0c9e-6f0b-4f0e-9d55-0a2d7b1d6c11")
"""Namespace of notification ids: a random constant that must never change."""

QUIET_CHANNELS = frozenset({"email"})
"""Channels that a kind does not use until its user says so; the digest has a switch of its own."""


class Position(NamedTuple):
    """A place in the inbox, which is newest first: what follows is older, or as old with a lower id."""

    created_at: datetime
    id: UUID


TOP = Position(datetime(9999, 12, 31, tzinfo=UTC), UUID(int=2**128 - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something a user is told; `event_id` is the event it is about, `kind` one of handlers.resources.NoticeKind."""

    user: Address
    event_id: str
    kind: str
    title: str
    body: str
    severity: Severity
    transaction_id: str | None
    created_at: datetime
    facts: Mapping[str, object] = field(default_factory=dict)
    read_at: datetime | None = None
    subject: str = ""
    """What a phone is told of once, whatever block includes it; empty: this kind of its transaction."""
    alone: bool = False
    """No event of the log has `event_id`: the `notification` itself is all that tells of it."""

    @property
    def id(self) -> UUID:
        """Id of the notification, known before it is recorded."""
        return notification_id(self.user, self.event_id)

    @property
    def position(self) -> Position:
        """Its place in the inbox."""
        return Position(self.created_at, self.id)


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a user said about (kind, channel); what was left unsaid has a default."""

    said: Mapping[tuple[str, str], bool] = field(default_factory=dict)

    def allows(self, kind: str, channel: Channel) -> bool:
        """Whether notifications of this kind may use this channel: yes by default, e-mail only when asked for."""
        return self.said.get((kind, channel), channel not in QUIET_CHANNELS)


def notification_id(user: Address, event_id: str) -> UUID:
    """The id that the notification about an event of a user has, on every machine and every time."""
    return uuid5(FAMILY, f"{user}:{event_id}")


async def record(tx: Tx, notices: Sequence[Notice]) -> None:
    """Put notices into their inboxes in the transaction of their cause; one that is there already is a no-op."""
    if notices:
        rows = [
            (
                n.id,
                n.user,
                n.event_id,
                n.kind,
                n.title,
                n.body,
                n.severity,
                n.transaction_id,
                dict(n.facts),
                n.created_at,
            )
            for n in notices
        ]
        await tx.execute(SQL["record"], *map(list, zip(*rows, strict=True)))


async def unread(tx: Tx | Pool, users: Iterable[Address]) -> dict[Address, int]:
    """How many notifications each of these users has not read; what was taken back does not count."""
    wanted = list(users)
    found = {row["user_address"]: int(row["unread"]) for row in await tx.fetch(SQL["unread"], wanted)}
    return {user: found.get(user, 0) for user in wanted}


async def correct(tx: Tx, user: Address, event_ids: Sequence[str], *, at: datetime) -> int:
    """Take back what these events put into the inbox; returns how many of it counted as unread."""
    return int(await tx.fetchval(SQL["correct"], user, list(event_ids), at)) if event_ids else 0


async def listed(conn: Tx | Pool, user: Address, *, below: Position = TOP, limit: int) -> list[Notice]:
    """A user's inbox, newest first, below a position."""
    return [_notice(row) for row in await conn.fetch(SQL["listed"], user, below.created_at, below.id, limit)]


async def read_ids(tx: Tx, user: Address, ids: Sequence[UUID], *, at: datetime) -> list[UUID]:
    """Mark these as read; returns those that were not. Other people's ids are nobody's."""
    return [row["id"] for row in await tx.fetch(SQL["read_ids"], user, list(ids), at)]


async def read_up_to(tx: Tx, user: Address, id_: UUID, *, at: datetime) -> list[UUID]:
    """Mark a notification and all older ones as read; returns those that were not."""
    return [row["id"] for row in await tx.fetch(SQL["read_up_to"], user, id_, at)]


async def known(conn: Tx | Pool, user: Address, ids: Sequence[UUID]) -> set[UUID]:
    """Which of these ids are notifications of this user, read or taken back ones too."""
    return {row["id"] for row in await conn.fetch(SQL["known"], user, list(ids))}


async def allowed(tx: Tx | Pool, users: Iterable[Address]) -> dict[Address, Preferences]:
    """What each of these users wants where."""
    said: dict[Address, dict[tuple[str, str], bool]] = {user: {} for user in users}
    for row in await tx.fetch(SQL["preferences"], list(said)):
        said[row["user_address"]][row["kind"], row["channel"]] = row["enabled"]
    return {user: Preferences(each) for user, each in said.items()}


async def set_preferences(tx: Tx | Pool, user: Address, said: Mapping[tuple[str, str], bool]) -> None:
    """Keep what a user says about (kind, channel); the rest stays as it is."""
    if said:
        kinds, channels = zip(*said, strict=True)
        await tx.execute(SQL["set_preferences"], user, list(kinds), list(channels), list(said.values()))


def _notice(row: asyncpg.Record) -> Notice:
    return Notice(
        user=row["user_address"],
        event_id=row["event_id"],
        kind=row["kind"],
        title=row["title"],
        body=row["body"],
        severity=row["severity"],
        transaction_id=row["transaction_id"],
        facts=row["facts"],
        created_at=row["created_at"],
        read_at=row["read_at"],
    )
