"""The follower against nodes that fail and ledgers that are lost: nothing is lost, nothing is told twice."""

from __future__ import annotations

import asyncio

import pytest

from store.rpc import WrongChain
from tests.waiting import until
from tests.watchers.following import amounts, following, stopping
from tests.watchers.ledger import FakeLedger
from tests.watchers.node import Fault, ScriptedNode
from tests.watchers.said import ALICE, USDC, Tx, deposited
from watchers import follower


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "RETRY_S", (0.005, 0.02))


EVERY_FAULT: tuple[Fault, ...] = ("drop", "http", "throttled", "jsonrpc", "not_json", "wrong_id", "null")


@pytest.mark.parametrize(
    "method",
    [
        "eth_chainId",
        "eth_getBlockByNumber",
        "eth_getLogs",
        "eth_getBlockReceipts",
        "eth_getTransactionReceipt",
        "eth_call",
    ],
)
async def test_no_fault_loses_or_doubles_a_block(method: str, node: ScriptedNode) -> None:
    node.balances = {(USDC, ALICE): 7}
    node.mine_many(3)
    node.finalized = 2
    ledger = FakeLedger(node.chain(), waiting=[ALICE])
    if method == "eth_chainId":
        node.fail(method, *EVERY_FAULT)
    async with following(ledger.chain, ledger) as run:
        for i, fault in enumerate(EVERY_FAULT):
            node.fail(method, fault)
            ledger.waiting = [ALICE]
            node.mine(Tx((deposited(amount=i),)), *[Tx((deposited(amount=i),))] * (6 * (i % 2)))
            await run.reaches(node)

    assert amounts(ledger.events) == [i for i in range(len(EVERY_FAULT)) for _ in range(1 + 6 * (i % 2))]
    assert ledger.history == [2, *range(3, len(EVERY_FAULT) + 4)]


async def test_logs_that_a_lagging_node_holds_back_are_not_lost(node: ScriptedNode) -> None:
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger) as run:
        for amount in range(5):
            node.fail("eth_getLogs", "empty")
            node.mine(Tx((deposited(amount=amount),)))
            await run.reaches(node)

    assert amounts(ledger.events) == list(range(5))


async def test_second_node_takes_over_when_the_first_dies(node: ScriptedNode) -> None:
    async with ScriptedNode(blocks=node.blocks) as other:
        ledger = FakeLedger(node.chain(other))
        async with following(ledger.chain, ledger) as run:
            await run.reaches(node)
            dead: Fault = "http"
            node.fail("*", *[dead] * 1000)
            for _ in range(5):
                node.mine()
                await run.reaches(node)

    assert ledger.hashes == node.hashes


async def test_announced_block_that_no_node_has_any_more_is_given_up(node: ScriptedNode) -> None:
    ledger = FakeLedger(node.chain(ws=node.ws))
    async with following(ledger.chain, ledger, poll_s=60) as run:
        await until(lambda: node.subscribers)
        await run.reaches(node)
        gone = node.mine(Tx((deposited(amount=1),)))
        node.blocks.pop()
        await node.announce(gone)
        await until(lambda: node.calls["eth_getLogs"] > 3)
        node.mine(Tx((deposited(amount=2),)), fork="other")
        await run.reaches(node)  # without another announcement: the node was asked for its newest

    assert amounts(ledger.events) == [2]


async def test_chain_of_another_id_is_not_followed(node: ScriptedNode) -> None:
    ledger = FakeLedger(node.chain())
    node.chain_id = 5

    async with following(ledger.chain, ledger) as run:
        await run.ends_with(WrongChain)

    assert ledger.history == []


async def test_what_the_ledger_raises_ends_the_follower(node: ScriptedNode) -> None:
    node.mine_many(3)
    ledger = FakeLedger(node.chain(), fails=[ConnectionError("the database is away")])

    async with following(ledger.chain, ledger) as run:
        await run.ends_with(ConnectionError)
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)

    assert ledger.hashes == node.hashes


async def test_told_to_stop_it_finishes_the_block_in_hand(node: ScriptedNode) -> None:
    node.mine_many(200)
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger) as run:
        ledger.on_apply = stopping(run, at=50)
        await asyncio.wait_for(run.task, timeout=2)

    assert ledger.hashes == node.hashes[:51]
