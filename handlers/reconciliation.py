"""Reconciliation: both stores must say the same of every month of a chain; where they do not, somebody is told.

A month is compared while its chain's persister rests, as one instant of the ledger has it, without the users of whose
rows a change still waits: what differs then is a fault. It costs one pass over the month in each store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import structlog

from config import metrics
from handlers import persistence
from store import persistence as stored
from store import reconciliation
from store.clickhouse import Analytics
from store.postgres import Pool, frozen
from store.reconciliation import NOTHING, Figures, Groups

log = structlog.get_logger(__name__)

UNSETTLED_MAX = 1000
"""Users left out of one comparison; when there are more, persistence lags, which has a gauge of its own."""
DRAIN_S = 5.0
"""Time given to persistence before a comparison (s)."""
SHOWN = 8
"""Groups named in one log entry."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A group of users of which the stores say different things."""

    users: str
    ledger: Figures
    analytics: Figures


async def run(pool: Pool, analytics: Analytics, *, budget_s: float) -> int:
    """Compare months until all were or the budget is spent; returns how many were compared."""
    until = asyncio.get_running_loop().time() + budget_s
    await reconciliation.add_months(pool, analytics)
    began = await reconciliation.clock(pool)
    count = 0
    while asyncio.get_running_loop().time() < until:
        asked = await reconciliation.next_month(pool, before=began)
        if asked is None:
            break
        found = await compare(pool, analytics, *asked)
        if found is None:
            break
        count += 1
        await reconciliation.compared(pool, *asked, differs=len(found))
        if found:
            _tell(*asked, found)
    metrics.ANALYTICS_DIFFERENCES.set(await reconciliation.differing(pool))
    return count


async def compare(pool: Pool, analytics: Analytics, chain_id: int, month: date) -> list[Difference] | None:
    """Groups of users of which the stores differ; None when the chain's persister is at work or lags."""
    try:
        async with stored.taken(pool, chain_id) as conn:
            if conn is None:
                return None
            until = asyncio.get_running_loop().time() + DRAIN_S
            await persistence.drain(conn, analytics, chain_id, until=until)
            return await _compare(pool, analytics, chain_id, month)
    finally:  # what was left to us meanwhile
        await stored.ask_unpersisted(pool, older_than_s=0)


async def _compare(pool: Pool, analytics: Analytics, chain_id: int, month: date) -> list[Difference] | None:
    async with frozen(pool) as tx:
        without = await reconciliation.unsettled(tx, chain_id, limit=UNSETTLED_MAX)
        if len(without) == UNSETTLED_MAX:
            return None
        ledger = await reconciliation.of_ledger(tx, chain_id, month, without=without)
    return differences(ledger, await reconciliation.of_analytics(analytics, chain_id, month, without=without))


def differences(ledger: Groups, analytics: Groups) -> list[Difference]:
    """Groups that are not the same in both."""
    return [
        Difference(users, ledger.get(users, NOTHING), analytics.get(users, NOTHING))
        for users in sorted({*ledger, *analytics})
        if ledger.get(users, NOTHING) != analytics.get(users, NOTHING)
    ]


def _tell(chain_id: int, month: date, found: list[Difference]) -> None:
    shown: Mapping[str, object] = {
        each.users: {"ledger": str(each.ledger), "analytics": str(each.analytics)} for each in found[:SHOWN]
    }
    log.error(
        "stores_differ",
        chain=chain_id,
        month=f"{month:%Y-%m}",
        groups=len(found),
        addresses_ending_in=shown,
        remedy=f"expendi analytics rebuild --chain {chain_id} --from {month:%Y-%m}",
    )
