from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.rules.quiet import QuietHours, is_quiet, is_zone, quiet_until

NIGHT = QuietHours(time(22), time(7))
NOON = QuietHours(time(12), time(13, 30))
BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("moment", "hours", "zone", "until"),
    [
        ("2026-11-24T21:59:59+01:00", NIGHT, BERLIN, None),
        ("2026-11-24T22:00:00+01:00", NIGHT, BERLIN, "2026-11-25T07:00:00+01:00"),
        ("2026-11-25T00:00:00+01:00", NIGHT, BERLIN, "2026-11-25T07:00:00+01:00"),
        ("2026-11-25T06:59:59+01:00", NIGHT, BERLIN, "2026-11-25T07:00:00+01:00"),
        ("2026-11-25T07:00:00+01:00", NIGHT, BERLIN, None),
        ("2026-11-24T12:00:00+01:00", NOON, BERLIN, "2026-11-24T13:30:00+01:00"),
        ("2026-11-24T13:30:00+01:00", NOON, BERLIN, None),
        ("2026-11-24T11:59:59+01:00", NOON, BERLIN, None),
        # the same moment elsewhere, on both sides of the date line
        ("2026-11-24T10:30:00Z", NIGHT, "Pacific/Kiritimati", "2026-11-25T07:00:00+14:00"),
        ("2026-11-24T10:30:00Z", NIGHT, "Pacific/Niue", "2026-11-24T07:00:00-11:00"),
        ("2026-11-24T10:30:00Z", NIGHT, "UTC", None),
        # the clock goes forward: 07:00 comes an hour sooner; goes back: an hour later
        ("2026-03-28T23:00:00+01:00", NIGHT, BERLIN, "2026-03-29T07:00:00+02:00"),
        ("2026-10-24T23:00:00+02:00", NIGHT, BERLIN, "2026-10-25T07:00:00+01:00"),
        # an end that the clock skips comes when it would have; one that it shows twice, the first time after the moment
        ("2026-03-29T01:30:00+01:00", QuietHours(time(1), time(2, 30)), BERLIN, "2026-03-29T02:30:00+01:00"),
        ("2026-10-25T02:10:00+02:00", QuietHours(time(2), time(2, 30)), BERLIN, "2026-10-25T02:30:00+02:00"),
        ("2026-10-25T02:10:00+01:00", QuietHours(time(2), time(2, 30)), BERLIN, "2026-10-25T02:30:00+01:00"),
    ],
)
def test_quiet_hours_end_on_the_users_clock(moment: str, hours: QuietHours, zone: str, until: str | None) -> None:
    found = quiet_until(at(moment), hours, zone=zone)
    assert found == (None if until is None else at(until))
    assert is_quiet(at(moment), hours, zone=zone) == (until is not None)


def test_without_quiet_hours_it_is_never_quiet() -> None:
    assert not is_quiet(at("2026-11-24T03:00:00Z"), None, zone="UTC")
    assert quiet_until(at("2026-11-24T03:00:00Z"), None, zone="UTC") is None


@given(
    moment=st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)),
    edges=st.lists(st.times(), min_size=2, max_size=2, unique=True),
    zone=st.sampled_from([BERLIN, "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"]),
)
def test_the_end_is_ahead_within_a_day_and_an_hour_and_no_longer_quiet(
    moment: datetime, edges: list[time], zone: str
) -> None:
    hours = QuietHours(*edges)
    until = quiet_until(moment, hours, zone=zone)
    assert (until is not None) == is_quiet(moment, hours, zone=zone)
    if until is not None:
        assert moment < until <= moment + timedelta(hours=25)


@pytest.mark.parametrize("name", ["UTC", BERLIN, "America/Argentina/Buenos_Aires", "Etc/GMT+12", "Pacific/Kiritimati"])
def test_zones_of_the_database_are_known(name: str) -> None:
    assert is_zone(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Mars/Olympus",
        "europe/berlin",
        "America",
        "posix/UTC",
        "right/UTC",
        "localtime",
        "posixrules",
        "../../etc/passwd",
        "/etc/localtime",
        "Europe/Berlin\0",
        "Europe/../UTC",
        "x" * 5000,
    ],
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    assert not is_zone(name)
