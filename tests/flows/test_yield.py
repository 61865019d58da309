"""Money that works: a vault whose share price moves and a lock that accrues, as the official client sees them.

Every figure is held to what the contracts themselves answer, and to their blocks' own time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

from config.embedded.chain import Anvil
from tests.flows.stack import Client, Stack, assert_exactly_once, stack
from watchers.devnet.listener import Happening, Listener
from watchers.devnet.people import USDC, Devnet

ONE = 10**18
"""Share price at which a share is worth its asset."""
DAY_S = 86_400
YEAR_S = 365 * DAY_S
PRECISE = Context(prec=50)


@asynccontextmanager
async def scene(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str
) -> AsyncIterator[tuple[Stack, str, Client, Listener]]:
    """Someone on a socket whose own address is followed; every block is valued."""
    async with stack(tmp_path, anvil, database_url=database_url, redis_url=redis_url) as made:
        await made.watch(yield_interval_blocks="1")
        url, _ = await made.serve()
        client = await made.sign_in(await made.devnet.user(1), url)
        async with client.listen(url) as listener:
            await made.devnet.mine(1)
            await client.settled(listener)
            yield made, url, client, listener


def update_of(listener: Listener, tells: Callable[[Mapping[str, Any]], bool]) -> Happening | None:
    """The newest `yield_update` of which one position is like that."""
    told = [one for one in listener.events("yield_update") if any(tells(p) for p in one.payload["positions"])]
    return told[-1] if told else None


async def told(listener: Listener, what: str, **raws: int) -> dict[str, Any]:
    """Wait for a `yield_update` with a position of these raw amounts; returns its payload."""

    def tells(position: Mapping[str, Any]) -> bool:
        return all(position[key] is not None and position[key]["raw"] == str(raw) for key, raw in raws.items())

    return (await listener.until(lambda: update_of(listener, tells), what=what)).payload


async def time_of(devnet: Devnet, number: int) -> int:
    block = await devnet.rpc_call("eth_getBlockByNumber", hex(number), False)
    return int(block["timestamp"], 16)


def annualised(before: int, after: int, seconds: int) -> Decimal:
    """What growth from one value to the other within so many seconds comes to in a year, to six places."""
    grown = PRECISE.divide(Decimal(after), Decimal(before))
    rate = PRECISE.power(grown, PRECISE.divide(Decimal(YEAR_S), Decimal(seconds))) - 1
    return rate.quantize(Decimal("0.000001"))


async def test_share_price_moves_and_the_client_sees_what_the_contract_says(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str
) -> None:
    async with scene(tmp_path, anvil, database_url, redis_url) as (made, _, client, listener):
        devnet, alice = made.devnet, client.who
        await devnet.set_share_price(1_000_003 * 10**12)
        await devnet.invest(alice, 1_000 * USDC)
        entered = await devnet.block_number()
        shares = await devnet.shares_of(alice.address)
        at_entry = await devnet.worth(shares)
        first = await told(listener, "the deposit", value=at_entry, principal=1_000 * USDC, shares=shares)
        (position,) = first["positions"]
        assert position["positionId"] == f"{made.chain_id}:{devnet.at.vault}"
        assert (position["protocol"], position["asset"], position["asOfBlock"]) == ("Devnet", "USDC", entered)
        assert (position["apy"], position["yield"]["raw"], position["riskLevel"]) == (None, "-1", "low")
        assert first["totalYield"] == "-0.000001"
        rows = [one.payload["transaction"] for one in listener.events("new_transaction")]
        assert [(row["type"], row["accountType"], row["direction"]) for row in rows] == [
            ("vault_deposit", "investment", "in")
        ]

        await devnet.increase_time(3 * DAY_S)
        await devnet.set_share_price(1_002_345 * 10**12)
        value, number = await devnet.worth(shares), await devnet.block_number()
        grown = await told(listener, "the new price", value=value)
        (position,) = grown["positions"]
        assert position["yield"]["raw"] == str(value - 1_000 * USDC)
        assert position["asOfBlock"] == number
        seconds = await time_of(devnet, number) - await time_of(devnet, entered)
        # As fine as the vault can say it: assets of very many shares.
        prices = (1_000_003, 1_002_345)
        assert Decimal(position["apy"]) == annualised(*prices, seconds)
        assert Decimal(position["windowDays"]) == (Decimal(seconds) / DAY_S).quantize(Decimal("0.000001"))
        assert (grown["apy"], grown["unpriced"]) == (position["apy"], 0)
        assert Decimal(grown["totalYield"]) == Decimal(value - 1_000 * USDC) / USDC

        await devnet.reorg(1)  # the block that moved the price never was
        assert await devnet.worth(shares) == at_entry
        corrected = await listener.until(
            lambda: next(
                (e for e in listener.events("yield_update") if grown["id"] in e.payload.get("corrects", [])), None
            ),
            what="the correction",
        )
        assert corrected.payload["positions"] == first["positions"]
        assert corrected.payload["totalYield"] == first["totalYield"]
        await devnet.mine(1)
        fresh = await client.settled(listener)
        assert fresh["positions"] == first["positions"]

        await devnet.set_share_price(999 * 10**15)
        lost = await told(listener, "a loss", value=await devnet.worth(shares))
        assert lost["positions"][0]["yield"]["raw"].startswith("-")
        await client.settled(listener)
        await devnet.redeem(alice, shares)
        await told(listener, "the withdrawal", shares=0, principal=0, value=0)
        assert (await client.settled(listener))["positions"] == []
        assert_exactly_once(listener)


async def test_reorg_that_takes_the_deposit_takes_the_position(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str
) -> None:
    async with scene(tmp_path, anvil, database_url, redis_url) as (made, _, client, listener):
        await made.devnet.invest(client.who, 5 * USDC)
        first = await told(listener, "the deposit", value=5 * USDC)
        await client.settled(listener)
        await made.devnet.reorg(1)
        await made.devnet.mine(1)
        fresh = await client.settled(listener)
        assert fresh["positions"] == []
        (corrected,) = [one.payload for one in listener.events("yield_update") if "corrects" in one.payload]
        assert corrected["corrects"] == [first["id"]]
        assert corrected["totalYield"] == "0.00"
        assert_exactly_once(listener)


async def test_shares_that_are_handed_over_move_value_and_principal(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str
) -> None:
    async with scene(tmp_path, anvil, database_url, redis_url) as (made, url, client, listener):
        devnet, alice = made.devnet, client.who
        other = await made.sign_in(await devnet.user(2), url)
        async with other.listen(url) as others:
            await devnet.invest(alice, 900 * USDC)
            await devnet.set_share_price(12 * ONE // 10)
            await told(listener, "the gain", value=1_080 * USDC)
            await devnet.hand_over(alice, other.who.address, 300 * USDC)
            left = await told(listener, "what is left", shares=600 * USDC)
            (position,) = left["positions"]
            assert [position[key]["raw"] for key in ("value", "principal", "yield")] == [
                str(720 * USDC),
                str(600 * USDC),
                str(120 * USDC),
            ]
            got = await told(others, "what came", shares=300 * USDC)
            (position,) = got["positions"]
            assert [position[key]["raw"] for key in ("value", "principal", "yield")] == [
                str(await devnet.worth(300 * USDC)),
                str(360 * USDC),
                "0",
            ]
            await client.settled(listener)
            await other.settled(others)
            await devnet.reorg(1)
            await devnet.mine(1)
            (back,) = (await client.settled(listener))["positions"]
            assert (back["shares"]["raw"], back["principal"]["raw"]) == (str(900 * USDC), str(900 * USDC))
            assert (await other.settled(others))["positions"] == []


async def test_lock_accrues_until_it_opens(tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str) -> None:
    async with scene(tmp_path, anvil, database_url, redis_url) as (made, _, client, listener):
        devnet, alice = made.devnet, client.who
        now = await time_of(devnet, await devnet.block_number())
        await devnet.lock_up(alice, 250 * USDC, unlock_time=now + 2 * DAY_S, label="a house")
        entered = await devnet.block_number()
        (position,) = (await told(listener, "the lock", value=250 * USDC))["positions"]
        assert position["positionId"] == f"{made.chain_id}:{devnet.at.lock}:0"
        assert (position["kind"], position["label"], position["protocol"]) == ("lock", "a house", "Devnet")

        await devnet.increase_time(2 * DAY_S)
        await devnet.set_share_price(101 * ONE // 100)
        accrued, assets = await devnet.accrued(0)
        grown = await told(listener, "what it accrued", value=assets)
        (position,) = grown["positions"]
        assert position["yield"]["raw"] == str(accrued)
        seconds = await time_of(devnet, position["asOfBlock"]) - await time_of(devnet, entered)
        assert Decimal(position["apy"]) == annualised(250 * USDC, assets, seconds)

        await devnet.unlock(alice, 0)
        await told(listener, "the end of the lock", shares=0, principal=0)
        assert (await client.settled(listener))["positions"] == []
        paid = listener.events("new_transaction")[-1].payload["transaction"]
        fee = assets // 10_000
        assert (paid["type"], paid["amount"]["raw"], paid["accountFee"]["raw"]) == (
            "yield_unlock",
            str(assets - fee),
            str(fee),
        )
        assert_exactly_once(listener)
