"""What is read of vaults and locks at a block, from real contracts and from nodes that refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from aiohttp import ClientSession

from config.chains import Chain, Token, Vault
from config.embedded.chain import Anvil
from config.settings import Settings
from handlers.rules.holdings import NOTHING_READ, Values
from handlers.rules.yields import PRECISE, Rate
from store.postgres import Pool
from store.records import BlockRef
from store.rpc import Rpc
from store.yields import Source
from tests.handlers.ledger import bench, sign_in
from tests.handlers.scripted import ALICE, LOCK, SHOP, VAULT, Script, handed, invested, listed_vault, locked, make_chain
from tests.watchers.node import CHAIN_ID, ScriptedNode
from watchers.devnet.people import USDC, Devnet
from watchers.yields import NOTHING_WANTED, Wanted, read_values


@dataclass
class Market:
    devnet: Devnet
    rpc: Rpc

    @property
    def chain(self) -> Chain:
        at = self.devnet.at
        vault = Vault(at.vault, "Devnet", at.usdc, "Mock Vault", 6)
        tokens = (Token(at.usdc, "USDC", 6, "usd"),)
        return make_chain(at.chain_id, tokens=tokens, vaults=(vault,), yield_locks=(at.lock,))

    async def tip(self) -> BlockRef:
        block = await self.devnet.rpc_call("eth_getBlockByNumber", "latest", False)
        return BlockRef(int(block["number"], 16), block["hash"])

    async def read(self, block: BlockRef, *sources: Source, full: bool = False) -> Values:
        return await read_values(self.rpc, self.chain, block, Wanted(sources, full))


@pytest.fixture
async def market(anvil: Anvil) -> AsyncIterator[Market]:
    async with Devnet(anvil.rpc) as devnet, ClientSession() as session:
        yield Market(devnet, Rpc([anvil.rpc], 10, session, chain_id=devnet.at.chain_id))


async def test_values_are_those_of_the_block_asked_for(market: Market) -> None:
    devnet, alice = market.devnet, await market.devnet.user(1)
    await devnet.lock_up(alice, 100 * USDC, unlock_time=1, label="")
    await devnet.set_share_price(11 * 10**17)
    first = await market.tip()
    await devnet.set_share_price(13 * 10**17)
    vault, lock = Source(devnet.at.vault), Source(devnet.at.lock, 0)
    lock_id = f"{devnet.at.chain_id}:{devnet.at.lock}:0"
    assert await market.read(first, vault, lock) == Values(
        {devnet.at.vault: Rate(11 * PRECISE // 10, PRECISE)}, {lock_id: 110 * USDC}
    )
    now = await market.read(await market.tip(), vault, lock, full=True)
    assert (now.rates[devnet.at.vault].worth(7), now.locks, now.full) == (9, {lock_id: 130 * USDC}, True)


async def test_vault_that_refuses_very_many_shares_is_asked_of_one(market: Market) -> None:
    await market.devnet.set_share_price(2**150)
    values = await market.read(await market.tip(), Source(market.devnet.at.vault))
    assert values.rates[market.devnet.at.vault] == Rate(10**6 * 2**150 // 10**18, 10**6)


async def test_contract_that_answers_nothing_is_left_out(market: Market) -> None:
    at = market.devnet.at
    values = await market.read(await market.tip(), Source(SHOP), Source(at.usdc, 0), Source(at.vault))
    assert (list(values.rates), values.locks) == ([at.vault], {})


async def test_nothing_wanted_asks_nothing_and_refused_state_reads_nothing() -> None:
    async with ScriptedNode() as node, ClientSession() as session:
        rpc = Rpc([node.url], 1, session, chain_id=CHAIN_ID)
        node.mine()
        gone = BlockRef(1, "0x" + "00" * 32)
        chain = make_chain(vaults=(listed_vault(),))
        assert await read_values(rpc, chain, gone, NOTHING_WANTED) is NOTHING_READ
        assert node.calls["eth_call"] == 0
        assert await read_values(rpc, chain, gone, Wanted((), full=True)) == Values(full=True)
        assert await read_values(rpc, chain, gone, Wanted((Source(VAULT),), full=True)) is NOTHING_READ


async def test_ledger_wants_what_a_block_moves_and_everything_once_an_interval(
    pool: Pool, make_settings: Callable[..., Settings]
) -> None:
    chain = make_chain(vaults=(listed_vault(),), yield_locks=(LOCK,))
    async with bench(pool, make_settings(yield_interval_blocks=3), chain) as world:
        await sign_in(pool, ALICE, chains=[chain.id])
        ledger, script = world.ledger, Script()
        made = script.block(locked(ALICE, 4, 100))
        assert await ledger.to_value(made, opening=False) == Wanted((Source(LOCK, 4),), full=True)
        await world.apply(made, values=Values(full=True))
        everything = (Source(LOCK, 4),)
        for full in (False, False, True, False):
            block = script.block()
            assert await ledger.to_value(block, opening=False) == Wanted(everything if full else (), full)
            await world.apply(block, values=Values(full=full))
        for events, moved in (
            ([handed(SHOP, LOCK, 1)], ()),
            ([handed(SHOP, ALICE, 1)], (Source(VAULT),)),
            (invested(ALICE, 1, 1), (Source(VAULT),)),
        ):
            following = Script(number=script.number).block(events)
            assert await ledger.to_value(following, opening=False) == Wanted(moved)
        following = Script(number=script.number).block()
        assert await ledger.to_value(following, opening=True) == Wanted((Source(VAULT),))
        await world.revert()
        assert (await ledger.to_value(script.block(), opening=False)).full


async def test_chain_without_vaults_and_locks_wants_nothing(pool: Pool, make_settings: Callable[..., Settings]) -> None:
    async with bench(pool, make_settings(), make_chain()) as world:
        assert await world.ledger.to_value(Script().block(), opening=True) == NOTHING_WANTED
