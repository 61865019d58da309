from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from handlers.rules.digest import Budget, Cadence, Digest, Spent, period_due


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("cadence", "zone", "now", "first_day", "since", "until"),
    [
        ("weekly", "UTC", "2026-11-23T08:00", "2026-11-16", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("weekly", "UTC", "2026-11-23T19:59", "2026-11-16", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("weekly", "Asia/Tokyo", "2026-11-22T23:00", "2026-11-16", "2026-11-15T15:00", "2026-11-22T15:00"),
        ("weekly", "Pacific/Kiritimati", "2026-11-22T18:00", "2026-11-16", "2026-11-15T10:00", "2026-11-22T10:00"),
        ("weekly", "Pacific/Pago_Pago", "2026-11-23T19:00", "2026-11-16", "2026-11-16T11:00", "2026-11-23T11:00"),
        # the clocks go forward on 29 March: a week of 167 hours
        ("weekly", "Europe/Vienna", "2026-03-30T06:00", "2026-03-23", "2026-03-22T23:00", "2026-03-29T22:00"),
        ("daily", "Europe/Vienna", "2026-03-30T06:00", "2026-03-29", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("daily", "America/New_York", "2026-11-24T13:00", "2026-11-23", "2026-11-23T05:00", "2026-11-24T05:00"),
    ],
)
def test_period_is_that_of_the_user_s_calendar(
    cadence: Cadence, zone: str, now: str, first_day: str, since: str, until: str
) -> None:
    period = period_due(cadence, ZoneInfo(zone), at(now))
    assert period is not None
    assert (period.first_day.isoformat(), period.since, period.until) == (first_day, at(since), at(until))
    assert period.subject == f"digest:{cadence}:{first_day}"
    assert period.before < period.since


@pytest.mark.parametrize("now", ["2026-11-23T07:59", "2026-11-23T20:00", "2026-11-24T08:00", "2026-11-22T08:00"])
def test_no_week_is_due_before_eight_on_monday_nor_in_the_evening(now: str) -> None:
    assert period_due("weekly", ZoneInfo("UTC"), at(now)) is None


@pytest.mark.parametrize("zone", ["Europe/Vienna", "Pacific/Apia", "America/Havana", "Asia/Kathmandu"])
def test_every_day_of_a_year_is_in_one_daily_digest_and_periods_meet(zone: str) -> None:
    moment, found = at("2026-01-05T00:00"), {}
    while moment < at("2027-01-05T00:00"):
        period = period_due("daily", ZoneInfo(zone), moment)
        if period is not None:
            found[period.first_day] = period
        moment += timedelta(hours=6)
    periods = [found[day] for day in sorted(found)]
    assert len(periods) >= 364
    assert all(older.until == newer.since and older.since == newer.before for older, newer in pairwise(periods))


PERIOD = period_due("weekly", ZoneInfo("UTC"), at("2026-11-23T08:00"))
assert PERIOD is not None


def make_digest(*spent: Spent, alerts: int = 0) -> Digest:
    assert PERIOD is not None
    return Digest(PERIOD, spent, (), alerts, unread=0)


def test_change_is_against_the_period_before_and_none_against_nothing() -> None:
    assert make_digest(Spent("a", Decimal("75"), Decimal("100"))).change == -25
    assert make_digest(Spent("a", Decimal("0.005"), Decimal("0.01"))).change == -50
    assert make_digest(Spent("a", Decimal(5), Decimal(0))).change is None


def test_change_is_unknown_when_a_total_leaves_something_out() -> None:
    whole, partly = Spent("a", Decimal(5), Decimal(4)), Spent("b", Decimal(5), Decimal(4), unpriced=1)
    assert make_digest(whole).change == 25
    assert make_digest(whole, partly).change is None
    assert make_digest(whole, replace(partly, unpriced=0, unpriced_before=1)).change is None


def test_digest_is_empty_only_without_spends_and_alerts() -> None:
    assert make_digest().is_empty
    assert not make_digest(alerts=1).is_empty
    assert not make_digest(Spent("a", Decimal(0), Decimal(1))).is_empty
    assert not make_digest(Spent("a", Decimal(0), Decimal(0), unpriced=1)).is_empty


def test_percent_of_a_budget_of_nothing_is_unknown() -> None:
    assert Budget("a", Decimal(0), Decimal(5)).percent is None
    assert Budget("a", Decimal(3), Decimal(2)).percent == 66


def test_first_day_is_a_day_of_the_user() -> None:
    assert PERIOD is not None
    assert PERIOD.first_day == date(2026, 11, 16)
