"""Both stores are compared month by month; whatever is wrong in one of them is found, and said where."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from handlers import persistence, reconciliation
from store import persistence as stored
from store.clickhouse import Analytics
from store.postgres import Pool
from tests.factories import make_address, make_hash, make_transaction
from tests.handlers.persisting import change_rows, commit_block, revert_block

NOVEMBER = date(2026, 11, 1)
USER = make_address("user", 1)


@pytest.fixture
async def history(pool: Pool, analytics: Analytics) -> None:
    """Two months of twenty users, persisted: hostile amounts, unpriced and reverted rows and categories among them."""
    for number, at in enumerate((datetime(2026, 10, 31, 23, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)) * 2):
        rows = [
            make_transaction(
                user=make_address("user", n),
                block_hash=make_hash(number),
                block_number=number,
                block_time=at,
                tx_hash=make_hash("tx", number),
                n=n,
                amount=2**256 - 1 if n == 3 else n,
                usd=None if n == 4 else f"{n}.5",
            )
            for n in range(20)
        ]
        await commit_block(pool, rows)
        if number == 3:
            await revert_block(pool, rows[0])
    await pool.execute(
        "INSERT INTO chain_cursors (chain_id, number, hash, block_time) VALUES (8453, 3, '0x', '2026-11-24Z')"
    )
    await pool.execute(
        """INSERT INTO transaction_categories (user_address, transaction_id, chain_id, category_id, confidence_score,
                                               source)
           SELECT user_address, id, chain_id, '00000000-0000-4000-8000-000000000003', 1, 'manual' FROM transactions
           WHERE n % 2 = 0 AND canonical"""
    )
    await drain(pool, analytics)


async def drain(pool: Pool, analytics: Analytics) -> None:
    async with pool.acquire() as conn:
        await persistence.drain(conn, analytics, 8453, until=asyncio.get_running_loop().time() + 10)


async def differing(pool: Pool, analytics: Analytics) -> list[str]:
    found = await reconciliation.compare(pool, analytics, 8453, NOVEMBER)
    assert found is not None
    return [each.users for each in found]


@pytest.mark.usefixtures("history")
async def test_stores_that_agree_differ_nowhere(pool: Pool, analytics: Analytics) -> None:
    assert await differing(pool, analytics) == []
    assert await reconciliation.run(pool, analytics, budget_s=20) >= 2
    assert REGISTRY.get_sample_value("expendi_analytics_differences") == 0


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    "wrong",
    [
        "ALTER TABLE transaction_events DELETE WHERE user_id = '{user}' AND timestamp >= '2026-11-01'",
        "ALTER TABLE transaction_events UPDATE amount_raw = amount_raw + 1 WHERE user_id = '{user}'",
        "ALTER TABLE transaction_events UPDATE amount_usd = amount_usd + toDecimal128('1e-18', 18)"
        " WHERE user_id = '{user}'",
        "ALTER TABLE transaction_events UPDATE amount_usd = NULL WHERE user_id = '{user}'",
        "ALTER TABLE transaction_events UPDATE category_id = '00000000-0000-4000-8000-000000000002'"
        " WHERE user_id = '{user}'",
        "ALTER TABLE transaction_events UPDATE is_deleted = 1 - is_deleted WHERE user_id = '{user}'",
    ],
)
async def test_whatever_is_wrong_is_found_and_said_where(pool: Pool, analytics: Analytics, wrong: str) -> None:
    await analytics.command(wrong.format(user=USER) + " SETTINGS mutations_sync = 2")
    assert await differing(pool, analytics) == [USER[-2:]]
    with capture_logs() as told:
        await reconciliation.run(pool, analytics, budget_s=20)
    errors = [each for each in told if each["event"] == "stores_differ" and each["month"] == "2026-11"]
    assert [each["remedy"] for each in errors] == ["expendi analytics rebuild --chain 8453 --from 2026-11"]
    assert list(errors[0]["addresses_ending_in"]) == [USER[-2:]]
    assert REGISTRY.get_sample_value("expendi_analytics_differences") == await pool.fetchval(
        "SELECT count(*) FROM reconciliations WHERE differs > 0"
    )


@pytest.mark.usefixtures("history")
async def test_lost_change_is_found(pool: Pool, analytics: Analytics) -> None:
    await change_rows(pool, "usd = usd + 1", f"user_address = '{USER}'")
    await pool.execute("DELETE FROM ledger_changes")
    assert await differing(pool, analytics) == [USER[-2:]]


@pytest.mark.usefixtures("history")
async def test_row_of_a_month_that_the_ledger_does_not_have_is_found(pool: Pool, analytics: Analytics) -> None:
    await analytics.command(
        """INSERT INTO transaction_events SELECT * REPLACE (toDateTime64('2026-02-03', 3) AS timestamp)
           FROM transaction_events LIMIT 1"""
    )
    with capture_logs() as told:
        await reconciliation.run(pool, analytics, budget_s=20)
    assert [each["month"] for each in told if each["event"] == "stores_differ"] == ["2026-02"]


@pytest.mark.usefixtures("history")
async def test_change_that_waits_for_an_open_transaction_is_no_difference(pool: Pool, analytics: Analytics) -> None:
    async with pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await conn.execute("SELECT pg_current_xact_id()")
        await change_rows(pool, "usd = usd + 1", f"user_address = '{USER}'")
        assert await differing(pool, analytics) == []
        assert await pool.fetchval("SELECT count(*) FROM ledger_changes") > 0
        await transaction.rollback()
    assert await differing(pool, analytics) == []
    assert await pool.fetchval("SELECT count(*) FROM ledger_changes") == 0


@pytest.mark.usefixtures("history")
async def test_chain_whose_persister_is_at_work_waits_for_its_turn(pool: Pool, analytics: Analytics) -> None:
    async with stored.taken(pool, 8453) as conn:
        assert conn is not None
        assert await reconciliation.compare(pool, analytics, 8453, NOVEMBER) is None


@pytest.mark.usefixtures("history")
async def test_months_take_turns_and_what_differed_comes_first(pool: Pool, analytics: Analytics) -> None:
    start = await pool.fetchval("SELECT clock_timestamp()")
    await reconciliation.run(pool, analytics, budget_s=20)
    rows = await pool.fetch("SELECT month, tried_at FROM reconciliations ORDER BY month")
    assert rows[0]["month"] == date(2026, 10, 1)
    assert all(row["tried_at"] > start for row in rows)
    await pool.execute("UPDATE reconciliations SET differs = 1 WHERE month = '2026-10-01'")
    assert await reconciliation.run(pool, analytics, budget_s=0) == 0
    await analytics.command("ALTER TABLE transaction_events DELETE WHERE n = 1 SETTINGS mutations_sync = 2")
    with capture_logs() as told:
        await reconciliation.run(pool, analytics, budget_s=20)
    assert [each["month"] for each in told if each["event"] == "stores_differ"] == ["2026-10", "2026-11"]
