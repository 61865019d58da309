"""Budgets of signed-in users: their purses loaded and saved around a block or a change, and what REST asks of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from handlers.committed import request_evaluation
from handlers.deps import Deps
from handlers.errors import FieldError, Invalid, NotFound
from handlers.events import BudgetUpdate
from handlers.one_by_one import one_by_one
from handlers.rules.alerts import Edge
from handlers.rules.budget_impact import bucket_impact
from handlers.rules.calendar import Month, month_of
from handlers.rules.categorize import Assignment, Habits, Subject, features_of
from handlers.rules.goals import impact
from handlers.rules.ids import event_id
from handlers.rules.looks import Look, amounts_of, looks_of
from handlers.rules.money import amount as token_amount
from handlers.rules.money import dollars
from handlers.rules.month_budget import Figure, overrun, safe_per_day, status, utilization
from handlers.rules.month_profile import profiles_of
from handlers.rules.periods import is_due
from handlers.rules.prices import Prices
from handlers.rules.purse import Decided, Place, Purse, budgets_of
from store import budgets, goals, log, prices, spending
from store.budgets import AssignedRow, EdgeRow, PersonRow
from store.log import Counter
from store.postgres import Pool, Tx, frozen, in_transaction
from store.records import Address, BalanceKey, Draft, Frame

EDGES_SINCE = timedelta(days=32)
"""Age of the oldest period that may still be open: a month, or a bucket's 30 days."""


async def load(
    tx: Tx | Pool,
    users: Iterable[Address],
    *,
    at: datetime,
    asked: Mapping[Address, Mapping[str, Subject]] | None = None,
    transactions: Sequence[tuple[Address, str]] = (),
    memos: Mapping[Address, Mapping[str, str]] | None = None,
    cdn_url: str = "",
) -> dict[Address, Purse]:
    """Purses of the signed-in ones among these users, with the figures of the month that `at` lies in.

    `cdn_url` prefixes icons, where categories are shown. `asked`: what is to be categorised by transaction id, so that
    history is read for it; `transactions`: (user, id) whose category may be known already.
    """
    people = await budgets.people(tx, users)
    if not people:
        return {}
    known = [person.user for person in people]
    rows, customs = await budgets.looks(tx, known)
    looks = looks_of(known, rows, customs, cdn_url=cdn_url)
    amounts = amounts_of(customs)
    habits = await _habits(tx, [person.user for person in people if person.has_habits], asked or {})
    months = {zone: month_of(at, ZoneInfo(zone)) for zone in {person.time_zone for person in people}}
    purses = {
        person.user: _purse(person, months[person.time_zone], looks, amounts, habits, memos or {}) for person in people
    }
    for user, subjects in (asked or {}).items():
        if user in purses:
            purses[user].asked = subjects
    await _fill_figures(tx, purses)
    for row in await budgets.assigned(tx, [pair for pair in transactions if pair[0] in purses]):
        purses[row.user].decided[row.transaction_id] = _decided(row)
    for edge in await budgets.edges(tx, known, since=at - EDGES_SINCE):
        place = Place(edge.scope, edge.subject, edge.period_start)
        crossed = purses[edge.user].edges.setdefault(place, {})
        crossed[edge.edge] = Edge(edge.edge, edge.event_id, edge.armed, edge.round)
    return purses


async def save(tx: Tx, purses: Iterable[Purse]) -> None:
    """Write what purses decided: categories of transactions, and edges."""
    made, edges = [], []
    for purse in purses:
        made += [_assigned(purse.user, key, decided) for key, decided in purse.newly_decided.items()]
        edges += [_edge_row(purse.user, place, edge) for (place, _), edge in purse.changed_edges.items()]
    await budgets.save_assigned(tx, made)
    await budgets.save_edges(tx, edges)


# What users ask and change -----------------------------------------------------------------------------------------


async def statuses(deps: Deps, user: Address) -> list[dict[str, object]]:
    """`/budgets/status`: every budget of the open month, with its pace."""
    now = deps.now()
    purse = await _own(deps.pool, user, now)
    month = month_of(now, purse.zone)
    found: list[dict[str, object]] = []
    for budget in purse.budgets:
        spent = purse.figure(budget).spent
        found.append(
            {
                "scope": budget.scope,
                "categoryId": budget.category_id,
                "name": budget.name,
                "budgetAmount": dollars(budget.amount),
                "spentAmount": dollars(spent),
                "utilization": utilization(spent, budget.amount),
                "daysRemaining": month.days_left(now),
                "projectedOverrun": dollars(overrun(spent, budget.amount, month, now, purse.pace(budget, now))),
                "safeToSpendPerDay": dollars(safe_per_day(spent, budget.amount, month, now)),
                "status": status(spent, budget.amount),
                "unpriced": purse.figure(budget).unpriced,
            }
        )
    return found


async def listed(deps: Deps, user: Address) -> list[dict[str, object]]:
    """`GET /budgets`: the budgets as the snapshot shows them."""
    now = deps.now()
    return (await _own(deps.pool, user, now)).states(now)


async def simulate(
    deps: Deps, user: Address, *, chain_id: int, bucket: str, token: Address, amount: int
) -> dict[str, object]:
    """Whether a spend of raw `amount` would fit, in one instant's state; writes nothing. Raises NotFound."""
    chain = deps.chains.get(chain_id)
    async with frozen(deps.pool) as tx:
        now = deps.now()
        rows = await spending.buckets_of(tx, chain_id, [user])
        held = await spending.balances_of(tx, chain_id, [user])
        purse = await _own(tx, user, now)
        newest = Prices(await prices.latest(tx))
        saved = await goals.of_users(tx, [user]) if purse.has_goals else []
    row = next((row for row in rows if bucket in (row.bucket_id, row.name)), None)
    if chain is None or row is None:
        raise NotFound("You have no bucket of this id or name on this chain.")
    started = row.period_start if row.period_start and not is_due(row.period_start, now) else None
    before = row.spent if started else 0
    after = replace(row, spent=before + amount, period_start=started or now)
    usd_token = chain.usd_token
    usd = newest.usd(chain, token, amount)
    impacts, _ = purse.spend(None, usd, at=now)
    balance = held.get(BalanceKey(user, chain_id, "bucket", row.wallet, row.bucket_id, token), 0)
    reasons = [
        *(["inactive"] if not row.active else []),
        *(["over_limit"] if row.monthly_limit and after.spent > row.monthly_limit else []),
        *(["over_balance"] if amount > balance else []),
        *(["over_budget"] if any(impact["status"] == "over_budget" for impact in impacts) else []),
    ]
    return {
        "fits": not reasons,
        "reasons": reasons,
        "bucket": bucket_impact(
            after, spent_before=before, now=now, decimals=usd_token.decimals if usd_token else None
        ),
        "budgets": impacts,
        "goals": [impact(goal, usd, now) for goal in saved if goal.link and goal.link.id == row.bucket_id],
        "balanceBefore": token_amount(chain, token, balance, prices=newest),
        "balanceAfter": token_amount(chain, token, balance - amount, prices=newest),
    }


async def set_total(deps: Deps, user: Address, amount: Decimal | None) -> None:
    """Set (or remove, with None) the budget over all categories; every device is told."""

    async def body(tx: Tx) -> list[Frame]:
        counters = await log.lock(tx, [user])
        now = deps.now()
        await budgets.set_total_budget(tx, user, amount)
        return await log.append(tx, counters, [await budget_changed(tx, user, now)], at=now)

    frames = await in_transaction(deps.pool, body)
    await deps.publisher.publish([(frame.user, frame.text) for frame in frames])


async def begin_months(deps: Deps, *, limit: int) -> int:
    """Tell users with a budget that a new month has begun, at most `limit` of them; returns how many it was told."""
    due = await budgets.months_over(deps.pool, deps.now(), limit=limit)

    async def begin(tx: Tx, counters: Mapping[Address, Counter]) -> list[Frame]:
        (user,), now = counters, deps.now()
        if not await budgets.tell_month(tx, user, now):
            return []
        return await log.append(tx, counters, [await told(tx, user, "month", now.date(), at=now)], at=now)

    return await one_by_one(deps, [(user, begin) for user in due], name="begin_months")


async def budget_changed(tx: Tx, user: Address, now: datetime) -> Draft:
    """`budget_update` of a transaction that holds the user's lock and set a budget: one such event per transaction."""
    counter = (await log.lock(tx, [user]))[user]
    await budgets.tell_month(tx, user, now)
    return await told(tx, user, "edit", counter.epoch, counter.seq, at=now)


async def told(tx: Tx, user: Address, *cause: object, at: datetime) -> Draft:
    """`budget_update` with every budget of a user as it is now; `cause` makes its id."""
    purse = await _own(tx, user, at)
    await budgets.keep_history(tx, user, at=at)
    await request_evaluation(tx, [user])
    return Draft(
        user=user,
        event_id=event_id(BudgetUpdate.name, user, *cause),
        event=BudgetUpdate.name,
        version=BudgetUpdate.version,
        body={"budgets": purse.states(at)},
    )


async def _own(tx: Tx | Pool, user: Address, now: datetime) -> Purse:
    purse = (await load(tx, [user], at=now)).get(user)
    if purse is None:
        raise Invalid("This account has not signed in.", errors=[FieldError("", "no budgets")])
    return purse


# Rows and purses ---------------------------------------------------------------------------------------------------


async def _habits(
    tx: Tx | Pool, users: Sequence[Address], asked: Mapping[Address, Mapping[str, Subject]]
) -> dict[Address, Habits]:
    wanted = {user: features_of(asked[user].values()) for user in users if asked.get(user)}
    if not wanted:
        return {}
    rules = await budgets.rules(tx, list(wanted))
    memory = await budgets.memory(tx, wanted)
    return {user: Habits(rules.get(user, {}), memory.get(user, {})) for user in wanted}


def _purse(
    person: PersonRow,
    month: Month,
    looks: Mapping[Address, Mapping[str, Look]],
    amounts: Mapping[Address, Sequence[tuple[str, Decimal]]],
    habits: Mapping[Address, Habits],
    memos: Mapping[Address, Mapping[str, str]],
) -> Purse:
    own = looks[person.user]
    return Purse(
        user=person.user,
        zone=ZoneInfo(person.time_zone),
        thresholds=person.thresholds,
        budgets=budgets_of(amounts.get(person.user, ()), person.monthly_budget, own),
        looks=own,
        habits=habits.get(person.user, Habits()),
        memos=memos.get(person.user, {}),
        month=month,
        profiles=profiles_of(person.profiles),
        has_goals=person.has_goals,
    )


async def _fill_figures(tx: Tx | Pool, purses: Mapping[Address, Purse]) -> None:
    """Only for users with a budget: nobody else has figures to look at."""
    months = {
        user: (purse.month.start, purse.month.end)
        for user, purse in purses.items()
        if purse.budgets and purse.month is not None
    }
    found = await budgets.figures(tx, months)
    for user in months:
        purses[user].figures = {key: Figure(*figure) for key, figure in found.get(user, {}).items()}


def _decided(row: AssignedRow) -> Decided:
    return Decided(Assignment(row.category_id, row.confidence, row.source, row.reasoning), row.revision)


def _edge_row(user: Address, place: Place, edge: Edge) -> EdgeRow:
    return EdgeRow(
        user, place.scope, place.subject, place.period_start, edge.name, edge.event_id, edge.armed, edge.round
    )


def _assigned(user: Address, transaction_id: str, decided: Decided) -> AssignedRow:
    made = decided.assignment
    return AssignedRow(
        user, transaction_id, made.category_id, made.confidence, made.source, made.reasoning, decided.revision
    )
