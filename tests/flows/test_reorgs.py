"""Reorgs of depth 1 to 10, a block that comes back, a transaction included again: the client's view is right."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from config.embedded.chain import Anvil
from tests.flows.stack import Client, Stack, assert_exactly_once, stack
from watchers.devnet.listener import Listener
from watchers.devnet.people import USDC
from watchers.devnet.person import person

SHOP = person(95).address


@asynccontextmanager
async def scene(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str
) -> AsyncIterator[tuple[Stack, Client, Listener]]:
    async with stack(tmp_path, anvil, database_url=database_url, redis_url=redis_url) as made:
        await made.watch()
        url, _ = await made.serve()
        client = await made.sign_in(await made.devnet.user(1), url)
        async with client.listen(url) as listener:
            await made.devnet.open_bucket(client.who, "food", limit=500 * USDC, amount=500 * USDC)
            await client.settled(listener)
            yield made, client, listener


async def assert_view_is_the_chains(made: Stack, client: Client, listener: Listener) -> None:
    """The client's view, a fresh snapshot and the contract itself agree; corrections name what they correct."""
    fresh = await client.settled(listener)
    on_chain = await made.devnet.bucket_of(client.who, "food")
    (bucket,) = [one for one in fresh["buckets"] if one["name"] == "food"]
    assert int(bucket["spent"]) == on_chain.spent
    assert int(bucket["monthlyLimit"]) == on_chain.limit
    held = await made.devnet.balance_of(client.who, "food")
    assert [int(amount["raw"]) for amount in bucket["balances"]] == [held] if held else []
    assert_exactly_once(listener)
    known: set[str] = set()
    for one in listener.durable:
        assert set(one.payload.get("corrects", [])) <= known
        known.add(one.payload["id"])


async def test_reorgs_of_every_depth_end_in_the_chains_own_state(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str
) -> None:
    async with scene(tmp_path, anvil, database_url, redis_url) as (made, client, listener):
        for depth in range(1, 11):
            for number in range(depth):
                await made.devnet.spend(client.who, "food", (number + 1) * USDC // 10, SHOP)
            await assert_view_is_the_chains(made, client, listener)
            await made.devnet.reorg(depth)
            await made.devnet.mine(1)
            await assert_view_is_the_chains(made, client, listener)
        reverted = listener.events("transaction_reverted")
        assert len(reverted) == sum(range(1, 11))


async def test_block_that_comes_back_is_told_again_and_counts_once(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str
) -> None:
    async with scene(tmp_path, anvil, database_url, redis_url) as (made, client, listener):
        tx = await made.devnet.spend(client.who, "food", USDC, SHOP)
        await assert_view_is_the_chains(made, client, listener)
        gone = await made.devnet.branch(1)
        await made.devnet.reorg(1)
        await made.devnet.mine(1)
        await assert_view_is_the_chains(made, client, listener)
        await made.devnet.restore(gone)
        await made.devnet.mine(2)
        await assert_view_is_the_chains(made, client, listener)
        told = [e.payload for e in listener.events("new_transaction") if e.payload["transaction"]["txHash"] == tx]
        assert len({one["transaction"]["blockHash"] for one in told}) == 1
        assert len({one["id"] for one in told}) == len(told) == 2


async def test_transaction_included_again_in_another_block_keeps_its_identity(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str
) -> None:
    async with scene(tmp_path, anvil, database_url, redis_url) as (made, client, listener):
        tx = await made.devnet.spend(client.who, "food", USDC, SHOP)
        await assert_view_is_the_chains(made, client, listener)
        raw = await made.devnet.rpc_call("eth_getRawTransactionByHash", tx)
        await made.devnet.reorg(1, txs=[(raw, 0)])
        await made.devnet.mine(1)
        await assert_view_is_the_chains(made, client, listener)
        spends = [
            one.payload for one in listener.events("new_transaction") if one.payload["transaction"]["txHash"] == tx
        ]
        assert len({one["transaction"]["id"] for one in spends}) == 1
        assert len(spends) == 2
        assert len({one["id"] for one in spends}) == 2


async def test_second_watcher_takes_over_within_five_seconds(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str
) -> None:
    async with scene(tmp_path, anvil, database_url, redis_url) as (made, client, listener):
        standby = made.start("watchers")
        made.processes[0].kill()
        await made.devnet.spend(client.who, "food", USDC, SHOP)
        await client.settled(listener, timeout_s=5)
        assert '"writing"' in standby.output
        await assert_view_is_the_chains(made, client, listener)
