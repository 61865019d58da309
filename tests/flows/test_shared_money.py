"""Shared money on the real contract: added, spends, removed, and all of it taken back, on two phones at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from config.embedded.chain import Anvil
from tests.flows.stack import assert_exactly_once, stack
from watchers.devnet.people import USDC
from watchers.devnet.person import person

SHOP = person(95).address


def food(view: dict[str, Any]) -> dict[str, Any] | None:
    return next((each for each in view["buckets"] if each["name"] == "food"), None)


async def test_a_delegate_sees_the_bucket_while_they_may_spend_from_it(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str
) -> None:
    async with stack(tmp_path, anvil, database_url=database_url, redis_url=redis_url) as made:
        await made.watch()
        url, _ = await made.serve()
        alice, bob = [await made.sign_in(await made.devnet.user(number), url) for number in (1, 2)]
        async with alice.listen(url) as hers, bob.listen(url) as his:
            await made.devnet.open_bucket(alice.who, "food", limit=100 * USDC, amount=50 * USDC)
            await made.devnet.add_delegate(alice.who, "food", bob.who)
            await made.devnet.spend(alice.who, "food", 9 * USDC, SHOP, delegate=bob.who)
            mine, shared = food(await alice.settled(hers)), food(await bob.settled(his))
            assert mine is not None
            assert shared is not None
            assert {**mine, "role": "delegate"} == shared
            figures = {each["address"]: [one["raw"] for one in each["spent"]] for each in shared["members"]}
            assert figures == {alice.who.address: [], bob.who.address: [str(9 * USDC)]}
            assert [each["raw"] for each in shared["balances"]] == [str(41 * USDC)]

            await made.devnet.remove_delegate(alice.who, "food", bob.who)
            assert food(await bob.settled(his)) is None
            mine = food(await alice.settled(hers))
            assert mine is not None
            assert [(each["role"], each["count"]) for each in mine["members"]] == [("owner", 0), ("former", 1)]

            await made.devnet.reorg(2)  # the removal and the spend
            await made.devnet.mine(1)
            mine, shared = food(await alice.settled(hers)), food(await bob.settled(his))
            assert mine is not None
            assert shared is not None
            assert ([each["count"] for each in shared["members"]], shared["spent"]) == ([0, 0], "0")
            assert {**mine, "role": "delegate"} == shared
            assert_exactly_once(hers)
            assert_exactly_once(his)
