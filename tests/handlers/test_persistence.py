"""ClickHouse ends up with the canonical ledger, whatever is killed, repeated, late or reverted on the way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any, get_args

import orjson
import pytest

from handlers import committed, persistence
from handlers.resources import TransactionType
from store import budgets, ledger, outbox
from store import persistence as stored
from store.budgets import AssignedRow
from store.clickhouse import Analytics
from store.outbox import Claim
from store.persistence import Persisted
from store.postgres import Pool, connect
from store.records import BlockRef, TransactionRow
from tests.factories import insert_block, insert_transactions, make_address, make_hash, make_transaction
from tests.handlers.persisting import (
    canonical,
    change_rows,
    commit_block,
    folded,
    hours,
    persisted,
    revert_block,
    two_users_one_log,
)

STEPS = ("batch", "insert", "finish", "commit", "look")


class Killed(Exception):
    """The process is gone."""


async def claims(pool: Pool) -> list[Claim]:
    await pool.execute("DELETE FROM outbox WHERE job <> 'persist_block'")  # asked for beside it, no part of this
    found = [await outbox.begin(pool, row["id"]) for row in await pool.fetch("SELECT id FROM outbox ORDER BY id")]
    return [claim for claim in found if claim is not None]


async def work(pool: Pool, analytics: Analytics) -> None:
    """Run what is asked until nothing is."""
    for _ in range(20):
        for claim in await claims(pool):
            await persistence.persist(pool, analytics, claim)
    assert await outbox.depth(pool) == 0


async def unpersisted(pool: Pool) -> int:
    return int(await pool.fetchval("SELECT count(*) FROM blocks WHERE persisted_at IS NULL"))


async def test_block_arrives_as_the_ledger_has_it(pool: Pool, analytics: Analytics) -> None:
    await commit_block(pool, two_users_one_log())
    assert await unpersisted(pool) == 1
    await work(pool, analytics)
    assert await unpersisted(pool) == 0
    assert len(await persisted(analytics)) == 3
    assert await persisted(analytics) == await canonical(pool)


async def test_reverted_block_leaves_tombstones_and_comes_back(pool: Pool, analytics: Analytics) -> None:
    rows = two_users_one_log()
    await commit_block(pool, rows)
    await work(pool, analytics)
    await revert_block(pool, rows[0])
    assert await unpersisted(pool) == 1
    await work(pool, analytics)
    assert await persisted(analytics) == []
    await commit_block(pool, rows)
    await work(pool, analytics)
    assert await persisted(analytics) == await canonical(pool)
    assert len(await persisted(analytics)) == 3


async def test_included_again_in_another_block_at_the_same_time_is_one_row(pool: Pool, analytics: Analytics) -> None:
    first, second = two_users_one_log(), two_users_one_log(block_hash=make_hash("fork"))
    await commit_block(pool, first)
    await revert_block(pool, first[0])
    await commit_block(pool, second)
    # The tombstone may arrive before or after the row that replaces what it removes.
    for claim in reversed(await claims(pool)):
        await persistence.persist(pool, analytics, claim)
    assert await persisted(analytics) == await canonical(pool)
    assert {row[4] for row in await persisted(analytics)} == {make_hash("fork")}


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_any_step_it_is_run_again_without_loss_or_double(
    pool: Pool, analytics: Analytics, monkeypatch: pytest.MonkeyPatch, step: str, where: str
) -> None:
    await commit_block(pool, two_users_one_log())
    (claim,) = await claims(pool)
    with monkeypatch.context() as patch:
        kill_at(patch, step, where)
        with pytest.raises(Killed):
            await persistence.persist(pool, analytics, claim)
    committed = step == "look" or (step, where) == ("commit", "after")
    assert (await outbox.depth(pool), await unpersisted(pool)) == ((0, 0) if committed else (1, 1))
    await work(pool, analytics)
    assert await unpersisted(pool) == 0
    assert await persisted(analytics) == await canonical(pool)
    assert await hours(analytics) == await folded(pool)  # though they were inserted up to twice


async def test_batch_tried_again_is_the_same_whatever_was_committed_since(
    pool: Pool, analytics: Analytics, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_blocks()
    await commit_block(pool, first)
    (claim,) = await claims(pool)
    with monkeypatch.context() as patch:
        kill_at(patch, "insert", "after")
        with pytest.raises(Killed):
            await persistence.persist(pool, analytics, claim)
    await commit_block(pool, second)
    await work(pool, analytics)
    assert await persisted(analytics) == await canonical(pool)
    assert await hours(analytics) == await folded(pool)  # the view has counted nothing twice


def kill_at(patch: pytest.MonkeyPatch, step: str, where: str) -> None:
    module, name = {
        "batch": (stored, "next_batch"),
        "insert": (stored, "insert"),
        "finish": (stored, "finish"),
        "commit": (persistence, "_finish"),
        "look": (stored, "waiting"),
    }[step]
    real: Callable[..., Awaitable[Any]] = getattr(module, name)

    async def killed(*words: Any, **named: Any) -> Any:
        if where == "after":
            await real(*words, **named)
        raise Killed

    patch.setattr(module, name, killed)


async def test_block_that_changed_while_it_was_persisted_is_not_marked(
    pool: Pool, analytics: Analytics, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = two_users_one_log()
    await commit_block(pool, rows)
    (claim,) = await claims(pool)
    real, calls = stored.insert, iter([True, False])

    async def revert_meanwhile(*words: Any, **named: Any) -> None:
        if not next(calls):
            raise Killed
        await real(*words, **named)
        await revert_block(pool, rows[0])

    with monkeypatch.context() as patch:
        patch.setattr(stored, "insert", revert_meanwhile)
        with pytest.raises(Killed):
            await persistence.persist(pool, analytics, claim)
    assert await unpersisted(pool) == 1
    await work(pool, analytics)
    assert await persisted(analytics) == []


async def test_change_of_a_row_without_its_block_is_not_taken_for_a_repeat(pool: Pool, analytics: Analytics) -> None:
    rows = two_users_one_log()
    await commit_block(pool, rows)
    await work(pool, analytics)
    await change_rows(pool, "usd = 4", "n = 1")
    async with pool.acquire() as tx, tx.transaction():
        await committed.request_persistence(tx, rows[0].chain_id, BlockRef(rows[0].block_number, rows[0].block_hash))
    await work(pool, analytics)
    assert await persisted(analytics) == await canonical(pool)


@pytest.mark.parametrize("seed", range(3))
async def test_random_forks_kills_and_late_inserts_end_in_the_canonical_ledger(
    pool: Pool, analytics: Analytics, monkeypatch: pytest.MonkeyPatch, database_url: str, seed: int
) -> None:
    conn = await connect(database_url)
    chance = random.Random(seed)
    forks = [two_users_one_log(block_hash=make_hash(seed, fork)) for fork in range(3)]
    tip: list[TransactionRow] | None = None
    late: list[stored.Batch] = []
    for _ in range(40):
        act = chance.randrange(5)
        if act == 0 and tip is not None:
            await revert_block(pool, tip[0])
            tip = None
        elif act == 0:
            tip = chance.choice(forks)
            await commit_block(pool, tip)
        elif act == 1:  # a worker reads a block and is then held up for a while
            batch = await stored.next_batch(conn, 8453, about=chance.choice([1, 100]))
            late += [batch] if batch is not None else []
        elif act == 3:
            await categorize(pool, forks[0][0], chance.choice(SLUGS))
        elif act == 2 and late:
            batch = late.pop(chance.randrange(len(late)))
            await stored.insert(analytics, [persistence.event(row) for row in batch.rows], token=batch.token)
        else:
            await work_until_killed(pool, analytics, monkeypatch, chance)
    await work(pool, analytics)
    for batch in late:
        await stored.insert(analytics, [persistence.event(row) for row in batch.rows], token=batch.token)
    assert await persisted(analytics) == await canonical(pool)
    assert await unpersisted(pool) == 0
    await conn.close()


async def work_until_killed(
    pool: Pool, analytics: Analytics, monkeypatch: pytest.MonkeyPatch, chance: random.Random
) -> None:
    for claim in await claims(pool):
        with monkeypatch.context() as patch:
            kill_at(patch, chance.choice(STEPS), chance.choice(["before", "after"]))
            with suppress(Killed):
                await persistence.persist(pool, analytics, claim)


async def test_block_nobody_keeps_ends_its_request(pool: Pool, analytics: Analytics) -> None:
    async with pool.acquire() as tx, tx.transaction():
        await committed.request_persistence(tx, 1, BlockRef(7, make_hash("unknown")))
    await work(pool, analytics)


async def test_sweep_asks_for_what_nobody_asked_for_and_only_once(pool: Pool, analytics: Analytics) -> None:
    async with pool.acquire() as conn:
        await insert_transactions(conn, two_users_one_log())
    assert await stored.ask_unpersisted(pool, older_than_s=5) == 0
    await pool.execute("UPDATE ledger_changes SET changed_at = now() - interval '6 s'")
    assert 6 <= await stored.lag_s(pool) < 60
    assert await stored.ask_unpersisted(pool, older_than_s=5) == 1
    assert await stored.ask_unpersisted(pool, older_than_s=5) == 0
    async with pool.acquire() as tx, tx.transaction():  # the writer's own request is the same row
        await committed.request_persistence(tx, 8453, BlockRef(100, make_hash("block", 100)))
    assert len(await claims(pool)) == 1
    await work(pool, analytics)
    assert await persisted(analytics) == await canonical(pool)
    assert await stored.lag_s(pool) == 0
    assert await stored.ask_unpersisted(pool, older_than_s=5) == 0


async def test_change_of_a_transaction_that_is_still_open_is_not_passed_over(pool: Pool, analytics: Analytics) -> None:
    first, second = two_blocks()
    async with pool.acquire() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await ledger.record(slow, first)  # its changes come first, and are seen last
        await commit_block(pool, second)
        (claim,) = await claims(pool)
        assert not await persistence.persist(pool, analytics, claim, sleep=no_sleep)
        assert await persisted(analytics) == []
        await transaction.commit()
    await work(pool, analytics)
    assert await pool.fetchval("SELECT count(*) FROM ledger_changes") == 0
    assert len(await persisted(analytics)) == 6
    assert await persisted(analytics) == await canonical(pool)


async def test_numbers_given_in_another_order_than_transactions_began_lose_nothing(
    pool: Pool, analytics: Analytics
) -> None:
    first, second = two_blocks()
    async with pool.acquire() as early, pool.acquire() as late:
        begun, later = early.transaction(), late.transaction()
        await begun.start()
        await early.execute("SELECT pg_current_xact_id()")
        await later.start()
        await ledger.record(late, second)  # lower numbers, higher transaction
        await ledger.record(early, first)
        await begun.commit()
        await work_through(pool, analytics)
        assert len(await persisted(analytics)) == 3
        await later.commit()
    await work_through(pool, analytics)
    assert await persisted(analytics) == await canonical(pool)
    assert len(await persisted(analytics)) == 6


def two_blocks() -> tuple[list[TransactionRow], list[TransactionRow]]:
    second = two_users_one_log(block_hash=make_hash("second"), block_number=101, tx_hash=make_hash("tx", 2))
    return two_users_one_log(), second


async def test_block_of_many_thousand_rows_arrives_whole(pool: Pool, analytics: Analytics) -> None:
    await commit_block(pool, [make_transaction(user=make_address(n % 7), n=n) for n in range(10_000)])
    await work_through(pool, analytics)
    assert await persisted(analytics) == await canonical(pool)
    assert await analytics.rows("SELECT count(), uniqExact(_part) FROM transaction_events") == [(10_000, 1)]


async def work_through(pool: Pool, analytics: Analytics) -> None:
    async with pool.acquire() as conn:
        await persistence.drain(conn, analytics, 8453, until=asyncio.get_running_loop().time() + 10)


async def no_sleep(_seconds: float) -> None:
    """The pause is over at once."""


async def test_user_version_and_extent_tell_what_has_arrived(pool: Pool, analytics: Analytics) -> None:
    owner, other = make_address("owner"), make_address("other")
    for number in (100, 101):
        block = two_users_one_log(block_hash=make_hash(number), block_number=number, tx_hash=make_hash("tx", number))
        await commit_block(pool, block)
        await pool.execute(
            """INSERT INTO chain_cursors (chain_id, number, hash, block_time) VALUES (8453, $1, '0x', now())
               ON CONFLICT (chain_id) DO UPDATE SET number = $1""",
            number,
        )
        assert await stored.persisted(pool, owner) == Persisted(number - 100, {8453: number - 1})
        assert await stored.persisted(pool, other) == Persisted(0, {8453: number})
        await work_through(pool, analytics)
        assert await stored.persisted(pool, owner) == Persisted(number - 99, {8453: number})
    await revert_block(pool, two_users_one_log(block_hash=make_hash(100))[0])
    assert await stored.persisted(pool, owner) == Persisted(2, {8453: 99})


async def test_category_arrives_and_every_later_one_follows(pool: Pool, analytics: Analytics) -> None:
    rows = two_users_one_log()
    await categorize(pool, rows[0], "food")  # in the block's own transaction: before its rows
    await commit_block(pool, rows)
    assert await pool.fetchval("SELECT count(*) FROM ledger_changes") == 3
    await work(pool, analytics)
    assert await categories(analytics) == {rows[0].id: category_of("food")}
    await categorize(pool, rows[0], "health")
    await categorize(pool, rows[2], "food")
    assert await outbox.depth(pool) == 1  # asked for by the statement itself
    await work(pool, analytics)
    assert await categories(analytics) == {rows[0].id: category_of("health"), rows[2].id: category_of("food")}
    assert await persisted(analytics) == await canonical(pool)


async def test_category_changed_while_the_block_is_not_persisted_and_through_a_reorg(
    pool: Pool, analytics: Analytics
) -> None:
    first, second = two_users_one_log(), two_users_one_log(block_hash=make_hash("fork"))
    await commit_block(pool, first)
    await categorize(pool, first[0], "food")
    await work(pool, analytics)
    assert await categories(analytics) == {first[0].id: category_of("food")}
    await revert_block(pool, first[0])
    await categorize(pool, first[0], "health")
    await commit_block(pool, second)
    await work(pool, analytics)
    assert await categories(analytics) == {first[0].id: category_of("health")}
    assert await persisted(analytics) == await canonical(pool)


SLUGS = ("food", "transport", "shopping", "entertainment", "health")


def category_of(slug: str) -> str:
    return f"00000000-0000-4000-8000-{SLUGS.index(slug) + 1:012}"


async def categorize(pool: Pool, row: TransactionRow, slug: str) -> None:
    found = await pool.fetchval("SELECT revision FROM transaction_categories WHERE transaction_id = $1", row.id)
    given = AssignedRow(row.user, row.id, category_of(slug), Decimal("0.9"), "manual", "", (found or 0) + 1)
    async with pool.acquire() as tx, tx.transaction():
        await budgets.save_assigned(tx, [given])


async def categories(analytics: Analytics) -> dict[str, str]:
    rows = await analytics.rows(
        "SELECT transaction_id, category_id FROM transaction_events FINAL WHERE category_id != ''"
    )
    return dict(rows)


async def test_preimages_go_once_their_block_is_far_below_finality(pool: Pool) -> None:
    await insert_block(pool, make_transaction())
    await pool.execute(
        """INSERT INTO chain_cursors (chain_id, number, hash, block_time, finalized)
           VALUES (1, 120, '0x', now(), 110), (2, 120, '0x', now(), 0)"""
    )
    await pool.execute(
        """INSERT INTO preimages (chain_id, block_number, block_hash, relation, key)
           SELECT chain, number, number::text, 'buckets', 'k'
           FROM generate_series(1, 3) AS chain, generate_series(98, 101) AS number"""
    )
    assert await stored.prune_preimages(pool, margin_blocks=10, batch=1) == 1
    assert await stored.prune_preimages(pool, margin_blocks=10, batch=10) == 1
    kept = await pool.fetch("SELECT block_number FROM preimages WHERE chain_id = 1 ORDER BY 1")
    assert [row["block_number"] for row in kept] == [100, 101]
    assert await pool.fetchval("SELECT count(*) FROM preimages WHERE chain_id > 1") == 8


def test_every_type_has_one_of_the_plans_four_kinds() -> None:
    assert set(persistence.KINDS) | {"account_operation"} == set(get_args(TransactionType))
    kinds = {
        direction: persistence.kind(make_transaction(type="account_operation", direction=direction))
        for direction in ("in", "out", "internal")
    }
    assert kinds == {"in": "deposit", "out": "withdrawal", "internal": "transfer"}


@pytest.mark.parametrize(
    ("value", "shift", "expected"),
    [
        (12_500_000, -6, "12.5"),
        (1, -18, "0.000000000000000001"),
        (5, -19, "0"),
        (15, -19, "0.000000000000000002"),
        (10**38 - 1, -18, "99999999999999999999.999999999999999999"),
        (10**38, -18, None),
        (2**256 - 1, 0, None),
    ],
)
def test_amounts_keep_every_digit_that_fits(value: int, shift: int, expected: str | None) -> None:
    assert persistence.fitted(Decimal(value), shift=shift) == (None if expected is None else Decimal(expected))


async def test_hostile_amounts_and_unknown_tokens_are_persisted(pool: Pool, analytics: Analytics) -> None:
    rows = [
        make_transaction(amount=2**256 - 1, decimals=0, usd=Decimal(2**256)),
        make_transaction(
            n=1, decimals=None, symbol=None, usd=None, fee_wei=2**200, bucket='"\x1f\u202e', bucket_id="b"
        ),
    ]
    await commit_block(pool, rows)
    await work(pool, analytics)
    found = await analytics.rows(
        """SELECT amount_raw, amount, amount_usd, token_decimals, fee_wei, metadata
           FROM transaction_events FINAL ORDER BY n"""
    )
    assert found[0][:4] == (2**256 - 1, None, None, 0)
    assert found[1][1:5] == (None, None, None, 2**200)
    assert orjson.loads(found[1][5])["bucket"] == '"\x1f\u202e'
