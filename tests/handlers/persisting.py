"""The writer's part in persistence, and the ledger and ClickHouse in a form that can be compared."""

from __future__ import annotations

from typing import Any

from handlers import committed
from store import cursors, ledger
from store.clickhouse import Analytics
from store.postgres import Pool
from store.records import BlockRef, TransactionRow
from tests.factories import make_address, make_hash, make_transaction


async def commit_block(pool: Pool, rows: list[TransactionRow]) -> None:
    """What the writer's transaction does that concerns persistence."""
    row = rows[0]
    ref = BlockRef(row.block_number, row.block_hash)
    async with pool.acquire() as tx, tx.transaction():
        parent = make_hash("block", row.block_number - 1)
        await cursors.apply_block(tx, row.chain_id, ref, parent_hash=parent, time=row.block_time)
        await ledger.record(tx, rows)
        await cursors.count_rows(tx, row.chain_id, ref.hash, len(rows))
        await committed.request_persistence(tx, row.chain_id, ref)


async def revert_block(pool: Pool, row: TransactionRow) -> None:
    ref = BlockRef(row.block_number, row.block_hash)
    async with pool.acquire() as tx, tx.transaction():
        await cursors.revert_block(tx, row.chain_id, ref)
        await ledger.revert(tx, row.chain_id, ref.hash)
        await committed.request_persistence(tx, row.chain_id, ref)


async def change_rows(pool: Pool, assignments: str, where: str) -> None:
    """What a statement that changes ledger rows without their block does."""
    await pool.execute(
        f"""WITH changed AS (
                UPDATE transactions SET version = nextval('ledger_version'), {assignments} WHERE {where} RETURNING *)
            INSERT INTO ledger_changes (user_address, chain_id, block_number, block_hash, tx_hash, n)
            SELECT user_address, chain_id, block_number, block_hash, tx_hash, n FROM changed"""
    )


async def canonical(pool: Pool) -> list[tuple[Any, ...]]:
    rows = await pool.fetch(
        """SELECT id, event_id, t.user_address, role, block_hash, n, type, direction, amount, usd, token, version,
                  coalesce(category_id::text, '')
           FROM transactions AS t LEFT JOIN transaction_categories AS a
               ON a.user_address = t.user_address AND a.transaction_id = t.id
           WHERE canonical ORDER BY t.user_address, id"""
    )
    return [tuple(row) for row in rows]


async def persisted(analytics: Analytics) -> list[tuple[Any, ...]]:
    return await analytics.rows(
        """SELECT transaction_id, event_id, user_id, role, toString(block_hash), n, type, toString(direction),
                  amount_raw, amount_usd, token_address, version, category_id
           FROM transaction_events FINAL ORDER BY user_id, transaction_id"""
    )


async def hours(analytics: Analytics) -> list[tuple[Any, ...]]:
    """What the aggregating view says."""
    return await analytics.rows(
        """SELECT user_id, chain_id, category_id, toUnixTimestamp(hour) AS at,
                  sumMerge(total_spent), countMerge(transaction_count)
           FROM hourly_spending GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""
    )


async def folded(pool: Pool) -> list[tuple[Any, ...]]:
    """What it should say."""
    rows = await pool.fetch(
        """SELECT t.user_address, t.chain_id, coalesce(category_id::text, ''),
                  extract(epoch FROM date_trunc('hour', block_time, 'UTC'))::bigint,
                  sum(usd), count(*)
           FROM transactions AS t LEFT JOIN transaction_categories AS a
               ON a.user_address = t.user_address AND a.transaction_id = t.id
           WHERE canonical AND role = 'owner' AND type = 'spend' GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""
    )
    return [tuple(row) for row in rows]


def two_users_one_log(**overrides: Any) -> list[TransactionRow]:
    owner, delegate = make_address("owner"), make_address("delegate")
    return [
        make_transaction(user=owner, **overrides),
        make_transaction(user=delegate, role="delegate", **overrides),
        make_transaction(user=owner, n=1, log_index=8, amount=1, usd=None, **overrides),
    ]
