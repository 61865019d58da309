"""Whom users may be compared with, what was spent, and what was released of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("comparisons")


@dataclass(frozen=True, slots=True)
class Spent:
    """Dollars of one user in one category and month, and how many amounts had no price."""

    usd: Decimal
    unpriced: int


async def cohort(conn: Tx | Pool, user: Address, *, ended: datetime) -> dict[Address, bool]:
    """Friends of a user who share with them, and whether they were users when the month `ended`."""
    return {row["other"]: row["present"] for row in await conn.fetch(SQL["cohort"], user, ended)}


async def consents(conn: Tx | Pool, user: Address) -> bool:
    """Whether a user shares."""
    return bool(await conn.fetchval(SQL["consents"], user))


async def past(conn: Tx | Pool, user: Address) -> list[tuple[date, frozenset[Address]]]:
    """Months that were released to a user and the cohorts of them, oldest first."""
    return [(row["month"], frozenset(row["members"])) for row in await conn.fetch(SQL["past"], user)]


async def spent(conn: Tx | Pool, users: Collection[Address], month: date) -> dict[tuple[Address, str], Spent]:
    """What these users spent by default category in a month of their own calendars, in one query."""
    rows = await conn.fetch(SQL["spent"], list(users), month)
    return {(row[0], str(row[1])): Spent(row[2], row[3]) for row in rows}


async def categories(conn: Tx | Pool) -> list[str]:
    """Categories that everybody has, in their order."""
    return [str(row["id"]) for row in await conn.fetch(SQL["categories"])]


async def is_own_category(conn: Tx | Pool, user: Address, category_id: str) -> bool:
    """Whether a category is one that the user made."""
    return bool(await conn.fetchval(SQL["own_category"], user, UUID(category_id)))


async def release(
    tx: Tx, user: Address, month: date, members: Sequence[Address], bands: Mapping[str, int], *, at: datetime
) -> None:
    """Write down what is told to a user of a month, by category; it is not written again."""
    await tx.execute(SQL["release_cohort"], user, month, list(members), at)
    await tx.execute(SQL["release"], user, month, [UUID(key) for key in bands], list(bands.values()))


async def released(conn: Tx | Pool, user: Address, month: date) -> dict[str, int]:
    """Bands that were released to a user for a month, by category."""
    rows = await conn.fetch(SQL["released"], user, month)
    return {str(row["category_id"]): row["cohort_band"] for row in rows}
