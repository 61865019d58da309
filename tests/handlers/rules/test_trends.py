from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.rules.calendar import month_of
from handlers.rules.trends import MOST_PERIODS, Timeframe, Unfit, Window, day_of, trend, window

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ("UTC", "Europe/Berlin", "America/Havana", "Africa/Cairo", "Asia/Kathmandu", "Pacific/Apia", "Atlantic/Azores")
"""Clocks that change at midnight, quarters of hours, and a zone that left out a day."""

FRAMES: tuple[Timeframe, ...] = get_args(Timeframe)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def starts(timeframe: Timeframe, since: str, until: str, zone: ZoneInfo = BERLIN) -> list[str]:
    found = window(timeframe, since=at(since), until=at(until), now=at("2026-12-01T00:00Z"), zone=zone)
    return [start.isoformat() for start in found.starts]


def test_clock_set_back_makes_a_day_of_25_hours_and_two_hours_of_one_name() -> None:
    night = starts("hour", "2026-10-25T02:00+02:00", "2026-10-25T04:00+01:00")
    assert night == ["2026-10-25T00:00:00+00:00", "2026-10-25T01:00:00+00:00", "2026-10-25T02:00:00+00:00"]
    days = starts("day", "2026-10-25T12:00+01:00", "2026-10-27T00:00+01:00")
    assert days == ["2026-10-24T22:00:00+00:00", "2026-10-25T23:00:00+00:00"]


def test_clock_that_leaps_over_midnight_begins_the_day_at_the_leap() -> None:
    cairo = ZoneInfo("Africa/Cairo")  # 2026-04-24 begins at 01:00 there
    assert starts("day", "2026-04-23T12:00Z", "2026-04-25T12:00Z", cairo) == [
        "2026-04-22T22:00:00+00:00",
        "2026-04-23T22:00:00+00:00",
        "2026-04-24T21:00:00+00:00",
    ]


def test_day_that_a_zone_left_out_is_no_period() -> None:
    apia = ZoneInfo("Pacific/Apia")  # went from 29 to 31 December 2011
    found = starts("day", "2011-12-29T12:00-10:00", "2011-12-31T12:00+14:00", apia)
    assert [day_of(at(start), apia).isoformat() for start in found] == ["2011-12-29", "2011-12-31"]


def test_weeks_begin_on_monday_and_months_and_years_with_their_first_day() -> None:
    assert starts("week", "2026-11-25T00:00Z", "2026-12-01T00:00Z") == [
        "2026-11-22T23:00:00+00:00",
        "2026-11-29T23:00:00+00:00",
    ]
    assert starts("month", "2026-02-01T00:00+01:00", "2026-04-01T00:00+02:00") == [
        "2026-01-31T23:00:00+00:00",
        "2026-02-28T23:00:00+00:00",
    ]
    assert starts("year", "2025-12-31T23:30Z", "2026-01-02T00:00Z") == ["2025-12-31T23:00:00+00:00"]


@pytest.mark.parametrize(
    ("timeframe", "since", "until", "count"),
    [
        ("hour", "2026-10-23T05:00+00:00", "2026-10-25T05:00+00:00", 48),
        ("day", "2026-09-25T22:00+00:00", "2026-10-25T23:00+00:00", 30),
        ("week", "2026-08-02T22:00+00:00", "2026-10-25T23:00+00:00", 12),
        ("month", "2025-10-31T23:00+00:00", "2026-10-31T23:00+00:00", 12),
        ("year", "2021-12-31T23:00+00:00", "2026-12-31T23:00+00:00", 5),
    ],
)
def test_range_is_by_default_whole_periods_up_to_the_end_of_the_current(
    timeframe: Timeframe, since: str, until: str, count: int
) -> None:
    found = window(timeframe, since=None, until=None, now=at("2026-10-25T05:30+01:00"), zone=BERLIN)
    assert (found.since, found.until, len(found.starts)) == (at(since), at(until), count)
    assert found.starts[0] == found.since


def test_range_without_a_beginning_ends_where_it_is_said_to() -> None:
    found = window("month", since=None, until=at("2026-03-01T00:00+01:00"), now=at("2026-12-01T00:00Z"), zone=BERLIN)
    assert (found.since, found.until) == (at("2025-03-01T00:00+01:00"), at("2026-03-01T00:00+01:00"))


@pytest.mark.parametrize("timeframe", FRAMES)
@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2026-11-02T00:00+00:00", "2026-11-01T00:00+00:00"),
        ("2026-11-01T00:00+00:00", "2026-11-01T00:00+00:00"),
        ("1970-01-01T00:00+00:00", "2026-11-01T00:00+00:00"),
        ("0001-01-01T00:00+00:00", "9999-12-31T00:00+00:00"),
        ("1971-01-01T00:00+00:00", "2198-12-31T00:00+00:00"),
    ],
)
def test_ranges_that_are_reversed_empty_or_huge_are_refused(timeframe: Timeframe, since: str, until: str) -> None:
    with pytest.raises(Unfit):
        window(timeframe, since=at(since), until=at(until), now=at("2026-12-01T00:00Z"), zone=BERLIN)


@given(
    timeframe=st.sampled_from(FRAMES),
    zone=st.sampled_from(ZONES).map(ZoneInfo),
    since=st.datetimes(datetime(2010, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    length=st.timedeltas(timedelta(seconds=1), timedelta(days=31)),
)
def test_periods_cover_the_range_without_gap_or_overlap(
    timeframe: Timeframe, zone: ZoneInfo, since: datetime, length: timedelta
) -> None:
    found = window(timeframe, since=since, until=since + length, now=since, zone=zone)
    assert found.starts[0] <= since < (found.starts[1] if len(found.starts) > 1 else found.until)
    assert found.starts[-1] < found.until
    assert list(found.starts) == sorted(set(found.starts))
    assert len(found.starts) <= MOST_PERIODS[timeframe]
    if timeframe == "month":
        assert [month_of(start, zone).start for start in found.starts] == list(found.starts)
    if timeframe == "day":
        hours = [(b - a) / timedelta(hours=1) for a, b in zip(found.starts, found.starts[1:], strict=False)]
        assert set(hours) <= {23, 24, 25}


@given(zone=st.sampled_from(ZONES).map(ZoneInfo), now=st.datetimes(datetime(2012, 1, 1), datetime(2030, 1, 1)))
def test_now_lies_in_the_last_period_of_a_default_range(zone: ZoneInfo, now: datetime) -> None:
    for timeframe in FRAMES:
        found: Window = window(timeframe, since=None, until=None, now=now.replace(tzinfo=UTC), zone=zone)
        assert found.starts[-1] <= now.replace(tzinfo=UTC) < found.until


def test_average_is_of_what_has_a_price_and_null_without_any() -> None:
    row = trend(at("2026-11-01T00:00Z"), "", Decimal("10.00"), 4, 1)
    assert (row["categoryId"], row["totalSpent"], row["avgTransaction"], row["unpriced"]) == (
        None,
        "10.00",
        "3.333333",
        1,
    )
    assert trend(at("2026-11-01T00:00Z"), "f", Decimal(0), 2, 2)["avgTransaction"] is None
