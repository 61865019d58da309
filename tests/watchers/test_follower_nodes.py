"""The follower with several nodes, one of which lies: nothing is taken back for it, nothing becomes final by it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from store.rpc import Limits
from tests.factories import make_hash
from tests.waiting import until
from tests.watchers.following import amounts, following
from tests.watchers.ledger import FakeLedger
from tests.watchers.node import Fault, ScriptedNode
from tests.watchers.said import Tx, deposited
from watchers import follower
from watchers.reorg import ReorgTooDeep

NO_PROBE = Limits(probe_s=3600)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "RETRY_S", (0.005, 0.02))


@pytest.fixture
async def nodes() -> AsyncIterator[list[ScriptedNode]]:
    """Three nodes with a copy each of one chain of 20 blocks; nothing of it is final."""
    async with AsyncExitStack() as closing:
        nodes = [await closing.enter_async_context(ScriptedNode()) for _ in range(3)]
        nodes[0].mine_many(20)
        for node in nodes[1:]:
            node.blocks = list(nodes[0].blocks)
        yield nodes


def mine(*nodes: ScriptedNode, amount: int) -> None:
    for node in nodes:
        node.mine(Tx((deposited(amount=amount),)))


def asked_since(nodes: list[ScriptedNode], before: int) -> bool:
    return sum(each.requests for each in nodes) > before + 10


async def test_healthy_nodes_cost_the_hot_path_nothing(nodes: list[ScriptedNode]) -> None:
    ledger = FakeLedger(nodes[0].chain(*nodes[1:]))
    async with following(ledger.chain, ledger, limits=NO_PROBE) as run:
        await run.reaches(nodes[0])
        for amount in range(10):
            mine(*nodes, amount=amount)
            await run.reaches(nodes[0])

    assert nodes[1].requests == nodes[2].requests == 0


@pytest.mark.parametrize("others", [1, 2])
@pytest.mark.parametrize("depth", [1, 2, 5, 11, 13, 20])
async def test_fork_of_the_node_in_use_takes_nothing_back(depth: int, others: int, nodes: list[ScriptedNode]) -> None:
    bad, *good = nodes[: 1 + others]
    ledger = FakeLedger(bad.chain(*good))
    async with following(ledger.chain, ledger, limits=NO_PROBE) as run:
        await run.reaches(good[0])
        bad.reorg(depth, *[[Tx((deposited(amount=666),))]] * depth)
        for amount in (1, 2, 3):
            mine(bad, *good, amount=amount)
            await run.reaches(good[0])

    assert ledger.history == list(range(24))
    assert amounts(ledger.events) == [1, 2, 3]


async def test_reorg_that_the_others_have_too_is_followed(nodes: list[ScriptedNode]) -> None:
    ledger = FakeLedger(nodes[0].chain(*nodes[1:]))
    async with following(ledger.chain, ledger, limits=NO_PROBE) as run:
        await run.reaches(nodes[0])
        for node in nodes:
            node.reorg(4)
            node.mine()
        await run.reaches(nodes[0])

    assert ledger.hashes == nodes[0].hashes
    assert ledger.history[-9:] == [-20, -19, -18, -17, 17, 18, 19, 20, 21]


async def test_reorg_that_reaches_the_nodes_one_after_the_other_is_followed_with_most_of_them(
    nodes: list[ScriptedNode],
) -> None:
    ledger = FakeLedger(nodes[0].chain(*nodes[1:]))
    async with following(ledger.chain, ledger, limits=NO_PROBE) as run:
        await run.reaches(nodes[0])
        for node in nodes:
            node.reorg(2)
            node.mine()
            asked = sum(each.requests for each in nodes)
            await until(partial(asked_since, nodes, asked))
        await run.reaches(nodes[0])

    assert ledger.hashes == nodes[0].hashes
    assert ledger.history == [*range(21), -20, -19, 19, 20, 21]


async def test_too_deep_a_reorg_of_all_nodes_stops_the_chain(nodes: list[ScriptedNode]) -> None:
    ledger = FakeLedger(nodes[0].chain(*nodes[1:]))
    async with following(ledger.chain, ledger, limits=NO_PROBE) as run:
        await run.reaches(nodes[0])
        for node in nodes:
            node.reorg(13)
            node.mine()
        await run.ends_with(ReorgTooDeep)

    assert ledger.history == list(range(21))


async def test_fork_that_was_followed_first_is_left_when_the_majority_turns_out_elsewhere(
    nodes: list[ScriptedNode],
) -> None:
    bad, *good = nodes
    ledger = FakeLedger(bad.chain(*good))
    async with following(ledger.chain, ledger, limits=Limits(probe_s=0.05)) as run:
        await run.reaches(bad)
        for number in range(6):
            bad.mine(Tx((deposited(amount=666),)), fork="bad")
            mine(*good, amount=number)
        await run.reaches(good[0])

    assert ledger.hashes == good[0].hashes
    assert amounts(ledger.events) == list(range(6))


async def test_node_that_goes_quiet_is_left_for_one_that_goes_on(nodes: list[ScriptedNode]) -> None:
    quiet, *good = nodes
    ledger = FakeLedger(quiet.chain(*good))
    async with following(ledger.chain, ledger, limits=Limits(probe_s=0.05, stale_s=0.2, lag_blocks=50)) as run:
        await run.reaches(quiet)
        mine(*good, amount=1)
        await run.reaches(good[0])

    assert amounts(ledger.events) == [1]


class Braggart(ScriptedNode):
    """Tells newest and final heights that it makes up."""

    made_up = False

    def _block_by_number(self, which: str, full: bool) -> Any:
        header = super()._block_by_number(which, full)
        if not self.made_up or which not in ("latest", "finalized"):
            return header
        number = 9_000 + int(header["number"], 16)
        return {**header, "number": hex(number), "hash": make_hash("made up", number)}


@pytest.mark.parametrize("others", [0, 1])
async def test_height_that_a_node_makes_up_makes_nothing_final(others: int, nodes: list[ScriptedNode]) -> None:
    async with Braggart(blocks=list(nodes[0].blocks), finalized=0) as bad:
        ledger = FakeLedger(bad.chain(*nodes[:others]))
        async with following(ledger.chain, ledger, limits=NO_PROBE) as run:
            await run.reaches(bad)
            bad.made_up = True
            asked = bad.requests
            await until(lambda: bad.requests > asked + 5)
            mine(bad, nodes[0], amount=1)
            await until(lambda: bad.requests > asked + 15)
            bad.made_up = False
            await run.reaches(bad)
            assert ledger.told[1] < 20


async def test_block_of_another_hash_makes_nothing_final(nodes: list[ScriptedNode]) -> None:
    node = nodes[0]
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        node.named_final = {**node.blocks[15].header(), "hash": make_hash("another")}
        asked = node.requests
        await until(partial(asked_since, nodes, asked))
        node.mine()
        await run.reaches(node)

    assert ledger.told == (21, 0)


async def test_heights_are_forgotten_when_a_node_turns_out_a_liar(nodes: list[ScriptedNode]) -> None:
    node = nodes[0]
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger) as run:
        node.finalized = 15
        await until(lambda: (run.heads.head, run.heads.finalized) == (20, 15))
        run.heads._rpc.lies += 1
        assert (run.heads.head, run.heads.finalized) == (0, 0)
        await until(lambda: (run.heads.head, run.heads.finalized) == (20, 15))


async def test_vote_that_nobody_answers_is_waited_for(nodes: list[ScriptedNode]) -> None:
    bad, late = nodes[:2]
    ledger = FakeLedger(bad.chain(late))
    async with following(ledger.chain, ledger, limits=NO_PROBE) as run:
        await run.reaches(bad)
        late.lag = 15

        def catch_up_at_the_third(_method: str, _params: Sequence[Any]) -> None:
            late.lag = 0 if late.calls["eth_getBlockByNumber"] >= 3 else late.lag

        late.on_call = catch_up_at_the_third
        bad.reorg(3, *[[Tx((deposited(amount=666),))]] * 3)
        mine(bad, late, amount=1)
        await run.reaches(late)

    assert ledger.history == list(range(22))


async def test_reorg_is_followed_in_the_end_when_no_other_node_answers_for_long(nodes: list[ScriptedNode]) -> None:
    node, dead = nodes[:2]
    dropped: Fault = "drop"
    dead.fail("*", *[dropped] * 1000)
    ledger = FakeLedger(node.chain(dead))
    async with following(ledger.chain, ledger, limits=NO_PROBE) as run:
        await run.reaches(node)
        node.reorg(3)
        node.mine()
        await run.reaches(node)

    assert ledger.hashes == node.hashes


async def test_final_is_what_a_node_names_by_our_own_hash(nodes: list[ScriptedNode]) -> None:
    node = nodes[0]
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        node.finalized = 15
        node.mine()
        await run.reaches(node)
        await until(lambda: ledger.told == (21, 15))


async def test_without_the_tag_depth_below_our_own_block_is_final(nodes: list[ScriptedNode]) -> None:
    node = nodes[0]
    node.finalized = None
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)

    assert ledger.told == (20, 20 - ledger.chain.finality_depth)


async def test_announced_height_is_not_told_before_it_was_read(nodes: list[ScriptedNode]) -> None:
    node = nodes[0]
    ledger = FakeLedger(node.chain(ws=node.ws))
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        await until(lambda: node.subscribers)
        far = node.head.header()
        await node.say(
            '{"method":"eth_subscription","params":{"subscription":"0x1","result":'
            f'{{"number":"{hex(10**9)}","hash":"{make_hash(1)}","parentHash":"{make_hash(2)}",'
            f'"timestamp":"{far["timestamp"]}"}}}}}}'
        )
        node.mine()
        await run.reaches(node)
        assert run.heads.head < 10**9

    assert ledger.told[0] == 21
