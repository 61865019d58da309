"""The devnet says what the deployed contracts say, and its people act, travel in time and lose blocks as told."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_account import Account
from eth_account.messages import encode_defunct

from config.chains import load_chains
from config.embedded.chain import Anvil
from tests.waiting import until
from watchers.devnet import actions, drive
from watchers.devnet.contracts import ARTIFACTS, artifact, created_address
from watchers.devnet.node import NodeError
from watchers.devnet.people import ETH, PURSE, USDC, Devnet, Payment, Reverted, person, sign_in_message
from watchers.devnet.table import deploy_to_table, deployment, devnet_row

# DOMAIN section 1: signature and topic0 of every event that the product reads.
TOPICS = {
    "BucketCreated(address,string,uint256)": "0xaa0412a621f43eaa6351d59b17fc8854de9a6d9a67a664d3ea56dd0393547288",
    "BucketUpdated(address,string,uint256,bool)": "0xa7083a0250abce15186cd07885aba3f71396cfd7d899d87141aedd48c5a27cbd",
    "BucketFunded(address,string,uint256,address)": (
        "0xd01299d91bb93f9fb900d04f6f15e1f37e590d4532e624fdd034ca96067e7321"
    ),
    "SpentFromBucket(address,string,uint256,address,address)": (
        "0x21a8971d7f2f4d99234fe6ef84f11cd52662cd77cbf3af7a75d489f494466b7e"
    ),
    "BucketTransfer(address,string,string,uint256,address)": (
        "0x8cd6167d21bbc19a0781a8c30d96d83c0b4fe5441f7f5367cfa5dfcb0de5966e"
    ),
    "FundsDeposited(address,uint256,address)": "0xdf4dcf17030d087ed1d90ed3c90719c7260706c1c4a88505dd2d0a982887cf43",
    "MonthlyLimitReset(address,string)": "0x48a7cae487aff3cf6daa7e2717d471ebd3aaf099c2a333220974d499cecd6a02",
    "DelegateAdded(address,address,string)": "0x5445f29a802bfabd877ef3e612e6cbf11f61ed37b0d1881dd83277d264339294",
    "DelegateRemoved(address,address,string)": "0x5fd090e6ffe52b190bc83ab8daf49a555b610b4d87c152ad0aa8f6b1ce134e76",
    "UnallocatedWithdraw(address,address,uint256,address)": (
        "0x15f1555d081a538ac06f26daf118fee2d94da815ffd1bf630ab7fdb30325e921"
    ),
    "EmergencyWithdraw(address,address,uint256)": "0xf24ef89f38eadc1bde50701ad6e4d6d11a2dc24f7cf834a486991f3883328504",
    "WalletCreated(address,address,uint256)": "0x4459976dae5d173eda0ac09c39b840bed814c9d1e490e8b9ba23148e4b19a837",
    "WalletRegistered(address,address)": "0xf3c51abd663c00cbfa5a958e8d688917a1e072399a19c9eb70819641f3b5d856",
    # OpenZeppelin's
    "Paused(address)": "0x62e78cea01bee320cd4e420270b5ea74000d11b0c9f74754ebdbfc544b05a258",
    "Unpaused(address)": "0x5db9ee0a495bf2e6ff9c91a7834c1ba4fdd244a5e8aa4e537bd38aeae4b073aa",
    "RoleGranted(bytes32,address,address)": "0x2f8788117e7eff1d82e926ec794901d17c78024a50270940304540a733656f0d",
    "RoleRevoked(bytes32,address,address)": "0xf6391f5c32d9c69d2a47ea670b442974b53935d1edc7fd64eb21e047a839171b",
    "RoleAdminChanged(bytes32,bytes32,bytes32)": "0xbd79b86ffe0ab8e8776151514217cd7cacd52c909f66475c3af44e129f0b00ff",
    "OwnershipTransferred(address,address)": "0x8be0079c531659141344cd1fd0a4f28419497f9722a3daafe3b4186f6b6457e0",
}
# Which parameters are indexed, where any is beside `user`.
INDEXED = {
    "DelegateAdded": ["user", "delegate"],
    "DelegateRemoved": ["user", "delegate"],
    "WalletCreated": ["user", "wallet"],
    "WalletRegistered": ["user", "wallet"],
    "Paused": [],
    "Unpaused": [],
    "RoleGranted": ["role", "account", "sender"],
    "RoleRevoked": ["role", "account", "sender"],
    "RoleAdminChanged": ["role", "previousAdminRole", "newAdminRole"],
    "OwnershipTransferred": ["previousOwner", "newOwner"],
}


@pytest.fixture
async def devnet(anvil: Anvil) -> AsyncIterator[Devnet]:
    async with Devnet(anvil.rpc) as devnet:
        yield devnet


def topics_of(receipt: dict[str, Any]) -> list[str]:
    """Names of the wallet events of a receipt, in order."""
    names = {topic: signature.partition("(")[0] for signature, topic in TOPICS.items()}
    return [names[log["topics"][0]] for log in receipt["logs"] if log["topics"][0] in names]


async def emitted(devnet: Devnet, tx: str) -> list[str]:
    return topics_of(await devnet.receipt(tx))


# ---- contracts


def test_contracts_declare_every_event_with_its_topic_and_indexed_parameters() -> None:
    wallet, factory = artifact("BudgetWallet"), artifact("WalletFactory")
    declared: dict[str, str] = {}
    for contract in (wallet, factory):
        for name, signature in contract.signatures("event").items():
            declared[signature] = contract.topic(name)
            entry = next(e for e in contract.abi if e["type"] == "event" and e["name"] == name)
            indexed = [parameter["name"] for parameter in entry["inputs"] if parameter["indexed"]]
            assert indexed == INDEXED.get(name, ["user"]), name
    assert declared == TOPICS


def test_committed_artifacts_are_what_the_sources_compile_to(tmp_path: Path) -> None:
    subprocess.run(["node", ARTIFACTS.with_name("compile.js"), tmp_path], check=True, timeout=60, capture_output=True)
    compiled = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert compiled == {path.name: json.loads(path.read_text()) for path in ARTIFACTS.iterdir()}
    assert {path.stem for path in ARTIFACTS.parent.glob("contracts/*.sol")} == {Path(name).stem for name in compiled}


async def test_every_action_emits_its_events(devnet: Devnet) -> None:
    owner = await devnet.user(0)
    alice, bob = await devnet.users(2)
    assert await emitted(devnet, await devnet.create_bucket(alice, "food", 100 * USDC)) == ["BucketCreated"]
    assert await emitted(devnet, await devnet.create_bucket(alice, "fun")) == ["BucketCreated"]
    assert await emitted(devnet, await devnet.update_bucket(alice, "fun", 7, active=True)) == ["BucketUpdated"]
    assert await emitted(devnet, await devnet.deposit(alice, 500 * USDC)) == ["FundsDeposited"]
    assert await emitted(devnet, await devnet.deposit(alice, 10**18, token=ETH)) == ["FundsDeposited"]
    assert await emitted(devnet, await devnet.fund(alice, "food", 300 * USDC)) == ["BucketFunded"]
    assert await emitted(devnet, await devnet.spend(alice, "food", 10 * USDC, bob.address)) == ["SpentFromBucket"]
    assert await emitted(devnet, await devnet.move(alice, "food", "fun", 50 * USDC)) == ["BucketTransfer"]
    assert await emitted(devnet, await devnet.add_delegate(alice, "food", bob)) == ["DelegateAdded"]
    batch = await devnet.batch_spend(alice, [Payment("food", USDC, bob.address)] * 3, delegate=bob)
    assert await emitted(devnet, batch) == ["SpentFromBucket"] * 3
    assert await emitted(devnet, await devnet.remove_delegate(alice, "food", bob)) == ["DelegateRemoved"]
    assert await emitted(devnet, await devnet.withdraw(alice, 100 * USDC)) == ["UnallocatedWithdraw"]
    assert await devnet.usdc_of(bob.address) == PURSE + 13 * USDC
    assert (await devnet.bucket_of(alice, "food")).spent == 13 * USDC
    assert await devnet.balance_of(alice, "food") == 237 * USDC
    assert await emitted(devnet, await devnet.emergency_withdraw(alice)) == ["EmergencyWithdraw"]
    assert await devnet.usdc_of(alice.address) == PURSE - 13 * USDC
    assert await devnet.balance_of(alice, "food") == await devnet.unallocated_of(alice) == 0
    assert await devnet.unallocated_of(alice, token=ETH) == 10**18
    for function, event, *args in (
        ("pause", "Paused"),
        ("unpause", "Unpaused"),
        ("grantRole", "RoleGranted", "0x" + "11" * 32, bob.address),
        ("revokeRole", "RoleRevoked", "0x" + "11" * 32, bob.address),
        ("setRoleAdmin", "RoleAdminChanged", "0x" + "11" * 32, "0x" + "22" * 32),
        ("transferOwnership", "OwnershipTransferred", bob.address),
    ):
        assert await emitted(devnet, await devnet.act(owner, "BudgetWallet", devnet.at.wallet, function, *args)) == [
            event
        ]


async def test_month_begins_again_inside_the_first_spend_after_thirty_days(devnet: Devnet) -> None:
    alice, shop = await devnet.users(2)
    await devnet.open_bucket(alice, "food", limit=20 * USDC)
    await devnet.spend(alice, "food", 15 * USDC, shop.address)
    with pytest.raises(Reverted, match="OverLimit"):
        await devnet.spend(alice, "food", 6 * USDC, shop.address)
    await devnet.increase_time(30 * 86400)
    assert (await devnet.bucket_of(alice, "food")).spent == 15 * USDC
    tx = await devnet.spend(alice, "food", 6 * USDC, shop.address)
    assert await emitted(devnet, tx) == ["MonthlyLimitReset", "SpentFromBucket"]
    assert (await devnet.bucket_of(alice, "food")).spent == 6 * USDC


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda d, a, _: d.create_bucket(a, "food"), "BucketExists"),
        (lambda d, a, _: d.create_bucket(a, "n" * 33), "BadName"),
        (lambda d, a, b: d.spend(a, "food", USDC, b.address, delegate=b), "NotAllowed"),
        (lambda d, a, b: d.spend(a, "food", 2000 * USDC, b.address), "InsufficientFunds"),
        (lambda d, a, b: d.spend(a, "rent", USDC, b.address), "NoBucket"),
        (lambda d, a, _: d.fund(a, "food", USDC), "InsufficientFunds"),
        (lambda d, a, _: d.act(a, "BudgetWallet", d.at.wallet, "pause"), "NotOwner"),
    ],
)
async def test_contract_refuses(devnet: Devnet, act: Any, reason: str) -> None:
    alice, bob = await devnet.users(2)
    await devnet.open_bucket(alice, "food")
    with pytest.raises(Reverted, match=reason):
        await act(devnet, alice, bob)


async def test_factory_gives_each_user_one_wallet_of_their_own(devnet: Devnet) -> None:
    alice, shop = await devnet.users(2)
    tx = await devnet.create_wallet(alice, salt=7)
    wallet = await devnet.wallet_of(alice)
    assert wallet is not None
    # The new wallet speaks before the factory does: those logs are of a wallet not yet known.
    assert topics_of(await devnet.receipt(tx))[-1] == "WalletCreated"
    await devnet.open_bucket(alice, b"\xff\xfe", wallet=wallet)
    tx = await devnet.spend(alice, b"\xff\xfe", USDC, shop.address, wallet=wallet)
    assert {log["address"] for log in (await devnet.receipt(tx))["logs"]} == {wallet, devnet.at.usdc}
    with pytest.raises(Reverted, match="HasWallet"):
        await devnet.create_wallet(alice)
    assert await emitted(devnet, await devnet.register_wallet(shop, wallet)) == ["WalletRegistered"]


async def test_impostor_says_anything_under_known_topics(devnet: Devnet) -> None:
    alice, shop = await devnet.users(2)
    impostor = await devnet.create("Impostor")
    logs = list(actions.undecodable_logs(alice.address).values())
    receipt = await devnet.receipt(await devnet.act(alice, "Impostor", impostor, "raw", logs))
    assert [(log["topics"], log["data"]) for log in receipt["logs"]] == logs
    tx = await devnet.act(alice, "Impostor", impostor, "spent", alice.address, "food", 5, shop.address, devnet.at.usdc)
    assert await emitted(devnet, tx) == ["SpentFromBucket"]


def test_undecodable_logs_are_undecodable() -> None:
    fields = ["string", "uint256", "address", "address"]
    logs = actions.undecodable_logs("0x" + "11" * 20)
    whole = {"no user", "user too wide"}  # their topics are what is wrong
    for fault, (_, told) in logs.items():
        if fault in whole:
            assert decode(fields, bytes.fromhex(told[2:]))[0] == "fun"
        else:
            with pytest.raises((DecodingError, OverflowError)):
                decode(fields, bytes.fromhex(told[2:]))


async def test_vault_shares_grow_with_their_price(devnet: Devnet) -> None:
    alice, bob = await devnet.users(2)
    await devnet.invest(alice, 100 * USDC)
    await devnet.hand_over(alice, bob.address, 40 * USDC)
    await devnet.set_share_price(11 * 10**17)
    assert await devnet.worth(60 * USDC) == 66 * USDC
    await devnet.redeem(alice, 60 * USDC)
    assert await devnet.usdc_of(alice.address) == PURSE - 34 * USDC
    assert (await devnet.shares_of(alice.address), await devnet.shares_of(bob.address)) == (0, 40 * USDC)


async def test_lock_accrues_with_its_vault_and_opens_in_time(devnet: Devnet) -> None:
    alice = await devnet.user(1)
    now = int((await devnet.rpc_call("eth_getBlockByNumber", "latest", False))["timestamp"], 16)
    await devnet.lock_up(alice, 100 * USDC, unlock_time=now + 3600, label="a house")
    await devnet.set_share_price(11 * 10**17)
    assert await devnet.accrued(0) == (10 * USDC, 110 * USDC)
    with pytest.raises(Reverted, match="StillLocked"):
        await devnet.unlock(alice, 0)
    await devnet.increase_time(3600)
    await devnet.unlock(alice, 0)
    assert await devnet.usdc_of(alice.address) == PURSE + 10 * USDC - 110 * USDC // 10_000
    assert await devnet.accrued(0) == (0, 0)


def test_address_of_a_created_contract_is_known_before() -> None:
    sender = "0x6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0"
    assert created_address(sender, 0) == "0xcd234a471b72ba2f1ccf0a70fcaba648a5eecd8d"
    assert created_address(sender, 1) == "0x343c43a37d37dff08ae8c4a11544c718abb4fcf8"
    assert created_address(sender, 300)[:2] == "0x"


# ---- the chain as told


async def test_reorg_drops_a_spend_and_resend_includes_it_again(devnet: Devnet) -> None:
    alice, shop = await devnet.users(2)
    await devnet.open_bucket(alice, "food")
    tx = await devnet.spend(alice, "food", USDC, shop.address)
    before = await devnet.receipt(tx)
    await devnet.reorg(1)
    assert await devnet.find_receipt(tx) is None
    assert await devnet.resend(tx) == tx
    assert (await devnet.receipt(tx))["blockHash"] != before["blockHash"]
    height = await devnet.reorg(1, txs=[(tx, 0)])  # replaced by a block with the same transaction
    assert int((await devnet.receipt(tx))["blockNumber"], 16) == height


async def test_people_keep_acting_after_a_reorg_took_their_purses_away(devnet: Devnet) -> None:
    await devnet.mine(3)
    alice, shop = await devnet.users(2, first=50)
    await devnet.open_bucket(alice, "food")
    await devnet.reorg(6)
    await devnet.open_bucket(alice, "food")
    await devnet.spend(alice, "food", USDC, shop.address)
    assert await devnet.usdc_of(alice.address) == PURSE - 1000 * USDC


async def test_restored_branch_is_the_same_blocks_hash_for_hash(devnet: Devnet) -> None:
    people = await devnet.users(3)
    for one in people:
        await devnet.open_bucket(one, "food")
    await devnet.set_automine(False)
    for one in people * 2:
        await devnet.spend(one, "food", USDC, people[0].address)
    await devnet.mine(2)
    branch = await devnet.branch(2)
    await devnet.reorg(2)
    await devnet.mine()
    await devnet.set_automine(True)
    assert (await devnet.block(int(branch.blocks[0]["number"], 16)))["hash"] != branch.blocks[0]["hash"]
    assert await devnet.restore(branch) == int(branch.blocks[-1]["number"], 16)
    assert (await devnet.block())["hash"] == branch.blocks[-1]["hash"]
    assert await devnet.automine()


async def test_revert_goes_back_to_a_snapshot_once(devnet: Devnet) -> None:
    alice = await devnet.user(1)
    snapshot, height = await devnet.snapshot(), await devnet.block_number()
    await devnet.create_bucket(alice, "food")
    assert await devnet.revert(snapshot) == height
    assert not (await devnet.bucket_of(alice, "food")).exists
    await devnet.create_bucket(alice, "food")
    with pytest.raises(NodeError):
        await devnet.revert(snapshot)


async def test_load_puts_thousands_of_spends_into_one_block(devnet: Devnet) -> None:
    people = await devnet.users(100, first=1000)
    at = devnet.at
    await devnet.set_automine(False)
    setup = [
        (one, call)
        for one in people
        for call in (
            actions.create_bucket(at.wallet, "food", 0),
            actions.deposit(at.wallet, USDC, token=at.usdc),
            actions.fund(at.wallet, "food", USDC, token=at.usdc),
        )
    ]
    await devnet.load(setup)
    await devnet.mine()
    payment = Payment("food", 1, people[0].address)
    spends = [(one, actions.spend(at.wallet, payment, user=one.address, token=at.usdc)) for one in people * 10]
    sent = await devnet.load(spends)
    await devnet.mine()
    assert sorted((await devnet.block())["transactions"]) == sorted(sent)
    assert {await devnet.balance_of(one, "food") for one in people[:5]} == {USDC - 10}


# ---- people, table, crowd


def test_person_signs_in_as_a_wallet_does() -> None:
    alice = person(1)
    assert alice.address == "0x70997970c51812dc3a010c7d01b50e0d17dc79c8"  # anvil's second account
    message = sign_in_message(alice, nonce="abcdefgh1234", domain="localhost", uri="http://localhost", chain_id=31337)
    lines = message.split("\n")
    assert lines[:6] == [
        "localhost wants you to sign in with your Ethereum account:",
        alice.checksum,
        "",
        "Sign in to Expendi.",
        "",
        "URI: http://localhost",
    ]
    assert lines[6:9] == ["Version: 1", "Chain ID: 31337", "Nonce: abcdefgh1234"]
    assert Account.recover_message(encode_defunct(text=message), signature=alice.sign(message)) == alice.checksum
    bare = sign_in_message(
        alice, nonce="abcdefgh1234", domain="localhost", uri="http://localhost", chain_id=1, statement=None
    )
    assert f"{alice.checksum}\n\n\nURI: " in bare


async def test_table_is_kept_while_its_contracts_stand(anvil: Anvil, tmp_path: Path) -> None:
    path = tmp_path / "data" / "chains.toml"
    first = await deploy_to_table(anvil.rpc, path, ws=anvil.ws)
    chain = devnet_row(path)
    assert deployment(chain) == first
    assert (chain.name, chain.rpc, chain.ws, chain.confirmations) == ("devnet", (anvil.rpc,), anvil.ws, 2)
    assert await deploy_to_table(anvil.rpc, path, first_block=99) == first
    assert load_chains(path)[31337].ws is None
    path.write_text(path.read_text().partition("\n[[chain.vault]]")[0])  # as an earlier version wrote it
    second = await deploy_to_table(anvil.rpc, path)
    assert second.wallet != first.wallet
    async with Devnet(anvil.rpc, deployment=second) as devnet:
        await devnet.rpc_call("anvil_setCode", second.usdc, "0x")
    third = await deploy_to_table(anvil.rpc, path, first_block=2)
    assert third.wallet != second.wallet
    assert third.first_block == 2


async def test_purse_is_given_once_per_chain(devnet: Devnet) -> None:
    alice = await devnet.user(1)
    await devnet.deposit(alice, 5 * USDC)
    async with Devnet(devnet.rpc, deployment=devnet.at) as another:
        await another.user(1)
    assert await devnet.usdc_of(alice.address) == PURSE - 5 * USDC


async def test_crowd_never_asks_for_what_the_contract_refuses(devnet: Devnet) -> None:
    crowd = await drive.gather_crowd(devnet, 1)
    again = await drive.gather_crowd(devnet, 1)
    assert again.people == crowd.people
    spent = 0
    for _ in range(300):  # a revert would raise
        spent += (await emitted(devnet, await drive.act_once(crowd))).count("SpentFromBucket")
    assert spent > 200


async def test_verbs_of_the_command_line_deploy_and_drive_until_stopped(anvil: Anvil, tmp_path: Path) -> None:
    table = tmp_path / "chains.toml"
    command = [sys.executable, "-m", "watchers.devnet"]
    deployed = await asyncio.create_subprocess_exec(*command, "deploy", "--rpc", anvil.rpc, "--out", str(table))
    assert await deployed.wait() == 0
    at = deployment(devnet_row(table))
    driven = await asyncio.create_subprocess_exec(
        *command, "drive", "--rate", "50", "--users", "2", "--chains", str(table)
    )
    async with Devnet(anvil.rpc, deployment=at) as devnet:
        spent = artifact("BudgetWallet").topic("SpentFromBucket")
        where = {"fromBlock": "0x0", "address": at.wallet, "topics": [spent]}
        await until(lambda: devnet.rpc_call("eth_getLogs", where), 20, what="a spend")
    driven.send_signal(signal.SIGTERM)
    assert await driven.wait() == 0
    unknown = await asyncio.create_subprocess_exec(
        *command, "drive", "--chains", str(tmp_path / "none.toml"), stderr=subprocess.PIPE
    )
    _, told = await unknown.communicate()
    assert unknown.returncode == 1
    assert told.startswith(b"watchers.devnet: ")
    assert b"there is no such chain table" in told
