"""The real worker process between real stores: killed or cut off, it leaves ClickHouse equal to the ledger."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.embedded.children import ROOT, Launch, end, kill, spawn
from config.embedded.clickhouse import ClickHouse
from config.embedded.valkey import Valkey
from config.settings import Settings, variable
from store import migrate, outbox
from store.clickhouse import Analytics
from store.postgres import Pool
from store.records import TransactionRow
from tests.conftest import MakeSettings
from tests.factories import make_hash
from tests.handlers.persisting import canonical, commit_block, persisted, revert_block, two_users_one_log
from tests.waiting import until


@pytest.fixture
async def own_analytics(private_clickhouse: ClickHouse) -> AsyncIterator[Analytics]:
    analytics = Analytics(private_clickhouse.url)
    await migrate.clickhouse(analytics)
    yield analytics
    await analytics.close()


@pytest.fixture
def settings(make_settings: MakeSettings, private_valkey: Valkey, private_clickhouse: ClickHouse) -> Settings:
    chains = ROOT / "config" / "chains.toml"
    return make_settings(redis_url=private_valkey.url, clickhouse_url=private_clickhouse.url, chains_file=chains)


@contextmanager
def worker(settings: Settings, log: Path, *words: str, module: str = "jobs") -> Iterator[subprocess.Popen[bytes]]:
    """`python -m jobs quick`, or what `words` say, as a process of its own."""
    given = {"database_url", "redis_url", "clickhouse_url", "data_dir", "chains_file"}
    env = {variable(name): str(getattr(settings, name)) for name in given} | {"PATH": os.environ["PATH"]}
    env[variable("secret_key")] = settings.secret_key.get_secret_value()
    env[variable("log_level")] = "debug"
    with log.open("ab") as out:
        command = [sys.executable, "-m", module, *(words or ("quick",))]
        child = spawn(Launch(command, cwd=ROOT, env=env), output=out)
        try:
            yield child
        finally:
            kill(child)


def five_blocks() -> list[list[TransactionRow]]:
    return [
        two_users_one_log(block_hash=make_hash(number), block_number=number, tx_hash=make_hash("tx", number))
        for number in range(5)
    ]


async def all_persisted(pool: Pool) -> bool:
    return not await pool.fetchval("SELECT count(*) FROM blocks WHERE persisted_at IS NULL") and not await outbox.depth(
        pool
    )


async def begun(pool: Pool) -> bool:
    return bool(await pool.fetchval("SELECT bool_and(attempts > 0) FROM outbox"))


async def forget_dead_runs(valkey: Valkey) -> None:
    """Do what time does: a dead worker's marks go after the longest limit of its jobs."""
    redis = outbox.open_queue(valkey.url, "quick")
    marks = [key async for key in redis.scan_iter("arq:in-progress:*")]
    assert marks
    await redis.delete(*marks)
    await redis.aclose(close_connection_pool=True)


async def test_worker_killed_in_the_middle_of_an_insert_loses_and_doubles_nothing(
    pool: Pool,
    settings: Settings,
    own_analytics: Analytics,
    private_clickhouse: ClickHouse,
    private_valkey: Valkey,
    tmp_path: Path,
) -> None:
    rows = five_blocks()
    pid = private_clickhouse.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # inserts reach it and are not answered
    try:
        with worker(settings, tmp_path / "killed.log") as child:
            for block in rows[:4]:
                await commit_block(pool, block)
            await until(lambda: begun(pool), timeout_s=30)
            child.send_signal(signal.SIGKILL)
            child.wait()
    finally:
        os.kill(pid, signal.SIGCONT)
    await revert_block(pool, rows[1][0])
    await forget_dead_runs(private_valkey)
    with worker(settings, tmp_path / "next.log"):
        await commit_block(pool, rows[4])
        await until(lambda: all_persisted(pool), timeout_s=30)
    assert await persisted(own_analytics) == await canonical(pool)
    assert len(await persisted(own_analytics)) == 12


async def test_clickhouse_away_for_a_while_is_caught_up_by_itself(
    pool: Pool, settings: Settings, own_analytics: Analytics, private_clickhouse: ClickHouse, tmp_path: Path
) -> None:
    private_clickhouse.kill()
    with worker(settings, tmp_path / "worker.log"):
        blocks = five_blocks()
        for block in blocks:
            await commit_block(pool, block)
        log = tmp_path / "worker.log"
        await until(lambda: log.read_bytes().count(b"job_waits_for_engine") >= 5, timeout_s=30)
        await revert_block(pool, blocks[0][0])
        private_clickhouse.start()
        await until(lambda: all_persisted(pool), timeout_s=30)
    assert await persisted(own_analytics) == await canonical(pool)


async def test_worker_starts_before_its_engines_and_ends_within_seconds_of_sigterm(
    settings: Settings, private_valkey: Valkey, private_clickhouse: ClickHouse, pool: Pool, tmp_path: Path
) -> None:
    private_valkey.kill()
    private_clickhouse.kill()
    with worker(settings, tmp_path / "worker.log") as child:
        await until(lambda: b"worker_waits_for_engine" in (tmp_path / "worker.log").read_bytes(), timeout_s=30)
        private_valkey.start()
        await until(lambda: b"worker_goes_on" in (tmp_path / "worker.log").read_bytes(), timeout_s=30)
        assert end(child, patience_s=8) == 0
    with worker(settings, tmp_path / "slow.log", "slow") as child:
        await until(lambda: b"worker_started" in (tmp_path / "slow.log").read_bytes(), timeout_s=30)
        assert end(child, ask=signal.SIGINT, patience_s=8) == 0


def test_unknown_queue_is_refused_with_the_choices() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "jobs", "medium"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert said.returncode == 2
    assert "quick" in said.stderr


def test_queue_on_a_cluster_is_refused_with_a_sentence(settings: Settings, tmp_path: Path) -> None:
    clustered = settings.model_copy(update={"redis_url": "redis+cluster://127.0.0.1:9"})
    with worker(clustered, tmp_path / "worker.log") as child:
        assert child.wait(timeout=30) == 1
    assert (tmp_path / "worker.log").read_text().startswith("EXPENDI_QUEUE_URL must name a Redis that is no cluster")
