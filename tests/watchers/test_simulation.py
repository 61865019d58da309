"""A seeded history of blocks, forks, faults, lag and restarts: the ledger ends as the chain is, having told each step.

A seed that found a fault stays in the list.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial

import pytest

from handlers import chain_events as said
from tests.waiting import until
from tests.watchers.following import Run, following
from tests.watchers.ledger import FakeLedger
from tests.watchers.node import FakeBlock, Fault, ScriptedNode
from tests.watchers.said import ALICE, BOB, Tx, deposited, transferred
from watchers import catchup, follower

FAULTS: tuple[Fault, ...] = ("drop", "http", "throttled", "jsonrpc", "not_json", "wrong_id", "null")
METHODS = ("*", "eth_getBlockByNumber", "eth_getLogs", "eth_getTransactionReceipt", "eth_getBlockReceipts")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "RETRY_S", (0.001, 0.01))
    monkeypatch.setattr(catchup, "FIRST_RANGE", 7)


class History:
    """What happens to the chain and its node, drawn from one seed."""

    def __init__(self, node: ScriptedNode, seed: int) -> None:
        self.random = random.Random(seed)
        self.node = node
        self.count = 0
        self.replaced: list[FakeBlock] = []

    def txs(self) -> list[Tx]:
        """Nothing, or a few transactions; one of them may be one that was mined before."""
        found = []
        for _ in range(self.random.choice((0, 0, 1, 2, 7))):
            self.count += 1
            found.append(Tx((deposited(amount=self.count), transferred(ALICE, BOB, self.count)), salt=str(self.count)))
        return found

    async def step(self) -> None:
        draw, node = self.random, self.node
        match draw.choice(("mine", "mine", "mine", "many", "reorg", "restore", "fail", "lag", "announce", "final")):
            case "mine":
                node.mine(*self.txs(), fork=str(draw.random()))
            case "many":
                for _ in range(draw.randint(2, 30)):
                    node.mine(*self.txs(), fork=str(draw.random()))
            case "reorg":
                depth = min(draw.randint(1, 10), node.head.number - (node.finalized or 0))
                if depth > 0:
                    self.replaced = node.blocks[-depth:]
                    node.reorg(depth, *[self.txs() for _ in range(depth)], fork=str(draw.random()))
            case "restore":
                if self.replaced and self.replaced[0].parent in node.hashes[-11:]:
                    taken, self.replaced = self.replaced, node.blocks[self.replaced[0].number :]
                    node.restore(taken)
                    while node.head.number <= self.replaced[-1].number:  # the longer branch wins
                        node.mine(*self.txs(), fork=str(draw.random()))
            case "fail":
                node.fail(draw.choice(METHODS), *draw.choices(FAULTS, k=draw.randint(1, 3)))
            case "lag":
                node.lag = draw.randint(0, min(5, node.head.number))
            case "announce":
                await node.announce(*draw.choices(node.blocks[-5:], k=2))
            case "final":
                node.finalized = max(node.finalized or 0, node.head.number - 12)


@pytest.mark.parametrize("seed", [*range(20), 315])
async def test_ledger_ends_as_the_chain_is(seed: int, node: ScriptedNode) -> None:
    history = History(node, seed)
    ledger = FakeLedger(node.chain(ws=node.ws, finality_depth=100))
    for _ in range(history.random.randint(1, 8)):  # each turn is a restart
        async with following(ledger.chain, ledger, poll_s=0.005) as run:
            for _ in range(history.random.randint(1, 12)):
                await history.step()
                await asyncio.sleep(0)
                if history.random.random() < 0.3:
                    known = len(ledger.history)
                    node.lag = 0
                    await until(partial(moved, run, node, since=known))
    node.lag = 0
    async with following(ledger.chain, ledger, poll_s=0.005) as run:
        await run.reaches(node)

    live_from = next(i for i, block in enumerate(ledger.blocks) if contiguous(ledger, i))
    first = ledger.blocks[live_from].number
    assert ledger.hashes[live_from:] == node.hashes[first:]
    deposits = [event.amount for event in ledger.events if isinstance(event, said.FundsDeposited)]
    assert deposits == [amount for block in node.blocks for amount in amounts(block)]
    transfers = [event.amount for event in ledger.events if isinstance(event, said.TokenTransfer)]
    assert transfers == [amount for block in node.blocks for amount in amounts(block)][-len(transfers or "") :]


def moved(run: Run, node: ScriptedNode, *, since: int) -> bool:
    assert not run.task.done(), run.task.exception()
    return run.at(node.head.hash) or len(run.ledger.history) > since


def contiguous(ledger: FakeLedger, start: int) -> bool:
    """Whether no block is left out from there on."""
    return ledger.blocks[-1].number - ledger.blocks[start].number == len(ledger.blocks) - 1 - start


def amounts(block: FakeBlock) -> list[int]:
    return [int(said.data[2:66], 16) for tx in block.txs for said in tx.logs if len(said.topics) == 2]
