"""Analytics made again from the ledger: the same figures, whatever was wrong, stopped or written meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from handlers import persistence, refill
from handlers.refill import Progress
from store import budgets
from store import persistence as stored
from store import refill as tables
from store.budgets import AssignedRow
from store.clickhouse import Analytics
from store.persistence import TransactionEvent
from store.postgres import Pool
from store.records import TransactionRow
from tests.factories import make_address, make_hash, make_transaction
from tests.handlers.persisting import canonical, change_rows, commit_block, folded, hours, persisted, revert_block

MONTHS = (
    datetime(2026, 9, 30, 23, 59, 59, tzinfo=UTC),
    datetime(2026, 10, 1, tzinfo=UTC),
    datetime(2026, 11, 24, tzinfo=UTC),
)


def block(number: int, *, chain_id: int = 8453, **overrides: Any) -> list[TransactionRow]:
    return [
        make_transaction(
            **{
                "user": make_address("user", n % 3),
                "chain_id": chain_id,
                "block_hash": make_hash(chain_id, number),
                "block_number": number,
                "block_time": MONTHS[number % len(MONTHS)],
                "tx_hash": make_hash("tx", chain_id, number),
                "n": n,
                "usd": Decimal(number + n),
                **overrides,
            }
        )
        for n in range(5)
    ]


async def persist_all(pool: Pool, analytics: Analytics) -> None:
    async with pool.acquire() as conn:
        for chain_id in (8453, 42220):
            await persistence.drain(conn, analytics, chain_id, until=asyncio.get_running_loop().time() + 20)
    assert await pool.fetchval("SELECT count(*) FROM ledger_changes") == 0


async def rebuild(pool: Pool, analytics: Analytics, **scope: Any) -> list[Progress]:
    async with aclosing(refill.run(pool, analytics, **scope)) as steps:
        return [progress async for progress in steps]


async def tables_left(analytics: Analytics) -> list[str]:
    rows = await analytics.rows(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE '%fresh'"
    )
    return [name for (name,) in rows]


@pytest.fixture
async def history(pool: Pool, analytics: Analytics) -> None:
    """Two chains, three months, a reorg and changes: persisted, and the hours have counted some rows twice."""
    for number in range(6):
        await commit_block(pool, block(number))
        await commit_block(pool, block(number, chain_id=42220))
    await persist_all(pool, analytics)
    await revert_block(pool, block(3)[0])
    await change_rows(pool, "usd = usd + 1", "block_number = 4")
    await persist_all(pool, analytics)
    assert await persisted(analytics) == await canonical(pool)


@pytest.mark.usefixtures("history")
async def test_rebuilt_tables_equal_the_ledger_whatever_was_in_them(pool: Pool, analytics: Analytics) -> None:
    assert await hours(analytics) != await folded(pool)
    await analytics.command("ALTER TABLE transaction_events DELETE WHERE n = 2 SETTINGS mutations_sync = 2")
    for wrong in ("toDateTime64('2026-07-01', 3) AS timestamp", "'0x' AS user_id"):
        await analytics.command(f"INSERT INTO transaction_events SELECT * REPLACE ({wrong}) FROM transaction_events")
    steps = await rebuild(pool, analytics)
    assert await persisted(analytics) == await canonical(pool)
    assert await hours(analytics) == await folded(pool)
    assert [step.step for step in steps] == ["begun", *["copied"] * 3, *["placed"] * 4, "done"]
    assert steps[-1].copied == steps[-1].rows == 60
    assert await tables_left(analytics) == []


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("stop", range(8))
async def test_stopped_anywhere_it_goes_on_and_loses_nothing_that_came_meanwhile(
    pool: Pool, analytics: Analytics, stop: int
) -> None:
    await analytics.command("ALTER TABLE transaction_events DELETE WHERE n = 2 SETTINGS mutations_sync = 2")
    async with aclosing(refill.run(pool, analytics)) as steps:
        for _ in range(stop):
            await anext(steps)
    await commit_block(pool, block(7))
    await revert_block(pool, block(1)[0])
    await persist_all(pool, analytics)
    copied = [step.at for step in await rebuild(pool, analytics) if step.step == "copied"]
    assert len(copied) == (3 if stop == 0 else max(0, 4 - stop))
    assert await persisted(analytics) == await canonical(pool)
    if stop < 6:  # after its month is in place, a revert is what the view can't take back
        assert await hours(analytics) == await folded(pool)


@pytest.mark.usefixtures("history")
async def test_changes_between_every_two_steps_are_in_both_tables(pool: Pool, analytics: Analytics) -> None:
    number = 10
    async with aclosing(refill.run(pool, analytics)) as steps:
        async for _ in steps:
            await commit_block(pool, block(number))
            await change_rows(pool, "usd = usd + 1", "block_number = 2")
            await persist_all(pool, analytics)
            number += 1
    assert number > 15
    assert await persisted(analytics) == await canonical(pool)


@pytest.mark.usefixtures("history")
async def test_row_that_changes_between_being_read_and_copied_keeps_its_newer_state(
    pool: Pool, analytics: Analytics, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, row, last = refill._insert, block(2)[0], iter(range(1, 9))

    async def insert_late(analytics: Analytics, events: list[TransactionEvent]) -> None:
        category = f"00000000-0000-4000-8000-00000000000{next(last)}"
        given = AssignedRow(row.user, row.id, category, Decimal(1), "manual", "", 1)
        async with pool.acquire() as tx, tx.transaction():
            await budgets.save_assigned(tx, [given])
        await persist_all(pool, analytics)
        await real(analytics, events)

    monkeypatch.setattr(refill, "_insert", insert_late)
    await rebuild(pool, analytics)
    assert await persisted(analytics) == await canonical(pool)
    assert await analytics.rows("SELECT count() FROM transaction_events FINAL WHERE category_id != ''") == [(1,)]


@pytest.mark.usefixtures("history")
async def test_batch_whose_insert_arrived_and_was_not_marked_survives_the_replaced_month(
    pool: Pool, analytics: Analytics
) -> None:
    await commit_block(pool, block(8))
    async with pool.acquire() as conn:
        batch = await stored.next_batch(conn, 8453, about=10)
        assert batch is not None
    # Its persister was killed after the insert, while the request still travels: it lands just before the swap.
    await pool.execute("UPDATE analytics_generation SET generation = generation")
    async with aclosing(refill.run(pool, analytics, chain_id=42220)) as steps:
        async for step in steps:
            if step.step == "copied" and step.at == date(2026, 9, 30):
                events = [persistence.event(row) for row in batch.rows]
                await stored.insert(analytics, events, token=batch.token)
    await analytics.command("ALTER TABLE transaction_events DELETE WHERE block_number = 8 SETTINGS mutations_sync = 2")
    await persist_all(pool, analytics)
    assert await persisted(analytics) == await canonical(pool)


@pytest.mark.usefixtures("history")
async def test_scope_of_one_chain_and_late_months_leaves_the_rest_alone(pool: Pool, analytics: Analytics) -> None:
    await analytics.command("ALTER TABLE transaction_events DELETE WHERE n = 2 SETTINGS mutations_sync = 2")
    lacking = {row for row in await canonical(pool) if row[5] == 2}
    await rebuild(pool, analytics, chain_id=42220, since=date(2026, 10, 1))
    left = set(await canonical(pool)) - set(await persisted(analytics))
    early = await pool.fetch(
        "SELECT id FROM transactions WHERE canonical AND n = 2 AND (chain_id = 8453 OR block_time < '2026-10-01Z')"
    )
    assert {row[0] for row in left} == {row["id"] for row in early}
    assert 0 < len(left) < len(lacking)


async def test_rebuild_of_nothing_leaves_nothing(pool: Pool, analytics: Analytics) -> None:
    assert [step.step for step in await rebuild(pool, analytics)] == ["begun", "done"]
    assert await tables_left(analytics) == []


@pytest.mark.usefixtures("history")
async def test_only_one_process_rebuilds(pool: Pool, analytics: Analytics) -> None:
    async with tables.only(pool):
        with pytest.raises(refill.Busy):
            await rebuild(pool, analytics)


@pytest.mark.usefixtures("history")
async def test_every_version_grows_with_a_rebuild(pool: Pool, analytics: Analytics) -> None:
    before = await stored.persisted(pool, make_address("user", 0))
    await rebuild(pool, analytics)
    assert (await stored.persisted(pool, make_address("user", 0))).version > before.version
