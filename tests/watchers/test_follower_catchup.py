"""Catching up: history by ranges, the rest block by block, and balances that open on the way."""

from __future__ import annotations

import asyncio

import pytest

from handlers import chain_events as said
from store.chain import header_from
from tests.factories import make_address
from tests.watchers.following import amounts, following, stopping
from tests.watchers.ledger import FakeLedger
from tests.watchers.node import ScriptedNode
from tests.watchers.said import ALICE, BOB, USDC, Tx, deposited, spent, transferred, wallet_created
from watchers import catchup, follower
from watchers.reorg import ReorgTooDeep

OWN = make_address("own wallet")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "RETRY_S", (0.005, 0.02))


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
