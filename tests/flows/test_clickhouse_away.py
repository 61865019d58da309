"""ClickHouse goes away for the length of a burst and comes back: nothing is lost, nothing doubled, figures are equal.

The front is killed while inserts run, workers are killed beside it; blocks are reverted, categories change meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from config.embedded.children import ROOT
from config.embedded.clickhouse import ClickHouse
from config.embedded.valkey import Valkey
from config.settings import Settings
from handlers import reconciliation
from store import budgets, migrate
from store.budgets import AssignedRow
from store.clickhouse import Analytics
from store.postgres import Pool
from store.records import TransactionRow
from tests.conftest import MakeSettings
from tests.factories import make_address, make_hash, make_transaction
from tests.handlers.persisting import canonical, commit_block, folded, hours, persisted, revert_block
from tests.jobs.test_persist import forget_dead_runs, worker
from tests.waiting import until

CHAINS = (8453, 42220)
BEGIN = datetime(2026, 10, 31, 23, 50, tzinfo=UTC)
CATEGORIES = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(1, 9)]


@pytest.fixture
async def analytics(private_clickhouse: ClickHouse) -> AsyncIterator[Analytics]:
    analytics = Analytics(private_clickhouse.url)
    await migrate.clickhouse(analytics)
    yield analytics
    await analytics.close()


@pytest.fixture
def settings(make_settings: MakeSettings, private_valkey: Valkey, private_clickhouse: ClickHouse) -> Settings:
    chains = ROOT / "config" / "chains.toml"
    return make_settings(redis_url=private_valkey.url, clickhouse_url=private_clickhouse.url, chains_file=chains)


def block(chain_id: int, number: int, chance: random.Random, *, fork: str = "") -> list[TransactionRow]:
    """Spends, deposits and delegates' rows of one block; blocks are a minute apart, over the end of a month."""
    return [
        make_transaction(
            user=make_address("user", chance.randrange(20)),
            chain_id=chain_id,
            block_hash=make_hash(chain_id, number, fork),
            block_number=number,
            block_time=BEGIN + timedelta(minutes=number),
            tx_hash=make_hash("tx", chain_id, number, n),
            n=n,
            role=chance.choice(["owner", "owner", "delegate"]),
            type=chance.choice(["spend", "spend", "deposit"]),
            amount=chance.randrange(10 ** chance.randrange(1, 78)),
            usd=None if chance.random() < 0.1 else Decimal(chance.randrange(10**20)).scaleb(-chance.randrange(19)),
        )
        for n in range(chance.randrange(1, 12))
    ]


async def burst(pool: Pool, chain_id: int, numbers: range, chance: random.Random) -> list[list[TransactionRow]]:
    blocks = [block(chain_id, number, chance) for number in numbers]
    for rows in blocks:
        await commit_block(pool, rows)
    return blocks


async def categorize(pool: Pool, row: TransactionRow, category_id: str, *, revision: int = 1) -> None:
    given = AssignedRow(row.user, row.id, category_id, Decimal("0.9"), "manual", "", revision)
    async with pool.acquire() as tx, tx.transaction():
        await budgets.save_assigned(tx, [given])


async def drained(pool: Pool) -> bool:
    return not await pool.fetchval(
        """SELECT (SELECT count(*) FROM ledger_changes) + (SELECT count(*) FROM outbox)
                  + (SELECT count(*) FROM blocks WHERE persisted_at IS NULL) + (SELECT count(*) FROM persist_batches)"""
    )


async def tried(log: Path, times: int) -> None:
    await until(lambda: log.exists() and log.read_bytes().count(b"job_waits_for_engine") >= times, timeout_s=30)


async def agree(pool: Pool, analytics: Analytics) -> None:
    """Every row, and every month's figures, in both stores."""
    assert await persisted(analytics) == await canonical(pool)
    assert await analytics.rows("SELECT count() FROM transaction_events FINAL WHERE memo != ''") == [(0,)]
    for chain_id in CHAINS:
        for month in (BEGIN.date().replace(day=1), (BEGIN + timedelta(days=2)).date().replace(day=1)):
            assert await reconciliation.compare(pool, analytics, chain_id, month) == []


async def test_burst_while_clickhouse_is_away_arrives_whole_and_once(
    pool: Pool, settings: Settings, analytics: Analytics, private_clickhouse: ClickHouse, tmp_path: Path
) -> None:
    chance = random.Random(1)
    with worker(settings, tmp_path / "a.log"), worker(settings, tmp_path / "b.log"):
        await asyncio.gather(*(burst(pool, chain, range(8), chance) for chain in CHAINS))
        private_clickhouse.kill()  # in the middle of what it is given
        await asyncio.gather(*(burst(pool, chain, range(8, 40), chance) for chain in CHAINS))
        await tried(tmp_path / "a.log", 1)
        private_clickhouse.start()
        await until(lambda: drained(pool), timeout_s=60)
    await agree(pool, analytics)
    assert await hours(analytics) == await folded(pool)  # not even the view, which can't take anything back


async def test_reorgs_categories_and_kills_while_clickhouse_is_away(
    pool: Pool,
    settings: Settings,
    analytics: Analytics,
    private_clickhouse: ClickHouse,
    private_valkey: Valkey,
    tmp_path: Path,
) -> None:
    chance = random.Random(2)
    with worker(settings, tmp_path / "a.log") as first:
        before = await burst(pool, CHAINS[0], range(10), chance)
        await until(lambda: drained(pool), timeout_s=30)
        private_clickhouse.kill()
        during = await burst(pool, CHAINS[0], range(10, 30), chance)
        for rows in (before[9], during[3]):
            await revert_block(pool, rows[0])
        await commit_block(pool, block(CHAINS[0], 9, random.Random(9), fork="again"))
        await commit_block(pool, during[3])  # comes back as it was
        for rows in (before[2], during[5]):
            for revision, category in enumerate(chance.sample(CATEGORIES, 2), start=1):
                await categorize(pool, rows[0], category, revision=revision)
        await tried(tmp_path / "a.log", 3)
        first.send_signal(signal.SIGKILL)
        first.wait()
    private_clickhouse.start()
    await forget_dead_runs(private_valkey)
    with worker(settings, tmp_path / "b.log"), worker(settings, tmp_path / "c.log"):
        await categorize(pool, before[2][0], CATEGORIES[0], revision=3)
        await until(lambda: drained(pool), timeout_s=60)
    await agree(pool, analytics)


async def test_rebuild_as_an_operator_runs_it_equals_while_traffic_goes_on(
    pool: Pool, settings: Settings, analytics: Analytics, tmp_path: Path
) -> None:
    chance = random.Random(3)
    with worker(settings, tmp_path / "a.log"):
        first = await burst(pool, CHAINS[0], range(30), chance)
        await until(lambda: drained(pool), timeout_s=30)
        await revert_block(pool, first[4][0])
        await categorize(pool, first[8][0], CATEGORIES[1])
        await until(lambda: drained(pool), timeout_s=30)
        await analytics.command("ALTER TABLE transaction_events DELETE WHERE n > 2 SETTINGS mutations_sync = 2")
        with worker(settings, tmp_path / "rebuild.log", "rebuild", module="jobs.analytics") as rebuild:
            await burst(pool, CHAINS[0], range(30, 60), chance)
            await revert_block(pool, first[5][0])
            assert await asyncio.to_thread(rebuild.wait, 60) == 0
        await until(lambda: drained(pool), timeout_s=30)
    await agree(pool, analytics)
    told: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "rebuild.log").read_text().splitlines()]
    assert [told[0]["step"], told[-1]["step"]] == ["begun", "done"]
    assert {"copied", "placed"} <= {each["step"] for each in told}
