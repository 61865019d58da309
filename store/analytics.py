"""What ClickHouse knows of a user's money over time, exact: the base table FINAL, one user at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from store.clickhouse import Analytics
from store.records import Address
from store.statements import load

SQL = load("clickhouse/analytics")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent in one period on one category ('': none): dollars, how often, and how often without a price."""

    period: datetime
    category_id: str
    usd: Decimal
    count: int
    unpriced: int


async def trends(
    analytics: Analytics,
    user: Address,
    *,
    since: datetime,
    until: datetime,
    starts: Sequence[datetime],
    categories: Sequence[str] | None,
    limit: int,
) -> list[Spent]:
    """What counted for budgets in [since, until), by period and category, newest first, at most `limit` rows.

    `starts` are the periods' beginnings, ascending; `categories` are ids or '' for none, None for all.
    """
    rows = await analytics.rows(
        SQL["trends"],
        user=user,
        since=_milliseconds(since),
        until=_milliseconds(until),
        starts=[_milliseconds(start) // 1000 for start in starts],
        all=categories is None,
        categories=list(categories or ()),
        limit=limit,
    )
    return [Spent(EPOCH + timedelta(seconds=row[0]), row[1], row[2], row[3], row[4]) for row in rows]


@dataclass(frozen=True, slots=True)
class Flow:
    """Money of one span: a deposit, or spending on one category ('': none)."""

    span: datetime
    is_deposit: bool
    category_id: str
    usd: Decimal
    count: int
    unpriced: int


async def flows(
    analytics: Analytics, user: Address, *, since: datetime, until: datetime, starts: Sequence[datetime]
) -> list[Flow]:
    """Deposits and spending in [since, until), by the spans that begin at `starts` (ascending)."""
    rows = await analytics.rows(
        SQL["flows"],
        user=user,
        since=_milliseconds(since),
        until=_milliseconds(until),
        starts=[_milliseconds(start) // 1000 for start in starts],
    )
    return [Flow(EPOCH + timedelta(seconds=row[0]), bool(row[1]), row[2], row[3], row[4], row[5]) for row in rows]


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)
