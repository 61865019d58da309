from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.rules.calendar import month_of

ZONES = ("UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "America/New_York", "Asia/Kathmandu", "Africa/Cairo")


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("at", "zone", "start", "end"),
    [
        # Both sides of the date line: the same instant lies in November here and in December there.
        ("2026-11-30T12:00:00+00:00", "Pacific/Kiritimati", "2026-11-30T10:00:00+00:00", "2026-12-31T10:00:00+00:00"),
        ("2026-12-01T10:59:59+00:00", "Pacific/Pago_Pago", "2026-11-01T11:00:00+00:00", "2026-12-01T11:00:00+00:00"),
        # The clock goes back and forward inside the month: its length is not a whole number of days.
        ("2026-11-15T00:00:00+00:00", "America/New_York", "2026-11-01T04:00:00+00:00", "2026-12-01T05:00:00+00:00"),
        ("2026-03-15T00:00:00+00:00", "America/New_York", "2026-03-01T05:00:00+00:00", "2026-04-01T04:00:00+00:00"),
        # A year ends.
        ("2026-12-31T23:59:59+00:00", "UTC", "2026-12-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"),
    ],
)
def test_month_is_the_users_own(at: str, zone: str, start: str, end: str) -> None:
    month = month_of(moment(at), ZoneInfo(zone))
    assert (month.start, month.end) == (moment(start), moment(end))


def test_month_with_a_change_of_the_clock_has_its_real_length() -> None:
    november = month_of(moment("2026-11-15T00:00:00+00:00"), ZoneInfo("America/New_York"))
    assert november.length == timedelta(days=30, hours=1)


def test_end_belongs_to_the_next_month() -> None:
    month = month_of(moment("2026-11-15T00:00:00+00:00"), ZoneInfo("UTC"))
    assert month.start in month
    assert month.end not in month


@pytest.mark.parametrize(
    ("at", "left"),
    [
        ("2026-11-01T00:00:00+00:00", 30),
        ("2026-11-30T00:00:00+00:00", 1),
        ("2026-11-30T23:59:59+00:00", 1),
        ("2026-11-29T23:59:59+00:00", 2),
    ],
)
def test_today_counts_among_the_days_left(at: str, left: int) -> None:
    assert month_of(moment(at), ZoneInfo("UTC")).days_left(moment(at)) == left


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(ZONES),
)
def test_every_instant_lies_in_one_month_and_months_meet(at: datetime, zone: str) -> None:
    month = month_of(at, ZoneInfo(zone))
    assert at in month
    assert month_of(month.end, ZoneInfo(zone)).start == month.end
    assert month_of(month.start - timedelta(microseconds=1), ZoneInfo(zone)).end == month.start
