"""Log ranges: how long they are, and that nothing in them is missed or taken from another chain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import ClientSession

from config import abi
from store.records import Block
from store.rpc import Rpc, RpcError
from tests.factories import make_address
from tests.watchers.node import CHAIN_ID, ScriptedNode
from tests.watchers.said import ALICE, FACTORY, WALLET, Tx, deposited, say, spent, wallet_created
from watchers import catchup
from watchers.catchup import RangeSize, blocks_below

OWN = make_address("own wallet")


@pytest.fixture
async def rpc(node: ScriptedNode) -> AsyncIterator[Rpc]:
    async with ClientSession() as session:
        yield Rpc([node.url], 0.2, session, chain_id=CHAIN_ID)


async def known() -> Mapping[str, str | None]:
    return {}


async def read(rpc: Rpc, node: ScriptedNode, size: RangeSize | None = None) -> list[Block]:
    blocks = blocks_below(rpc, node.chain(), 0, node.head.number, wallets=known, size=size or RangeSize())
    return [block async for block in blocks]


def test_range_grows_with_success_up_to_a_limit() -> None:
    size = RangeSize()
    sizes = []
    for _ in range(12):
        size.worked()
        sizes.append(size.size)

    assert sizes == sorted(sizes)
    assert sizes[0] > catchup.FIRST_RANGE
    assert sizes[-1] == catchup.LONGEST_RANGE


def test_refused_range_is_halved_until_one_works() -> None:
    size = RangeSize()
    for _ in range(20):
        size.refused()

    assert size.size == 1


def test_range_goes_back_to_what_worked_and_stays_there_for_a_while() -> None:
    size = RangeSize()
    size.worked()
    size.refused()
    assert size.size == catchup.FIRST_RANGE
    for _ in range(catchup.RELAX_AFTER - 1):
        size.worked()
        assert size.size == catchup.FIRST_RANGE
    size.worked()
    assert size.size > catchup.FIRST_RANGE


async def test_blocks_with_our_logs_and_the_last_one_are_read(node: ScriptedNode, rpc: Rpc) -> None:
    node.mine(Tx((say(WALLET, abi.PAUSED, address=ALICE),)))
    node.mine(Tx((say(OWN, abi.PAUSED, address=ALICE), deposited(wallet=OWN))))
    node.mine(Tx((spent(),), l1_fee=3), *[Tx((deposited(),))] * 6)
    node.mine(Tx((wallet_created(ALICE, OWN), deposited(wallet=OWN), say(FACTORY, abi.UNPAUSED, address=ALICE))))
    node.mine_many(3)

    blocks = await read(rpc, node)

    assert [(block.number, len(block.logs), len(block.receipts)) for block in blocks] == [
        (1, 1, 1), (3, 7, 7), (4, 3, 1), (7, 0, 0)
    ]  # fmt: skip
    assert [block.hash for block in blocks] == [node.hashes[n] for n in (1, 3, 4, 7)]
    assert blocks[1].receipts[node.blocks[3].tx_hash(0)].l1_fee == 3


async def test_last_block_is_read_once_when_it_has_logs(node: ScriptedNode, rpc: Rpc) -> None:
    node.mine(Tx((spent(),)))

    assert [(block.number, len(block.logs)) for block in await read(rpc, node)] == [(1, 1)]


async def test_logs_of_a_block_that_is_not_the_chains_are_an_error(node: ScriptedNode, rpc: Rpc) -> None:
    for _ in range(3):
        node.mine(Tx((spent(),)))
    node.mine()

    def replace(method: str, _params: object) -> None:
        if method == "eth_getBlockByNumber" and node.calls["eth_getLogs"]:
            node.reorg(2)
            node.on_call = None

    node.on_call = replace
    with pytest.raises(RpcError, match="not the chain's"):
        await read(rpc, node)


async def test_slow_range_is_shortened_and_the_pause_is_the_callers(node: ScriptedNode, rpc: Rpc) -> None:
    node.mine_many(3)
    size = RangeSize()
    node.fail("eth_getLogs", "hang")

    with pytest.raises(RpcError, match="timeout"):
        await read(rpc, node, size)

    assert size.size < catchup.FIRST_RANGE
    assert [block.number for block in await read(rpc, node, size)] == [3]


async def test_failure_that_less_would_not_help_is_the_callers(node: ScriptedNode, rpc: Rpc) -> None:
    node.mine_many(3)
    size = RangeSize()
    node.fail("eth_getLogs", "jsonrpc")

    with pytest.raises(RpcError, match="header not found"):
        await read(rpc, node, size)

    assert size.size == catchup.FIRST_RANGE


async def test_range_of_one_block_that_is_refused_is_an_error(node: ScriptedNode, rpc: Rpc) -> None:
    node.longest_range = 0

    with pytest.raises(RpcError, match="exceeds"):
        await read(rpc, node)
