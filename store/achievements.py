"""Achievements: what the ledger and the user's own rows say for them, and what is held. Set-based, by users."""

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

SQL = load("achievements")

Counted = Literal["deposited", "spends", "delegated", "investments", "locks"]
"""Kinds of ledger rows that are counted, or whose dollars are (`deposited`)."""


@dataclass(frozen=True, slots=True)
class PersonRow:
    """What is counted without the ledger; `opened_at` is the first sign-in."""

    user: Address
    time_zone: str
    opened_at: datetime
    buckets: int
    goals: int
    goals_reached: int
    sorted: int
    friends: int


@dataclass(frozen=True, slots=True)
class DayRow:
    """Canonical rows of one day of the user's zone, by kind; `deposited` is in dollars."""

    day: date
    spends: int
    delegated: int
    deposited: Decimal
    investments: int
    locks: int
    savings: int
    chains: frozenset[int]


@dataclass(frozen=True, slots=True)
class MonthRow:
    """What counted for budgets in a month (its first day, in the user's zone) in one category (None: without one)."""

    month: date
    category_id: str | None
    spent: Decimal
    unpriced: int
    amounts: int


@dataclass(frozen=True, slots=True)
class BudgetsRow:
    """Budgets in dollars a month from an instant on; `total` None: none was set."""

    since: datetime
    total: Decimal | None
    by_category: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class PointRow:
    """A position after a block, by which `paid` dollars came in, as `event_id` told (None: nothing, or no price).

    `paid_raw` is what came in by it in base units of the asset, with a price or without.
    """

    chain_id: int
    position_id: str
    block_number: int
    block_time: datetime
    shares: int
    principal: int | None
    contract: Address
    paid: Decimal | None
    paid_raw: int
    event_id: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that decides one user's achievements."""

    person: PersonRow
    days: Sequence[DayRow]
    months: Sequence[MonthRow]
    budgets: Sequence[BudgetsRow]
    points: Sequence[PointRow]


@dataclass(frozen=True, slots=True)
class HeldRow:
    """An achievement that is held: what told of it, and since when."""

    code: str
    round: int
    event_id: str
    notified: bool
    causes: tuple[str, ...]
    unlocked_at: datetime


async def concerned(conn: Tx | Pool, chain_id: int, block_hash: str, *, cause: str) -> list[Address]:
    """Signed-in users whom a block concerns; `cause` is the block as the log keeps it."""
    rows = await conn.fetch(SQL["concerned"], chain_id, block_hash, cause)
    return [row["user_address"] for row in rows]


async def facts(conn: Tx | Pool, users: Iterable[Address]) -> dict[Address, Facts]:
    """What decides the achievements of the signed-in among these users."""
    people = [PersonRow(*row.values()) for row in await conn.fetch(SQL["people"], list(users))]
    known = [person.user for person in people]
    if not known:
        return {}
    days = await _by_user(conn, "days", known, _day)
    months = await _by_user(conn, "months", known, _month)
    budgets = await _by_user(conn, "budgets", known, _budgets)
    points = await _by_user(conn, "points", known, _point)
    return {
        person.user: Facts(
            person,
            days.get(person.user, ()),
            months.get(person.user, ()),
            budgets.get(person.user, ()),
            points.get(person.user, ()),
        )
        for person in people
    }


async def held(conn: Tx | Pool, users: Iterable[Address]) -> dict[Address, list[HeldRow]]:
    """What each of these users holds, oldest first."""
    found: dict[Address, list[HeldRow]] = {user: [] for user in users}
    for row in await conn.fetch(SQL["held"], list(found)):
        found[row["user_address"]].append(
            HeldRow(
                row["code"],
                row["round"],
                row["event_id"],
                row["notified"],
                tuple(row["causes"]),
                row["unlocked_at"],
            )
        )
    return found


async def rounds(tx: Tx, user: Address) -> dict[str, int]:
    """How often each was unlocked so far; codes that never were are left out."""
    return {row["code"]: row["round"] for row in await tx.fetch(SQL["rounds"], user)}


async def unlock(tx: Tx, user: Address, row: HeldRow) -> None:
    """Hold an achievement from now on."""
    await tx.execute(
        SQL["unlock"], user, row.code, row.round, row.event_id, row.notified, list(row.causes), row.unlocked_at
    )


async def revoke(tx: Tx, user: Address, row: HeldRow, *, causes: Sequence[str], at: datetime) -> None:
    """Hold an achievement no longer."""
    await tx.execute(SQL["revoke"], user, row.code, row.round, at, list(causes))


async def crossing(tx: Tx, user: Address, counted: Counted, target: Decimal) -> str | None:
    """Event of the ledger row with which there were so many, or more dollars than that."""
    found: str | None = await tx.fetchval(SQL["crossing"], user, counted, target)
    return found


async def milestone(tx: Tx, user: Address, number: int) -> str | None:
    """Event that told of the `number`th goal reached, from 1 on."""
    found: str | None = await tx.fetchval(SQL["milestone"], user, number - 1)
    return found


async def month_told(tx: Tx, user: Address, ended: datetime) -> str | None:
    """Event that told of the month which begins at this instant, or of the first one after it."""
    found: str | None = await tx.fetchval(SQL["month_told"], user, ended)
    return found


async def told(tx: Tx, user: Address, event_ids: Iterable[str]) -> list[str]:
    """Which of these events are in the user's log, in the order given."""
    wanted = list(event_ids)
    known = {row["event_id"] for row in await tx.fetch(SQL["told"], user, wanted)} if wanted else set()
    return [key for key in wanted if key in known]


async def last_change(tx: Tx, user: Address, *, since: str) -> str | None:
    """The newest event after `since` that may have moved a figure."""
    found: str | None = await tx.fetchval(SQL["last_change"], user, since)
    return found


async def due(conn: Tx | Pool, now: datetime, *, limit: int) -> list[Address]:
    """Users whose day has ended since they were looked at, the longest ago first."""
    return [row["user_address"] for row in await conn.fetch(SQL["due"], now, limit)]


async def begin(tx: Tx, user: Address, *, at: datetime) -> None:
    """Look at a user from their first sign-in on: what they did before is found at the next look at the clock."""
    await tx.execute(SQL["begin"], user, at)


async def look_again(conn: Tx | Pool, moments: Mapping[Address, datetime]) -> None:
    """Say when users are looked at next, whatever happens until then."""
    if moments:
        await conn.execute(SQL["look_again"], list(moments), list(moments.values()))


async def _by_user(conn: Tx | Pool, name: str, users: Sequence[Address], read: Any) -> dict[Address, list[Any]]:
    found: dict[Address, list[Any]] = {}
    for row in await conn.fetch(SQL[name], users):
        found.setdefault(row["user_address"], []).append(read(row))
    return found


def _day(row: asyncpg.Record) -> DayRow:
    return DayRow(
        row["day"],
        row["spends"],
        row["delegated"],
        row["deposited"],
        row["investments"],
        row["locks"],
        row["savings"],
        frozenset(row["chains"]),
    )


def _month(row: asyncpg.Record) -> MonthRow:
    category = None if row["category_id"] is None else str(row["category_id"])
    return MonthRow(row["month"], category, row["spent"], row["unpriced"], row["amounts"])


def _budgets(row: asyncpg.Record) -> BudgetsRow:
    amounts = {category: Decimal(amount) for category, amount in row["by_category"].items()}
    return BudgetsRow(row["since"], row["total"], amounts)


def _point(row: asyncpg.Record) -> PointRow:
    principal = None if row["principal"] is None else int(row["principal"])
    return PointRow(
        row["chain_id"],
        row["position_id"],
        row["block_number"],
        row["block_time"],
        int(row["shares"]),
        principal,
        row["contract"],
        row["paid"],
        int(row["paid_raw"] or 0),
        row["event_id"],
    )
