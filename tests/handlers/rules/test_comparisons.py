from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.rules.comparisons import (
    CHANGE_LEAST,
    COHORT_LEAST,
    EDGES,
    Past,
    band,
    decide,
    may_follow,
    median,
    month_closed,
    shown,
)

OCTOBER = date(2026, 10, 1)
people = st.frozensets(st.sampled_from([f"p{number}" for number in range(14)]))
amounts = st.decimals(min_value=0, max_value=10_000, places=2)


@given(st.lists(st.tuples(people, people, st.booleans()), max_size=12))
def test_no_two_answers_differ_by_a_few(history: list[tuple[frozenset[str], frozenset[str], bool]]) -> None:
    """Whatever cohorts an attacker arranges, month after month: released ones are equal, or many people apart."""
    past: list[Past] = []
    for number, (cohort, absent, consents) in enumerate(history):
        month = date(2020 + number // 12, number % 12 + 1, 1)
        present = cohort - absent
        verdict = decide(cohort, present, past, month=month, consents=consents)
        if verdict.release:
            past.append(Past(month, present))
            assert decide(cohort | {"new"}, present | {"new"}, past, month=month, consents=True).month == month
    for each in past:
        assert len(each.members) >= COHORT_LEAST
        for other in past:
            joined = each.members - other.members
            assert not joined or len(joined) >= CHANGE_LEAST


@given(st.lists(amounts, min_size=5, max_size=12), st.data())
def test_what_happens_within_a_band_is_not_seen(spent: list[Decimal], data: st.DataObject) -> None:
    before = median(map(band, spent))
    place = data.draw(st.integers(0, len(spent) - 1))
    changed = data.draw(amounts.filter(lambda amount: band(amount) == band(spent[place])))
    assert median(map(band, [*spent[:place], changed, *spent[place + 1 :]])) == before


@given(st.lists(amounts, min_size=1, max_size=12))
def test_the_median_is_the_band_of_somebody_in_the_middle(spent: list[Decimal]) -> None:
    found, bands = median(map(band, spent)), [band(each) for each in spent]
    assert found in bands
    assert sum(each < found for each in bands) < len(bands) / 2
    assert sum(each > found for each in bands) <= len(bands) / 2


@given(people, people, people, st.booleans())
def test_what_is_answered_does_not_depend_on_what_was_spent_and_is_never_new_without_release(
    cohort: frozenset[str], absent: frozenset[str], before: frozenset[str], consents: bool
) -> None:
    past = [Past(date(2026, 9, 1), before)]
    verdict = decide(cohort, cohort - absent, past, month=OCTOBER, consents=consents)
    assert verdict.release == (verdict.month == OCTOBER)
    assert verdict.release == (verdict.withheld is None)
    if not consents or len(cohort) < COHORT_LEAST:
        assert verdict.month is None


FIVE, SIX = frozenset("abcde"), frozenset("abcdef")


@pytest.mark.parametrize(
    ("cohort", "past", "expected"),
    [
        (FIVE, [], (True, OCTOBER, None)),
        (frozenset("abcd"), [], (False, None, "too_few")),
        (frozenset("abcd"), [Past(date(2026, 9, 1), FIVE)], (False, None, "too_few")),
        (SIX, [Past(date(2026, 9, 1), FIVE)], (False, date(2026, 9, 1), "cohort_changed")),
        (FIVE, [Past(date(2026, 9, 1), FIVE)], (True, OCTOBER, None)),
        (SIX, [Past(OCTOBER, FIVE)], (False, OCTOBER, None)),
        (frozenset("abcdefghij"), [Past(date(2026, 9, 1), FIVE)], (True, OCTOBER, None)),
        (frozenset("abcdxyzuv"), [Past(date(2026, 9, 1), FIVE)], (False, date(2026, 9, 1), "cohort_changed")),
        (
            FIVE,
            [Past(date(2026, 8, 1), SIX), Past(date(2026, 9, 1), FIVE)],
            (False, date(2026, 9, 1), "cohort_changed"),
        ),
    ],
)
def test_when_a_month_is_released(cohort: frozenset[str], past: list[Past], expected: tuple[object, ...]) -> None:
    verdict = decide(cohort, cohort, past, month=OCTOBER, consents=True)
    assert (verdict.release, verdict.month, verdict.withheld) == expected


def test_many_have_to_join_and_many_to_leave() -> None:
    ten = frozenset("abcdefghij")
    assert may_follow(ten, FIVE)
    assert may_follow(FIVE, ten)
    assert may_follow(frozenset("vwxyz"), FIVE)
    assert not may_follow(ten, frozenset("abcdef"))
    assert not may_follow(frozenset("abcdef"), ten)
    assert not may_follow(ten - {"a"} | {"k"}, ten)


def test_bands_begin_at_their_edges_and_nothing_is_told_of_nothing() -> None:
    for number, edge in enumerate(EDGES):
        assert (band(edge - Decimal("0.01")), band(edge)) == (number, number + 1)
    assert band(Decimal(0)) == band(Decimal("49.99")) == 0
    assert shown(0) == {"from": "0.00", "below": "50.00"}
    assert shown(len(EDGES)) == {"from": "2500.00", "below": None}


def test_a_month_is_closed_once_it_has_ended_everywhere() -> None:
    end = datetime(2026, 11, 1, tzinfo=UTC)
    assert month_closed(end) == month_closed(end + timedelta(hours=11, minutes=59)) == date(2026, 9, 1)
    assert month_closed(end + timedelta(hours=12)) == OCTOBER
    assert month_closed(datetime(2026, 1, 2, tzinfo=UTC)) == date(2025, 12, 1)
