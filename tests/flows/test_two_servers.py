"""Two web processes, one user on both, one process killed: the client goes on at the other with nothing lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from config.embedded.chain import Anvil
from tests.flows.proxy import Proxy
from tests.flows.stack import assert_exactly_once, stack
from watchers.devnet.people import USDC
from watchers.devnet.person import person

SPENDS = 12


async def test_client_goes_on_at_the_other_server(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str
) -> None:
    shop = person(98).address
    async with stack(tmp_path, anvil, database_url=database_url, redis_url=redis_url) as made:
        await made.watch()
        (first, doomed), (second, _) = await asyncio.gather(made.serve(), made.serve())
        alice = await made.devnet.user(1)
        client = await made.sign_in(alice, second)
        async with Proxy(first) as proxy, client.listen(proxy.url) as moving, client.listen(second) as staying:
            await made.devnet.open_bucket(alice, "food", amount=100 * USDC)
            for listener in (moving, staying):
                # A resync is followed by a snapshot, which may jump over what else is on its way to one of them.
                since = (await client.settled(listener))["seq"]
            for number in range(SPENDS):
                if number == SPENDS // 2:
                    doomed.kill()
                    proxy.target = second
                    proxy.cut()
                await made.devnet.spend(alice, "food", USDC, shop)
            for listener in (moving, staying):
                await client.settled(listener)
        for listener in (moving, staying):
            assert_exactly_once(listener)
        told = [[one.body for one in listener.durable if one.payload["seq"] > since] for listener in (moving, staying)]
        assert told[0] == told[1]
        assert len(told[0]) >= SPENDS
        connects = [one.body["recovered"] for one in moving.happenings if one.kind == "connect"]
        assert connects == [False, True]
