"""The follower against a node that reorganises, lags, repeats itself and fails: the ledger ends at the node's chain."""

from __future__ import annotations

import pytest

from store.chain import Header
from store.records import BlockRef
from tests.factories import TIME, make_hash
from tests.waiting import until
from tests.watchers.following import amounts, following
from tests.watchers.ledger import FakeLedger
from tests.watchers.node import ScriptedNode
from tests.watchers.said import Tx, deposited
from watchers import follower, heads
from watchers.follower import Case, classify
from watchers.reorg import ReorgTooDeep


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "RETRY_S", (0.005, 0.02))


# The four cases

TIP = BlockRef(10, make_hash(10))


def head(number: int, name: object, parent: object) -> Header:
    return Header(number, make_hash(name), make_hash(parent), TIME)


@pytest.mark.parametrize(
    ("header", "case"),
    [
        (head(10, 10, 9), "same"),
        (head(11, 11, 10), "next"),
        (head(12, 12, 11), "gap"),
        (head(500, 500, 499), "gap"),
        (head(9, 9, 8), "behind"),
        (head(0, 0, 0), "behind"),
        (head(10, "another 10", 9), "behind"),
        (head(11, 11, "another 10"), "behind"),
    ],
)
def test_head_is_one_of_four_cases(header: Header, case: Case) -> None:
    assert classify(TIP, header) == case


# Live


async def test_announced_block_is_applied_at_once(node: ScriptedNode) -> None:
    ledger = FakeLedger(node.chain(ws=node.ws))
    async with following(ledger.chain, ledger, poll_s=60) as run:
        await run.reaches(node)
        await until(lambda: node.subscribers)
        for amount in (1, 2, 3):
            await node.announce(node.mine(Tx((deposited(amount=amount),))))
            await run.reaches(node)

    assert amounts(ledger.events) == [1, 2, 3]
    assert ledger.hashes == node.hashes


async def test_silent_websocket_is_polled_beside(node: ScriptedNode) -> None:
    node.silent = True
    ledger = FakeLedger(node.chain(ws=node.ws))
    async with following(ledger.chain, ledger) as run:
        for _ in range(3):
            node.mine()
            await run.reaches(node)

    assert ledger.hashes == node.hashes


async def test_gap_is_filled_in_order(node: ScriptedNode) -> None:
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        for number in range(1, 101):
            node.mine(Tx((deposited(amount=number),)))
        await run.reaches(node)

    assert amounts(ledger.events) == list(range(1, 101))
    assert ledger.history == list(range(101))


async def test_heads_that_come_twice_or_late_change_nothing(node: ScriptedNode) -> None:
    ledger = FakeLedger(node.chain(ws=node.ws))
    async with following(ledger.chain, ledger) as run:
        await until(lambda: node.subscribers)
        for _ in range(5):
            await node.announce(node.mine(), times=3)
            await run.reaches(node)
            await node.announce(*node.blocks)
        asked = node.calls["eth_getBlockByNumber"]
        await until(lambda: node.calls["eth_getBlockByNumber"] > asked + 10)

    assert ledger.history == list(range(6))


async def test_node_that_steps_backwards_is_not_a_reorg(node: ScriptedNode) -> None:
    node.mine_many(9)
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        for lag in (1, 5, 9):
            node.lag = lag
            asked = node.calls["eth_getBlockByNumber"]
            await until(lambda asked=asked: node.calls["eth_getBlockByNumber"] > asked + 10)  # type: ignore[misc]  # mypy can't infer a lambda with a default
        node.lag = 0
        node.mine()
        await run.reaches(node)

    assert ledger.history == list(range(11))


async def test_ledger_is_told_the_chains_heights(node: ScriptedNode) -> None:
    node.mine_many(20)
    node.finalized = 12
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        await until(lambda: ledger.told == (20, 12))
        node.finalized = 15
        await until(lambda: ledger.told == (20, 15))
        node.finalized = 20
        await until(lambda: ledger.told == (20, 19))  # the newest block is told to be final with the next

    assert ledger.tip is not None


async def test_finalized_height_is_asked_for_though_nothing_is_polled(
    node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "FINALIZED_EVERY_S", 0)
    ledger = FakeLedger(node.chain(ws=node.ws))
    async with following(ledger.chain, ledger, poll_s=60) as run:
        await run.reaches(node)
        await until(lambda: node.subscribers)
        for finalized in (1, 2, 3):
            node.mine()
            node.finalized = finalized
            await node.announce(node.mine())
            await run.reaches(node)
        await node.announce()
        await until(lambda: ledger.told == (6, 3))


async def test_heights_of_a_lagging_node_take_nothing_back(node: ScriptedNode) -> None:
    node.mine_many(20)
    node.finalized = 12
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        node.lag, node.finalized = 5, 8
        asked = node.requests
        await until(lambda: node.requests > asked + 5)

        assert (run.heads.head, run.heads.finalized) == (20, 12)


# Reorgs


@pytest.mark.parametrize("depth", range(1, 11))
async def test_reorg_takes_blocks_back_newest_first(depth: int, node: ScriptedNode) -> None:
    for number in range(1, 13):
        node.mine(Tx((deposited(amount=number),)))
    ledger = FakeLedger(node.chain(ws=node.ws))
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        await until(lambda: node.subscribers)
        node.reorg(depth, *[[Tx((deposited(amount=100 + i),))] for i in range(depth)])
        await node.announce(*node.blocks[-depth:])  # as a test chain does: every new block is announced
        await run.reaches(node)

    assert ledger.hashes == node.hashes
    assert amounts(ledger.events) == [*range(1, 13 - depth), *range(100, 100 + depth)]
    assert ledger.history == [
        *range(13),
        *(-number for number in range(12, 12 - depth, -1)),
        *range(13 - depth, 13),
    ]


async def test_one_announcement_of_a_reorg_is_enough(node: ScriptedNode) -> None:
    node.mine_many(10)
    ledger = FakeLedger(node.chain(ws=node.ws))
    async with following(ledger.chain, ledger, poll_s=60) as run:
        await run.reaches(node)
        await until(lambda: node.subscribers)
        node.reorg(4)
        await node.announce()
        await run.reaches(node)

    assert ledger.hashes == node.hashes


async def test_longer_and_shorter_branches_are_followed(node: ScriptedNode) -> None:
    node.mine_many(10)
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        node.reorg(3)
        node.mine_many(4)
        await run.reaches(node)
        for block in node.blocks[-6:]:
            node.orphans[block.hash] = block
        del node.blocks[-6:]
        node.mine_many(2, fork="short")
        applied = len(ledger.history)
        asked = node.calls["eth_getBlockByNumber"]
        await until(lambda: node.calls["eth_getBlockByNumber"] > asked + 6)
        assert len(ledger.history) == applied  # the node has no block of our height: it may just lag
        node.mine_many(5, fork="short")
        await run.reaches(node)

    assert ledger.hashes == node.hashes


async def test_block_that_was_taken_back_may_come_back(node: ScriptedNode) -> None:
    node.mine_many(5)
    for number in (6, 7):
        node.mine(Tx((deposited(amount=number),)))
    before = node.blocks[6:]
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        node.reorg(2)
        await run.reaches(node)
        node.restore(before)
        await run.reaches(node)

    assert ledger.hashes == node.hashes
    assert amounts(ledger.events) == [6, 7]
    assert ledger.history[8:] == [-7, -6, 6, 7, -7, -6, 6, 7]


async def test_reorg_while_a_gap_is_filled(node: ScriptedNode) -> None:
    ledger = FakeLedger(node.chain())
    node.mine_many(300)
    reorgs = [lambda: node.reorg(8), lambda: node.reorg(4, fork="again")]

    def meanwhile(method: str, _params: object) -> None:
        if method == "eth_getLogs" and len(ledger.blocks) > 20 and reorgs:
            reorgs.pop()()

    node.on_call = meanwhile
    async with following(ledger.chain, ledger) as run:
        await until(lambda: not reorgs)
        await run.reaches(node)

    assert ledger.hashes == node.hashes


async def test_reorg_deeper_than_finality_stops_loudly_and_writes_nothing(node: ScriptedNode) -> None:
    node.mine_many(20)
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        node.reorg(13)
        node.mine()
        await run.ends_with(ReorgTooDeep)

    assert ledger.history == list(range(21))


async def test_first_block_is_a_final_one_so_that_every_reorg_has_an_ancestor(node: ScriptedNode) -> None:
    node.mine_many(10)
    node.finalized = 4
    ledger = FakeLedger(node.chain(first_block=9))
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        node.reorg(6)
        await run.reaches(node)

    assert ledger.hashes == node.hashes[4:]
