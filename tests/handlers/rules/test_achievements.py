"""What facts make of the table of achievements: streaks, pauses, months in zones, what was invested."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from handlers.rules import achievements as rules
from store.achievements import BudgetsRow, DayRow, Facts, MonthRow, PersonRow, PointRow

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
FOOD, TRANSPORT = "food", "transport"
VAULT, LOCK, WALLET = "0x01", "0x02", "0x03"


def person(**changes: object) -> PersonRow:
    known = {"user": "0xa", "time_zone": "UTC", "opened_at": NOW, "buckets": 0, "goals": 0, "goals_reached": 0,
             "sorted": 0, "friends": 0}  # fmt: skip
    return PersonRow(**{**known, **changes})  # type: ignore[arg-type]  # the fields of a row by name


def day(at: date, *, spends: int = 0, deposited: int = 0, savings: int = 0, chains: tuple[int, ...] = (1,)) -> DayRow:
    return DayRow(at, spends, 0, Decimal(deposited), 0, 0, savings, frozenset(chains))


def month(
    first: date, spent: int | str, *, category: str | None = None, unpriced: int = 0, amounts: int = 1
) -> MonthRow:
    return MonthRow(first, category, Decimal(spent), unpriced, amounts)


def budgets(since: datetime, total: int | None, **by_category: int) -> BudgetsRow:
    return BudgetsRow(since, None if total is None else Decimal(total), {k: Decimal(v) for k, v in by_category.items()})


def facts(
    who: PersonRow | None = None,
    *,
    days: Sequence[DayRow] = (),
    months: Sequence[MonthRow] = (),
    history: Sequence[BudgetsRow] = (),
    points: Sequence[PointRow] = (),
) -> Facts:
    return Facts(who or person(), days, months, history, points)


def earned(known: Facts, now: datetime = NOW) -> set[str]:
    return {rule.code for rule in rules.difference(rules.record(known, now), ()).unlocked}


# The table ---------------------------------------------------------------------------------------------------------


def test_table_has_many_rules_each_of_its_own_and_none_for_nothing() -> None:
    assert len(rules.RULES) >= 20
    assert len({rule.code for rule in rules.RULES}) == len({rule.title for rule in rules.RULES}) == len(rules.RULES)
    assert all(rule.target > 0 for rule in rules.RULES)
    assert {rule.tier for rule in rules.RULES} == {"bronze", "silver", "gold", "platinum"}
    assert all(rule.description.endswith(".") for rule in rules.RULES)
    assert earned(facts()) == set()


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.code)
def test_locked_achievement_shows_how_far_it_is(rule: rules.Rule) -> None:
    shown = rules.standing(rule, rules.record(facts(), NOW), None)
    assert (shown["isUnlocked"], shown["unlockedAt"]) == (False, None)
    progress = shown["progress"]
    assert isinstance(progress, dict)
    assert Decimal(progress["current"]) == 0
    assert Decimal(progress["target"]) == rule.target


@pytest.mark.parametrize(("paid", "is_met"), [("10000", False), ("10000.01", True)])
def test_more_than_is_more_than(paid: str, is_met: bool) -> None:
    one = DayRow(date(2026, 11, 1), 0, 0, Decimal(paid), 0, 0, 0, frozenset({1}))
    assert ("DEPOSITED_10K" in earned(facts(days=[one]))) == is_met


def test_what_is_held_without_a_reason_is_taken_back_unless_it_was_done_by_hand_or_left_the_table() -> None:
    bare = rules.record(facts(), NOW)
    gone = rules.difference(bare, ["SPENDER_100", "FIRST_GOAL", "FIRST_FRIEND", "OF_OLD", "YEAR_WITH_US"])
    assert (list(gone.unlocked), list(gone.revoked)) == ([], ["SPENDER_100"])
    kept = rules.record(facts(person(goals=1)), NOW)
    assert [rule.code for rule in rules.difference(kept, ()).unlocked] == ["FIRST_GOAL"]
    assert list(rules.difference(kept, ["FIRST_GOAL"]).unlocked) == []


def test_two_chains_on_different_days_are_two() -> None:
    first, second = date(2026, 11, 1), date(2026, 11, 2)
    assert "TWO_CHAINS" not in earned(facts(days=[day(first), day(second)]))
    assert "TWO_CHAINS" in earned(facts(days=[day(first), day(second, chains=(8453,))]))


# Streaks and pauses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "longest"),
    [([], 0), ([5], 1), ([3, 1, 2], 3), ([1, 1, 2], 2), ([1, 2, 4, 5, 6], 3), ([1, 3, 5], 1)],
)
def test_longest_run(numbers: list[int], longest: int) -> None:
    assert rules.longest_run(numbers) == longest


@pytest.mark.parametrize(
    ("days", "today", "longest"),
    [
        ([], 20, 0),  # who never spent anything did not pause
        ([10], 10, 0),
        ([10], 11, 0),
        ([10], 17, 6),  # today is not over
        ([10], 18, 7),
        ([1, 9, 10], 11, 7),  # a pause that was stays one
        ([1, 8, 10], 11, 6),
        ([10, 1], 11, 8),
        ([12], 10, 0),  # a chain whose clock is ahead
    ],
)
def test_longest_pause(days: list[int], today: int, longest: int) -> None:
    assert rules.longest_pause([date(2026, 11, n) for n in days], date(2026, 11, today)) == longest


def test_week_without_spending_is_over_when_its_last_day_is_in_the_user_s_zone() -> None:
    spent = [day(date(2026, 11, 10), spends=1)]
    midnight = datetime(2026, 11, 18, tzinfo=UTC)
    assert "NO_SPEND_WEEK" not in earned(facts(days=spent), midnight - timedelta(seconds=1))
    assert "NO_SPEND_WEEK" in earned(facts(days=spent), midnight)
    assert "NO_SPEND_WEEK" not in earned(facts(person(time_zone="America/New_York"), days=spent), midnight)
    assert "NO_SPEND_WEEK" in earned(
        facts(person(time_zone="Asia/Kathmandu"), days=spent), midnight - timedelta(hours=5)
    )


def test_weeks_begin_on_monday_and_follow_each_other_over_the_year_s_end() -> None:
    mondays = [date(2026, 12, 14) + timedelta(days=7 * n) for n in range(4)]
    assert mondays[0].weekday() == 0
    sundays = [each + timedelta(days=6) for each in mondays]
    mixed = [mondays[0], sundays[1], mondays[2], sundays[3]]
    for days in (mondays, sundays, mixed):
        assert "SAVING_STREAK_4" in earned(facts(days=[day(each, savings=1) for each in days]))
    # Four days in three weeks, and four weeks with one left out.
    close = [mondays[0], sundays[0], mondays[1], mondays[2]]
    apart = [mondays[0], mondays[1], mondays[3], mondays[3] + timedelta(days=7)]
    for days in (close, apart):
        assert "SAVING_STREAK_4" not in earned(facts(days=[day(each, savings=1) for each in days]))
    idle = [day(each) for each in mondays]
    assert "SAVING_STREAK_4" not in earned(facts(days=idle))


def test_eight_weeks_with_any_movement() -> None:
    weeks = [day(date(2026, 9, 1) + timedelta(days=7 * n)) for n in range(8)]
    assert "ACTIVE_STREAK_8" in earned(facts(days=weeks))
    assert "ACTIVE_STREAK_8" not in earned(facts(days=weeks[1:]))


def test_time_with_us_counts_days_of_the_user_s_zone() -> None:
    opened = datetime(2026, 1, 1, 23, 30, tzinfo=UTC)  # the next day already in Kathmandu
    for zone, since in (("UTC", date(2026, 1, 1)), ("Asia/Kathmandu", date(2026, 1, 2))):
        who = person(time_zone=zone, opened_at=opened)
        reached = since + timedelta(days=30)
        noon = datetime(reached.year, reached.month, reached.day, 6, tzinfo=UTC)
        assert "MONTH_WITH_US" in earned(facts(who), noon)
        assert "MONTH_WITH_US" not in earned(facts(who), noon - timedelta(days=1))


# Months ------------------------------------------------------------------------------------------------------------

EARLY = datetime(2025, 1, 1, tzinfo=UTC)
OCTOBER, SEPTEMBER = date(2026, 10, 1), date(2026, 9, 1)


def closed(
    *rows: MonthRow, history: Sequence[BudgetsRow], zone: str = "UTC", now: datetime = NOW
) -> list[rules.Closed]:
    return rules.closed_months(facts(person(time_zone=zone), months=rows, history=history), now)


@pytest.mark.parametrize(
    ("zone", "ended"),
    [
        ("UTC", "2026-11-01T00:00+00:00"),
        ("America/New_York", "2026-11-01T04:00+00:00"),  # summer time ends two hours into November
        ("Asia/Kathmandu", "2026-10-31T18:15+00:00"),
        ("Pacific/Auckland", "2026-10-31T11:00+00:00"),  # summer time has begun in September
    ],
)
def test_month_is_over_when_it_is_in_the_user_s_zone(zone: str, ended: str) -> None:
    end = datetime.fromisoformat(ended)
    spent, history = month(OCTOBER, 60), [budgets(EARLY, 100)]
    assert closed(spent, history=history, zone=zone, now=end - timedelta(seconds=1)) == []
    (one,) = closed(spent, history=history, zone=zone, now=end)
    assert (one.month, one.ended, one.is_kept) == (OCTOBER, end, True)


def test_month_is_judged_by_what_stood_when_it_ended() -> None:
    end = datetime(2026, 11, 1, tzinfo=UTC)
    low, high = 50, 1000
    for since, is_kept in ((end - timedelta(microseconds=1), True), (end, False), (end + timedelta(days=1), False)):
        (one,) = closed(month(OCTOBER, 60), history=[budgets(EARLY, low), budgets(since, high)])
        assert (one.is_kept, int(one.budget)) == (is_kept, high if is_kept else low)
    assert closed(month(OCTOBER, 60), history=[budgets(end, high)]) == []
    # A budget that was taken away before the end: the month had none.
    assert closed(month(OCTOBER, 60), history=[budgets(EARLY, high), budgets(end - timedelta(days=1), None)]) == []


@pytest.mark.parametrize(
    ("spent", "is_kept"),
    [(month(OCTOBER, 100), True), (month(OCTOBER, "100.000000000000000001"), False),
     (month(OCTOBER, 10, unpriced=1), False), (month(OCTOBER, 0, amounts=0), False)],
)  # fmt: skip
def test_month_is_kept_with_something_spent_all_of_it_priced_and_not_more(spent: MonthRow, is_kept: bool) -> None:
    (one,) = closed(spent, history=[budgets(EARLY, 100)])
    assert one.is_kept == is_kept


def test_without_a_total_only_categories_with_a_budget_count() -> None:
    rows = (month(OCTOBER, 60, category=FOOD), month(OCTOBER, 500, category=None, unpriced=1),
            month(OCTOBER, 70, category=TRANSPORT))  # fmt: skip
    (one,) = closed(*rows, history=[budgets(EARLY, None, food=80)])
    assert (int(one.spent), int(one.budget), one.is_kept) == (60, 80, True)
    (one,) = closed(*rows, history=[budgets(EARLY, None, food=80, transport=49)])
    assert (int(one.spent), int(one.budget), one.is_kept) == (130, 129, False)
    (one,) = closed(*rows, history=[budgets(EARLY, 1000, food=80)])
    assert (int(one.spent), int(one.budget), one.is_kept) == (630, 1000, False)  # something has no price


def test_half_of_the_budget_left_is_at_most_half_spent() -> None:
    history = [budgets(EARLY, 101)]
    assert "HALF_BUDGET" in earned(facts(months=[month(OCTOBER, "50.5")], history=history))
    assert "HALF_BUDGET" not in earned(facts(months=[month(OCTOBER, "50.51")], history=history))


def test_months_in_a_row_run_over_the_year_s_end_and_break_where_one_was_not_kept() -> None:
    history = [budgets(EARLY, 100)]
    year = [date(2025 + (n + 10) // 12, (n + 10) % 12 + 1, 1) for n in range(12)]  # November to October
    kept = [month(first, 60) for first in year]
    codes = earned(facts(months=kept, history=history))
    assert {"BUDGET_STREAK_3", "BUDGET_STREAK_12"} <= codes
    broken = [*kept[:6], month(year[6], 101), *kept[7:]]
    codes = earned(facts(months=broken, history=history))
    assert "BUDGET_STREAK_3" in codes
    assert "BUDGET_STREAK_12" not in codes
    # A month in which nothing was spent proves nothing either.
    assert "BUDGET_STREAK_3" not in earned(facts(months=[kept[0], kept[1], kept[3]], history=history))


@pytest.mark.parametrize(
    ("now", "zone", "ends"),
    [
        ("2026-11-20T12:00+00:00", "UTC", "2026-11-21T00:00+00:00"),
        ("2026-11-01T03:59+00:00", "America/New_York", "2026-11-01T04:00+00:00"),
        ("2026-11-01T04:00+00:00", "America/New_York", "2026-11-02T05:00+00:00"),  # a day of 25 hours
        ("2026-03-08T12:00+00:00", "America/New_York", "2026-03-09T04:00+00:00"),  # and one of 23
    ],
)
def test_next_look_is_at_the_day_s_end(now: str, zone: str, ends: str) -> None:
    assert rules.next_look(datetime.fromisoformat(now), zone) == datetime.fromisoformat(ends)


# Invested ----------------------------------------------------------------------------------------------------------


def point(block: int, key: str, principal: int | None, *, paid: int = 0, contract: str = VAULT, has_price: bool = True,
          chain: int = 1) -> PointRow:  # fmt: skip
    at = NOW + timedelta(seconds=block)
    told = f"event {block} {key}" if paid else None
    usd = Decimal(paid) if paid and has_price else None
    return PointRow(chain, key, block, at, principal or 0, principal, contract, usd, paid, told)


def tops(*points: PointRow) -> list[Decimal]:
    return [usd for usd, _ in rules.invested(points).steps]


def test_what_is_taken_out_takes_its_part_of_what_was_paid_in() -> None:
    assert tops(point(1, "a", 600, paid=600), point(2, "a", 1200, paid=600), point(3, "a", 300),
                point(4, "a", 1000, paid=700), point(5, "a", 0)) == [600, 1200, 300, 1000, 0]  # fmt: skip
    found = rules.invested([point(1, "a", 600, paid=600), point(2, "a", 1200, paid=600), point(3, "a", 0)])
    assert found.most == 1200
    assert (found.beyond(Decimal(1000)), found.beyond(Decimal(1200))) == ("event 2 a", None)


def test_payment_without_a_price_adds_nothing_and_takes_its_part_when_it_goes() -> None:
    assert tops(point(1, "a", 500, paid=500), point(2, "a", 1500, paid=1000, has_price=False), point(3, "a", 750)) == [
        500, 500, 250,
    ]  # fmt: skip


def test_one_block_is_one_moment() -> None:
    """What moves from one position to another is not in both; what comes and goes was not there."""
    moved = [point(1, "b", 900, paid=900), point(2, "a", 900, paid=900, contract=LOCK), point(2, "b", 0)]
    assert tops(*moved) == [900, 900]
    assert rules.invested(moved).spread == 1
    assert tops(point(1, "a", 1000, paid=1000), point(2, "a", 1100, paid=1900)) == [1000, 1100]
    assert tops(point(1, "a", 100, paid=2000)) == [100]


def test_blocks_of_two_chains_with_one_number_are_two_moments() -> None:
    assert tops(point(1, "a", 10, paid=10), point(1, "b", 20, paid=20, chain=2)) == [10, 30]


def test_baskets_are_counted_by_contract_and_at_once() -> None:
    three = [
        point(1, "a", 1, paid=1),
        point(2, "b", 1, paid=1, contract=LOCK),
        point(3, "c", 1, paid=1, contract=WALLET),
    ]
    assert rules.invested(three).spread == 3
    assert rules.invested([*three[:2], point(3, "d", 1, paid=1, contract=LOCK)]).spread == 2
    assert rules.invested([*three[:2], point(3, "a", 0), point(4, "c", 1, paid=1, contract=WALLET)]).spread == 2
    assert rules.invested([*three[:2], point(3, "c", 1, paid=1, contract=LOCK, chain=2)]).spread == 3
