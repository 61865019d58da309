"""How a user's buckets are used, from the ledger: exact at once, since no job stands between it and the chain."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from store.history import BEGINNING, END
from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("usage")

Period = Literal["day", "month", "year"]


@dataclass(frozen=True, slots=True)
class Activity:
    """What a user's own transactions did to one bucket: dollars, and beside them what has no price."""

    transactions: int
    spent: Decimal
    unpriced: int
    funded: Decimal
    first: datetime
    last: datetime
    funded_unpriced: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """Dollars spent of a bucket in one period of the user's zone, named by its first day."""

    bucket_id: str
    period: date
    spent: Decimal
    transactions: int
    unpriced: int = 0


async def by_bucket(
    conn: Tx | Pool, user: Address, *, chain_id: int | None, since: datetime = BEGINNING, until: datetime = END
) -> dict[str, Activity]:
    """Activity by bucket id, of one chain or (None) of all; buckets without any are left out."""
    rows = await conn.fetch(SQL["by_bucket"], user, chain_id, since, until)
    return {row[0]: Activity(*tuple(row)[1:]) for row in rows}


async def spent_by_period(
    conn: Tx | Pool,
    user: Address,
    period: Period,
    *,
    zone: str,
    chain_id: int | None,
    since: datetime = BEGINNING,
    until: datetime = END,
) -> list[Spent]:
    """Spending by bucket and period; periods without any are left out."""
    rows = await conn.fetch(SQL["spent_by_period"], user, period, zone, chain_id, since, until)
    return [Spent(*row) for row in rows]


async def zone(conn: Tx | Pool, user: Address) -> str | None:
    """The IANA zone in which a registered address's days begin; None for one that is not registered."""
    found: str | None = await conn.fetchval(SQL["zone"], user)
    return found
