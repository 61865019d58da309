"""How users' spending spreads over their months: what it is learned from, and what was learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TypeAlias

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("month_profiles")

Days: TypeAlias = dict[str | None, dict[date, Decimal]]
"""Dollars by category (None: without one) and day."""


async def due(conn: Tx | Pool, now: datetime, *, limit: int) -> list[tuple[Address, str]]:
    """Users with a budget, and their zones, whose profile is of an older month than it is now."""
    return [(row["address"], row["time_zone"]) for row in await conn.fetch(SQL["due"], now, limit)]


async def days(conn: Tx | Pool, asked: Sequence[tuple[Address, str, datetime, datetime]]) -> dict[Address, Days]:
    """What counted for budgets by day, for each (user, zone, since, until); users without any are left out."""
    found: dict[Address, Days] = {}
    if asked:
        for row in await conn.fetch(SQL["days"], *map(list, zip(*asked, strict=True))):
            category = None if row[1] is None else str(row[1])
            found.setdefault(row[0], {}).setdefault(category, {})[row[2]] = row[3]
    return found


async def save(conn: Tx | Pool, rows: Sequence[tuple[Address, date, Mapping[str, object]]]) -> None:
    """Write (user, first day of the month it is learned for, profiles)."""
    if rows:
        await conn.execute(SQL["save"], *map(list, zip(*rows, strict=True)))
