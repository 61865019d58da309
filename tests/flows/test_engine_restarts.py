"""Redis flushed and restarted, PostgreSQL restarted, amid traffic: nothing lost, no process needs a hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from redis.asyncio import Redis

from config.embedded.chain import Anvil
from config.embedded.postgres import Postgres
from config.embedded.valkey import Valkey
from tests.flows.stack import Client, Stack, assert_exactly_once, stack
from tests.waiting import until
from watchers.devnet.listener import Listener
from watchers.devnet.people import USDC
from watchers.devnet.person import person

SHOP = person(97).address


async def spend_during(made: Stack, client: Client, trouble: Callable[[], Awaitable[None]]) -> int:
    """Spends before, while and after the trouble; returns how many."""
    done = asyncio.Event()
    spent = 0

    async def spender() -> None:
        nonlocal spent
        after = 3
        while after:
            await made.devnet.spend(client.who, "food", USDC, SHOP)
            spent += 1
            after -= done.is_set()
            await asyncio.sleep(0.05)  # a chain has blocks now and then, not in one burst

    running = asyncio.create_task(spender())
    await until(lambda: spent >= 3)
    await trouble()
    done.set()
    await running
    return spent


async def assert_all_told(client: Client, listener: Listener, spent: int) -> None:
    fresh = await client.settled(listener, timeout_s=40)
    assert_exactly_once(listener)
    assert fresh["buckets"][0]["spent"] == str(spent * USDC)
    told = [e for e in listener.events("new_transaction") if e.payload["transaction"]["type"] == "spend"]
    assert len({one.payload["transaction"]["id"] for one in told}) == len(told)


async def test_nothing_is_lost_when_engines_are_flushed_and_restarted(
    tmp_path: Path, anvil: Anvil, private_postgres: Postgres, private_valkey: Valkey
) -> None:
    async with stack(tmp_path, anvil, database_url=private_postgres.url, redis_url=private_valkey.url) as made:
        await made.watch()
        url, _ = await made.serve()
        client = await made.sign_in(await made.devnet.user(1), url)
        async with client.listen(url) as listener:
            await made.devnet.open_bucket(client.who, "food", amount=1000 * USDC)
            spent = 0

            async def flush() -> None:
                async with Redis.from_url(private_valkey.url) as redis:
                    await redis.flushall()

            async def restart_redis() -> None:
                await asyncio.to_thread(private_valkey.kill)
                await asyncio.sleep(1)  # long enough that frames are lost
                await asyncio.to_thread(private_valkey.start)

            async def restart_postgres() -> None:
                await asyncio.to_thread(private_postgres.restart)

            for trouble in (flush, restart_redis, restart_postgres):
                spent += await spend_during(made, client, trouble)
                await assert_all_told(client, listener, spent)
        assert all(process.running for process in made.processes)
