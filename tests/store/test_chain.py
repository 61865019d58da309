"""Reads of a chain: what nodes say is typed, checked, and never taken for empty."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession

from config import abi
from store import chain
from store.chain import (
    LogFilter,
    client_version,
    eth_call,
    header_at,
    header_of,
    headers_at,
    heights,
    logs_between,
    logs_by_receipts,
    logs_of,
    receipts_of,
    token_balances,
)
from store.records import BlockRef
from store.rpc import Rpc, RpcError
from tests.factories import make_address, make_hash
from tests.watchers.node import CHAIN_ID, Fault, ScriptedNode
from tests.watchers.said import ALICE, BOB, USDC, WALLET, Said, Tx, deposited, spent, topic, transferred

FILTERS = [LogFilter((abi.FUNDS_DEPOSITED, abi.SPENT_FROM_BUCKET)), LogFilter((abi.TRANSFER,), (USDC,))]
BUNDLER = make_address("bundler")
ENTRY_POINT = min(abi.ENTRY_POINTS)


@pytest.fixture
async def node() -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode() as node:
        yield node


@pytest.fixture
async def rpc(node: ScriptedNode) -> AsyncIterator[Rpc]:
    async with ClientSession() as session:
        yield Rpc([node.url], 1, session, chain_id=CHAIN_ID)


def spoil(node: ScriptedNode, monkeypatch: pytest.MonkeyPatch, method: str, **changes: Any) -> None:
    """Let the node change fields of what it answers."""
    true = ScriptedNode._result

    def lie(self: ScriptedNode, called: str, params: Any) -> Any:
        answer = true(self, called, params)
        if called != method:
            return answer
        return [{**one, **changes} for one in answer] if isinstance(answer, list) else {**answer, **changes}

    monkeypatch.setattr(ScriptedNode, "_result", lie)


# Headers


async def test_heights_are_the_newest_header_and_the_finalized_number(node: ScriptedNode, rpc: Rpc) -> None:
    node.mine_many(20)
    node.finalized = 9

    header, finalized = await heights(rpc, finality_depth=5)

    assert (header.ref, header.parent_hash, finalized) == (BlockRef(20, node.head.hash), node.hashes[19], 9)
    assert header.time.timestamp() == node.head.time


@pytest.mark.parametrize(("blocks", "finalized"), [(20, 15), (3, 0)])
async def test_finality_is_a_depth_where_the_tag_is_unknown(
    blocks: int, finalized: int, node: ScriptedNode, rpc: Rpc
) -> None:
    node.mine_many(blocks)
    node.finalized = None

    assert (await heights(rpc, finality_depth=5))[1] == finalized


async def test_nothing_beyond_the_newest_block_is_final(node: ScriptedNode, rpc: Rpc) -> None:
    node.mine_many(20)
    node.finalized = 18
    node.lag = 5

    header, finalized = await heights(rpc, finality_depth=5)

    assert (header.number, finalized) == (15, 15)


async def test_failing_head_is_an_error(node: ScriptedNode, rpc: Rpc) -> None:
    faults: dict[Fault, str] = {"null": "null", "jsonrpc": "jsonrpc", "empty": "malformed"}
    for fault, kind in faults.items():
        node.fail("eth_getBlockByNumber", fault)
        with pytest.raises(RpcError) as caught:
            await heights(rpc, finality_depth=5)
        assert caught.value.kind == kind


async def test_header_by_number_and_by_hash(node: ScriptedNode, rpc: Rpc) -> None:
    block = node.mine()

    assert await header_at(rpc, 1) == await header_of(rpc, block.hash)
    assert await headers_at(rpc, [2, 1]) == [None, await header_at(rpc, 1)]
    with pytest.raises(RpcError, match="null: no block 2"):
        await header_at(rpc, 2)
    with pytest.raises(RpcError, match="null: no block 0x"):
        await header_of(rpc, make_hash("nobody's"))


@pytest.mark.parametrize(
    "changes", [{"number": "0x7"}, {"hash": "0x12"}, {"hash": None}, {"parentHash": 7}, {"timestamp": "soon"}]
)
async def test_header_that_is_not_what_was_asked_for_is_an_error(
    changes: dict[str, Any], node: ScriptedNode, rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.mine()
    spoil(node, monkeypatch, "eth_getBlockByNumber", **changes)

    with pytest.raises(RpcError) as caught:
        await headers_at(rpc, [1])

    assert caught.value.kind == "malformed"


# Logs


async def test_logs_of_blocks_are_each_blocks_own_in_order(node: ScriptedNode, rpc: Rpc) -> None:
    first = node.mine(Tx((transferred(ALICE, BOB), deposited())), Tx((spent(), transferred(ALICE, BOB, token=WALLET))))
    second = node.mine()
    third = node.mine(Tx((spent(),)))

    found = await logs_of(rpc, [first.hash, second.hash, third.hash], FILTERS)

    assert [[log.log_index for log in logs] for logs in found] == [[0, 1, 2], [], [0]]
    assert found[0][0].topics == (abi.TRANSFER, topic(ALICE), topic(BOB))
    assert found[0][2].tx_hash == first.tx_hash(1)
    assert node.requests == 2  # the chain's id, and everything else at once


async def test_logs_of_an_unknown_block_are_an_error(node: ScriptedNode, rpc: Rpc) -> None:
    with pytest.raises(RpcError, match="unknown block"):
        await logs_of(rpc, [make_hash("nobody's")], FILTERS)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"blockHash": make_hash("another")}, "malformed"),
        ({"removed": True}, "malformed"),
        ({"data": "0x123"}, "malformed"),
        ({"data": None}, "malformed"),
        ({"topics": ["0x12"]}, "malformed"),
        ({"address": "0x12"}, "malformed"),
        ({"logIndex": None}, "malformed"),
    ],
)
async def test_log_that_is_not_one_is_an_error(
    changes: dict[str, Any], kind: str, node: ScriptedNode, rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = node.mine(Tx((deposited(),)))
    spoil(node, monkeypatch, "eth_getLogs", **changes)

    with pytest.raises(RpcError) as caught:
        await logs_of(rpc, [block.hash], FILTERS)

    assert caught.value.kind == kind


async def test_null_logs_are_an_error(node: ScriptedNode, rpc: Rpc) -> None:
    node.fail("eth_getLogs", "null", "null")

    with pytest.raises(RpcError, match="null"):
        await logs_of(rpc, [node.head.hash], FILTERS)
    with pytest.raises(RpcError, match="null"):
        await logs_between(rpc, 0, 0, FILTERS)


async def test_upper_case_hex_becomes_lower_case(node: ScriptedNode, rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    block = node.mine(Tx((deposited(),)))
    plain = await logs_of(rpc, [block.hash], FILTERS)
    spoil(
        node,
        monkeypatch,
        "eth_getLogs",
        address="0x" + WALLET[2:].upper(),
        topics=[deposited().topics[0].upper().replace("X", "x"), deposited().topics[1]],
    )

    assert await logs_of(rpc, [block.hash], FILTERS) == plain


async def test_logs_of_a_range_come_in_order_with_its_last_header(node: ScriptedNode, rpc: Rpc) -> None:
    for _ in range(3):
        node.mine(Tx((transferred(ALICE, BOB), deposited())))

    placed, header = await logs_between(rpc, 1, 2, FILTERS)

    assert [(one.block.number, one.log.log_index) for one in placed] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert header.ref == BlockRef(2, node.hashes[2])


async def test_range_beyond_the_node_is_an_error_and_not_empty(node: ScriptedNode, rpc: Rpc) -> None:
    node.mine_many(5)
    node.lag = 3

    with pytest.raises(RpcError, match="null: no block 5"):
        await logs_between(rpc, 0, 5, FILTERS)


async def test_refused_range_says_that_less_may_help(node: ScriptedNode, rpc: Rpc) -> None:
    node.mine_many(5)
    node.longest_range = 3

    with pytest.raises(RpcError) as caught:
        await logs_between(rpc, 0, 5, FILTERS)

    assert caught.value.too_much


async def test_receipts_tell_the_same_logs(node: ScriptedNode, rpc: Rpc) -> None:
    block = node.mine(Tx((transferred(ALICE, BOB), Said(ALICE, (), "0x"), deposited())), Tx((spent(),)))

    assert await logs_by_receipts(rpc, block.hash, FILTERS) == (await logs_of(rpc, [block.hash], FILTERS))[0]
    with pytest.raises(RpcError, match="null"):
        await logs_by_receipts(rpc, make_hash("nobody's"), FILTERS)


# Receipts

OPERATION = Said(ENTRY_POINT, (abi.USER_OPERATION_EVENT, make_hash("op"), topic(BOB), topic(0)), "0x")


async def test_receipts_tell_sender_fee_and_user_operations(node: ScriptedNode, rpc: Rpc) -> None:
    fake = Said(ALICE, OPERATION.topics, "0x")  # anyone may emit it; only an entry point is believed
    block = node.mine(
        Tx((deposited(),)),
        Tx((spent(), fake, OPERATION), sender=BUNDLER, to=ENTRY_POINT, type=4, l1_fee=9),
        Tx(to=None),
    )
    txs = [block.tx_hash(i) for i in range(3)]

    receipts = await receipts_of(rpc, {block.hash: txs})

    second = receipts[txs[1]]
    assert (second.sender, second.to, second.type, second.first_log_index) == (BUNDLER, ENTRY_POINT, 4, 1)
    assert (second.gas_used, second.effective_gas_price, second.l1_fee) == (50_000, 10**9, 9)
    assert second.user_operations == ((3, BOB),)
    assert receipts[txs[2]].to is None
    assert set(receipts) == set(txs)


@pytest.mark.parametrize("offered", [True, False])
async def test_many_receipts_are_the_blocks_where_that_is_offered(offered: bool, node: ScriptedNode, rpc: Rpc) -> None:
    full = node.mine(*[Tx((deposited(),))] * 6)
    few = node.mine(Tx((deposited(),)))
    wanted = {block.hash: [block.tx_hash(i) for i in range(len(block.txs))] for block in (full, few)}
    if not offered:
        node.unoffered.add("eth_getBlockReceipts")

    for _ in range(2):
        assert set(await receipts_of(rpc, wanted)) == {tx for txs in wanted.values() for tx in txs}

    assert node.calls["eth_getBlockReceipts"] == (2 if offered else 1)
    # The first try of a node that does not offer it asked for the few beside it.
    assert node.calls["eth_getTransactionReceipt"] == (2 if offered else 1 + 14)


async def test_missing_receipt_is_an_error(node: ScriptedNode, rpc: Rpc) -> None:
    block = node.mine(*[Tx((deposited(),), salt=str(i)) for i in range(6)])
    txs = [block.tx_hash(i) for i in range(6)]
    with pytest.raises(RpcError, match="null"):
        await receipts_of(rpc, {block.hash: [*txs, make_hash("nobody's")]})
    node.reorg(1, block.txs)
    assert node.head.tx_hash(0) == txs[0]
    with pytest.raises(RpcError, match="null"):
        await receipts_of(rpc, {block.hash: txs[:1]})  # it is in another block by now


@pytest.mark.parametrize("field", ["from", "gasUsed", "effectiveGasPrice", "logs", "blockHash"])
async def test_receipt_without_its_facts_is_an_error(
    field: str, node: ScriptedNode, rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = node.mine(Tx((deposited(),)))
    spoil(node, monkeypatch, "eth_getTransactionReceipt", **{field: None})

    with pytest.raises(RpcError) as caught:
        await receipts_of(rpc, {block.hash: [block.tx_hash(0)]})

    assert caught.value.kind == "malformed"


# State


@pytest.mark.parametrize("by_hash", [True, False])
async def test_balances_are_read_at_the_block(by_hash: bool, node: ScriptedNode, rpc: Rpc) -> None:
    node.takes_block_hash = by_hash
    block = node.mine()
    node.balances = {(USDC, ALICE): 2**255, (USDC, BOB): 0}

    held = await token_balances(rpc, BlockRef(1, block.hash), [(ALICE, USDC), (BOB, USDC), (ALICE, WALLET)])

    assert held == {(ALICE, USDC): 2**255, (BOB, USDC): 0}  # the last is no token


async def test_balance_of_a_replaced_block_is_an_error(node: ScriptedNode, rpc: Rpc) -> None:
    node.mine()
    gone = BlockRef(1, make_hash("gone"))
    node.balances = {(USDC, ALICE): 5}

    with pytest.raises(RpcError, match="not found"):
        await token_balances(rpc, gone, [(ALICE, USDC)])
    node.takes_block_hash = False
    with pytest.raises(RpcError, match="was replaced"):
        await token_balances(rpc, gone, [(ALICE, USDC)])


async def test_contracts_and_software_answer(node: ScriptedNode, rpc: Rpc) -> None:
    node.balances = {(USDC, ALICE): 5}

    assert await eth_call(rpc, USDC, abi.BALANCE_OF + "0" * 24 + ALICE[2:]) == topic(5)
    assert await client_version(rpc) == "scripted/1.0"


def test_few_receipts_is_few() -> None:
    assert chain.FEW_RECEIPTS < 6
