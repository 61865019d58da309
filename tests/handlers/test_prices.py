"""Balances at the newest price, rows at their block's: through blocks, reorgs and another writer."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from config.chains import Feed, Token
from config.settings import Settings
from handlers import chain_events as ce
from handlers.chain_events import ChainEvent
from store.postgres import Pool
from store.prices import PriceRow
from tests.handlers import scripted
from tests.handlers.ledger import Bench, bench, sign_in
from tests.handlers.scripted import ALICE, OTHER_TOKEN, USDC, Script, created, deposit, fund, make_chain

WETH = 10**18
CHAIN = make_chain(tokens=(Token(USDC, "USDC", 6, "usd"), Token(OTHER_TOKEN, "WETH", 18, Feed("0x" + "fe" * 20, 8))))


@pytest.fixture
def script() -> Script:
    return Script()


async def price(world: Bench, script: Script, usd: str | None, *events: ChainEvent) -> None:
    """A block at which the feed was read."""
    block = script.block(events)
    row = PriceRow(OTHER_TOKEN, None if usd is None else Decimal(usd))
    await world.ledger.apply(block, head=block.number, finalized=0, read=[row])


async def shown(world: Bench, script: Script) -> list[str | None]:
    """What a bucket is told to hold when a block changes it and reads no feed."""
    touch = ce.BucketUpdated(**scripted.at(), user=ALICE, name=b"food", new_limit=script.number, active=True)
    await world.apply(script.block([touch]))
    told = (await world.told(ALICE))[-1][1]["bucket"]["balances"]
    [snapshot] = (await world.snapshot(ALICE))["buckets"]
    assert snapshot["balances"] == told
    return [held["usd"] for held in told]


async def test_balances_are_told_at_the_newest_price_and_rows_at_their_own(
    pool: Pool, make_settings: Callable[..., Settings], script: Script
) -> None:
    await sign_in(pool, ALICE)
    filled = [deposit(ALICE, WETH, token=OTHER_TOKEN), fund(ALICE, "food", WETH, token=OTHER_TOKEN)]
    async with bench(pool, make_settings(), CHAIN) as world:
        await price(world, script, "3000", created(ALICE, "food"), *filled)
        assert await shown(world, script) == ["3000.00"]
        await price(world, script, "3100.5")
        assert await shown(world, script) == ["3100.50"]
        await price(world, script, None)
        assert await shown(world, script) == [None]
        script.back(2, fork="b")
        await world.revert(2)
        assert await shown(world, script) == ["3100.50"]
        script.back(3, fork="c")
        await world.revert(3)
        assert await shown(world, script) == ["3000.00"]
    async with bench(pool, make_settings(), CHAIN) as another:
        assert await shown(another, script) == ["3000.00"]
    assert {row["usd"] for row in await pool.fetch("SELECT usd FROM transactions")} == {3000}
