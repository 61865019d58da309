"""One task per chain: be its writer, follow it, begin again after whatever ended that; chains stay apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import aiohttp
import structlog

from config import metrics
from config.chains import Chain
from handlers.deps import Deps
from store.postgres import is_passing
from store.rpc import Limits, Rpc, WrongChain
from watchers.follower import Follower, Ledger, follow
from watchers.heads import Heads
from watchers.ingest import WriterLost
from watchers.pacing import Backoff, rest
from watchers.prices import Feeds
from watchers.reorg import ReorgTooDeep

logger = structlog.get_logger(__name__)

WRITER_RETRY_S = (0.1, 5.0)
"""First and longest pause before the chain's writer is asked for again (s)."""
STOPPED_RETRY_S = 30.0
"""How often a chain that was stopped loudly is looked at again (s): its node may come back to our chain."""
HEARTBEAT_S = 30.0
"""How often each chain says where it stands (s)."""
GRACE_S = 1.5
"""Time a chain has to finish the block in hand when told to stop (s)."""

Writer = Callable[[Deps, Chain], AbstractAsyncContextManager[Ledger]]


@dataclass(slots=True)
class Watch:
    """One chain being watched; without a follower this process is its standby."""

    chain: Chain
    follower: Follower | None = None
    heads: Heads | None = None


async def watch_all(
    deps: Deps, chains: Iterable[Chain], *, session: aiohttp.ClientSession, writer: Writer, stop: asyncio.Event
) -> None:
    """Watch chains until told to stop, then let each finish the block in hand."""
    watches = [Watch(chain) for chain in chains]
    tasks = {asyncio.create_task(_watch(watch, deps, session, writer, stop)): watch for watch in watches}
    beat = asyncio.create_task(_beat(watches, stop))
    await stop.wait()
    standby = {task for task, watch in tasks.items() if watch.follower is None}
    for task in standby:
        task.cancel()
    _, late = await asyncio.wait(tasks, timeout=GRACE_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, beat, return_exceptions=True)


async def _watch(watch: Watch, deps: Deps, session: aiohttp.ClientSession, writer: Writer, stop: asyncio.Event) -> None:
    """Be the chain's writer again and again; what ends it decides how soon."""
    pause = Backoff(*WRITER_RETRY_S)
    chain = watch.chain.id
    while not stop.is_set():
        stopped = False
        try:
            async with writer(deps, watch.chain) as ledger:
                await _write(watch, deps, session, ledger, stop)
        except WriterLost as error:
            logger.warning("writer_lost", chain=chain, error=str(error))
        except (ReorgTooDeep, WrongChain) as error:
            stopped = True
            metrics.CHAIN_STOPPED.labels(str(chain)).set(1)
            logger.error("chain_stopped", chain=chain, error=str(error), again_in_s=STOPPED_RETRY_S)
        except Exception as error:  # the loop's one: a chain goes on whatever happened
            if is_passing(error):
                logger.warning("database_lost", chain=chain, error=repr(error))
            else:
                metrics.CHAIN_FAILURES.labels(str(chain)).inc()
                logger.exception("chain_failed", chain=chain)
        if watch.follower is not None and watch.follower.moved:
            pause.reset()
        watch.follower = watch.heads = None
        await rest(stop, STOPPED_RETRY_S if stopped else pause.next_s())


async def _write(watch: Watch, deps: Deps, session: aiohttp.ClientSession, ledger: Ledger, stop: asyncio.Event) -> None:
    chain, settings = watch.chain, deps.settings
    metrics.CHAIN_STOPPED.labels(str(chain.id)).set(0)
    limits = Limits(
        chain.lag_blocks, stale_s=settings.rpc_stale_s, aside_s=settings.rpc_aside_s, probe_s=settings.rpc_probe_s
    )
    rpc = Rpc(chain.rpc, settings.rpc_timeout_s, session, chain_id=chain.id, limits=limits)
    poll_s, timeout_s = settings.poll_interval_s, settings.rpc_timeout_s
    async with Heads(chain, rpc, session=session, poll_s=poll_s, timeout_s=timeout_s, stop=stop) as heads:
        watch.heads = heads
        feeds = Feeds(chain, rpc, every_blocks=settings.price_every_blocks)
        watch.follower = Follower(chain, rpc, ledger, heads, stop, feeds=feeds)
        await follow(watch.follower, heads, stop)


async def _beat(watches: Iterable[Watch], stop: asyncio.Event) -> None:
    while not stop.is_set():
        for watch in watches:
            logger.info("heartbeat", chain=watch.chain.id, name=watch.chain.name, **_where(watch))
        await rest(stop, HEARTBEAT_S)


def _where(watch: Watch) -> dict[str, object]:
    if watch.follower is None or watch.heads is None:
        return {"role": "standby"}
    head = watch.heads.head
    cursor = watch.follower.tip.number if watch.follower.tip is not None else None
    return {"role": "writer", "head": head, "cursor": cursor, "lag": head - cursor if cursor is not None else None}
