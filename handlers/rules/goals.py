"""Savings goals: how far they are, whether they are on track, what of that is told, and what a reorg takes back. Pure.

A milestone is told once: money that is spent later leaves it, and so does an edit. Only what takes the money back that
reached it (a reorg, a rebuild) takes the milestone back, and then it may be told again. Completed stays completed the
same way; an edit of what is measured (target, link, amount kept by hand) measures that anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import ROUND_FLOOR, Decimal
from zoneinfo import ZoneInfo

from config.chains import Chain
from handlers.events import GoalMilestone, GoalUpdate
from handlers.rules.ids import event_id
from handlers.rules.inbox import Inbox, told_id
from handlers.rules.money import RATIO_PLACES, dollars
from handlers.rules.periods import iso
from handlers.rules.prices import EXACT, Prices
from handlers.rules.wire import ratio
from store.goals import GoalRow, Kind, Link, MilestoneRow
from store.notifications import Notice
from store.records import Address, Draft
from store.yields import Position

MILESTONES = (25, 50, 75, 100)
"""Percent of the target."""

POSITIONS: Collection[Kind] = ("lock", "vault")
"""Links whose money is in a position."""

MILESTONE_KIND = "goal_milestone"


@dataclass(frozen=True, slots=True)
class Measured:
    """What is behind a goal, in dollars; `unpriced` amounts are not in it. Yield and APY of a link that earns."""

    amount: Decimal
    unpriced: int = 0
    yield_earned: Decimal | None = None
    apy: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Occasion:
    """When and why goals are looked at: a block (`cause` as the log keeps it, and its chain), or none."""

    at: datetime
    heights: Mapping[int, int] = field(default_factory=dict)
    """Block that each chain's ledger stands at."""
    cause: str | None = None
    chain_id: int | None = None


@dataclass(frozen=True, slots=True)
class Looked:
    """A goal as it is now, and what to tell of it: nothing where nobody sees a difference."""

    goal: GoalRow
    drafts: Sequence[Draft] = ()
    reached: Sequence[MilestoneRow] = ()


@dataclass(frozen=True, slots=True)
class Corrected:
    """A goal without what was taken back, and what to tell of that; `gone` are milestones that may be told again."""

    goal: GoalRow
    drafts: Sequence[Draft] = ()
    gone: Sequence[MilestoneRow] = ()


@dataclass(frozen=True, slots=True)
class Undoing:
    """A block that is taken back: its chain, its number, and what tells this correction from every other."""

    chain_id: int
    number: int
    cause: Sequence[object]
    told: Collection[str] = ()
    """Ids of what the block told that is certainly gone: its `goal_update` events."""


def measured(
    goal: GoalRow,
    held: Iterable[tuple[Address, int]],
    *,
    chain: Chain | None,
    prices: Prices,
    position: Position | None = None,
) -> Measured:
    """What is behind a goal; of one kept by hand, or on a chain that left the table, what there was."""
    if goal.link is None or chain is None:
        return Measured(goal.current, goal.unpriced, goal.yield_earned, goal.apy)
    if goal.link.kind in POSITIONS:
        return _invested(position, chain, prices)
    values = [prices.usd(chain, token, raw) for token, raw in held]
    amount = Decimal(0)
    for value in values:
        amount = EXACT.add(amount, value or Decimal(0))
    return Measured(amount, unpriced=values.count(None))


def _invested(position: Position | None, chain: Chain, prices: Prices) -> Measured:
    """A position as it was told last, at these prices; nothing where a reorg took it away."""
    if position is None:
        return Measured(Decimal(0))
    value, earned = (
        None if raw is None else prices.usd(chain, position.asset, raw) for raw in (position.value, position.earned)
    )
    unpriced = int(value is None and position.is_open)
    return Measured(value or Decimal(0), unpriced, earned, position.apy if position.is_open else None)


# How a goal stands -------------------------------------------------------------------------------------------------


def day_of(moment: datetime, zone: str) -> date:
    """The day that it is in a zone."""
    return moment.astimezone(ZoneInfo(zone)).date()


def days_remaining(goal: GoalRow, today: date) -> int | None:
    """Days until the goal is due; 0 from that day on, None without a date."""
    return None if goal.target_date is None else max(0, (goal.target_date - today).days)


def on_track(goal: GoalRow, today: date) -> bool | None:
    """Whether the pace kept since the goal began is the pace needed from now on; None without a date.

    On its first day no pace was kept yet, and it is on track. Due today, or earlier, and unmet it is not.
    """
    left = days_remaining(goal, today)
    if left is None:
        return None
    if goal.completed_at is not None or goal.current >= goal.target:
        return True
    gone = (today - goal.started_on).days
    if gone <= 0:
        return left > 0
    # kept = current / gone, needed = missing / left, both without dividing
    missing = EXACT.subtract(goal.target, goal.current)
    return EXACT.multiply(goal.current, Decimal(left)) >= EXACT.multiply(missing, Decimal(gone))


def progress(goal: GoalRow) -> Decimal:
    """Part of the target that is there, rounded down: it is 1 only when the goal is met. More than 1 is possible."""
    part = EXACT.divide(goal.current, goal.target)
    return part.quantize(Decimal(1).scaleb(-RATIO_PLACES), ROUND_FLOOR, EXACT)


def percent(goal: GoalRow) -> int:
    """Progress for people: whole percent, 0 to 100."""
    return max(0, min(100, int(progress(goal) * 100)))


def amount_of(goal: GoalRow, milestone: int) -> Decimal:
    """Dollars that a milestone asks for."""
    return EXACT.scaleb(EXACT.multiply(goal.target, Decimal(milestone)), -2)


def resource(goal: GoalRow, today: date) -> dict[str, object]:
    """A goal as it goes on the wire, as of a day of its user's."""
    return {
        "goalId": goal.goal_id,
        "name": goal.name,
        "progress": ratio(progress(goal)),
        "currentAmount": dollars(goal.current),
        "targetAmount": dollars(goal.target),
        "targetDate": goal.target_date.isoformat() if goal.target_date else None,
        "daysRemaining": days_remaining(goal, today),
        "onTrack": on_track(goal, today),
        "category": None if goal.category_id is None else {"id": goal.category_id, "name": goal.category},
        "yieldEarned": dollars(goal.yield_earned or Decimal(0)),
        "apy": None if goal.apy is None else ratio(goal.apy),
        "unpriced": goal.unpriced,
        "link": _link(goal.link),
        "milestones": [each.percent for each in goal.milestones],
        "isCompleted": goal.completed_at is not None,
        "completedAt": iso(goal.completed_at) if goal.completed_at else None,
        "isActive": goal.active,
    }


def impact(goal: GoalRow, usd: Decimal | None, now: datetime) -> dict[str, object]:
    """What it would do to a goal if so many dollars of its bucket were spent; None: the token has no price."""
    today = day_of(now, goal.time_zone)
    after = goal if usd is None else replace(goal, current=EXACT.subtract(goal.current, usd))
    return {
        "goalId": goal.goal_id,
        "name": goal.name,
        "progressBefore": ratio(progress(goal)),
        "progressAfter": None if usd is None else ratio(progress(after)),
        "onTrackBefore": on_track(goal, today),
        "onTrackAfter": None if usd is None else on_track(after, today),
    }


def shown(goal: GoalRow, now: datetime) -> dict[str, object]:
    """A goal as it goes on the wire now."""
    return resource(goal, day_of(now, goal.time_zone))


def _link(link: Link | None) -> dict[str, object] | None:
    return None if link is None else {"kind": link.kind, "chainId": link.chain_id, "id": link.id}


# What is told ------------------------------------------------------------------------------------------------------


def look(
    goal: GoalRow, measured: Measured, occasion: Occasion, inbox: Inbox, *, before: GoalRow | None = None
) -> Looked:
    """A goal by what is behind it now: `goal_update` where that shows, and each milestone that it reaches.

    `before`: the goal as it was last told, where the user has just edited it. A goal never told has revision 0.
    """
    known = before or goal
    after = _measured(goal, known, measured, occasion)
    reached = [each for each in MILESTONES if _reaches(after, each)]
    today = after.told_on
    if known.revision and not reached and resource(after, today) == resource(known, known.told_on):
        return Looked(after)
    after = replace(after, revision=after.revision + 1)
    rows = [_milestone(after, each, occasion) for each in reached]
    notice = _notice(after, rows[-1], at=occasion.at) if rows else None
    added = inbox.add(notice, occasion.cause) if notice else []
    if added:
        rows[-1] = replace(rows[-1], notified=True)
    after = replace(after, milestones=(*after.milestones, *rows))
    key = event_id(GoalUpdate.name, after.user, after.goal_id, occasion.cause, after.revision)
    drafts = [_draft(after, key, GoalUpdate.name, {"goal": resource(after, today)}, occasion)]
    drafts += [_draft(after, row.event_id, GoalMilestone.name, _milestone_body(after, row), occasion) for row in rows]
    drafts += [replace(draft, chain_id=occasion.chain_id) for draft in added]
    return Looked(after, drafts, rows)


def _measured(goal: GoalRow, known: GoalRow, measured: Measured, occasion: Occasion) -> GoalRow:
    after = replace(
        goal,
        current=measured.amount,
        unpriced=measured.unpriced,
        yield_earned=measured.yield_earned,
        apy=measured.apy,
        told_on=day_of(occasion.at, goal.time_zone),
    )
    by_hand = goal.link is None and measured.amount != known.current
    is_anew = by_hand or (goal.target, goal.link) != (known.target, known.link)
    if after.current < after.target:
        return replace(after, completed_at=None, completed_block=None) if is_anew else after
    if after.completed_at is not None and not is_anew:
        return after
    return replace(after, completed_at=after.completed_at or occasion.at, completed_block=_height(after, occasion))


def _reaches(goal: GoalRow, milestone: int) -> bool:
    known = {each.percent for each in goal.milestones}
    return goal.active and milestone not in known and goal.current >= amount_of(goal, milestone)


def _height(goal: GoalRow, occasion: Occasion) -> int | None:
    return None if goal.link is None else occasion.heights.get(goal.link.chain_id)


def _milestone(goal: GoalRow, milestone: int, occasion: Occasion) -> MilestoneRow:
    height = _height(goal, occasion)
    return MilestoneRow(
        percent=milestone,
        event_id=event_id(GoalMilestone.name, goal.user, goal.goal_id, milestone, occasion.cause, goal.revision),
        notified=False,
        amount=amount_of(goal, milestone),
        chain_id=goal.link.chain_id if goal.link and height is not None else None,
        block_number=height,
    )


def _milestone_body(goal: GoalRow, row: MilestoneRow) -> dict[str, object]:
    return {
        "goalId": goal.goal_id,
        "goalName": goal.name,
        "milestone": row.percent,
        "progress": ratio(progress(goal)),
        "currentAmount": dollars(goal.current),
        "targetAmount": dollars(goal.target),
    }


def _notice(goal: GoalRow, row: MilestoneRow, *, at: datetime) -> Notice:
    """The inbox entry of the highest milestone reached at once; a phone is told once of it, whatever block it is in."""
    reached = percent(goal)
    return Notice(
        user=goal.user,
        event_id=row.event_id,
        kind=MILESTONE_KIND,
        title="Goal Milestone!",
        body=f"You're {reached}% towards your {goal.name}!",
        severity="info",
        transaction_id=None,
        created_at=at,
        facts={"goal_id": goal.goal_id, "goal_name": goal.name, "progress": reached},
        subject=f"goal:{goal.goal_id}:{row.percent}",
    )


def _draft(goal: GoalRow, key: str, event: str, body: Mapping[str, object], occasion: Occasion) -> Draft:
    return Draft(
        user=goal.user,
        event_id=key,
        event=event,
        version=1,
        body=body,
        chain_id=occasion.chain_id,
        cause=occasion.cause,
    )


# What is taken back ------------------------------------------------------------------------------------------------


def undo(goal: GoalRow, measured: Measured, undoing: Undoing, *, at: datetime) -> Corrected:
    """A goal without a block. What was told by the state at that block or after it, and holds no longer, is corrected.

    Nothing new is told here: what a reorg makes true is told when the goal is looked at next.
    """
    gone = [
        each
        for each in goal.milestones
        if each.block_number is not None
        and each.chain_id == undoing.chain_id
        and each.block_number >= undoing.number
        and measured.amount < each.amount
    ]
    here = goal.link is not None and goal.link.chain_id == undoing.chain_id
    is_open = here and goal.completed_block is not None and goal.completed_block >= undoing.number
    return _corrected(goal, measured, gone, undoing, at=at, reopened=is_open and measured.amount < goal.target)


def rebuilt(goal: GoalRow, measured: Measured, undoing: Undoing, *, at: datetime) -> Corrected:
    """A goal whose link's past was rebuilt: what held by the state as it was believed, and does not now, is gone."""
    gone = [
        each
        for each in goal.milestones
        if each.chain_id == undoing.chain_id and measured.amount < each.amount <= goal.current
    ]
    fell = goal.completed_block is not None and measured.amount < goal.target <= goal.current
    return _corrected(goal, measured, gone, undoing, at=at, reopened=fell)


def _corrected(
    goal: GoalRow, measured: Measured, gone: Sequence[MilestoneRow], undoing: Undoing, *, at: datetime, reopened: bool
) -> Corrected:
    today = day_of(at, goal.time_zone)
    after = replace(
        goal,
        current=measured.amount,
        unpriced=measured.unpriced,
        yield_earned=measured.yield_earned,
        apy=measured.apy,
        told_on=today,
        completed_at=None if reopened else goal.completed_at,
        completed_block=None if reopened else goal.completed_block,
        milestones=tuple(each for each in goal.milestones if each not in gone),
    )
    corrects = [*undoing.told, *_told_by(goal, gone)]
    if not corrects and resource(after, today) == resource(goal, goal.told_on):
        return Corrected(after)
    after = replace(after, revision=goal.revision + 1)
    draft = Draft(
        user=goal.user,
        event_id=event_id(GoalUpdate.name, goal.user, goal.goal_id, "corrects", *undoing.cause, after.revision),
        event=GoalUpdate.name,
        version=GoalUpdate.version,
        body={"goal": resource(after, today)},
        corrects=tuple(corrects),
        chain_id=undoing.chain_id,
    )
    return Corrected(after, [draft], gone)


def _told_by(goal: GoalRow, gone: Iterable[MilestoneRow]) -> list[str]:
    """Every event that told of these milestones."""
    return [
        key
        for each in gone
        for key in (each.event_id, *((told_id(goal.user, each.event_id),) if each.notified else ()))
    ]
