from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.chains import Chain, Feed, Token
from handlers.events import BY_NAME
from handlers.resources import Goal
from handlers.rules import goals, push_texts
from handlers.rules.goals import Measured, Occasion, Undoing, look, rebuilt, undo
from handlers.rules.inbox import Inbox, told_id
from handlers.rules.prices import Prices
from store.goals import GoalRow, Link
from store.notifications import Preferences

USER = "0x" + "a1" * 20
USDC, GOLD, DUST = ("0x" + digit * 40 for digit in "cde")
NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)
TODAY = date(2026, 11, 10)
CHAIN = Chain(
    name="devnet",
    id=5,
    rpc=("http://127.0.0.1:1",),
    tokens=(Token(USDC, "USDC", 6, "usd"), Token(GOLD, "GOLD", 18, Feed("0x" + "f" * 40))),
)


def goal(**changes: Any) -> GoalRow:
    made = GoalRow(
        user=USER,
        goal_id="0x" + "60" * 32,
        name="Bike",
        target=Decimal(200),
        started_on=date(2026, 11, 1),
        told_on=TODAY,
        created_at=NOW,
        time_zone="UTC",
        link=Link("bucket", 5, "5:w:u:b"),
        revision=1,
    )
    return replace(made, **changes)


def inbox(*, wanted: bool = True) -> Inbox:
    return Inbox(USER, Preferences({} if wanted else {("goal_milestone", "inbox"): False}), 0)


def seen(row: GoalRow, amount: str, *, block: int = 7, box: Inbox | None = None, **options: Any) -> goals.Looked:
    occasion = Occasion(NOW, {5: block}, f"hash{block}:0", 5)
    return look(row, Measured(Decimal(amount)), occasion, box or inbox(), **options)


def names(drafts: Any) -> list[str]:
    for draft in drafts:
        head = {"id": draft.event_id, "seq": 1, "ts": "2026-11-10T12:00:00.000Z", "v": draft.version}
        BY_NAME[draft.event].model_validate({**head, **draft.body})
    return [draft.event for draft in drafts]


@pytest.mark.parametrize(
    ("current", "target_date", "started", "expected"),
    [
        ("0", None, date(2026, 11, 1), None),
        ("0", TODAY, date(2026, 11, 1), False),  # due today and unmet
        ("199.99", TODAY, TODAY, False),  # even on its first day
        ("200", TODAY, date(2026, 11, 1), True),
        ("250", date(2026, 11, 1), date(2026, 10, 1), True),  # met, and past
        ("100", date(2026, 11, 9), date(2026, 10, 1), False),  # past
        ("0", date(2026, 11, 20), TODAY, True),  # first day: no pace was kept yet
        ("0", date(2026, 11, 20), date(2026, 11, 9), False),
        ("94.74", date(2026, 11, 20), date(2026, 11, 1), True),  # 9 of 19 days: 94.7368…
        ("94.73", date(2026, 11, 20), date(2026, 11, 1), False),
        ("0", date(2026, 11, 20), date(2026, 11, 12), True),  # begun tomorrow, in a zone that was left
    ],
)
def test_on_track_compares_pace_kept_with_pace_needed(
    current: str, target_date: date | None, started: date, expected: bool | None
) -> None:
    row = goal(current=Decimal(current), target_date=target_date, started_on=started)
    assert goals.on_track(row, TODAY) is expected


def test_completed_stays_on_track_when_the_money_is_spent() -> None:
    assert goals.on_track(goal(target_date=TODAY, completed_at=NOW), TODAY) is True


def test_days_are_those_of_the_users_zone() -> None:
    late = datetime(2026, 11, 10, 23, 30, tzinfo=UTC)
    row = goal(target_date=date(2026, 11, 12))
    assert goals.shown(row, late)["daysRemaining"] == 2
    assert goals.shown(replace(row, time_zone="Pacific/Kiritimati"), late)["daysRemaining"] == 1
    assert goals.shown(replace(row, time_zone="Pacific/Pago_Pago"), late)["daysRemaining"] == 2
    assert goals.shown(row, late + timedelta(days=9))["daysRemaining"] == 0
    assert goals.shown(goal(), late)["daysRemaining"] is None


@pytest.mark.parametrize(
    ("current", "ratio", "percent"),
    [
        ("0", "0", 0),
        ("50", "0.25", 25),
        ("199.999999999999999999", "0.999999", 99),
        ("200", "1", 100),
        ("500", "2.5", 100),
        ("-10", "-0.05", 0),
        ("10000000000000000000000000000000000000000.01", "50000000000000000000000000000000000000.00005", 100),
    ],
)
def test_progress_is_one_only_when_the_goal_is_met(current: str, ratio: str, percent: int) -> None:
    row = goal(current=Decimal(current))
    body = goals.resource(row, TODAY)
    Goal.model_validate(body)
    assert (body["progress"], goals.percent(row)) == (ratio, percent)


def test_amount_is_the_worth_of_what_is_held_and_says_what_has_no_price() -> None:
    prices = Prices({(5, GOLD): Decimal("1.5")})
    held = [(USDC, 1_000_001), (GOLD, 2 * 10**18 + 1), (DUST, 7)]
    got = goals.measured(goal(), held, chain=CHAIN, prices=prices)
    assert got == Measured(Decimal("4.000001000000000002"), unpriced=1)  # half to even: 1.5e-18 is 2e-18
    assert goals.measured(goal(), held, chain=CHAIN, prices=Prices()).unpriced == 2


def test_amount_by_hand_or_on_an_unknown_chain_stays() -> None:
    row = goal(current=Decimal(3), unpriced=1)
    assert goals.measured(row, [(USDC, 1)], chain=None, prices=Prices()) == Measured(Decimal(3), 1)
    assert goals.measured(replace(row, link=None), [], chain=None, prices=Prices()).amount == 3


def test_each_milestone_is_told_once_and_the_inbox_hears_of_the_highest() -> None:
    box = inbox()
    first = seen(goal(), "110", box=box)
    assert names(first.drafts) == ["goal_update", "goal_milestone", "goal_milestone", "notification"]
    assert [row.percent for row in first.reached] == [25, 50]
    assert [row.notified for row in first.goal.milestones] == [False, True]
    (notice,) = box.kept
    assert (notice.body, notice.facts["progress"]) == ("You're 55% towards your Bike!", 55)
    assert notice.event_id == first.reached[1].event_id
    assert first.drafts[2].body["milestone"] == 50
    again = seen(first.goal, "110", block=8)
    assert again.drafts == ()
    spent = seen(first.goal, "10", block=9)
    assert names(spent.drafts) == ["goal_update"]
    assert names(seen(spent.goal, "149.99", block=10).drafts) == ["goal_update"]
    assert names(seen(spent.goal, "150", block=10).drafts) == ["goal_update", "goal_milestone", "notification"]


def test_push_of_a_milestone_is_named_without_its_block() -> None:
    subjects, events = set(), set()
    for block in (7, 8):
        box = inbox()
        done = seen(goal(), "50", block=block, box=box)
        (intent,) = box.intents
        subjects.add(intent.subject)
        events |= {draft.event_id for draft in done.drafts}
        text = push_texts.text(intent.kind, intent.facts, locale="en", hide_amounts=True)
        assert text == push_texts.Text("🎯 Goal Milestone!", "You're 25% towards your Bike!")
        data = push_texts.data(intent.kind, intent.facts, event_id=intent.event_id, seq=3)
        assert (data["type"], data["goal_id"], data["progress"]) == ("goal_milestone", goal().goal_id, "25")
        assert (intent.kind, intent.facts["goal_id"]) == ("goal_milestone", goal().goal_id)
    assert len(subjects) == 1
    assert len(events) == 6


def test_who_keeps_milestones_out_of_the_inbox_has_no_notification_to_correct() -> None:
    done = seen(goal(), "50", box=inbox(wanted=False))
    assert names(done.drafts) == ["goal_update", "goal_milestone"]
    back = undo(done.goal, Measured(Decimal(0)), Undoing(5, 7, ("h", 1), [done.drafts[0].event_id]), at=NOW)
    assert back.drafts[0].corrects == (done.drafts[0].event_id, done.drafts[1].event_id)


def test_completed_once_stays_completed_until_it_is_measured_anew() -> None:
    full = seen(goal(), "200").goal
    assert (full.completed_at, full.completed_block) == (NOW, 7)
    spent = seen(full, "0", block=8).goal
    assert spent.completed_at == NOW
    renamed = seen(replace(spent, name="Boat"), "0", block=8, before=spent)
    assert renamed.goal.completed_at == NOW
    raised = seen(replace(spent, target=Decimal(300)), "0", block=8, before=spent)
    assert raised.goal.completed_at is None
    lowered = seen(replace(full, target=Decimal(100)), "200", block=9, before=full).goal
    assert (lowered.completed_at, lowered.completed_block) == (NOW, 9)
    other = seen(replace(full, link=Link("bucket", 5, "other")), "5", block=9, before=full).goal
    assert other.completed_at is None


def test_amount_by_hand_is_a_measure_of_its_own() -> None:
    row = goal(link=None)
    full = look(replace(row, current=Decimal(200)), Measured(Decimal(200)), Occasion(NOW), inbox(), before=row)
    assert (full.goal.completed_at, full.goal.completed_block) == (NOW, None)
    assert [m.chain_id for m in full.reached] == [None] * 4
    less = look(
        replace(full.goal, current=Decimal(1)), Measured(Decimal(1)), Occasion(NOW), inbox(), before=full.goal
    ).goal
    assert less.completed_at is None
    assert len(less.milestones) == 4


def test_edit_that_changes_nothing_is_not_told_and_a_first_look_always_is() -> None:
    row = goal()
    assert seen(row, "0", before=row).drafts == ()
    assert names(seen(replace(row, revision=0), "0").drafts) == ["goal_update"]
    assert names(seen(replace(row, active=False), "180", before=row).drafts) == ["goal_update"]


def test_reorg_takes_back_what_the_block_reached_and_names_it() -> None:
    first = seen(goal(), "60")
    second = seen(first.goal, "110", block=8)
    told = [second.drafts[0].event_id]
    back = undo(second.goal, Measured(Decimal(60)), Undoing(5, 8, ("hash8", 1), told), at=NOW)
    (draft,) = back.drafts
    fifty = second.reached[0].event_id
    assert draft.corrects == (*told, fifty, told_id(USER, fifty))
    assert [row.percent for row in back.gone] == [50]
    assert [row.percent for row in back.goal.milestones] == [25]
    again = seen(back.goal, "110", block=8)
    assert names(again.drafts) == ["goal_update", "goal_milestone", "notification"]


def test_reorg_of_a_spend_leaves_what_was_reached_before_it() -> None:
    first = seen(goal(), "110").goal
    spent = seen(first, "0", block=8)
    back = undo(spent.goal, Measured(Decimal(110)), Undoing(5, 8, ("h", 1), [spent.drafts[0].event_id]), at=NOW)
    assert (len(back.gone), len(back.goal.milestones)) == (0, 2)
    twice = undo(back.goal, Measured(Decimal(0)), Undoing(5, 8, ("h", 1)), at=NOW)
    assert not twice.gone


def test_reorg_takes_back_what_an_edit_after_the_block_told_by_it() -> None:
    row = goal(target=Decimal(1000), current=Decimal(110))
    edited = seen(replace(row, target=Decimal(200)), "110", block=9, before=row).goal
    unrelated = undo(edited, Measured(Decimal(110)), Undoing(5, 9, ("h", 1)), at=NOW)
    assert not unrelated.drafts
    back = undo(edited, Measured(Decimal(0)), Undoing(5, 8, ("h", 1)), at=NOW)
    assert [m.percent for m in back.gone] == [25, 50]
    elsewhere = undo(edited, Measured(Decimal(0)), Undoing(6, 8, ("h", 1)), at=NOW)
    assert not elsewhere.gone


def test_milestone_told_by_a_lower_target_is_not_taken_back_by_a_higher_one() -> None:
    reached = seen(goal(), "110").goal
    raised = seen(replace(reached, target=Decimal(10_000)), "110", block=9, before=reached).goal
    assert not undo(raised, Measured(Decimal(110)), Undoing(5, 7, ("h", 1)), at=NOW).gone


def test_reorg_opens_a_goal_that_its_block_completed() -> None:
    full = seen(goal(), "200").goal
    assert undo(full, Measured(Decimal(199)), Undoing(5, 8, ("h", 1)), at=NOW).goal.completed_at == NOW
    assert undo(full, Measured(Decimal(199)), Undoing(5, 7, ("h", 1)), at=NOW).goal.completed_at is None
    assert undo(full, Measured(Decimal(199)), Undoing(6, 7, ("h", 1)), at=NOW).goal.completed_at == NOW


def test_rebuild_takes_back_what_was_believed_and_leaves_what_was_spent() -> None:
    full = seen(goal(), "200").goal
    wrong = rebuilt(full, Measured(Decimal(110)), Undoing(5, 0, ("rebuild",)), at=NOW)
    assert ([m.percent for m in wrong.gone], wrong.goal.completed_at) == ([75, 100], None)
    spent = seen(full, "110", block=8).goal
    right = rebuilt(spent, Measured(Decimal(110)), Undoing(5, 0, ("rebuild",)), at=NOW)
    assert (right.gone, right.goal.completed_at, right.drafts) == ((), NOW, ())


amounts = st.integers(0, 250).map(lambda n: str(n))


@given(st.lists(amounts, min_size=1, max_size=12))
def test_whatever_comes_and_goes_each_milestone_is_told_once(history: list[str]) -> None:
    row, told = goal(), []
    for block, amount in enumerate(history):
        done = seen(row, amount, block=block)
        row = done.goal
        told += [draft.body["milestone"] for draft in done.drafts if draft.event == "goal_milestone"]
    highest = max(map(int, history))
    assert told == [percent for percent in (25, 50, 75, 100) if highest >= 2 * percent]
    assert (row.completed_at is not None) == (highest >= 200)
