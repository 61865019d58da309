"""The whole state of one user at one log position, read in one instant."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from handlers import achievements, budgets, goals, sharing
from handlers.deps import Deps
from handlers.rules import wire
from handlers.rules.prices import Prices
from store import log, notifications, prices, spending, yields
from store.postgres import frozen
from store.records import Address


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`body` is the finished JSON text of `{seq, balances, buckets, …}`; epoch and seq are the log's position."""

    epoch: str
    seq: int
    body: str


async def read(deps: Deps, user: Address) -> Snapshot:
    """Snapshot of a signed-in user, in one REPEATABLE READ transaction with the user's counter row.

    Raises LookupError for an address that never signed in: it has no log.
    """
    async with frozen(deps.pool) as tx:
        head = (await log.heads(tx, [user])).get(user)
        if head is None:
            raise LookupError(f"{user} has no log")
        rows = await sharing.visible(tx, user, chains=deps.chains)
        balances = await spending.balances_of(tx, None, [user])
        now = deps.now()
        purse = (await budgets.load(tx, [user], at=now)).get(user)
        unread = (await notifications.unread(tx, [user]))[user]
        saved = await goals.listed(tx, user, at=now)
        unlocked = await achievements.listed(tx, user)
        newest = Prices(await prices.latest(tx))
        buckets = await sharing.resources(tx, user, rows, chains=deps.chains, newest=newest)
        positions = await yields.positions_of(tx, [user])
    body = wire.snapshot(
        seq=head.seq,
        buckets=buckets,
        balances=balances,
        chains=deps.chains,
        prices=newest,
        budgets=purse.states(now) if purse else (),
        goals=saved,
        achievements=unlocked,
        positions=positions,
        unread=unread,
    )
    return Snapshot(head.epoch, head.seq, orjson.dumps(body).decode())
