"""With a profile, projections of a month are nearer than straight lines; without one they are straight lines."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.rules.calendar import month_of
from handlers.rules.month_budget import Pace, overrun, projected
from handlers.rules.month_profile import LEAST_MONTHS, Profile, learned, profile_of, profiles_of

ZONE = ZoneInfo("UTC")
FOOD = "00000000-0000-4000-8000-000000000001"


def days_of(first: date, until: date) -> list[date]:
    return [first + timedelta(days=back) for back in range((until - first).days)]


def tenant(first: date, until: date, seed: int = 1) -> dict[date, Decimal]:
    """Rent of 900 on the 1st, groceries of 60 to 80 on Saturdays, something small on most days."""
    chance = random.Random(seed)
    return {
        day: Decimal(
            (900 if day.day == 1 else 0) + (chance.randint(60, 80) if day.weekday() == 5 else chance.randint(0, 9))
        )
        for day in days_of(first, until)
    }


def spent_by(amounts: dict[date, Decimal], first: date, day: date) -> Decimal:
    return sum((amounts[each] for each in days_of(first, day + timedelta(days=1))), Decimal(0))


def misses(amounts: dict[date, Decimal], profile: Profile | None, first: date, until: date) -> list[Decimal]:
    """How far the projection is off at the end of each of the month's days."""
    month = month_of(datetime(first.year, first.month, 1, tzinfo=UTC), ZONE)
    came = spent_by(amounts, first, until - timedelta(days=1))
    found = []
    for day in days_of(first, until):
        now = datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC)
        pace = profile.pace(day) if profile else None
        found.append(abs(projected(spent_by(amounts, first, day), month, now, pace) - came))
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("first", "until"), [(date(2026, 11, 1), date(2026, 12, 1)), (date(2026, 2, 1), date(2026, 3, 1))]
)
def test_rent_on_the_first_is_not_taken_for_a_pace(first: date, until: date, seed: int) -> None:
    amounts = tenant(first - timedelta(days=150), until, seed)
    past = {day: amount for day, amount in amounts.items() if day < first}
    profile = profiles_of(learned({None: past}, first))[None]
    with_it, without = misses(amounts, profile, first, until), misses(amounts, None, first, until)
    assert sum(with_it) * 5 < sum(without)
    assert max(with_it) < 100  # of some 1,300; a straight line says 27,000 on the first


def test_month_that_is_dearer_from_its_beginning_is_projected_dearer() -> None:
    amounts = tenant(date(2026, 6, 1), date(2026, 11, 1))
    profile = profiles_of(learned({None: amounts}, date(2026, 11, 1)))[None]
    month = month_of(datetime(2026, 11, 1, tzinfo=UTC), ZONE)
    now = datetime(2026, 11, 15, 23, tzinfo=UTC)
    pace = profile.pace(now.date())
    assert pace is not None
    usual = projected(pace.done * pace.typical, month, now, pace)
    assert abs(usual - pace.typical) < Decimal("0.01")
    assert usual < projected(pace.done * pace.typical * 2, month, now, pace) < 2 * usual


def test_without_a_profile_it_is_the_straight_line_exactly() -> None:
    month = month_of(datetime(2026, 11, 1, tzinfo=UTC), ZONE)
    now = datetime(2026, 11, 11, tzinfo=UTC)
    assert projected(Decimal(100), month, now, None) == projected(Decimal(100), month, now) == 300
    assert overrun(Decimal(100), Decimal(250), month, now) == 50


def test_less_than_three_whole_months_make_no_profile() -> None:
    until = date(2026, 11, 1)
    whole = tenant(date(2026, 8, 1), until)
    assert learned({FOOD: whole}, until)["total"][0] == LEAST_MONTHS
    short = {day: amount for day, amount in whole.items() if day > date(2026, 8, 1)}
    assert learned({FOOD: short}, until) == {}
    assert learned({}, until) == {}


def test_total_and_every_category_have_their_own_and_uncategorised_counts_in_the_total_only() -> None:
    until = date(2026, 11, 1)
    first = {day: Decimal(3) for day in days_of(date(2026, 7, 1), until)}
    found = profiles_of(learned({FOOD: first, None: first}, until))
    assert set(found) == {None, FOOD}
    assert (found[None].expected(until), found[FOOD].expected(until)) == (600, 300)


def test_month_without_money_has_no_pace() -> None:
    assert Profile(3, (0,) * 29, (0,) * 4, (0,) * 7).pace(date(2026, 11, 5)) is None


def test_what_comes_on_the_last_day_comes_on_the_last_day_of_a_short_month() -> None:
    until = date(2026, 2, 1)
    amounts = {date(2025, 9, 1): Decimal(1)} | {
        date(2025, m, d): Decimal(50) for m, d in ((10, 31), (11, 30), (12, 31))
    }
    amounts[date(2026, 1, 31)] = Decimal(50)
    amounts[date(2025, 9, 30)] = Decimal(50)
    profile = profiles_of(learned({None: amounts}, until))[None]
    assert profile.expected(date(2026, 2, 28)) == 5000
    assert profile.expected(date(2026, 2, 27)) == 0


money = st.decimals(min_value=0, max_value=10**9, places=6, allow_nan=False, allow_infinity=False)


@settings(max_examples=50, deadline=None)
@given(
    amounts=st.dictionaries(st.dates(date(2026, 5, 1), date(2026, 10, 31)), money, min_size=1),
    today=st.dates(date(2026, 11, 1), date(2027, 3, 31)),
)
def test_any_history_makes_a_share_that_grows_to_the_whole(amounts: dict[date, Decimal], today: date) -> None:
    stored = learned({None: amounts}, date(2026, 11, 1))
    for text in stored.values():
        profile = profile_of(text)
        pace = profile.pace(today)
        last = profile.pace((today.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1))
        assert pace is None or (0 <= pace.done <= 1 and pace.typical > 0)
        assert last is None or last.done == 1
        month = month_of(datetime(today.year, today.month, 1, tzinfo=UTC), ZONE)
        spent = Decimal(12)
        assert pace is None or projected(spent, month, month.start, pace) >= spent


def test_more_spent_is_never_projected_less() -> None:
    month = month_of(datetime(2026, 11, 1, tzinfo=UTC), ZONE)
    for done in range(11):
        pace = Pace(Decimal(done) / 10, Decimal(1000))
        found = [projected(Decimal(spent), month, month.start, pace) for spent in range(0, 3000, 100)]
        assert found == sorted(found)


@pytest.mark.parametrize(
    ("done", "spent", "expected"),
    [
        ("0", 0, 1000),  # nothing is known of this month: the typical one
        ("0.5", 500, 1000),  # as ever
        ("0.5", 1000, 1750),  # between a typical second half (1,500) and this one's own pace (2,000)
        ("0.5", 0, 250),
        ("1", 1234, 1234),
    ],
)
def test_what_is_still_to_come_lies_between_a_typical_month_and_this_ones_pace(
    done: str, spent: int, expected: int
) -> None:
    month = month_of(datetime(2026, 11, 1, tzinfo=UTC), ZONE)
    assert projected(Decimal(spent), month, month.start, Pace(Decimal(done), Decimal(1000))) == expected
