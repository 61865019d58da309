"""ClickHouse ends up with the canonical ledger, whatever is killed, repeated, late or reverted on the way."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, get_args

import orjson
import pytest

from handlers import blocks, persistence
from handlers.resources import TransactionType
from store import outbox
from store import persistence as stored
from store.clickhouse import Analytics
from store.outbox import Claim
from store.postgres import Pool, frozen
from store.records import BlockRef, TransactionRow
from tests.factories import insert_block, insert_transactions, make_hash, make_transaction
from tests.handlers.persisting import canonical, commit_block, persisted, revert_block, two_users_one_log

STEPS = ("read", "insert", "mark", "done", "commit")


class Killed(Exception):
    """The process is gone."""


async def claims(pool: Pool) -> list[Claim]:
    await pool.execute("DELETE FROM outbox WHERE job = 'index_block'")  # asked for beside it, no part of this
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
    assert (await outbox.depth(pool), await unpersisted(pool)) == (
        (0, 0) if (step, where) == ("commit", "after") else (1, 1)
    )
    await work(pool, analytics)
    assert await unpersisted(pool) == 0
    assert await persisted(analytics) == await canonical(pool)
    hourly = "SELECT sum(c) FROM (SELECT countMerge(transaction_count) AS c FROM hourly_spending)"
    assert await analytics.rows(hourly) == [(2,)]  # the owner's two rows, though inserted up to twice


def kill_at(patch: pytest.MonkeyPatch, step: str, where: str) -> None:
    module, name = {
        "read": (stored, "read"),
        "insert": (stored, "insert"),
        "mark": (stored, "mark"),
        "done": (outbox, "done"),
        "commit": (persistence, "in_transaction"),
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
    real = stored.insert

    async def revert_meanwhile(*words: Any, **named: Any) -> None:
        await real(*words, **named)
        await revert_block(pool, rows[0])

    with monkeypatch.context() as patch:
        patch.setattr(stored, "insert", revert_meanwhile)
        assert not await persistence.persist(pool, analytics, claim)
    assert await unpersisted(pool) == 1
    await work(pool, analytics)
    assert await persisted(analytics) == []


async def test_change_of_a_row_without_its_block_is_not_taken_for_a_repeat(pool: Pool, analytics: Analytics) -> None:
    rows = two_users_one_log()
    await commit_block(pool, rows)
    await work(pool, analytics)
    await pool.execute("UPDATE transactions SET version = nextval('ledger_version'), usd = 4 WHERE n = 1")
    async with pool.acquire() as tx, tx.transaction():
        await blocks.request_persistence(tx, rows[0].chain_id, BlockRef(rows[0].block_number, rows[0].block_hash))
    await work(pool, analytics)
    assert await persisted(analytics) == await canonical(pool)


@pytest.mark.parametrize("seed", range(3))
async def test_random_forks_kills_and_late_inserts_end_in_the_canonical_ledger(
    pool: Pool, analytics: Analytics, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    forks = [two_users_one_log(block_hash=make_hash(seed, fork)) for fork in range(3)]
    tip: list[TransactionRow] | None = None
    late: list[stored.BlockRows] = []
    for _ in range(40):
        act = chance.randrange(4)
        if act == 0 and tip is not None:
            await revert_block(pool, tip[0])
            tip = None
        elif act == 0:
            tip = chance.choice(forks)
            await commit_block(pool, tip)
        elif act == 1:  # a worker reads a block and is then held up for a while
            async with frozen(pool) as tx:
                block = await stored.read(tx, 8453, chance.choice(forks)[0].block_hash)
            late += [block] if block is not None else []
        elif act == 2 and late:
            block = late.pop(chance.randrange(len(late)))
            await stored.insert(analytics, [persistence.event(row) for row in block.rows], token=block.token)
        else:
            await work_until_killed(pool, analytics, monkeypatch, chance)
    await work(pool, analytics)
    for block in late:
        await stored.insert(analytics, [persistence.event(row) for row in block.rows], token=block.token)
    assert await persisted(analytics) == await canonical(pool)
    assert await unpersisted(pool) == 0


async def work_until_killed(
    pool: Pool, analytics: Analytics, monkeypatch: pytest.MonkeyPatch, chance: random.Random
) -> None:
    for claim in await claims(pool):
        with monkeypatch.context() as patch:
            kill_at(patch, chance.choice(STEPS), chance.choice(["before", "after"]))
            with pytest.raises(Killed):
                await persistence.persist(pool, analytics, claim)


async def test_block_nobody_keeps_ends_its_request(pool: Pool, analytics: Analytics) -> None:
    async with pool.acquire() as tx, tx.transaction():
        await blocks.request_persistence(tx, 1, BlockRef(7, make_hash("unknown")))
    await work(pool, analytics)


async def test_sweep_asks_for_what_nobody_asked_for_and_only_once(pool: Pool, analytics: Analytics) -> None:
    async with pool.acquire() as conn:
        await insert_transactions(conn, two_users_one_log())
    assert await stored.ask_unpersisted(pool, older_than_s=5, limit=10) == 0
    await pool.execute("UPDATE blocks SET changed_at = now() - interval '6 s'")
    assert 6 <= await stored.lag_s(pool) < 60
    assert await stored.ask_unpersisted(pool, older_than_s=5, limit=10) == 1
    assert await stored.ask_unpersisted(pool, older_than_s=5, limit=10) == 0
    async with pool.acquire() as tx, tx.transaction():  # the writer's own request is the same row
        await blocks.request_persistence(tx, 8453, BlockRef(100, make_hash("block", 100)))
    assert len(await claims(pool)) == 1
    await work(pool, analytics)
    assert await persisted(analytics) == await canonical(pool)
    assert await stored.lag_s(pool) == 0
    assert await stored.ask_unpersisted(pool, older_than_s=5, limit=10) == 0


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
