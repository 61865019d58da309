"""The walk back to the last block that is ours and the node's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession

from store.records import BlockRef
from store.rpc import Rpc, RpcError
from tests.watchers.node import CHAIN_ID, ScriptedNode
from watchers.reorg import WALK, ReorgTooDeep, common_ancestor


class Kept:
    """What we stored: the node's blocks as they were, from a height on."""

    def __init__(self, node: ScriptedNode, *, first: int = 0) -> None:
        self.refs = {block.number: block.hash for block in node.blocks if block.number >= first}
        self.tip = BlockRef(node.head.number, node.head.hash)

    async def hash_at(self, number: int) -> str | None:
        return self.refs.get(number)


@pytest.fixture
async def node() -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode() as node:
        node.mine_many(50)
        yield node


@pytest.fixture
async def rpc(node: ScriptedNode) -> AsyncIterator[Rpc]:
    async with ClientSession() as session:
        yield Rpc([node.url], 1, session, chain_id=CHAIN_ID)


async def test_tip_that_is_still_the_nodes_is_the_ancestor(node: ScriptedNode, rpc: Rpc) -> None:
    kept = Kept(node)
    node.mine_many(3)

    assert await common_ancestor(rpc, kept, kept.tip, depth=12) == kept.tip


@pytest.mark.parametrize("depth", [*range(1, 11), WALK, WALK + 1, 40])
async def test_ancestor_is_the_newest_block_of_both(depth: int, node: ScriptedNode, rpc: Rpc) -> None:
    kept = Kept(node)
    node.reorg(depth)

    assert await common_ancestor(rpc, kept, kept.tip, depth=40) == BlockRef(50 - depth, node.hashes[50 - depth])


async def test_whole_chain_down_to_its_first_block_may_go(node: ScriptedNode, rpc: Rpc) -> None:
    kept = Kept(node)
    node.reorg(50)

    assert await common_ancestor(rpc, kept, kept.tip, depth=100) == BlockRef(0, node.hashes[0])


async def test_reorg_deeper_than_finality_is_refused(node: ScriptedNode, rpc: Rpc) -> None:
    kept = Kept(node)
    node.reorg(13)

    with pytest.raises(ReorgTooDeep, match="the 12 before it"):
        await common_ancestor(rpc, kept, kept.tip, depth=12)
    assert await common_ancestor(rpc, kept, kept.tip, depth=13) is not None


async def test_reorg_beyond_what_is_kept_is_refused(node: ScriptedNode, rpc: Rpc) -> None:
    kept = Kept(node, first=45)
    node.reorg(6)

    with pytest.raises(ReorgTooDeep, match="nor is any older one we keep"):
        await common_ancestor(rpc, kept, kept.tip, depth=12)


async def test_node_that_lags_has_not_reorganised(node: ScriptedNode, rpc: Rpc) -> None:
    kept = Kept(node)
    node.reorg(5)
    node.lag = 1

    assert await common_ancestor(rpc, kept, kept.tip, depth=12) is None


async def test_node_that_fails_on_the_way_is_an_error(node: ScriptedNode, rpc: Rpc) -> None:
    kept = Kept(node)
    node.reorg(5)
    node.fail("eth_getBlockByNumber", "http")
    with pytest.raises(RpcError):
        await common_ancestor(rpc, kept, kept.tip, depth=12)

    def vanish(method: str, params: object) -> None:
        node.lag = 30 if node.calls[method] > 2 else 0

    node.calls.clear()
    node.on_call = vanish
    with pytest.raises(RpcError, match="below one it has"):
        await common_ancestor(rpc, kept, kept.tip, depth=12)
