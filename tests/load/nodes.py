"""`make prove-nodes`: three nodes that fail, lag and lie in every way while blocks flow: none skipped, none doubled.

The real watcher on real PostgreSQL and Redis, over real HTTP; one node at a time is bad, a hundred times in each way.
The clocks that decide how long a node is put aside are shortened, so that all of it fits into minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from time import perf_counter, process_time
from unittest import mock

import aiohttp
import structlog
from prometheus_client import REGISTRY

from config.settings import Settings
from handlers.deps import Deps
from store import log, nodes
from store.feed import Publisher
from store.nodes import BatchSize
from store.postgres import open_pool
from tests.load.faults import (
    ASIDE_S,
    CONFIRMATIONS,
    KINDS,
    LAG_BLOCKS,
    POLL_S,
    PROBE_S,
    STALE_S,
    TIMEOUT_S,
    Kind,
    Plan,
    Stage,
    lag,
)
from tests.load.ingest import commit, machine
from tests.load.liars import CHAIN_ID, FINAL_AFTER, USERS, Liar, Script
from tests.load.product import Urls, engines
from tests.waiting import until
from tests.watchers.said import USDC
from watchers import follower

SEEN_WITHIN_S = 15.0
"""Time in which a fault must be noticed and told by its metric (s)."""
TRIES = 3
"""How often one fault is tried on a machine so loaded that answers come too late."""
LATE = Kind("too late", "expendi_rpc_errors_total", "kind", ("timeout",))
"""Answers that nobody waited for any longer."""
LEAST_PER_S = 200.0
"""Blocks a second of the catch-up with faults."""


COLUMNS = ("injected", "seen", "blocks", "skipped", "doubled", "taken_back")
HEAD = f"{'kind':28}" + "".join(f"{name.replace('_', ' '):>11}" for name in COLUMNS) + f"{'s':>8}"


@dataclass
class Row:
    """What came of one kind."""

    name: str
    injected: int = 0
    seen: int = 0
    blocks: int = 0
    skipped: int = 0
    doubled: int = 0
    taken_back: int = 0
    seconds: float = 0.0

    @property
    def line(self) -> str:
        return f"{self.name:28}" + "".join(f"{getattr(self, name):11}" for name in COLUMNS) + f"{self.seconds:8.1f}"

    @property
    def is_right(self) -> bool:
        return self.injected == self.seen and not self.skipped and not self.doubled and not self.taken_back


@dataclass
class Outcome:
    """The table, what is wrong at the end, and the speed of the catch-up."""

    rows: list[Row] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    caught_up: int = 0
    caught_up_s: float = 1.0
    caught_up_cpu_s: float = 0.0
    """Of the watcher and the three nodes."""
    committing_s: float = 0.0
    """Time of it in which a block's transaction was open."""
    faults_met: int = 0
    spends: int = 0

    @property
    def per_s(self) -> float:
        return self.caught_up / self.caught_up_s

    @property
    def summary(self) -> str:
        rows = self.rows
        return (
            f"catch-up: {self.caught_up} blocks in {self.caught_up_s:.1f} s = {self.per_s:.0f} blocks/s "
            f"across {self.faults_met} faults and one bad node at a time, "
            f"{self.caught_up_cpu_s / max(1, self.caught_up) * 1e3:.1f} ms CPU a block (watcher and nodes), "
            f"{self.committing_s / self.caught_up_s:.0%} of the time in the blocks' transactions\n"
            f"{self.spends} spends on the chain: {sum(row.skipped for row in rows)} blocks skipped, "
            f"{sum(row.doubled for row in rows)} events doubled, {sum(row.taken_back for row in rows)} taken back"
        )

    @property
    def table(self) -> str:
        return "\n".join([HEAD, *(row.line for row in self.rows), self.summary, *self.broken])


# The proof ---------------------------------------------------------------------------------------------------------


async def prove(plan: Plan, urls: Urls, *, say: Callable[[str], object] = str) -> Outcome:
    """Do all of it and compare with the chain; `say` is told each row of the table as it comes."""
    outcome = Outcome()
    async with AsyncExitStack() as closing:
        closing.enter_context(quick_clocks())
        stage = await _set_up(plan, urls, closing)
        async with stage.watching():
            mining = asyncio.create_task(stage.mine())
            try:
                await until(lambda: stage.cursor > FINAL_AFTER, 30, what="a watcher that follows")
                for kind in KINDS:
                    outcome.rows.append(await _inject(stage, kind))
                    say(outcome.rows[-1].line)
            finally:
                mining.cancel()
                with suppress(asyncio.CancelledError):
                    await mining
        await _catch_up(stage, outcome)
        say(outcome.rows[-1].line)
        await _compare(stage, outcome)
    return outcome


@contextmanager
def quick_clocks() -> Iterator[None]:
    """Pauses fit for minutes instead of days."""
    with (
        mock.patch.object(follower, "RETRY_S", (0.02, 0.5)),
        mock.patch.object(nodes, "HALF_LIFE_S", 0.5),
        mock.patch.object(nodes, "GRAVE", 2),
        mock.patch.object(nodes, "LONGEST", 10),
        mock.patch.object(BatchSize, "RELAX_AFTER", 1),
    ):
        yield


async def _set_up(plan: Plan, urls: Urls, closing: AsyncExitStack) -> Stage:
    script = Script(random.Random(plan.seed))
    for _ in range(FINAL_AFTER + 20):
        script.mine()
    held = {(USDC, user): 0 for user in USERS}
    liars = [await closing.enter_async_context(Liar(script=script, balances=held)) for _ in range(3)]
    chain = replace(liars[0].chain(*liars[1:], confirmations=CONFIRMATIONS, finality_depth=64), lag_blocks=LAG_BLOCKS)
    settings = Settings(
        database_url=urls.database,
        redis_url=urls.redis,
        poll_interval_s=POLL_S,
        rpc_timeout_s=TIMEOUT_S,
        rpc_probe_s=PROBE_S,
        rpc_stale_s=STALE_S,
        rpc_aside_s=ASIDE_S,
    )
    pool = await open_pool(urls.database)
    closing.callback(pool.terminate)
    publisher = Publisher(urls.redis)
    closing.push_async_callback(publisher.close)
    async with pool.acquire() as conn, conn.transaction():
        await log.lock(conn, list(USERS))
        await conn.execute("UPDATE user_counters SET opened_at = now()")
        await conn.execute("INSERT INTO users (address) SELECT * FROM unnest($1::text[])", list(USERS))
    session = await closing.enter_async_context(aiohttp.ClientSession())
    deps = Deps(settings, {chain.id: chain}, pool, publisher, lambda: datetime.now(UTC))
    return Stage(plan, deps, chain, script, liars, pool, session)


async def _inject(stage: Stage, kind: Kind) -> Row:
    """One kind as often as planned, each time until it is noticed."""
    row, began, first = Row(kind.name), perf_counter(), stage.script.blocks[-1].number
    stage.slower = kind.pace
    for _ in range(stage.plan.times):
        if kind.state is not None:
            await stage.all_in_use()
        row.injected += 1
        row.seen += await _is_seen(stage, kind)
    stage.slower = 1.0
    await stage.caught_up()
    await _count(stage, row, first)
    row.blocks = stage.script.blocks[-1].number - first
    row.seconds = perf_counter() - began
    return row


async def _is_seen(stage: Stage, kind: Kind) -> bool:
    """Do it to a node once, and again where a loaded machine answered too late for anyone to read what is wrong."""
    for _ in range(TRIES):
        before, met, late = kind.seen(), stage.script.met, LATE.seen()
        node = stage.script.draw.choice(stage.nodes)
        if kind.fault is not None:
            stage.script.due.append(kind.fault)
        elif kind.state is not None:
            kind.state(stage, node)
        try:
            await until(lambda: kind.seen() > before and (kind.state or stage.script.met > met), SEEN_WITHIN_S)  # noqa: B023 - called before the loop goes on
            return True
        except TimeoutError:
            if LATE.seen() == late:
                return False
        finally:
            stage.script.due.clear()
            node.heal()
    return False


async def _count(stage: Stage, row: Row, first: int) -> None:
    """What went wrong with the blocks after `first` that the ledger has passed."""
    last = stage.cursor
    rows = await stage.pool.fetch(
        "SELECT number, hash FROM blocks WHERE chain_id = $1 AND canonical AND number BETWEEN $2 AND $3",
        CHAIN_ID, first, last,
    )  # fmt: skip
    kept = {found["number"]: found["hash"] for found in rows}
    row.skipped = sum(kept.get(block.number) != block.hash for block in stage.script.blocks[first : last + 1])
    ((told, distinct, back),) = await stage.pool.fetch(TOLD, CHAIN_ID)
    before, stage.told = stage.told, (told - distinct, back)
    row.doubled, row.taken_back = stage.told[0] - before[0], stage.told[1] - before[1]


TOLD = """
SELECT count(*) FILTER (WHERE event = 'new_transaction'),
       count(DISTINCT (user_address, transaction_id)) FILTER (WHERE event = 'new_transaction'),
       count(*) FILTER (WHERE event = 'transaction_reverted')
FROM user_log WHERE chain_id = $1"""


async def _catch_up(stage: Stage, outcome: Outcome) -> None:
    """A watcher that was away, and nodes of which one at a time is bad while every request may fail."""
    first = stage.script.blocks[-1].number
    for _ in range(stage.plan.behind):
        stage.script.mine()
    head, met = first + stage.plan.behind, stage.script.met
    row = Row("catch-up, all kinds at once")
    async with stage.watching():
        began, cpu, committing = perf_counter(), process_time(), _committing_s()
        stage.script.rate = stage.plan.rate
        trouble = asyncio.create_task(_trouble(stage))
        try:
            await until(lambda: stage.cursor >= head, 120, what=f"block {head}")
            outcome.caught_up, outcome.caught_up_s = stage.plan.behind, perf_counter() - began
            outcome.caught_up_cpu_s = process_time() - cpu
            outcome.committing_s = _committing_s() - committing
        except TimeoutError as error:
            outcome.broken.append(f"the catch-up did not end: {error}, but {stage.cursor}")
        finally:
            trouble.cancel()
            with suppress(asyncio.CancelledError):
                await trouble
            stage.script.rate = 0.0
            for node in stage.nodes:
                node.heal()
        outcome.faults_met = row.injected = row.seen = stage.script.met - met
        row.blocks, row.seconds = stage.plan.behind, outcome.caught_up_s
    await _count(stage, row, first)
    outcome.rows.append(row)


def _committing_s() -> float:
    return REGISTRY.get_sample_value("expendi_ingest_seconds_sum", {"chain": str(CHAIN_ID)}) or 0.0


async def _trouble(stage: Stage) -> None:
    """One node after the other lags, stands still, steps back, serves another chain or parts."""
    states = [kind.state for kind in KINDS if kind.state is not None and kind.state is not lag]
    while True:
        await asyncio.sleep(0.3)
        await stage.all_in_use()
        node = stage.script.draw.choice(stage.nodes)
        stage.script.draw.choice(states)(stage, node)
        await asyncio.sleep(0.3)
        node.heal()


async def _compare(stage: Stage, outcome: Outcome) -> None:
    """The ledger and the logs against the script itself: every spend exactly once, in order, seq contiguous."""
    want = [
        (tx.sender, block.hash, block.tx_hash(i), int(tx.salt))
        for block in stage.script.blocks
        for i, tx in enumerate(block.txs)
    ]
    outcome.spends = len(want)
    rows = await stage.pool.fetch(
        "SELECT user_address, block_hash, tx_hash, amount, canonical FROM transactions ORDER BY block_number, log_index"
    )
    have = [(row["user_address"], row["block_hash"], row["tx_hash"], int(row["amount"])) for row in rows]
    if have != want:
        missing, more = set(want) - set(have), [row for row in have if row not in set(want)]
        outcome.broken.append(
            f"ledger: {len(missing)} of {len(want)} spends missing, {len(more)} that are not the chain's"
        )
    if not all(row["canonical"] for row in rows):
        outcome.broken.append("ledger: spends taken back, though the chain never took one back")
    for user in USERS:
        outcome.broken += await _log_faults(stage, user, [tx for sender, _, tx, _ in want if sender == user])
    (cursor,) = await stage.pool.fetch("SELECT number, hash, finalized FROM chain_cursors")
    head = stage.script.blocks[-1]
    if (cursor["number"], cursor["hash"]) != (head.number, head.hash) or cursor["finalized"] > head.number:
        outcome.broken.append(f"cursor: {dict(cursor)}, the chain stands at {head.number} {head.hash}")
    if failed := REGISTRY.get_sample_value("expendi_chain_failures_total", {"chain": str(CHAIN_ID)}):
        outcome.broken.append(f"following the chain ended {failed:.0f} times unexpectedly")
    outcome.broken += [f"{row.name}: {row}" for row in outcome.rows if not row.is_right]


async def _log_faults(stage: Stage, user: str, txs: Sequence[str]) -> list[str]:
    rows = await stage.pool.fetch(
        "SELECT seq, event, transaction_id FROM user_log WHERE user_address = $1 ORDER BY seq", user
    )
    faults: list[str] = []
    if [row["seq"] for row in rows] != list(range(1, len(rows) + 1)):
        faults.append(f"log of {user}: seq is not contiguous")
    told = [row["transaction_id"].split(":")[1] for row in rows if row["event"] == "new_transaction"]
    if told != list(txs):
        faults.append(f"log of {user}: told {len(told)} spends, made {len(txs)}, or in another order")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=Plan.times, help="of each kind of fault")
    parser.add_argument("--behind", type=int, default=Plan.behind, help="blocks of the catch-up")
    parser.add_argument("--seed", type=int, default=Plan.seed)
    args = parser.parse_args()
    plan = Plan(times=args.times, behind=args.behind, seed=args.seed)
    print(f"machine: {machine()}\ncommit: {commit()}\nload average: {os.getloadavg()[0]:.1f}, seed: {plan.seed}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    began = perf_counter()
    with engines() as urls:
        print(HEAD)
        outcome = asyncio.run(prove(plan, urls, say=partial(print, flush=True)))
    print(outcome.summary)
    slow = [f"catch-up below {LEAST_PER_S:.0f} blocks/s"] if outcome.per_s < LEAST_PER_S else []
    broken = outcome.broken + slow
    print(f"took {perf_counter() - began:.0f} s")
    print("holds" if not broken else "BROKEN: " + "; ".join(broken))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
