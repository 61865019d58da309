"""Headers become complete blocks, in order, or an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing

import pytest
from aiohttp import ClientSession
from prometheus_client import REGISTRY

from config import abi
from config.chains import Token
from store.chain import Header, headers_at
from store.rpc import Rpc, RpcError
from tests.factories import make_address
from tests.watchers.node import CHAIN_ID, FakeBlock, Fault, ScriptedNode
from tests.watchers.said import ALICE, BOB, ETH, FACTORY, USDC, WALLET, Said, Tx, deposited, say, topic, transferred
from watchers.fetch import CHUNK, CHUNKS_IN_FLIGHT, Interest, fetch, fetch_range, interest_in

STRANGER = make_address("stranger")


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


@pytest.fixture
def rpc(node: ScriptedNode, session: ClientSession) -> Rpc:
    return Rpc([node.url], 1, session, chain_id=CHAIN_ID)


@pytest.fixture
def interest(node: ScriptedNode) -> Interest:
    return interest_in(node.chain())


async def header(rpc: Rpc, block: FakeBlock) -> Header:
    (found,) = await headers_at(rpc, [block.number])
    assert found is not None
    return found


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("expendi_empty_logs_total", {"chain": str(CHAIN_ID), "outcome": outcome}) or 0


async def test_block_has_the_logs_that_may_concern_us_and_their_receipts(
    node: ScriptedNode, rpc: Rpc, interest: Interest
) -> None:
    approval = Said(USDC, (abi.TRANSFER.replace("dd", "ee"),), "0x")
    nft = Said(USDC, (abi.TRANSFER, topic(ALICE), topic(BOB), topic(1)), "0x")
    block = node.mine(
        Tx((approval, deposited())),
        Tx((transferred(ALICE, BOB, token=STRANGER),)),
        Tx((transferred(ALICE, BOB), nft, deposited(wallet=STRANGER), say(STRANGER, abi.PAUSED, address=ALICE))),
    )

    (found,) = await fetch(rpc, CHAIN_ID, [await header(rpc, block)], interest)

    assert found.ref == (await header(rpc, block)).ref
    assert found.parent_hash == block.parent
    assert found.time.timestamp() == block.time
    # Whose logs count is decided later, when the wallets of the blocks before are known.
    assert [(log.log_index, log.address) for log in found.logs] == [
        (1, WALLET), (3, USDC), (5, STRANGER), (6, STRANGER)
    ]  # fmt: skip
    assert {tx: receipt.first_log_index for tx, receipt in found.receipts.items()} == {
        block.tx_hash(0): 0,
        block.tx_hash(2): 3,
    }


async def test_several_blocks_take_three_requests(node: ScriptedNode, rpc: Rpc, interest: Interest) -> None:
    for _ in range(5):
        node.mine(Tx((deposited(),)))
    headers = [one for one in await headers_at(rpc, range(1, 6)) if one]
    before = node.requests

    blocks = await fetch(rpc, CHAIN_ID, headers, interest)

    assert [block.number for block in blocks] == [1, 2, 3, 4, 5]
    assert node.requests - before == 2


async def test_chain_without_contracts_and_tokens_needs_no_logs(node: ScriptedNode, rpc: Rpc) -> None:
    block = node.mine(Tx((deposited(),)))
    nothing = interest_in(node.chain(wallets=(), factories=(), tokens=(Token(ETH, "ETH", 18),)))

    assert [len(one.logs) for one in await fetch(rpc, CHAIN_ID, [await header(rpc, block)], nothing)] == [0]
    assert node.calls["eth_getLogs"] == 0


async def test_empty_block_is_believed_at_once(node: ScriptedNode, rpc: Rpc, interest: Interest) -> None:
    await fetch(rpc, CHAIN_ID, [await header(rpc, node.mine())], interest)

    assert (node.calls["eth_getLogs"], node.calls["eth_getBlockReceipts"]) == (2, 0)


# Empty logs under a bloom that says otherwise


async def test_lagging_node_is_caught_by_the_bloom_and_its_receipts(
    node: ScriptedNode, rpc: Rpc, interest: Interest
) -> None:
    before = counted("repaired")
    block = node.mine(Tx((deposited(), transferred(ALICE, BOB))))
    node.fail("eth_getLogs", "empty")

    (found,) = await fetch(rpc, CHAIN_ID, [await header(rpc, block)], interest)

    assert len(found.logs) == 2
    assert node.calls["eth_getBlockReceipts"] == 1
    assert counted("repaired") == before + 1


async def test_lagging_node_is_asked_again_where_it_offers_no_block_receipts(
    node: ScriptedNode, rpc: Rpc, interest: Interest
) -> None:
    node.unoffered.add("eth_getBlockReceipts")
    block = node.mine(Tx((deposited(),)))
    for _ in range(2):
        node.fail("eth_getLogs", "empty")
        (found,) = await fetch(rpc, CHAIN_ID, [await header(rpc, block)], interest)
        assert len(found.logs) == 1


async def test_another_node_is_asked_where_there_is_one(
    node: ScriptedNode, session: ClientSession, interest: Interest
) -> None:
    block = node.mine(Tx((deposited(),)))
    async with ScriptedNode(blocks=node.blocks) as other:
        rpc = Rpc([node.url, other.url], 1, session, chain_id=CHAIN_ID)
        node.fail("eth_getLogs", "empty")

        (found,) = await fetch(rpc, CHAIN_ID, [await header(rpc, block)], interest)

        assert len(found.logs) == 1
        assert (node.calls["eth_getLogs"], other.calls["eth_getLogs"]) == (2, 2)


async def test_logs_of_one_filter_that_were_held_back_are_not_lost_where_filters_are_asked_one_by_one(
    node: ScriptedNode, session: ClientSession, interest: Interest
) -> None:
    block = node.mine(Tx((deposited(), transferred(ALICE, BOB))))
    async with ScriptedNode(blocks=node.blocks) as other:
        for which in (0, 1):
            node.takes_batches = False
            rpc = Rpc([node.url, other.url], 1, session, chain_id=CHAIN_ID)
            (head,) = [await header(rpc, block)]
            with pytest.MonkeyPatch.context() as patched:
                if which == 1:  # the first filter is answered, the second is not
                    patched.setattr(node, "on_call", hold_back_after_one(node))
                else:
                    node.fail("eth_getLogs", "empty")
                (found,) = await fetch(rpc, CHAIN_ID, [head], interest)

            assert len(found.logs) == 2, which


async def test_two_lagging_nodes_are_caught_by_the_third(
    node: ScriptedNode, session: ClientSession, interest: Interest
) -> None:
    block = node.mine(Tx((deposited(),)))
    async with ScriptedNode(blocks=node.blocks) as second, ScriptedNode(blocks=node.blocks) as third:
        rpc = Rpc([node.url, second.url, third.url], 1, session, chain_id=CHAIN_ID)
        node.fail("eth_getLogs", "empty")
        second.fail("eth_getLogs", "empty")

        (found,) = await fetch(rpc, CHAIN_ID, [await header(rpc, block)], interest)

        assert len(found.logs) == 1


async def test_filters_of_a_block_stay_in_one_request(node: ScriptedNode, rpc: Rpc, interest: Interest) -> None:
    node.longest_batch = 5
    for _ in range(5):
        node.mine(Tx((deposited(),)))
    headers = [await header(rpc, block) for block in node.blocks[1:]]
    await fetch(rpc, CHAIN_ID, headers, interest)
    assert not rpc.torn
    before = node.requests

    blocks = await fetch(rpc, CHAIN_ID, headers, interest)

    assert [len(block.logs) for block in blocks] == [1] * 5
    assert node.requests - before == 3 + 1  # of logs four, four and two calls; five receipts
    assert not rpc.torn


def hold_back_after_one(node: ScriptedNode) -> Callable[[str, Sequence[object]], None]:
    asked = []

    def look(method: str, _params: Sequence[object]) -> None:
        if method == "eth_getLogs":
            asked.append(method)
            if len(asked) == 4:  # both in one request, refused; then one by one: this is the second
                node.fail("eth_getLogs", "empty")

    return look


async def test_bloom_may_be_wrong_and_is_then_not_believed(node: ScriptedNode, rpc: Rpc, interest: Interest) -> None:
    before = counted("believed")
    elsewhere = say(USDC, abi.FEE_UPDATED.replace("a9", "a8"), (abi.TRANSFER,))  # the topic, but not in front
    block = node.mine(Tx((elsewhere,)))

    (found,) = await fetch(rpc, CHAIN_ID, [await header(rpc, block)], interest)

    assert found.logs == ()
    assert counted("believed") == before + 1


async def test_second_look_that_fails_is_an_error(node: ScriptedNode, rpc: Rpc, interest: Interest) -> None:
    block = node.mine(Tx((deposited(),)))
    faults: tuple[Fault, ...] = ("null", "http")
    for fault in faults:
        node.fail("eth_getLogs", "empty")
        node.fail("eth_getBlockReceipts", fault)
        with pytest.raises(RpcError):
            await fetch(rpc, CHAIN_ID, [await header(rpc, block)], interest)


@pytest.mark.parametrize(
    ("logs", "may_be"),
    [
        ((), False),
        ((deposited(),), True),
        ((say(FACTORY, abi.WALLET_REGISTERED, (ALICE, WALLET)),), True),
        ((transferred(ALICE, BOB),), True),
        ((transferred(ALICE, BOB, token=STRANGER),), False),
        ((say(WALLET, abi.PAUSED, address=ALICE),), False),
    ],
)
async def test_bloom_tells_what_may_be_in_a_block(
    logs: tuple[Said, ...], may_be: bool, node: ScriptedNode, rpc: Rpc, interest: Interest
) -> None:
    assert interest.may_be_in((await header(rpc, node.mine(Tx(logs)))).bloom) is may_be


def test_node_without_blooms_is_believed(interest: Interest) -> None:
    assert not interest.may_be_in(None)
    assert interest.may_be_in(2**2048 - 1)


# Ranges of blocks


async def test_blocks_come_in_order_and_are_fetched_ahead(node: ScriptedNode, rpc: Rpc, interest: Interest) -> None:
    count = CHUNK * 6 + 3
    for number in range(count):
        node.mine(*[Tx((deposited(amount=number + 1),))] * (number % 3))

    async with aclosing(fetch_range(rpc, CHAIN_ID, 1, count, interest)) as blocks:
        found = [await anext(blocks)]
        assert node.calls["eth_getBlockByNumber"] <= CHUNK * CHUNKS_IN_FLIGHT
        found += [block async for block in blocks]

    assert [block.hash for block in found] == node.hashes[1:]
    assert [len(block.logs) for block in found] == [number % 3 for number in range(count)]


async def test_failure_in_a_range_is_told_after_the_blocks_before_it(
    node: ScriptedNode, rpc: Rpc, interest: Interest
) -> None:
    node.mine_many(CHUNK * 2 + 5)
    node.lag = 4  # the third part lacks its last blocks
    blocks = fetch_range(rpc, CHAIN_ID, 1, CHUNK * 2 + 5, interest)

    assert [(await anext(blocks)).number for _ in range(CHUNK * 2)] == list(range(1, CHUNK * 2 + 1))
    with pytest.raises(RpcError, match="null: no block 34"):
        await anext(blocks)


async def test_range_that_is_left_leaves_nothing_running(
    node: ScriptedNode, session: ClientSession, interest: Interest
) -> None:
    node.mine_many(CHUNK * 6)
    rpc = Rpc([node.url], 60, session, chain_id=CHAIN_ID)
    await rpc.call("web3_clientVersion")
    async with aclosing(fetch_range(rpc, CHAIN_ID, 1, CHUNK * 6, interest)) as blocks:
        await anext(blocks)
        node.fail("*", "hang", "hang", "hang")
        await anext(blocks)
        await asyncio.wait_for(blocks.aclose(), timeout=5)
    # The fixture that watches over tasks fails this test when one is left.
