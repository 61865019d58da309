"""One event's way (docs/architecture.md): anvil, watcher, PostgreSQL, Redis, server, the official client."""

from __future__ import annotations

from pathlib import Path

import orjson

from config.embedded.chain import Anvil
from store.postgres import Pool
from tests.flows.stack import assert_exactly_once, stack
from watchers.devnet.people import USDC
from watchers.devnet.person import person


async def test_spend_reaches_the_client_as_the_log_says(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str, pool: Pool
) -> None:
    shop = person(99).address
    async with stack(tmp_path, anvil, database_url=database_url, redis_url=redis_url) as made:
        await made.watch()
        url, _ = await made.serve()
        alice = await made.devnet.user(1)
        client = await made.sign_in(alice, url)
        async with client.listen(url) as listener:
            await made.devnet.mine(
                1
            )  # her own balance opens with it; the snapshot that follows would jump over the rest
            first = (await client.settled(listener))["seq"]
            await made.devnet.open_bucket(alice, "groceries", limit=100 * USDC, amount=90 * USDC)
            tx = await made.devnet.spend(alice, "groceries", 81 * USDC, shop)
            told = await listener.until(
                lambda: [e for e in listener.events("new_transaction") if e.payload["transaction"]["txHash"] == tx],
                what="the spend",
            )
            spend = told[0].payload
            fresh = await client.settled(listener)
            epoch = listener.events("session")[0].payload["epoch"]
            log = await client.rest.events(epoch=epoch, after=first)

    assert_exactly_once(listener)
    received = [one for one in listener.durable if one.payload["seq"] > first]
    assert [(one.name, one.payload) for one in received] == [(entry["event"], entry["payload"]) for entry in log]
    assert spend["transaction"]["type"] == "spend"
    assert spend["transaction"]["counterparty"] == shop
    assert spend["transaction"]["amount"]["usd"] == "81.00"
    (impact,) = spend["budgetImpact"]
    assert (impact["spentAfter"], impact["utilization"], impact["status"]) == (str(81 * USDC), "0.81", "warning")
    assert fresh["buckets"][0]["spent"] == str(81 * USDC)
    stored = await pool.fetchval("SELECT payload FROM user_log WHERE event_id = $1", spend["id"])
    assert orjson.loads(stored) == spend


async def test_backfill_of_the_running_chain_finds_nothing_to_change(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str
) -> None:
    async with stack(tmp_path, anvil, database_url=database_url, redis_url=redis_url) as made:
        await made.watch()
        alice = await made.devnet.user(1)
        await made.devnet.open_bucket(alice, "groceries", amount=90 * USDC)
        await made.devnet.mine(70)
        await made.caught_up()
        rebuild = made.start("watchers", "backfill", "--chain", str(made.chain_id))
        assert await rebuild.stop_by_itself() == 0, rebuild.output
        assert "0 rows added, 0 users told to resync" in rebuild.output
