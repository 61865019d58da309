"""Investments as their user reads them: positions, the block that `/summary` shows too, and how to rebalance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

from handlers.deps import Deps
from handlers.errors import NotFound, Unauthenticated
from handlers.rules import portfolio as rules
from handlers.rules.accounts import account_of
from handlers.rules.calendar import Month, month_of
from handlers.rules.earnings import earned
from handlers.rules.periods import iso
from handlers.rules.portfolio import Holding, Portfolio
from handlers.rules.prices import Prices
from handlers.rules.rebalancing import advice
from handlers.rules.risk import protocol_class
from handlers.rules.summary import Total
from handlers.rules.yields import priced
from store import people, prices, yields
from store.people import PersonRow
from store.postgres import Tx, frozen
from store.records import Address
from store.yields import Position

State = Literal["open", "closed", "all"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which positions are asked for: those of a chain, of an account; every one by default."""

    chain_id: int | None = None
    account: str | None = None


EVERYTHING = Wanted()


@dataclass(frozen=True, slots=True)
class Held:
    """A user's positions at one instant, closed ones too, and what the open month brought."""

    positions: Sequence[Position]
    portfolio: Portfolio
    monthly: Total
    prices: Prices


@dataclass(frozen=True, slots=True)
class Page:
    """Positions by id, and the last one's id when more follow."""

    data: Sequence[Mapping[str, object]]
    next: str | None


async def load(
    tx: Tx, deps: Deps, user: Address, *, month: Month | None, now: datetime, wanted: Wanted = EVERYTHING
) -> Held:
    """What a user holds, in three queries of the caller's instant; without a month nobody asks what it brought."""
    chains = _chains(deps, user, wanted)
    newest = Prices(await prices.latest(tx))
    positions = [one for one in await yields.positions_of(tx, [user]) if one.chain_id in chains]
    monthly = Total()
    if positions and month is not None:
        past = await yields.values_at_each(tx, [(user, month.start), (user, now)])
        then, latest = (past.get((user, at), ()) for at in (month.start, now))
        monthly = earned(positions, then, latest, chains=deps.chains, prices=newest)
    whole = rules.portfolio(rules.holdings_of(positions, deps.chains, newest), now)
    return Held(positions, whole, monthly, newest)


async def listed(deps: Deps, user: Address, *, wanted: Wanted, state: State, after: str | None, limit: int) -> Page:
    """Positions by id, each with its share of all open ones that were asked for and with its risk."""
    held = await _held(deps, user, wanted)
    known = {each.position.position_id: each for each in held.portfolio.holdings}
    shown = [
        known.get(one.position_id) or _closed(deps, one, held.prices)
        for one in held.positions
        if state == "all" or (state == "open") == (one.position_id in known)
    ]
    rest = [each for each in shown if after is None or each.position.position_id > after]
    resources = [rules.resource(each, deps.chains[each.position.chain_id], held.prices) for each in rest[:limit]]
    return Page(resources, rest[limit - 1].position.position_id if len(rest) > limit else None)


async def investments(deps: Deps, user: Address, *, wanted: Wanted) -> Mapping[str, object]:
    """`/investments`: the block, how the portfolio is spread, and what of it is worth a word."""
    person, now = await _person(deps, user), deps.now()
    month = month_of(now, ZoneInfo(person.time_zone))
    held = await _held(deps, user, wanted, month=month, now=now)
    return {
        **rules.block(held.portfolio, held.monthly, chains=deps.chains, prices=held.prices),
        **rules.diversification(held.portfolio),
        "protocolDistribution": rules.distribution(held.portfolio),
        "recommendations": rules.insights(held.portfolio, now),
        "monthStart": iso(month.start),
        "timeZone": person.time_zone,
    }


async def rebalancing(deps: Deps, user: Address) -> Mapping[str, object]:
    """`/recommendations/rebalancing`: what would bring the portfolio within the limits of the user's risk profile."""
    person, now = await _person(deps, user), deps.now()
    held = await _held(deps, user, EVERYTHING, month=month_of(now, ZoneInfo(person.time_zone)), now=now)
    return advice(held.portfolio, person.risk_profile, now)


async def _held(
    deps: Deps, user: Address, wanted: Wanted, *, month: Month | None = None, now: datetime | None = None
) -> Held:
    now = now or deps.now()
    async with frozen(deps.pool) as tx:
        return await load(tx, deps, user, month=month, now=now, wanted=wanted)


async def _person(deps: Deps, user: Address) -> PersonRow:
    person = await people.person(deps.pool, user)
    if person is None:
        raise Unauthenticated("This account is gone; sign in again.")
    return person


def _closed(deps: Deps, position: Position, newest: Prices) -> Holding:
    chain = deps.chains[position.chain_id]
    return Holding(priced(position, chain, newest), protocol_class(position, chain))


def _chains(deps: Deps, user: Address, wanted: Wanted) -> set[int]:
    """Chains whose positions are asked for; raises NotFound for an account that is none of the user's."""
    chains = {chain_id for chain_id in deps.chains if wanted.chain_id in (None, chain_id)}
    if wanted.account is None:
        return chains
    place = account_of(wanted.account)
    if place is None or place.user != user or place.chain_id not in deps.chains:
        raise NotFound("You have no account of this id.")
    # Every position belongs to the investment account of its chain.
    return chains & {place.chain_id} if place.type == "investment" else set()
