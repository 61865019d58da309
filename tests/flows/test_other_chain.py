"""The whole product pointed at another chain by one TOML file: other id, other addresses, no other change."""

from __future__ import annotations

from pathlib import Path

from config.embedded.chain import Anvil
from tests.flows.stack import assert_exactly_once, stack
from watchers.devnet.people import USDC
from watchers.devnet.person import person


async def test_one_toml_file_points_the_product_at_another_chain(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    with Anvil(tmp_path / "other", block_time=None, chain_id=8453) as anvil:
        async with stack(tmp_path, anvil, database_url=database_url, redis_url=redis_url) as made:
            await made.devnet.create("MockUSDC")  # moves every later address
            await made.watch()
            url, _ = await made.serve()
            alice = await made.devnet.user(3)
            client = await made.sign_in(alice, url)
            async with client.listen(url) as listener:
                await made.devnet.create_wallet(alice)
                own = await made.devnet.wallet_of(alice)
                assert own is not None
                await made.devnet.open_bucket(alice, "rent", amount=10 * USDC, wallet=own)
                await made.devnet.spend(alice, "rent", 4 * USDC, person(96).address, wallet=own)
                fresh = await client.settled(listener)
            assert_exactly_once(listener)
            assert [bucket["wallet"] for bucket in fresh["buckets"]] == [own]
            assert {one.payload["transaction"]["chainId"] for one in listener.events("new_transaction")} == {8453}
