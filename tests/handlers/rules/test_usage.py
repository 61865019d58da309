from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from handlers.rules import usage, v1
from handlers.rules.usage import Usage
from store.usage import Activity, Spent
from tests.handlers.rules.test_budget_impact import bucket
from tests.handlers.scripted import START

NOW = START + timedelta(days=3)


def used(
    key: str = "b",
    *,
    spent: int = 0,
    total: int = 0,
    transactions: int = 1,
    balance: int = 0,
    last: datetime = NOW,
    **row: Any,
) -> Usage:
    activity = Activity(transactions, Decimal(total), 0, Decimal(0), START, last) if transactions else None
    return Usage(bucket(bucket_id=key, spent=spent, **row), activity, Decimal(balance), 0, NOW)


@pytest.mark.parametrize(
    ("spent", "limit", "percent", "status"),
    [
        (0, 3000, "0", "healthy"),
        (2400, 3000, "80", "healthy"),
        (2401, 3000, "80.03", "warning"),
        (3000, 3000, "100", "warning"),
        (3001, 3000, "100.03", "over_budget"),
        (10**30, 0, "0", "healthy"),
    ],
)
def test_utilization_is_percent_of_the_limit(spent: int, limit: int, percent: str, status: str) -> None:
    each = used(spent=spent, monthly_limit=limit)
    assert (each.utilization, each.status, each.is_over) == (Decimal(percent), status, status == "over_budget")


def test_counter_of_a_period_that_is_over_counts_nothing() -> None:
    assert used(spent=9, period_start=NOW - timedelta(days=30)).spent_now == 0
    assert used(spent=9, period_start=NOW - timedelta(days=30) + timedelta(seconds=1)).spent_now == 9
    assert used(spent=9, period_start=None).spent_now == 0


def test_the_most_of_nothing_is_nothing_and_of_two_alike_the_first() -> None:
    assert usage.most([], lambda each: each.spent) is None
    assert usage.most([used(total=0)], lambda each: each.spent) is None
    two = [used("b", total=5), used("a", total=5), used("c", total=4)]
    found = usage.most(two, lambda each: each.spent)
    assert found is not None
    assert found.bucket.bucket_id == "a"


def test_adherence_counts_active_buckets_with_a_limit() -> None:
    over = used(spent=4000)
    assert usage.adherence([]) == 100
    assert usage.adherence([used(monthly_limit=0, spent=1)]) == 100
    assert usage.adherence([over, used(), used()]) == Decimal("66.67")
    assert usage.adherence([used(spent=4000, active=False), used()]) == 100


def test_money_that_nothing_touches_for_thirty_days_is_abandoned() -> None:
    month = timedelta(days=30)
    assert used(balance=1, last=NOW - month - timedelta(seconds=1)).is_abandoned
    assert not used(balance=1, last=NOW - month).is_abandoned
    assert not used(balance=0, last=NOW - 2 * month).is_abandoned
    assert used(balance=1, transactions=0).is_abandoned


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ([], "stable"),
        ([1, 2, 3], "stable"),
        ([10, 10, 10, 11, 11, 11], "stable"),
        ([10, 10, 10, 11, 11, 12], "increasing"),
        ([10, 10, 10, 9, 9, 8], "decreasing"),
        ([0, 0, 0, 0, 0, 1], "increasing"),
        ([8, 10, 10, 10], "increasing"),
    ],
)
def test_trend_compares_three_months_with_those_before(figures: list[int], expected: str) -> None:
    assert usage.trend([Decimal(each) for each in figures]) == expected


def test_periods_begin_where_the_calendar_says() -> None:
    first, last = date(2026, 1, 31), date(2026, 3, 1)
    assert usage.periods("month", first, last) == [date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)]
    assert usage.periods("year", date(2025, 12, 31), last) == [date(2025, 1, 1), date(2026, 1, 1)]
    assert len(usage.periods("day", first, last)) == 30
    assert [usage.shown(each, first) for each in ("day", "month", "year")] == ["2026-01-31", "2026-01", "2026"]


def test_a_month_keeps_the_limits_that_its_spending_stayed_within() -> None:
    january, february = date(2026, 1, 1), date(2026, 2, 1)
    spent = [Spent("a", january, Decimal(11), 1), Spent("b", january, Decimal(10), 1)]
    limits = {"a": Decimal(10), "b": Decimal(10)}
    assert usage.kept_by_month([january, february], spent, limits) == [Decimal("0.5"), 1]
    assert usage.kept_by_month([january], spent, {}) == [1]


@pytest.mark.parametrize(
    ("value", "decimals", "expected"),
    [(12_500_000, 6, "12500000"), (10**18, 18, "1000000"), (10**12 - 1, 18, "0"), (5, 0, "5000000")],
)
def test_first_front_end_reads_six_decimals_of_whatever_counter(value: int, decimals: int, expected: str) -> None:
    assert v1.counter(value, decimals) == expected


def test_dollars_become_units_half_to_even() -> None:
    assert [v1.raw(Decimal(text)) for text in ("12.5", "0.0000005", "0.0000015", "1e30")] == [12500000, 0, 2, 10**36]
