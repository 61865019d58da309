"""Savings goals: read by their users, and looked at in the transaction that moves the money behind them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson

from config.chains import Chain
from handlers.deps import Deps
from handlers.errors import NotFound
from handlers.events import GoalMilestone, GoalUpdate, UnreadCount
from handlers.one_by_one import one_by_one
from handlers.rules import savings
from handlers.rules.book import Book
from handlers.rules.goals import (
    POSITIONS,
    Corrected,
    Looked,
    Measured,
    Occasion,
    Undoing,
    day_of,
    look,
    measured,
    rebuilt,
    shown,
    undo,
)
from handlers.rules.ids import event_id
from handlers.rules.inbox import Inbox, unread_body
from handlers.rules.prices import Prices
from store import accounts, cursors, log, notifications, pushes, yields
from store import goals as rows
from store import prices as feeds
from store.cursors import RevertedBlock
from store.goals import GoalRow, Key
from store.log import Counter, Told
from store.postgres import Pool, Tx
from store.records import Address, Draft, Frame
from store.yields import PositionKey

Shown = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Page:
    """Some goals, and where the next page begins (None: there is none)."""

    resources: Sequence[Shown]
    next: tuple[datetime, str] | None


# What users read ---------------------------------------------------------------------------------------------------


async def listed(conn: Tx | Pool, user: Address, *, at: datetime) -> list[Shown]:
    """A user's goals as they were last looked at, in the order they were made; days are counted to `at`."""
    return [shown(goal, at) for goal in await rows.of_users(conn, [user])]


async def page(deps: Deps, user: Address, *, after: tuple[datetime, str] | None, limit: int) -> Page:
    """Some of a user's goals, in the order they were made, beginning after a place."""
    goals = [g for g in await rows.of_users(deps.pool, [user]) if after is None or (g.created_at, g.goal_id) > after]
    last = goals[limit - 1] if len(goals) > limit else None
    now = deps.now()
    return Page([shown(goal, now) for goal in goals[:limit]], (last.created_at, last.goal_id) if last else None)


async def read(deps: Deps, user: Address, goal_id: str) -> Shown:
    """One goal; raises NotFound for a deleted one too."""
    return shown(await own(deps.pool, user, goal_id), deps.now())


async def own(conn: Tx | Pool, user: Address, goal_id: str) -> GoalRow:
    """One active goal of a user; raises NotFound."""
    goals = await rows.of_users(conn, [user])
    goal = next((goal for goal in goals if goal.goal_id == goal_id), None)
    if goal is None:
        raise NotFound("There is no goal of yours with this id.")
    return goal


async def block(deps: Deps, user: Address) -> dict[str, object]:
    """The savings block with its insights."""
    goals = await rows.of_users(deps.pool, [user])
    zone = await rows.zone(deps.pool, user)
    today = day_of(deps.now(), zone or "UTC")
    return {**savings.block(goals, today), "insights": savings.insights(goals, today)}


# What the chain does to them ---------------------------------------------------------------------------------------


async def after_block(tx: Tx, book: Book) -> None:
    """Look at the goals of a block's users once its rows are written; asks nothing for users without goals."""
    users = [user for user, purse in book.purses.items() if purse.has_goals]
    drifted = {key.user for key in book.holdings.drifted} - book.purses.keys()
    if not users and not drifted:
        return
    chain_id = book.chain.id
    found = await rows.of_users(tx, [*users, *drifted])
    goals = [goal for goal in found if goal.link is not None and goal.link.chain_id == chain_id]
    alone = {goal.user for goal in goals} - book.inboxes.keys()  # nothing of theirs but a price moved
    book.inboxes = {**book.inboxes, **await _inboxes(tx, alone)}
    behind = await _measure(tx, goals, {chain_id: book.chain}, book.prices)
    occasion = Occasion(book.now, {chain_id: book.block.number}, book.cause, chain_id)
    looks = [look(goal, behind[goal.key], occasion, book.inboxes[goal.user]) for goal in goals]
    await _save(tx, looks, goals, at=book.now)
    book.drafts += [draft for each in looks for draft in each.drafts]


async def after_revert(
    tx: Tx,
    chain: Chain,
    block: RevertedBlock,
    *,
    users: Iterable[Address],
    told: Iterable[Told],
    prices: Prices,
    now: datetime,
) -> dict[Address, list[Corrected]]:
    """Goals without a block that was just taken back; `users` are those with goals, `told` is what it told anyone."""
    updates = _updates(told)
    owners = {*users, *(user for user, _ in updates)}
    if not owners:
        return {}
    found = await rows.of_users(tx, owners, also=[goal_id for _, goal_id in updates])
    goals = [g for g in found if g.key in updates or (g.active and g.link and g.link.chain_id == chain.id)]
    behind = await _measure(tx, goals, {chain.id: chain}, prices)
    cause = (block.ref.hash, block.generation)
    made: dict[Address, list[Corrected]] = {}
    for goal in goals:
        undoing = Undoing(chain.id, block.ref.number, cause, updates.get(goal.key, ()))
        made.setdefault(goal.user, []).append(undo(goal, behind[goal.key], undoing, at=now))
    await _correct(tx, [each for every in made.values() for each in every])
    savers = {g.user for g in goals if g.active and g.link and g.link.chain_id == chain.id}
    await accounts.add_missing(tx, chain.id, block.parent.number, [(user, "savings") for user in sorted(savers)])
    return made


async def after_rebuild(tx: Tx, chain: Chain, users: Iterable[Address], *, cause: str, now: datetime) -> list[Draft]:
    """Goals of users whose past on a chain was rebuilt: what was told by mistake is corrected, nothing new is told."""
    found = await rows.of_users(tx, users)
    goals = [goal for goal in found if goal.link is not None and goal.link.chain_id == chain.id]
    behind = await _measure(tx, goals, {chain.id: chain}, Prices(await feeds.latest(tx)))
    undoing = Undoing(chain.id, 0, ("rebuild", cause))
    made = [rebuilt(goal, behind[goal.key], undoing, at=now) for goal in goals]
    await _correct(tx, made)
    drafts = [draft for each in made for draft in each.drafts]
    for user in sorted({each.goal.user for each in made if each.gone}):
        gone = [milestone.event_id for each in made if each.goal.user == user for milestone in each.gone]
        await pushes.take_back(tx, user, gone, at=now)
        if await notifications.correct(tx, user, gone, at=now):
            left = (await notifications.unread(tx, [user]))[user]
            key = event_id(UnreadCount.name, user, "corrects", *undoing.cause, *gone)
            drafts.append(Draft(user, key, UnreadCount.name, UnreadCount.version, unread_body(left), chain_id=chain.id))
    return drafts


def _updates(told: Iterable[Told]) -> dict[Key, list[str]]:
    """Goals that a block told of, each with its `goal_update` events there."""
    found: dict[Key, list[str]] = {}
    for entry in told:
        if entry.event == GoalUpdate.name:
            goal_id = orjson.loads(entry.payload)["goal"]["goalId"]
            found.setdefault((entry.user, goal_id), []).append(entry.event_id)
        elif entry.event == GoalMilestone.name:
            found.setdefault((entry.user, orjson.loads(entry.payload)["goalId"]), [])
    return found


async def begin_days(deps: Deps, *, limit: int) -> int:
    """Look at the goals of users whose day has ended, at most `limit` of them; returns at how many users'."""
    due = await rows.days_over(deps.pool, deps.now(), limit=limit)

    async def begin(tx: Tx, counters: Mapping[Address, Counter]) -> list[Frame]:
        goals = [(goal, goal) for goal in await rows.of_users(tx, counters)]
        _, frames = await look_at(deps, tx, counters, goals, now=deps.now())
        return frames

    return await one_by_one(deps, [(user, begin) for user in due], name="begin_days")


async def look_at(
    deps: Deps,
    tx: Tx,
    counters: Mapping[Address, Counter],
    changes: Sequence[tuple[GoalRow, GoalRow | None]],
    *,
    now: datetime,
) -> tuple[list[GoalRow], list[Frame]]:
    """Look at one user's goals (after, before) by what is behind them now, save them, and append what is told."""
    (user,) = counters
    goals = [after for after, _ in changes]
    inbox = (await _inboxes(tx, [user]))[user]
    behind = await _measure(tx, goals, deps.chains, Prices(await feeds.latest(tx)))
    heights = {chain_id: cursor.number for chain_id, cursor in (await cursors.cursors(tx)).items()}
    occasion = Occasion(now, heights)
    looks = [look(goal, behind[goal.key], occasion, inbox, before=before) for goal, before in changes]
    await _save(tx, looks, [before for _, before in changes if before is not None], at=now)
    linked = {g.link.chain_id for g, before in changes if g.link and (before is None or before.link != g.link)}
    for chain_id in sorted(linked):
        await accounts.add_missing(tx, chain_id, heights.get(chain_id, 0), [(user, "savings")])
    await notifications.record(tx, inbox.kept)
    frames = await log.append(tx, counters, [draft for each in looks for draft in each.drafts], at=now)
    await pushes.record(tx, inbox.intents, at=now, hold_s=deps.settings.push_hold_s)
    return [each.goal for each in looks], frames


async def _inboxes(tx: Tx, users: Collection[Address]) -> dict[Address, Inbox]:
    if not users:
        return {}
    allowed, unread = await notifications.allowed(tx, users), await notifications.unread(tx, users)
    return {user: Inbox(user, allowed[user], unread[user]) for user in users}


async def _measure(
    tx: Tx, goals: Sequence[GoalRow], chains: Mapping[int, Chain], prices: Prices
) -> dict[Key, Measured]:
    """What is behind these goals now; amounts on other chains than these stay as they were."""
    held = await rows.held(tx, goals)
    investors = sorted({goal.user for goal in goals if goal.link and goal.link.kind in POSITIONS})
    positions = {one.key: one for one in await yields.positions_of(tx, investors)} if investors else {}
    return {
        goal.key: measured(
            goal,
            held.get(goal.key, ()),
            chain=chains.get(goal.link.chain_id) if goal.link else None,
            prices=prices,
            position=positions.get(PositionKey(goal.user, goal.link.id)) if goal.link else None,
        )
        for goal in goals
    }


async def _save(tx: Tx, looks: Sequence[Looked], before: Iterable[GoalRow], *, at: datetime) -> None:
    known = {goal.key: goal for goal in before}
    await rows.save(tx, [each.goal for each in looks if each.goal != known.get(each.goal.key)])
    await rows.keep_milestones(tx, {each.goal.key: each.reached for each in looks}, at=at)


async def _correct(tx: Tx, corrected: Sequence[Corrected]) -> None:
    await rows.save(tx, [each.goal for each in corrected])
    await rows.drop_milestones(tx, {each.goal.key: each.gone for each in corrected})
