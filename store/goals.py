"""Savings goals, the milestones that were told, and what is behind them. Set-based, by users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

import asyncpg

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("goals")

Kind = Literal["bucket", "lock", "vault", "v2"]
Key = tuple[Address, str]
"""User and goal id."""


@dataclass(frozen=True, slots=True)
class Link:
    """What keeps a goal: a bucket, a position, or the operations of an identifier of the planned contract."""

    kind: Kind
    chain_id: int
    id: str


@dataclass(frozen=True, slots=True)
class MilestoneRow:
    """A milestone that counts as reached. `amount`: dollars that had to be there, by the state at `block_number`."""

    percent: int
    event_id: str
    notified: bool
    amount: Decimal
    chain_id: int | None
    block_number: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalRow:
    """A goal as it was last told; amounts are dollars, days are days of `time_zone`."""

    user: Address
    goal_id: str
    name: str
    target: Decimal
    started_on: date
    told_on: date
    created_at: datetime
    time_zone: str
    current: Decimal = Decimal(0)
    unpriced: int = 0
    target_date: date | None = None
    category_id: str | None = None
    category: str | None = None
    link: Link | None = None
    yield_earned: Decimal | None = None
    apy: Decimal | None = None
    completed_at: datetime | None = None
    completed_block: int | None = None
    active: bool = True
    revision: int = 0
    milestones: tuple[MilestoneRow, ...] = ()

    @property
    def key(self) -> Key:
        """What names it among everyone's."""
        return (self.user, self.goal_id)


async def of_users(conn: Tx | Pool, users: Iterable[Address], *, also: Iterable[str] = ()) -> list[GoalRow]:
    """Active goals of these users in the order they were made, and those of the ids `also`, deleted ones too."""
    return [_goal(row) for row in await conn.fetch(SQL["of_users"], list(users), list(also))]


async def held(conn: Tx | Pool, goals: Iterable[GoalRow]) -> dict[Key, list[tuple[Address, int]]]:
    """(token, raw amount) behind each of these goals that a bucket or an identifier keeps; no zeros."""
    linked = [(g.user, g.goal_id, g.link.kind, g.link.chain_id, g.link.id) for g in goals if g.link is not None]
    found: dict[Key, list[tuple[Address, int]]] = {}
    if linked:
        for row in await conn.fetch(SQL["held"], *map(list, zip(*linked, strict=True))):
            found.setdefault((row["user_address"], row["goal_id"]), []).append((row["token"], int(row["amount"])))
    return found


async def save(tx: Tx, goals: Sequence[GoalRow]) -> None:
    """Write goals as they are now, new ones too; their milestones are written apart."""
    if goals:
        await tx.execute(SQL["save"], *map(list, zip(*map(_values, goals), strict=True)))


async def keep_milestones(tx: Tx, reached: Mapping[Key, Iterable[MilestoneRow]], *, at: datetime) -> None:
    """Write milestones that were just told."""
    rows = [
        (*key, m.percent, m.event_id, m.notified, str(m.amount), m.chain_id, m.block_number)
        for key, each in reached.items()
        for m in each
    ]
    if rows:
        await tx.execute(SQL["keep_milestones"], *map(list, zip(*rows, strict=True)), at)


async def drop_milestones(tx: Tx, gone: Mapping[Key, Iterable[MilestoneRow]]) -> None:
    """Forget milestones that were taken back: they may be told again."""
    rows = [(*key, m.percent) for key, each in gone.items() for m in each]
    if rows:
        await tx.execute(SQL["drop_milestones"], *map(list, zip(*rows, strict=True)))


async def unlink_milestones(tx: Tx, goal: GoalRow) -> None:
    """Keep what was told of a link for good, since the goal has another one now."""
    await tx.execute(SQL["unlink_milestones"], goal.user, goal.goal_id)


async def days_over(conn: Tx | Pool, now: datetime, *, limit: int) -> list[Address]:
    """Users with a goal that was last told on another day than it now is in their zone."""
    return [row["user_address"] for row in await conn.fetch(SQL["days_over"], now, limit)]


async def has_bucket(conn: Tx | Pool, user: Address, bucket_id: str, *, chain_id: int) -> bool:
    """Whether this is a bucket of the user's own."""
    return bool(await conn.fetchval(SQL["has_bucket"], user, bucket_id, chain_id))


async def zone(conn: Tx | Pool, user: Address) -> str | None:
    """The user's time zone; None for an address that is not registered."""
    found: str | None = await conn.fetchval(SQL["zone"], user)
    return found


def _goal(row: asyncpg.Record) -> GoalRow:
    link = None if row["link_kind"] is None else Link(row["link_kind"], row["chain_id"], row["link_id"])
    return GoalRow(
        user=row["user_address"],
        goal_id=row["goal_id"],
        name=row["goal_name"],
        target=row["target_amount"],
        current=row["current_amount"],
        unpriced=row["unpriced"],
        target_date=row["target_date"],
        category_id=row["category_id"],
        category=row["category"],
        link=link,
        yield_earned=row["yield_earned"],
        apy=row["apy"],
        started_on=row["started_on"],
        told_on=row["told_on"],
        completed_at=row["completed_at"],
        completed_block=row["completed_block"],
        active=row["is_active"],
        revision=row["revision"],
        created_at=row["created_at"],
        time_zone=row["time_zone"],
        milestones=tuple(_milestone(*values) for values in row["milestones"] or ()),
    )


def _milestone(percent: int, event_id: str, notified: bool, amount: str, *place: Any) -> MilestoneRow:
    return MilestoneRow(percent, event_id, notified, Decimal(amount), *place)


def _values(goal: GoalRow) -> tuple[object, ...]:
    link = goal.link
    return (
        goal.user,
        goal.goal_id,
        goal.name,
        str(goal.target),
        str(goal.current),
        goal.unpriced,
        goal.target_date,
        goal.category_id,
        link.kind if link else None,
        link.chain_id if link else None,
        link.id if link else None,
        None if goal.yield_earned is None else str(goal.yield_earned),
        None if goal.apy is None else str(goal.apy),
        goal.started_on,
        goal.told_on,
        goal.completed_at,
        goal.completed_block,
        goal.active,
        goal.revision,
        goal.created_at,
    )
