from __future__ import annotations

import random
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.rules.forecast import (
    REST,
    SERIES_MAX,
    TRIED_FROM_DAYS,
    Forecast,
    damped,
    forecast,
    month_day,
    weekday,
)

FIRST = date(2026, 3, 2)  # a Monday


def d(value: int | str) -> Decimal:
    return Decimal(value)


def weekly(days: int, *week: int) -> list[Decimal]:
    return [d(week[day % 7]) for day in range(days)]


def rent(days: int, amount: int = 900) -> list[Decimal]:
    return [d(amount if (FIRST + timedelta(days=day)).day == 1 else 0) for day in range(days)]


def noise(days: int, seed: int = 1) -> list[Decimal]:
    chance = random.Random(seed)
    return [d(chance.randint(0, 40)) for _ in range(days)]


def test_what_repeats_every_week_is_forecast_exactly() -> None:
    made = forecast({"food": weekly(140, 10, 0, 0, 5, 0, 60, 20)}, FIRST, 10)
    assert [p.amount for p in made.predictions] == [d(each) for each in (10, 0, 0, 5, 0, 60, 20, 10, 0, 0)]
    assert made.predictions[0].day == FIRST + timedelta(days=140)
    assert all(p.low == p.amount == p.high for p in made.predictions)
    assert (made.confidence, made.tests) == (d(1), 8)


def test_rent_on_the_first_is_expected_on_the_first() -> None:
    days = (date(2026, 9, 28) - FIRST).days
    made = forecast({"home": rent(days)}, FIRST, 40)
    assert [part.method for part in made.parts] == ["month_day"]
    assert {p.day: p.amount for p in made.predictions if p.amount} == {
        date(2026, 10, 1): d(900),
        date(2026, 11, 1): d(900),
    }
    assert made.confidence == 1


def test_each_category_has_the_method_that_knew_it_best() -> None:
    days = (date(2026, 9, 28) - FIRST).days
    made = forecast({"home": rent(days), "food": weekly(days, 10, 0, 0, 5, 0, 60, 20)}, FIRST, 7)
    assert {part.key: part.method == "month_day" for part in made.parts} == {"home": True, "food": False}
    (first,) = (p for p in made.predictions if p.day == date(2026, 10, 1))
    assert first.amount == d(905)


def test_growth_goes_on_but_dies_away() -> None:
    rising = [d(10 + day // 7) for day in range(140)]
    made = forecast({"food": rising}, FIRST, 60)
    amounts = [p.amount for p in made.predictions]
    if {part.method for part in made.parts} == {"damped"}:
        assert amounts[0] <= amounts[-1] < d(29 + 60 // 7)
    assert min(amounts) > 20


def test_four_of_five_days_that_come_lie_in_the_interval() -> None:
    inside = total = 0
    for seed in range(12):
        past, future = noise(200, seed), noise(228, seed)[200:]
        made = forecast({"food": past}, FIRST, 28)
        inside += sum(p.low <= came <= p.high for p, came in zip(made.predictions, future, strict=True))
        total += 28
    assert inside / total > 0.7


def test_noise_earns_less_confidence_than_a_habit() -> None:
    habit = forecast({"food": weekly(140, 10, 0, 0, 5, 0, 60, 20)}, FIRST, 7)
    chaos = forecast({"food": noise(140)}, FIRST, 7)
    assert d(0) < chaos.confidence < habit.confidence


@pytest.mark.parametrize("days", [1, 9, TRIED_FROM_DAYS - 1])
def test_too_little_history_is_said_plainly(days: int) -> None:
    made = forecast({"food": [d(7)] * days}, FIRST, 3)
    assert (made.confidence, made.tests) == (d(0), 0)
    assert f"Only {days} days" in made.reason
    assert [(p.amount, p.low, p.high) for p in made.predictions] == [(d("7.00"), d(0), d(7))] * 3


@pytest.mark.parametrize("history", [{}, {"food": []}, {"food": [d(0)] * 10}])
def test_no_history_is_no_forecast(history: dict[str, list[Decimal]]) -> None:
    made = forecast(history, FIRST, 30)
    assert made.predictions == ()
    assert made.confidence == 0
    assert "nothing to go by" in made.reason


def test_short_history_has_less_confidence_than_it_would_deserve() -> None:
    made = forecast({"food": weekly(TRIED_FROM_DAYS + 7, 10, 0, 0, 5, 0, 60, 20)}, FIRST, 7)
    assert (made.tests, made.confidence) == (2, d("0.25"))


def test_many_categories_are_the_largest_and_the_rest_without_losing_any() -> None:
    history = {f"c{number:02}": [d(number + 1)] * 70 for number in range(SERIES_MAX + 5)}
    made = forecast(history, FIRST, 2)
    assert {part.key for part in made.parts} == {f"c{n:02}" for n in range(5, SERIES_MAX + 5)} | {REST}
    assert made.predictions[0].amount == sum(range(1, SERIES_MAX + 6))


money = st.decimals(min_value=0, max_value=10**12, places=18, allow_nan=False, allow_infinity=False)


@settings(max_examples=30, deadline=None)
@given(series=st.lists(money, min_size=1, max_size=130), days=st.integers(1, 90))
def test_any_history_makes_whole_cents_in_order_and_a_confidence_of_0_to_1(series: list[Decimal], days: int) -> None:
    made: Forecast = forecast({"a": series, "b": series[::-1]}, FIRST, days)
    assert 0 <= made.confidence <= 1
    for p in made.predictions:
        assert 0 <= p.low <= p.amount <= p.high
        assert p.amount.as_tuple().exponent == -2
    days_told = [p.day for p in made.predictions]
    assert days_told in ([FIRST + timedelta(days=len(series) + h) for h in range(days)], [])


def test_same_history_makes_the_same_forecast_whatever_its_order() -> None:
    one, two = noise(100, 1), noise(100, 2)
    assert forecast({"a": one, "b": two}, FIRST, 9) == forecast({"b": two, "a": one}, FIRST, 9)


def test_weekday_is_the_mean_of_the_last_four_of_it() -> None:
    weeks = [[d(99)] * 7, *([d(week), d(0), d(0), d(0), d(0), d(0), d(7)] for week in (1, 2, 3, 6))]
    series = [day for week in weeks for day in week]
    assert weekday(series, FIRST, 8) == [d(3), *[d(0)] * 5, d(7), d(3)]
    assert weekday(series[:-1], FIRST, 2) == [d(30), d(3)]  # the day that is missing comes first; 99 is of four weeks


def test_damped_spreads_its_week_as_weeks_were_and_keeps_a_steady_level() -> None:
    series = [d(amount) for _ in range(10) for amount in (0, 0, 70, 0, 0, 0, 30)]
    assert damped(series, FIRST, 9) == [d(0), d(0), d(70), d(0), d(0), d(0), d(30), d(0), d(0)]


def test_damped_grows_less_each_week() -> None:
    series = [d(week) for week in range(1, 21) for _ in range(7)]
    weeks = [sum(damped(series, FIRST, 70)[at : at + 7]) for at in range(0, 70, 7)]
    steps = [b - a for a, b in pairwise(weeks)]
    assert all(a > b > 0 for a, b in pairwise(steps))


def test_day_of_the_month_is_the_mean_of_three_and_a_short_months_last_day_stands_for_more() -> None:
    first = date(2025, 11, 1)
    amounts = {date(2025, 12, 31): 30, date(2026, 1, 31): 60, date(2026, 2, 28): 90}
    series = [d(amounts.get(first + timedelta(days=day), 0)) for day in range((date(2026, 3, 31) - first).days)]
    assert month_day(series, first, 1) == [d(60)]
