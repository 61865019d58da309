from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from handlers.rules.budget_impact import bucket_impact, status
from handlers.rules.periods import PERIOD, is_due
from store.records import BucketRow
from tests.handlers.scripted import ALICE, START, WALLET


def bucket(**overrides: Any) -> BucketRow:
    facts: dict[str, Any] = {
        "chain_id": 1,
        "wallet": WALLET,
        "user": ALICE,
        "bucket_id": "b",
        "name": "food",
        "raw_name": b"food",
        "active": True,
        "monthly_limit": 3000,
        "spent": 0,
        "period_start": START,
        "delegates": (),
    }
    return BucketRow(**{**facts, **overrides})


@pytest.mark.parametrize(
    ("spent", "limit", "expected"),
    [
        (0, 100, "healthy"),
        (80, 100, "healthy"),
        (81, 100, "warning"),
        (100, 100, "warning"),
        (101, 100, "over_budget"),
        (10**30, 0, "healthy"),
    ],
)
def test_status_changes_above_eighty_and_above_a_hundred_percent(spent: int, limit: int, expected: str) -> None:
    assert status(spent, limit) == expected


def test_half_way_through_the_period_the_pace_is_projected() -> None:
    now = START + timedelta(days=15)
    impact = bucket_impact(bucket(spent=2000), spent_before=1900, now=now, decimals=6)
    assert impact["projectedOverrun"] == "1000"
    assert impact["safeToSpendPerDay"] == "66"  # 1000 left over 15 days, rounded down
    assert impact["periodEnd"] == "2026-12-01T00:00:00.000Z"
    assert (impact["remaining"], impact["utilization"]) == ("1000", "0.666667")


def test_first_day_counts_as_a_whole_one() -> None:
    impact = bucket_impact(bucket(spent=90), spent_before=0, now=START + timedelta(minutes=1), decimals=6)
    assert impact["projectedOverrun"] == "0"


def test_over_the_limit_nothing_is_safe_to_spend() -> None:
    impact = bucket_impact(bucket(spent=3001), spent_before=0, now=START + timedelta(days=29), decimals=6)
    assert (impact["remaining"], impact["safeToSpendPerDay"], impact["status"]) == ("-1", "0", "over_budget")


def test_no_limit_has_no_budget_and_divides_by_nothing() -> None:
    impact = bucket_impact(bucket(monthly_limit=0, spent=5), spent_before=0, now=START, decimals=None)
    assert [impact[k] for k in ("budget", "remaining", "utilization", "safeToSpendPerDay", "projectedOverrun")] == [
        None
    ] * 5
    assert impact["spentAfter"] == "5"


def test_period_is_over_at_its_end_itself() -> None:
    assert not is_due(START, START + PERIOD - timedelta(microseconds=1))
    assert is_due(START, START + PERIOD)
    assert not is_due(None, START)
