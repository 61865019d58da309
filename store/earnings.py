"""What investments earned by day: whose evening it is, and the one row of each user and local day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("earnings")


@dataclass(frozen=True, slots=True)
class Evening:
    """A user's day whose evening has begun; `time_zone` is the one that says so."""

    user: Address
    time_zone: str
    day: date


@dataclass(frozen=True, slots=True)
class DayRow:
    """Dollars of a user's day; `unpriced` gains are not in them."""

    user: Address
    day: date
    usd: Decimal
    unpriced: int


async def evenings(conn: Tx | Pool, now: datetime, *, hour: int, limit: int) -> list[Evening]:
    """Days of at most `limit` users that have come to this hour of their clock and have no row."""
    return [Evening(*row.values()) for row in await conn.fetch(SQL["evenings"], now, hour, limit)]


async def record(conn: Tx | Pool, rows: Sequence[DayRow], *, at: datetime) -> set[Address]:
    """Write days; returns whose: a day that has a row already stays as it is."""
    if not rows:
        return set()
    columns = zip(*((row.user, row.day, f"{row.usd:f}", row.unpriced) for row in rows), strict=True)
    return {row["user_address"] for row in await conn.fetch(SQL["record"], *map(list, columns), at)}
