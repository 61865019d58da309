"""The follower on a real node with real contracts: every event, every reorg, and balances as the chain has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from config.chains import Chain, Token
from config.embedded.chain import Anvil
from handlers import chain_events as said
from handlers.chain_events import ChainEvent
from tests.waiting import until
from tests.watchers.following import Run, following
from tests.watchers.ledger import FakeLedger
from watchers.devnet import actions
from watchers.devnet.people import PURSE, USDC, Devnet, Payment


@pytest.fixture
async def devnet(anvil: Anvil) -> AsyncIterator[Devnet]:
    async with Devnet(anvil.rpc) as devnet:
        yield devnet


@pytest.fixture
def chain(anvil: Anvil, devnet: Devnet) -> Chain:
    return make_chain(anvil, devnet)


def make_chain(anvil: Anvil, devnet: Devnet, **overrides: Any) -> Chain:
    facts: dict[str, Any] = {
        "name": "devnet",
        "id": devnet.at.chain_id,
        "rpc": (anvil.rpc,),
        "ws": anvil.ws,
        "finality_depth": 64,
        "wallets": (devnet.at.wallet,),
        "factories": (devnet.at.factory,),
        "tokens": (Token(devnet.at.usdc, "USDC", 6, "usd"),),
        **overrides,
    }
    return Chain(**facts)


async def reaches_head(run: Run, devnet: Devnet) -> None:
    newest = await devnet.block()
    await until(lambda: run.task.done() or run.at(newest["hash"]), what=f"block {newest['number']}")
    assert run.at(newest["hash"]), run.task


async def is_the_chain(ledger: FakeLedger, devnet: Devnet) -> bool:
    return ledger.hashes == [(await devnet.block(block.number))["hash"] for block in ledger.blocks]


def spends(ledger: FakeLedger) -> list[int]:
    return [event.amount for event in ledger.events if isinstance(event, said.SpentFromBucket)]


async def test_every_event_of_the_contracts_is_told(devnet: Devnet, anvil: Anvil) -> None:
    owner = await devnet.user(0)
    alice, bob = await devnet.users(2)
    impostor = await devnet.create("Impostor")
    ledger = FakeLedger(make_chain(anvil, devnet, wallets=(devnet.at.wallet, impostor)))
    async with following(ledger.chain, ledger) as run:
        await devnet.create_wallet(alice)
        own = await devnet.wallet_of(alice)
        assert own is not None
        await devnet.register_wallet(bob, own)  # takes nothing from alice
        for wallet in (own, devnet.at.wallet):
            await devnet.open_bucket(alice, "café", wallet=wallet)
        await devnet.update_bucket(alice, "café", 7 * USDC, active=True)
        await devnet.create_bucket(alice, "fun")
        await devnet.move(alice, "café", "fun", 50 * USDC)
        await devnet.add_delegate(alice, "fun", bob)
        await devnet.batch_spend(alice, [Payment("fun", USDC, bob.address)] * 2, delegate=bob)
        await devnet.remove_delegate(alice, "fun", bob)
        await devnet.increase_time(30 * 86400)
        await devnet.spend(alice, "café", 3 * USDC, bob.address)
        await devnet.spend(alice, "café", 4 * USDC, bob.address, wallet=own)
        await devnet.transfer(alice, bob.address, 9 * USDC)
        await devnet.deposit(alice, 5 * USDC)
        await devnet.withdraw(alice, 5 * USDC)
        await devnet.emergency_withdraw(alice)
        for function, *args in (
            ("pause",), ("unpause",), ("grantRole", "0x" + "11" * 32, bob.address),
            ("revokeRole", "0x" + "11" * 32, bob.address), ("setRoleAdmin", "0x" + "11" * 32, "0x" + "22" * 32),
            ("transferOwnership", bob.address),
        ):  # fmt: skip
            await devnet.act(owner, "BudgetWallet", devnet.at.wallet, function, *args)
        faults = list(actions.undecodable_logs(alice.address).values())
        await devnet.act(alice, "Impostor", impostor, "raw", faults)
        await devnet.act(alice, "Impostor", impostor, "collectible", alice.address, bob.address, 1)
        await reaches_head(run, devnet)

    told = Counter(type(event) for event in ledger.events)
    assert {kind.__name__ for kind in told} == {
        "WalletCreated", "WalletRegistered", "BucketCreated", "BucketUpdated", "FundsDeposited", "BucketFunded",
        "BucketTransfer", "DelegateAdded", "DelegateRemoved", "MonthlyLimitReset", "SpentFromBucket",
        "UnallocatedWithdraw", "EmergencyWithdraw", "ContractNotice", "TokenTransfer",
    }  # fmt: skip
    assert spends(ledger) == [USDC, USDC, 3 * USDC, 4 * USDC]
    assert [event.spender for event in ledger.events if isinstance(event, said.SpentFromBucket)] == [
        bob.address, bob.address, alice.address, alice.address
    ]  # fmt: skip
    assert [event.n for event in ledger.events if isinstance(event, said.SpentFromBucket)] == [0, 2, 1, 1]
    notices = [event.name for event in ledger.events if isinstance(event, said.ContractNotice)]
    assert sorted({"Paused", "Unpaused", "RoleGranted", "RoleRevoked", "RoleAdminChanged", "OwnershipTransferred"}) == (
        sorted({*notices})
    )
    assert sum(len(block.quarantined) for block in ledger.blocks) == len(faults)
    assert await is_the_chain(ledger, devnet)
    await fees_are_what_was_paid(ledger, devnet)


async def fees_are_what_was_paid(ledger: FakeLedger, devnet: Devnet) -> None:
    for block in ledger.blocks[-30:]:
        for tx, fee in block.fees.items():
            receipt = await devnet.receipt(tx)
            assert fee.payer == receipt["from"]
            assert fee.wei == int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)


async def test_reorgs_of_every_depth_end_at_the_nodes_chain(devnet: Devnet, chain: Chain) -> None:
    alice, shop = await devnet.users(2)
    await devnet.open_bucket(alice, "food")
    await devnet.mine(3)
    ledger = FakeLedger(chain)
    async with following(chain, ledger) as run:
        for depth in range(1, 11):
            for amount in range(depth):
                tx = await devnet.spend(alice, "food", amount + 1, shop.address)
            await reaches_head(run, devnet)
            told = len(ledger.history)
            await devnet.reorg(depth, txs=[(tx, depth - 1)] if depth == 1 else [])
            await reaches_head(run, devnet)
            assert ledger.history[told : told + depth] == [-number for number in reversed(last(ledger, depth))]
        await devnet.mine()
        await reaches_head(run, devnet)

    assert await is_the_chain(ledger, devnet)
    assert spends(ledger) == [1]  # the one that was included again


def last(ledger: FakeLedger, depth: int) -> list[int]:
    return [block.number for block in ledger.blocks[-depth:]]


async def test_branch_that_comes_back_is_told_again(devnet: Devnet, chain: Chain) -> None:
    alice, shop = await devnet.users(2)
    await devnet.open_bucket(alice, "food")
    first = await devnet.spend(alice, "food", 1, shop.address)
    second = await devnet.spend(alice, "food", 2, shop.address)
    ledger = FakeLedger(chain)
    async with following(chain, ledger) as run:
        await reaches_head(run, devnet)
        before = ledger.hashes
        branch = await devnet.branch(2)
        await devnet.reorg(2)
        await reaches_head(run, devnet)
        assert spends(ledger) == []
        await devnet.restore(branch)
        await devnet.mine()
        await reaches_head(run, devnet)

    assert ledger.hashes[:-1] == before
    assert [event.tx_hash for event in ledger.events if isinstance(event, said.SpentFromBucket)] == [first, second]


async def test_balances_open_as_they_are_after_the_block(devnet: Devnet, chain: Chain) -> None:
    alice, bob = await devnet.users(2)
    ledger = FakeLedger(chain)
    async with following(chain, ledger) as run:
        await reaches_head(run, devnet)
        ledger.waiting = [alice.address, bob.address]
        await devnet.transfer(alice, bob.address, 9 * USDC)
        await until(lambda: ledger.openings)
        await devnet.transfer(alice, bob.address, USDC)
        await reaches_head(run, devnet)

    (opened,) = ledger.openings.values()
    assert opened == {
        alice.address: {devnet.at.usdc: PURSE - 9 * USDC},
        bob.address: {devnet.at.usdc: PURSE + 9 * USDC},
    }


async def test_large_block_comes_in_a_few_requests(devnet: Devnet, chain: Chain) -> None:
    people = await devnet.users(20)
    for one in people:
        await devnet.open_bucket(one, "food")
    ledger = FakeLedger(chain)
    async with following(chain, ledger) as run:
        await reaches_head(run, devnet)
        await devnet.set_automine(False)
        calls = [
            (
                one,
                actions.spend(
                    devnet.at.wallet, Payment("food", 5, one.address), user=one.address, token=devnet.at.usdc
                ),
            )
            for one in people * 20
        ]
        await devnet.load(calls)
        await devnet.mine()
        await reaches_head(run, devnet)

    block: list[ChainEvent] = list(ledger.blocks[-1].events)
    assert sum(isinstance(event, said.SpentFromBucket) for event in block) == 400
    assert sum(isinstance(event, said.TokenTransfer) for event in block) == 400
    assert [event.log_index for event in block] == list(range(800))
    assert [event.n for event in block] == [0, 1] * 400
