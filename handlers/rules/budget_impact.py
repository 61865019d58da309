"""What a spend does to a bucket's limit on the chain's rolling clock. Pure: the clock is an argument."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from handlers.rules.money import ratio_text
from handlers.rules.periods import PERIOD, iso, period_end
from store.records import BucketRow

DAY = timedelta(days=1)

WARNING_PERCENT = 80
"""Utilization (%) above which a budget is a warning; above 100 it is over."""

Status = Literal["healthy", "warning", "over_budget"]


def status(spent: int, limit: int) -> Status:
    """healthy to 80 %, warning to 100 %, over_budget above; no limit (0) is always healthy."""
    if limit == 0 or spent * 100 <= limit * WARNING_PERCENT:
        return "healthy"
    return "warning" if spent <= limit else "over_budget"


def safe_to_spend_per_day(spent: int, limit: int, *, end: datetime, now: datetime) -> int:
    """What may be spent each day until the end without passing the limit (raw units, rounded down)."""
    days = max(1, -((now - end) // DAY))
    return max(0, limit - spent) // days


def projected_spend(spent: int, *, start: datetime, now: datetime) -> int:
    """Raw units at period end if spending goes on as it did.

    The first day counts as a whole one: minutes after a reset a single purchase says nothing about a month.
    """
    elapsed = max(now - start, DAY)
    return spent * (PERIOD // timedelta(seconds=1)) // (elapsed // timedelta(seconds=1))


def projected_overrun(spent: int, limit: int, *, start: datetime, now: datetime) -> int:
    """Raw units over the limit at period end at this pace, 0 when it holds."""
    return max(0, projected_spend(spent, start=start, now=now) - limit)


def bucket_impact(bucket: BucketRow, *, spent_before: int, now: datetime, decimals: int | None) -> dict[str, object]:
    """The `budgetImpact` entry of scope bucket, for a bucket as it is after the change.

    Amounts are the contract's raw counter as decimal strings; `decimals` are those of the chain's first usd token.
    """
    limit, spent, start = bucket.monthly_limit, bucket.spent, bucket.period_start
    end = period_end(start)
    paced = limit > 0 and start is not None and end is not None
    return {
        "scope": "bucket",
        "bucketId": bucket.bucket_id,
        "name": bucket.name,
        "periodStart": iso(start) if start else None,
        "periodEnd": iso(end) if end else None,
        "budget": str(limit) if limit else None,
        "spentBefore": str(spent_before),
        "spentAfter": str(spent),
        "remaining": str(limit - spent) if limit else None,
        "utilization": ratio_text(spent, limit),
        "status": status(spent, limit),
        "safeToSpendPerDay": str(safe_to_spend_per_day(spent, limit, end=end, now=now)) if paced and end else None,
        "projectedOverrun": str(projected_overrun(spent, limit, start=start, now=now)) if paced and start else None,
        "unpriced": 0,
        "decimals": decimals,
    }
