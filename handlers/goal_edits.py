"""Savings goals as their users make, edit and delete them: one transaction under the user's lock, told after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from hashlib import sha256
from secrets import token_hex
from typing import Any

from handlers.committed import request_evaluation
from handlers.deps import Deps
from handlers.errors import Conflict, FieldError, Invalid, PreconditionFailed
from handlers.goals import Shown, look_at, own
from handlers.rules.goals import day_of, shown
from store import categories, log, yields
from store import goals as rows
from store.goals import GoalRow, Kind, Link
from store.postgres import Tx, in_transaction
from store.records import Address, Frame

MAX_GOALS = 100
"""Active goals of one user: all of them are looked at when a block moves anything of theirs."""
FURTHEST_YEARS = 100
"""A date further away is a slip of the finger."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A link that a user asks for. `id` None: the goal's own id (v2); `chain_id` None: that of the id."""

    kind: Kind
    chain_id: int | None
    id: str | None


@dataclass(frozen=True, slots=True)
class Base:
    """A goal to make; amounts are dollars, `current` counts where there is no link."""

    name: str
    target: Decimal
    current: Decimal
    target_date: date | None
    category_id: str | None
    link: Wanted | None


# What users change -------------------------------------------------------------------------------------------------


async def create(deps: Deps, user: Address, base: Base, *, cause: str | None = None) -> Shown:
    """Make a goal; raises Invalid or Conflict. The same `cause` makes one goal."""

    async def change(tx: Tx, now: datetime) -> tuple[GoalRow, GoalRow | None]:
        goals = await rows.of_users(tx, [user], also=[goal_id := _id_of(user, cause)])
        made = next((goal for goal in goals if goal.goal_id == goal_id), None)
        if made is not None and made.active:
            return made, made  # the call died after this; it runs again for its answer
        if made is not None:
            goal_id = _id_of(user, None)
        if sum(goal.active for goal in goals) >= MAX_GOALS:
            raise Conflict(f"You have {MAX_GOALS} goals; delete one first.")
        zone = await rows.zone(tx, user) or "UTC"
        today = day_of(now, zone)
        _check_date(base.target_date, today)
        goal = GoalRow(
            user=user,
            goal_id=goal_id,
            name=base.name,
            target=base.target,
            current=base.current,
            target_date=base.target_date,
            category_id=base.category_id,
            category=await _category(tx, user, base.category_id),
            link=await _linked(deps, tx, user, goals, goal_id, base.link),
            started_on=today,
            told_on=today,
            created_at=now,
            time_zone=zone,
        )
        return goal, None

    return await _changed(deps, user, change)


async def edit(
    deps: Deps, user: Address, goal_id: str, changes: Mapping[str, Any], *, unless: Callable[[Shown], bool]
) -> Shown:
    """Change fields of Base; raises NotFound, Invalid, Conflict, and PreconditionFailed where `unless` says so."""

    async def change(tx: Tx, now: datetime) -> tuple[GoalRow, GoalRow | None]:
        before = await own(tx, user, goal_id)
        if unless(shown(before, now)):
            raise PreconditionFailed("The goal was changed meanwhile; read it again.")
        after = replace(
            before, **{name: changes[name] for name in ("name", "target", "target_date") if name in changes}
        )
        if after.target_date != before.target_date:
            _check_date(after.target_date, day_of(now, before.time_zone))
        if changes.get("category_id", before.category_id) != before.category_id:
            name = await _category(tx, user, changes["category_id"])
            after = replace(after, category_id=changes["category_id"], category=name)
        if "link" in changes:
            goals = await rows.of_users(tx, [user])
            after = replace(after, link=await _linked(deps, tx, user, goals, goal_id, changes["link"]))
        if after.link != before.link:
            await rows.unlink_milestones(tx, before)
        if "current" in changes:
            after = _by_hand(after, changes["current"])
        return after, before

    return await _changed(deps, user, change)


def _by_hand(goal: GoalRow, amount: Decimal) -> GoalRow:
    if goal.link is not None:
        raise Invalid(
            "The goal's link keeps its amount.", errors=[FieldError("/currentAmount", "is kept by the goal's link")]
        )
    return replace(goal, current=amount, unpriced=0)


async def delete(deps: Deps, user: Address, goal_id: str) -> None:
    """Delete a goal: it is told as inactive, and its link is free for another. Raises NotFound."""

    async def change(tx: Tx, _now: datetime) -> tuple[GoalRow, GoalRow | None]:
        before = await own(tx, user, goal_id)
        return replace(before, active=False), before

    await _changed(deps, user, change)


async def _changed(
    deps: Deps, user: Address, change: Callable[[Tx, datetime], Awaitable[tuple[GoalRow, GoalRow | None]]]
) -> Shown:
    """One transaction under the user's lock; `change` gives the goal as it is to be, and as it was."""

    async def body(tx: Tx) -> tuple[Shown, list[Frame]]:
        counters = await log.lock(tx, [user])
        now = deps.now()
        (goal,), frames = await look_at(deps, tx, counters, [await change(tx, now)], now=now)
        await request_evaluation(tx, [user])
        return shown(goal, now), frames

    answer, frames = await in_transaction(deps.pool, body)
    await deps.publisher.publish([(frame.user, frame.text) for frame in frames])
    return answer


# What may be asked for ---------------------------------------------------------------------------------------------


def _id_of(user: Address, cause: str | None) -> str:
    """32 bytes, so that the planned contract can call the goal by it."""
    return "0x" + (token_hex(32) if cause is None else sha256(f"goal\0{user}\0{cause}".encode()).hexdigest())


def _check_date(day: date | None, today: date) -> None:
    if day is None or (today <= day and day.year <= today.year + FURTHEST_YEARS):
        return
    words = "is past" if day < today else f"is more than {FURTHEST_YEARS} years away"
    raise Invalid("The goal can't be due then.", errors=[FieldError("/targetDate", words)])


async def _category(tx: Tx, user: Address, category_id: str | None) -> str | None:
    """The category's name as the user sees it."""
    if category_id is None:
        return None
    row = await categories.one(tx, user, category_id)
    if row is None or not row.is_active:
        words = "is not one of your categories"
        raise Invalid("The goal can't have this category.", errors=[FieldError("/categoryId", words)])
    return row.custom_name or row.name


async def _linked(
    deps: Deps, tx: Tx, user: Address, goals: Iterable[GoalRow], goal_id: str, wanted: Wanted | None
) -> Link | None:
    """The link that is asked for, if it is there, the user's own, and keeps no other goal."""
    if wanted is None:
        return None
    link = await _found(deps, tx, user, goal_id, wanted)
    if link is None:
        words = f"is no {wanted.kind} of yours" if wanted.kind != "v2" else "names no chain of ours"
        raise Invalid("The goal can't have this link.", errors=[FieldError("/link", words)])
    if any(goal.active and goal.link == link and goal.goal_id != goal_id for goal in goals):
        raise Conflict("Another goal of yours has this link.", errors=[FieldError("/link", "keeps another goal")])
    return link


async def _found(deps: Deps, tx: Tx, user: Address, goal_id: str, wanted: Wanted) -> Link | None:
    if wanted.kind == "v2":
        known = wanted.chain_id in deps.chains
        return Link("v2", wanted.chain_id, wanted.id or goal_id) if known and wanted.chain_id is not None else None
    if wanted.id is None:
        return None
    if wanted.kind != "bucket":
        positions = await yields.positions_of(tx, [user])
        one = next((p for p in positions if (p.position_id, p.kind) == (wanted.id, wanted.kind)), None)
        if one is None or one.chain_id not in deps.chains or wanted.chain_id not in (None, one.chain_id):
            return None
        return Link(wanted.kind, one.chain_id, one.position_id)
    head = wanted.id.partition(":")[0]
    chain_id = int(head) if head.isascii() and head.isdigit() and len(head) <= 18 else 0
    if chain_id not in deps.chains or wanted.chain_id not in (None, chain_id):
        return None
    own = await rows.has_bucket(tx, user, wanted.id, chain_id=chain_id)
    return Link("bucket", chain_id, wanted.id) if own else None
