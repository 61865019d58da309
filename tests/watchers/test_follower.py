"""The follower against a node that reorganises, lags, repeats itself and fails: the ledger ends at the node's chain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from handlers import chain_events as said
from handlers.chain_events import ChainEvent, DecodedBlock
from store.chain import Header, header_from
from store.records import BlockRef
from store.rpc import WrongChain
from tests.factories import TIME, make_address, make_hash
from tests.waiting import until
from tests.watchers.following import Run, following
from tests.watchers.ledger import FakeLedger
from tests.watchers.node import Fault, ScriptedNode
from tests.watchers.said import ALICE, BOB, USDC, Tx, deposited, spent, transferred, wallet_created
from watchers import catchup, follower, heads
from watchers.follower import Case, classify
from watchers.reorg import ReorgTooDeep

OWN = make_address("own wallet")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "RETRY_S", (0.005, 0.02))


@pytest.fixture
async def node() -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode() as node:
        yield node


def amounts(events: list[ChainEvent]) -> list[int]:
    return [event.amount for event in events if isinstance(event, said.FundsDeposited)]


def stopping(run: Run, *, at: int) -> Callable[[DecodedBlock], None]:
    """Tells the run to stop while it applies the block of that number."""

    def look(block: DecodedBlock) -> None:
        if block.number == at:
            run.stop.set()

    return look


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


# Catch-up


async def test_history_is_read_by_ranges_and_the_rest_block_by_block(
    node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catchup, "FIRST_RANGE", 20)
    monkeypatch.setattr(catchup, "LONGEST_RANGE", 20)
    node.mine_many(4)
    node.mine(Tx((transferred(ALICE, BOB), deposited(wallet=OWN))))  # nobody's wallet yet
    node.mine(Tx((wallet_created(ALICE, OWN), deposited(amount=1, wallet=OWN))))
    node.mine_many(40)
    node.mine(Tx((spent(), deposited(amount=2, wallet=OWN))))
    node.finalized = node.head.number + 1
    node.mine_many(2)
    node.mine(Tx((transferred(ALICE, BOB), deposited(amount=3))))
    ledger = FakeLedger(node.chain(first_block=2))

    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)

    assert ledger.history == [6, 21, 41, 47, 48, 49, 50]
    assert [type(event) for event in ledger.events] == [
        said.WalletCreated,
        said.FundsDeposited,
        said.SpentFromBucket,
        said.FundsDeposited,
        said.TokenTransfer,
        said.FundsDeposited,
    ]
    assert node.calls["eth_getLogs"] < 20


async def test_head_that_is_announced_first_does_not_skip_the_catch_up(node: ScriptedNode) -> None:
    node.mine_many(30)
    node.finalized = 30
    head = node.mine()
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger, poll_s=60) as run:
        run.heads.again(header_from(head.header()))
        await run.reaches(node)

    assert ledger.history == [30, 31]


async def test_range_is_shortened_until_the_node_takes_it(node: ScriptedNode) -> None:
    node.longest_range = 37
    for number in range(1, 401):
        node.mine(*([Tx((deposited(amount=number),))] if number % 50 == 0 else []))
    node.finalized = 400
    ledger = FakeLedger(node.chain())

    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)

    assert amounts(ledger.events) == list(range(50, 401, 50))
    assert len(ledger.blocks) < 30


async def test_interrupted_catch_up_goes_on_where_it_stood(node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catchup, "FIRST_RANGE", 10)
    for number in range(1, 101):
        node.mine(Tx((deposited(amount=number), transferred(ALICE, BOB))))
    node.finalized = 95
    ledger = FakeLedger(node.chain())

    async with following(ledger.chain, ledger) as run:
        ledger.on_apply = stopping(run, at=35)
        await asyncio.wait([run.task])
    assert ledger.history == list(range(1, 36))
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)

    assert amounts(ledger.events) == list(range(1, 101))
    assert ledger.history == sorted(set(ledger.history))
    assert sum(isinstance(event, said.TokenTransfer) for event in ledger.events) == 5  # live blocks only


async def test_ledger_that_was_live_misses_no_transfer_however_long_it_was_away(node: ScriptedNode) -> None:
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger) as run:
        node.mine_many(3)
        await run.reaches(node)
    for amount in range(50):
        node.mine(Tx((transferred(ALICE, BOB, amount),)))
    node.finalized = 45

    for stop_at in (20, 53):  # stopped half-way once more, far below the finalized height
        async with following(ledger.chain, ledger) as run:
            ledger.on_apply = stopping(run, at=stop_at)
            await asyncio.wait([run.task])
        assert len(ledger.blocks) == stop_at + 1

    assert [event.amount for event in ledger.events if isinstance(event, said.TokenTransfer)] == list(range(50))
    assert ledger.hashes == node.hashes


async def test_other_chain_behind_the_same_id_is_refused_before_anything_is_written(
    node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catchup, "FIRST_RANGE", 20)
    node.mine_many(60)
    node.finalized = 60
    ledger = FakeLedger(node.chain())
    async with following(ledger.chain, ledger) as run:
        ledger.on_apply = stopping(run, at=19)
        await asyncio.wait([run.task])
    node.reorg(60, fork="other")

    async with following(ledger.chain, ledger) as run:
        await run.ends_with(ReorgTooDeep, "was final")

    assert ledger.history == [19]


async def test_chain_without_contracts_of_ours_begins_at_its_finalized_block(node: ScriptedNode) -> None:
    node.mine_many(30)
    node.finalized = 25
    ledger = FakeLedger(node.chain(wallets=(), factories=()))
    async with following(ledger.chain, ledger) as run:
        node.mine(Tx((transferred(ALICE, BOB),)))
        await run.reaches(node)

    assert ledger.history == list(range(25, 32))
    assert [type(event) for event in ledger.events] == [said.TokenTransfer]


# Balances that open


async def test_balances_open_with_the_block_that_asks_for_them(node: ScriptedNode) -> None:
    node.balances = {(USDC, ALICE): 7, (USDC, BOB): 0}
    node.mine_many(5)
    node.finalized = 5
    ledger = FakeLedger(node.chain(), waiting=[ALICE, BOB])
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        assert ledger.openings == {}  # not while catching up
        node.mine()
        await run.reaches(node)

    assert ledger.openings == {6: {ALICE: {USDC: 7}, BOB: {USDC: 0}}}


async def test_node_that_refuses_old_state_does_not_hold_the_block_back(node: ScriptedNode) -> None:
    node.balances = {(USDC, ALICE): 7}
    ledger = FakeLedger(node.chain(), waiting=[ALICE])
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        node.fail("eth_call", "jsonrpc")
        node.mine()
        await run.reaches(node)
        node.mine()
        await run.reaches(node)

    assert ledger.openings == {2: {ALICE: {USDC: 7}}}


async def test_node_that_fails_is_asked_for_the_balances_again(node: ScriptedNode) -> None:
    node.balances = {(USDC, ALICE): 7}
    ledger = FakeLedger(node.chain(), waiting=[ALICE])
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        node.fail("eth_call", "http", "drop")
        node.mine()
        await run.reaches(node)

    assert ledger.openings == {1: {ALICE: {USDC: 7}}}


async def test_balances_wait_until_their_state_is_near_the_head(node: ScriptedNode) -> None:
    node.balances = {(USDC, ALICE): 7}
    node.mine_many(100)
    ledger = FakeLedger(node.chain(), waiting=[ALICE])
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)

    assert list(ledger.openings) == [36]


async def test_token_that_is_none_is_left_out(node: ScriptedNode) -> None:
    ledger = FakeLedger(node.chain(), waiting=[ALICE])
    async with following(ledger.chain, ledger) as run:
        await run.reaches(node)
        node.mine()
        await run.reaches(node)

    assert ledger.openings == {1: {ALICE: {}}}


# Failing nodes

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
