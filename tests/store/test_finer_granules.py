"""The table with finer granules takes over what was there: nothing lost, nothing doubled, wherever it is cut."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from handlers.persistence import event
from store import migrate, persistence
from store.clickhouse import Analytics, database_of
from store.persistence import LedgerRow
from tests.conftest import Engines, in_database
from tests.factories import make_hash, make_transaction

FILE = migrate.CLICKHOUSE / "0003_finer_granules.sql"
STATEMENTS = migrate.statements(FILE.read_text(encoding="utf-8"))


@pytest.fixture
async def older(engines: Engines, tmp_path: Path) -> AsyncIterator[Analytics]:
    """A database as it was before, with a row, one that was taken back, and one that is known twice."""
    analytics = Analytics(in_database(engines.clickhouse_url, f"test_{uuid.uuid4().hex}"))
    for path in migrate.CLICKHOUSE.glob("000[12]_*.sql"):
        shutil.copy(path, tmp_path)
    await migrate.clickhouse(analytics, tmp_path)
    row, gone = make_transaction(), make_transaction(tx_hash=make_hash("gone"))
    await insert(analytics, LedgerRow(row, 1, None), LedgerRow(gone, 2, None))
    await insert(analytics, LedgerRow(make_transaction(tx_hash=make_hash("gone"), canonical=False), 3, None))
    await insert(analytics, LedgerRow(row, 4, "00000000-0000-4000-8000-000000000001"))
    yield analytics
    await analytics.command("DROP DATABASE {database:Identifier}", database=database_of(analytics.url))
    await analytics.close()


async def insert(analytics: Analytics, *rows: LedgerRow) -> None:
    await persistence.insert(analytics, [event(row) for row in rows], token=str(rows))


async def rows(analytics: Analytics) -> list[tuple[Any, ...]]:
    return await analytics.rows("SELECT * FROM transaction_events FINAL ORDER BY transaction_id")


async def spent(analytics: Analytics) -> Any:
    return await analytics.rows("SELECT sum(c) FROM (SELECT countMerge(transaction_count) AS c FROM hourly_spending)")


async def granules(analytics: Analytics) -> int:
    """Rows of a granule of what is inserted from now on."""
    sql = "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = 'transaction_events'"
    ((engine,),) = await analytics.rows(sql)
    return 1024 if "index_granularity = 1024" in engine else 8192


async def test_rows_stay_and_new_ones_reach_table_and_view(older: Analytics) -> None:
    before, counted = await rows(older), await spent(older)
    assert (len(before), await granules(older)) == (1, 8192)
    assert "0003_finer_granules" in await migrate.clickhouse(older)
    assert (await rows(older), await spent(older), await granules(older)) == (before, counted, 1024)
    await insert(older, LedgerRow(make_transaction(tx_hash=make_hash("new")), 5, None))
    assert len(await rows(older)) == 2
    assert (await spent(older))[0][0] == counted[0][0] + 1
    tables = await older.rows(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE '%finer'"
    )
    assert tables == []


@pytest.mark.parametrize("done", range(1, len(STATEMENTS) + 1))
async def test_cut_after_any_statement_and_run_again_it_loses_and_doubles_nothing(older: Analytics, done: int) -> None:
    before, counted = await rows(older), await spent(older)
    for statement in STATEMENTS[:done]:
        await older.command(statement)
        assert await rows(older) == before
    await migrate.clickhouse(older)
    assert (await rows(older), await spent(older)) == (before, counted)
    await insert(older, LedgerRow(make_transaction(tx_hash=make_hash("new")), 5, None))
    assert (len(await rows(older)), (await spent(older))[0][0]) == (2, counted[0][0] + 1)
