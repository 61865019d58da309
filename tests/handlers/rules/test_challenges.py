from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from handlers.challenge_resources import Challenge
from handlers.rules import challenges as rules
from handlers.rules.challenges import days_of, measured, progress, state
from store.challenge_scores import PRICE_PLACES, Saved, Spent, WinnerRow
from store.challenges import ChallengeRow, Frozen, Measure, ParticipantRow
from tests.factories import make_address

START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)
UTC_ = Frozen("UTC", Decimal(300), ())
DOLLAR = 10 ** (PRICE_PLACES - 6)
"""The price of one base unit of a dollar token with 6 decimals."""


def challenge(measure: Measure = "savings_progress", **changed: Any) -> ChallengeRow:
    row = ChallengeRow(
        id=UUID(int=1),
        creator=None,
        name="No coffee",
        description="",
        measure=measure,
        visibility="public",
        target=Decimal(200) if measure == "savings_progress" else None,
        starts_at=START,
        ends_at=END,
        created_at=START,
    )
    return replace(row, **changed)


def part(**changed: Any) -> ParticipantRow:
    row = ParticipantRow(
        challenge_id=UUID(int=1),
        user=make_address("me"),
        participant_id=UUID(int=2),
        joined_at=START,
        left_at=None,
        time_zone="UTC",
        monthly_budget=None,
        buckets=(),
        score=0,
        score_change=1,
        amount=None,
        unpriced=0,
        measured_at=None,
        due_at=None,
        final_score=None,
        final_rank=None,
        told=0,
    )
    return replace(row, **changed)


@pytest.mark.parametrize(
    ("moment", "changed", "expected"),
    [
        (START - timedelta(seconds=1), {}, "upcoming"),
        (START, {}, "running"),
        (END - timedelta(microseconds=1), {}, "running"),
        (END, {}, "ended"),
        (END, {"settling_at": END}, "ended"),
        # it was told by a process whose clock is ahead
        (END - timedelta(microseconds=1), {"ended_at": END}, "ended"),
        (END, {"settled_at": END}, "settled"),
        (START, {"cancelled_at": START}, "cancelled"),
    ],
)
def test_a_challenge_is_what_its_times_say(moment: datetime, changed: dict[str, Any], expected: str) -> None:
    assert state(challenge(**changed), moment) == expected


def saved(*tokens: Saved) -> rules.Measured:
    return measured(challenge(), UTC_, START, moved=tokens, spent=Spent(), now=START)


def test_savings_are_a_part_of_the_target_rounded_down() -> None:
    assert saved(Saved(50_000_000, 0, DOLLAR, DOLLAR, 0)).score == 2500
    assert saved(Saved(199_999_999, 0, DOLLAR, DOLLAR, 0)).score == 9999
    one = saved(Saved(250_000_000, 0, DOLLAR, DOLLAR, 3))
    assert (one.score, one.amount, one.unpriced, one.due_at) == (12_500, Decimal("250.00"), 3, None)


def test_the_same_money_moved_to_and_fro_is_nothing_at_any_price() -> None:
    assert saved(Saved(5 * 10**6, 5 * 10**6, DOLLAR, 3 * DOLLAR, 0)).score == 0
    # 100 stayed: what was moved again at three dollars does not make it more
    assert saved(Saved(600 * 10**6, 500 * 10**6, DOLLAR, 3 * DOLLAR, 0)).score == 5000


def test_what_is_taken_of_older_savings_counts_against_new_ones_and_nobody_falls_below_nothing() -> None:
    assert saved(Saved(100 * 10**6, 0, DOLLAR, DOLLAR, 0), Saved(0, 10**6, None, 30 * DOLLAR, 0)).score == 3500
    gone = saved(Saved(0, 10**6, None, DOLLAR, 0))
    assert (gone.score, gone.amount) == (0, Decimal("-1.00"))
    assert saved(Saved(0, 10**6, None, None, 0)).score == 0


def test_no_amount_makes_a_score_that_is_not_exact() -> None:
    assert saved(Saved(2**256, 0, DOLLAR * 10**9, DOLLAR * 10**9, 0)).score == 2**53 - 1


def kept(spent: str, *, joined: datetime = START, frozen: Frozen = UTC_, **changed: Any) -> int:
    row = challenge("budget_kept", **changed)
    return measured(row, frozen, joined, spent=Spent(Decimal(spent)), now=START).score


def test_a_budget_kept_is_what_of_the_windows_part_of_it_was_not_spent() -> None:
    assert [kept(spent) for spent in ("0", "75", "299.99", "300", "5000")] == [10_000, 7_500, 0, 0, 0]
    # half of November and half of December: 150 + 300 * 15.5 / 31
    half: dict[str, Any] = {"starts_at": START + timedelta(days=15), "ends_at": END + timedelta(days=15, hours=12)}
    assert kept("150", **half) == 5000


def test_who_joins_late_has_kept_nothing_of_what_was_gone_by_then() -> None:
    assert kept("0", joined=START + timedelta(days=15)) == 5000
    assert kept("75", joined=START + timedelta(days=15)) == 2500
    assert kept("0", joined=START - timedelta(days=15)) == 10_000
    assert kept("0", joined=END - timedelta(minutes=1)) == 0


def test_a_month_of_the_users_own_calendar_has_the_whole_budget() -> None:
    zone = ZoneInfo("Asia/Tokyo")
    window = {"starts_at": datetime(2026, 11, 1, tzinfo=zone), "ends_at": datetime(2026, 12, 1, tzinfo=zone)}
    tokyo = Frozen("Asia/Tokyo", Decimal(300), ())
    assert kept("150", joined=window["starts_at"], frozen=tokyo, **window) == 5000


def free(days: set[int], *, now: datetime, zone: str = "UTC", joined: datetime = START) -> rules.Measured:
    spent = Spent(days=frozenset(date(2026, 11, day) for day in days))
    return measured(challenge("no_spend_days"), Frozen(zone, None, ()), joined, spent=spent, now=now)


def test_days_count_once_they_have_ended_without_a_spend() -> None:
    assert free(set(), now=START + timedelta(hours=23)).score == 0
    one = free({2}, now=START + timedelta(days=3))
    assert (one.score, one.due_at) == (2, START + timedelta(days=4))
    assert free({1, 5}, now=END).score == 28
    assert free({1, 5}, now=END).due_at is None


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kolkata", "America/New_York"])
def test_a_window_of_whole_days_has_as_many_in_every_zone(zone: str) -> None:
    assert len(days_of(START, END, ZoneInfo(zone))) == 30
    assert free(set(), now=END, zone=zone).score == 30


def test_who_joins_in_the_afternoon_does_not_have_that_day() -> None:
    assert free(set(), now=END, joined=START + timedelta(hours=13)).score == 29


@pytest.mark.parametrize(
    ("measure", "score", "expected"),
    [("savings_progress", 12_500, "1.25"), ("budget_kept", 1, "0.0001"), ("no_spend_days", 20, "0.666667")],
)
def test_progress_is_a_part_of_all(measure: Measure, score: int, expected: str) -> None:
    assert progress(challenge(measure), score) == expected


def test_what_is_shown_names_nobody_but_by_what_they_show() -> None:
    me, other, blocker = (make_address(each) for each in ("me", "other", "blocker"))
    row = challenge(settled_at=END, creator=other, participants=3)
    winners = [
        WinnerRow(other, 1, 20_000, None, "https://elsewhere.example/me.png"),
        WinnerRow(blocker, 2, 10_000, "Blocker", "/media/avatars/1/64.webp"),
        WinnerRow(me, 3, 5_000, "Me", "/media/avatars/2/64.webp"),
    ]
    shown = rules.resource(
        row,
        me,
        part(score=5_000, final_rank=3, amount=Decimal(100)),
        now=END,
        winners=winners,
        hidden={blocker},
        cdn_url="",
    )
    Challenge.model_validate(shown)
    assert "0x" not in repr(shown)
    assert [(each["displayName"], each["avatarUrl"]) for each in shown["winners"]] == [  # type: ignore[attr-defined]  # a list
        ("Someone", None),
        ("Someone", None),
        ("Me", "/media/avatars/2/64.webp"),
    ]
    assert (shown["myRank"], shown["myProgress"], shown["isCreator"], shown["joined"]) == (3, "0.5", False, True)
    left = rules.resource(row, me, part(left_at=START, score=5), now=END, cdn_url="")
    assert (left["joined"], left["myProgress"], left["myRank"]) == (False, None, None)
