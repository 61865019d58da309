"""The whole of a user's money on one page: accounts and budgets from PostgreSQL, the month's flow from ClickHouse.

Both are asked at once; what ClickHouse says is kept in Redis under the user's persisted version, what PostgreSQL says
is as of now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from zoneinfo import ZoneInfo

import orjson

from handlers import budgets as budgeting
from handlers import portfolio
from handlers.analytics import as_of
from handlers.deps import Figures
from handlers.errors import Unauthenticated
from handlers.portfolio import Held
from handlers.rules import portfolio as investments
from handlers.rules import savings
from handlers.rules import summary as rules
from handlers.rules.forecast import PRECISION
from handlers.rules.looks import Look
from handlers.rules.money import dollars
from handlers.rules.month_budget import Budget
from handlers.rules.prices import Prices
from handlers.rules.summary import Flows, Spans, Total
from handlers.rules.yields import totals
from store import accounts, analytics, goals, people, persistence, prices, spending
from store.analytics import Flow
from store.answers import Question
from store.goals import GoalRow
from store.postgres import frozen
from store.records import Address, BalanceKey


@dataclass(frozen=True, slots=True)
class _State:
    """What PostgreSQL knows, at one instant."""

    balances: Mapping[BalanceKey, int]
    budgets: Sequence[Budget]
    looks: Mapping[str, Look]
    prices: Prices
    goals: Sequence[GoalRow]
    saved: Mapping[tuple[int, Address], int]
    held: Held


async def read(figures: Figures, user: Address) -> Mapping[str, object]:
    """`/summary` of a signed-in user."""
    person = await people.person(figures.deps.pool, user)
    if person is None:
        raise Unauthenticated("This account is gone; sign in again.")
    now, zone = figures.deps.now(), ZoneInfo(person.time_zone)
    persisted = await persistence.persisted(figures.deps.pool, user)
    spans = rules.spans(now, zone)
    state, flows = await asyncio.gather(
        _state(figures, user, spans, now), _flows(figures, user, spans, version=persisted.version)
    )
    with localcontext(prec=PRECISION):
        told = _told(figures, state, flows, spans, now, zone)
    return {**told, "timeZone": zone.key, "asOfBlock": as_of(persisted)}


async def _state(figures: Figures, user: Address, spans: Spans, now: datetime) -> _State:
    async with frozen(figures.deps.pool) as tx:
        balances = await spending.balances_of(tx, None, [user])
        purse = (await budgeting.load(tx, [user], at=now, cdn_url=figures.deps.settings.cdn_url)).get(user)
        newest = Prices(await prices.latest(tx))
        mine = await goals.of_users(tx, [user])
        saved = await accounts.saved(tx, user)
        held = await portfolio.load(tx, figures.deps, user, month=spans.month, now=now)
    return _State(balances, purse.budgets if purse else (), purse.looks if purse else {}, newest, mine, saved, held)


async def _flows(figures: Figures, user: Address, spans: Spans, *, version: int) -> Flows:
    starts, until = spans.starts, spans.month.end

    async def make() -> bytes:
        rows = await analytics.flows(figures.analytics, user, since=starts[0], until=until, starts=starts)
        return orjson.dumps([[row.span.isoformat(), *map(_plain, astuple(row)[1:])] for row in rows])

    asked = {"starts": [start.isoformat() for start in starts], "until": until.isoformat()}
    kept = orjson.loads(await figures.answers.answer(Question(user, version, "flows", asked), make))
    return rules.flows_of(
        [Flow(datetime.fromisoformat(r[0]), r[1], r[2], Decimal(r[3]), r[4], r[5]) for r in kept], spans
    )


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Decimal) else value


def _told(
    figures: Figures, state: _State, flows: Flows, spans: Spans, now: datetime, zone: ZoneInfo
) -> dict[str, object]:
    today, held, chains = now.astimezone(zone).date(), state.held, figures.deps.chains
    balance = rules.worth(state.balances, chains, state.prices)
    saved = rules.kept_elsewhere(state.saved, chains, state.prices)
    sums = totals(each.position for each in held.portfolio.holdings)
    invested = Total(sums.value, sums.unpriced)
    there = rules.summed((balance, saved, invested))
    unpriced = rules.summed((there, held.monthly, flows.expenses, flows.deposits)).unpriced
    own = rules.insights(flows, state.budgets, unpriced=unpriced)
    return {
        "totalNetWorth": dollars(there.usd),
        "monthlyFlow": rules.monthly_flow(flows, held.monthly, spans.month),
        "accounts": {
            "spending": rules.spending(balance, flows, state.budgets, state.looks),
            "investment": investments.block(held.portfolio, held.monthly, chains=chains, prices=state.prices),
            "savings": savings.block(state.goals, today),
        },
        "insights": rules.by_priority(
            [*own, *investments.insights(held.portfolio, now), *savings.insights(state.goals, today)]
        ),
        "unpriced": unpriced,
    }
