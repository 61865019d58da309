"""Nothing that was asked for is lost, whatever dies between the request and the job's own transaction."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import orjson
import pytest
from arq.connections import ArqRedis

from config import keys
from config.embedded.valkey import Valkey
from store import outbox
from store.outbox import Claim, Due
from store.postgres import Pool
from tests.waiting import until

ARGS = {"chainId": 1, "number": 7, "hash": "0xab"}


@pytest.fixture
async def redis(private_valkey: Valkey) -> AsyncIterator[ArqRedis]:
    redis = outbox.open_queue(private_valkey.url, "quick")
    yield redis
    await redis.aclose(close_connection_pool=True)


async def ask(pool: Pool, *, job: str = "persist_block", **args: object) -> None:
    async with pool.acquire() as conn, conn.transaction():
        await outbox.request(conn, "quick", job, args or ARGS)


async def fresh(pool: Pool) -> list[Due]:
    return await outbox.due(pool, "quick", older_than_s=30, limit=10)


async def begun(pool: Pool) -> Claim:
    (row_id,) = [row["id"] for row in await pool.fetch("SELECT id FROM outbox")]
    claim = await outbox.begin(pool, row_id)
    assert claim is not None
    return claim


async def finish(pool: Pool, claim: Claim) -> bool:
    async with pool.acquire() as conn, conn.transaction():
        return await outbox.done(conn, claim)


async def test_request_is_due_after_its_commit_and_not_before(pool: Pool) -> None:
    async with pool.acquire() as conn, conn.transaction():
        await outbox.request(conn, "quick", "persist_block", ARGS)
        assert await fresh(pool) == []
    assert [row.job for row in await fresh(pool)] == ["persist_block"]
    assert await outbox.due(pool, "slow", older_than_s=30, limit=10) == []


async def test_asked_twice_before_it_ran_is_one_row_and_ends_with_one_run(pool: Pool) -> None:
    await ask(pool)
    await ask(pool)
    assert await outbox.depth(pool) == 1
    claim = await begun(pool)
    assert claim.args == ARGS
    assert claim.attempts == 1
    assert await finish(pool, claim)
    assert await outbox.depth(pool) == 0


async def test_asked_again_while_it_runs_is_not_lost(pool: Pool) -> None:
    await ask(pool)
    claim = await begun(pool)
    await ask(pool)
    assert not await finish(pool, claim)
    again = await begun(pool)
    assert again.id == claim.id
    assert await finish(pool, again)


async def test_asked_again_by_a_clock_that_was_set_back_is_not_lost(pool: Pool) -> None:
    await ask(pool)
    await pool.execute("UPDATE outbox SET created_at = now() + interval '1 hour'")
    claim = await begun(pool)
    await ask(pool)
    assert not await finish(pool, claim)


async def test_request_that_commits_while_the_job_ends_is_not_lost(pool: Pool) -> None:
    await ask(pool)
    claim = await begun(pool)
    async with pool.acquire() as writer:
        async with writer.transaction():
            await outbox.request(writer, "quick", "persist_block", ARGS)
            ending = asyncio.create_task(finish(pool, claim))
            await until(lambda: pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        assert not await ending
    assert await outbox.depth(pool) == 1


async def test_done_twice_says_no_and_begin_of_a_done_row_says_none(pool: Pool) -> None:
    await ask(pool)
    claim = await begun(pool)
    assert await finish(pool, claim)
    assert not await finish(pool, claim)
    assert await outbox.begin(pool, claim.id) is None
    assert await outbox.begin(pool, uuid.uuid4()) is None


async def test_job_that_never_ends_is_counted_and_stays(pool: Pool) -> None:
    await ask(pool)
    await begun(pool)
    await begun(pool)
    assert (await begun(pool)).attempts == 3
    assert await outbox.depth(pool) == 1


async def test_dispatch_hands_over_once_and_again_when_it_may_be_lost(pool: Pool, redis: ArqRedis) -> None:
    await ask(pool)
    assert await outbox.dispatch(pool, redis, "quick") == 1
    assert await outbox.dispatch(pool, redis, "quick") == 0
    (row,) = await pool.fetch("SELECT id, enqueued_at FROM outbox")
    assert await redis.zrange(keys.queue_name("quick"), 0, -1) == [str(row["id"]).encode()]
    assert orjson.loads(await redis.get(f"arq:job:{row['id']}") or b"")["f"] == "persist_block"  # JSON, no pickle

    await redis.flushall()
    assert await outbox.dispatch(pool, redis, "quick") == 0
    await pool.execute("UPDATE outbox SET enqueued_at = now() - interval '31 s'")
    assert await outbox.dispatch(pool, redis, "quick") == 1
    assert await redis.zcard(keys.queue_name("quick")) == 1
    assert await outbox.dispatch(pool, redis, "quick") == 0


async def test_dispatch_leaves_the_row_due_when_redis_is_away(
    pool: Pool, redis: ArqRedis, private_valkey: Valkey
) -> None:
    await ask(pool)
    private_valkey.kill()
    with pytest.raises(outbox.QUEUE_AWAY):
        await outbox.dispatch(pool, redis, "quick")
    assert len(await fresh(pool)) == 1
    private_valkey.start()
    assert await outbox.dispatch(pool, redis, "quick") == 1


async def test_dispatch_serves_fresh_rows_before_stale_ones_in_bounded_batches(pool: Pool, redis: ArqRedis) -> None:
    for number in range(3):
        await ask(pool, number=number)
    assert await outbox.dispatch(pool, redis, "quick") == 3
    await pool.execute("UPDATE outbox SET enqueued_at = now() - interval '1 hour'")
    await ask(pool, number=99)
    rows = await outbox.due(pool, "quick", older_than_s=30, limit=2)
    newest = await pool.fetchval("SELECT id FROM outbox ORDER BY created_at DESC LIMIT 1")
    assert len(rows) == 2
    assert rows[0].id == newest


def test_results_that_are_no_json_are_text() -> None:
    assert outbox.encode({"r": ValueError("no")}) == b'{"r":"ValueError(\'no\')"}'
