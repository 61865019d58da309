"""Whose logs count and what they say; the slicing decoder against web3's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_abi.exceptions import DecodingError
from hypothesis import given
from hypothesis import strategies as st
from web3 import Web3
from web3.contract import Contract

from config import abi
from config.chains import Chain, Token, Vault
from handlers import chain_events as said
from handlers.chain_events import ChainEvent, DecodedBlock, Fee
from store.records import Block, Log, Receipt
from tests.factories import make_address, make_hash
from tests.watchers.said import (
    ALICE,
    BOB,
    ETH,
    FACTORY,
    SHOP,
    USDC,
    WALLET,
    Said,
    deposited,
    say,
    spent,
    topic,
    transferred,
    wallet_created,
    wallet_registered,
)
from watchers.decode import CIP64, accepted, decode
from watchers.layouts import FACTORY as FACTORY_LAYOUTS
from watchers.layouts import LOCK as LOCK_LAYOUTS
from watchers.layouts import NOTICES, TOKEN, Layout
from watchers.layouts import VAULT as VAULT_LAYOUTS
from watchers.layouts import WALLET as WALLET_LAYOUTS

CHAIN = Chain(
    "test", 1337, ("http://127.0.0.1:1",), wallets=(WALLET,), factories=(FACTORY,),
    tokens=(Token(USDC, "USDC", 6, "usd"), Token(ETH, "ETH", 18)),
)  # fmt: skip
OWN = make_address("own wallet")
BUNDLER = make_address("bundler")
ENTRY_POINT = min(abi.ENTRY_POINTS)
HASH = make_hash("block")


def make_receipt(tx: str, **overrides: Any) -> Receipt:
    facts: dict[str, Any] = {
        "tx_hash": tx, "sender": ALICE, "to": WALLET, "type": 2, "first_log_index": 0,
        "gas_used": 50_000, "effective_gas_price": 3, "l1_fee": 0,
    }  # fmt: skip
    return Receipt(**{**facts, **overrides})


def block_of(*txs: list[Said], receipts: Mapping[int, Mapping[str, Any]] | None = None) -> Block:
    """A block of these transactions' logs; `receipts`: what is not usual about the i-th."""
    logs: list[Log] = []
    known: dict[str, Receipt] = {}
    for i, contents in enumerate(txs):
        tx = make_hash("tx", i)
        known[tx] = make_receipt(tx, first_log_index=len(logs), **(receipts or {}).get(i, {}))
        logs += [Log(one.address, one.topics, one.data, tx, len(logs) + at) for at, one in enumerate(contents)]
    return Block(CHAIN.id, 7, HASH, make_hash("parent"), datetime(2026, 11, 24, tzinfo=UTC), tuple(logs), known)


def read(*txs: list[Said], wallets: Mapping[str, str | None] | None = None, **how: Any) -> DecodedBlock:
    return decode(block_of(*txs, **how), CHAIN, {WALLET: None} if wallets is None else wallets)


def kinds(block: DecodedBlock) -> list[type[ChainEvent]]:
    return [type(event) for event in block.events]


# Whose logs count


def test_events_carry_where_they_come_from() -> None:
    block = read([deposited()], [deposited(), spent(name="café".encode())])

    assert [(event.tx_hash, event.n, event.log_index) for event in block.events] == [
        (make_hash("tx", 0), 0, 0),
        (make_hash("tx", 1), 0, 1),
        (make_hash("tx", 1), 1, 2),
    ]
    assert block.events[2] == said.SpentFromBucket(
        tx_hash=make_hash("tx", 1), n=1, log_index=2, emitter=WALLET, user=ALICE, name="café".encode(), amount=5,
        recipient=SHOP, token=USDC, spender=ALICE,
    )  # fmt: skip
    assert (block.chain_id, block.number, block.hash, block.parent_hash) == (1337, 7, HASH, make_hash("parent"))


def test_anyone_may_use_our_topics_and_nobody_listens() -> None:
    stranger = make_address("stranger")
    block = read(
        [
            deposited(wallet=stranger),
            wallet_created(ALICE, stranger, factory=stranger),
            wallet_created(ALICE, stranger, factory=WALLET),
            deposited(wallet=FACTORY),
            say(stranger, abi.PAUSED, address=ALICE),
            transferred(ALICE, BOB, token=stranger),
            replace(deposited(wallet=stranger), data="0x"),
        ]
    )

    assert block.events == ()
    assert block.quarantined == ()
    assert block.fees == {}


def test_wallet_counts_from_the_log_that_creates_it_on() -> None:
    block = read([deposited(wallet=OWN), wallet_created(ALICE, OWN), deposited(wallet=OWN)], [deposited(wallet=OWN)])

    assert [(event.log_index, type(event)) for event in block.events] == [
        (1, said.WalletCreated),
        (2, said.FundsDeposited),
        (3, said.FundsDeposited),
    ]


def test_wallet_of_somebodys_own_speaks_of_its_owner_only() -> None:
    registered = [wallet_registered(ALICE, OWN), deposited(ALICE, wallet=OWN), deposited(BOB, wallet=OWN)]

    assert kinds(read(registered)) == [said.WalletRegistered, said.FundsDeposited]
    assert kinds(read([deposited(ALICE, wallet=OWN), deposited(BOB, wallet=OWN)], wallets={OWN: ALICE})) == [
        said.FundsDeposited
    ]
    assert len(read([deposited(ALICE), deposited(BOB)]).events) == 2  # the shared one serves everybody


def test_registering_takes_no_wallet_from_its_owner() -> None:
    grab = [wallet_registered(BOB, OWN), wallet_registered(BOB, WALLET), deposited(ALICE, wallet=OWN), deposited(ALICE)]

    assert kinds(read(grab, wallets={OWN: ALICE, WALLET: None}))[2:] == [said.FundsDeposited] * 2
    made = [wallet_created(ALICE, OWN), wallet_registered(BOB, OWN), deposited(ALICE, wallet=OWN)]
    assert kinds(read(made))[2:] == [said.FundsDeposited]
    assert kinds(read([wallet_registered(BOB, OWN), wallet_created(ALICE, OWN), deposited(ALICE, wallet=OWN)]))[2:] == [
        said.FundsDeposited
    ]


def test_nft_transfer_is_not_a_payment() -> None:
    nft = Said(USDC, (abi.TRANSFER, topic(ALICE), topic(BOB), topic(1)), "0x")

    block = read([nft, transferred(ALICE, BOB, 7)])

    assert [(event.log_index, event.amount) for event in block.events if isinstance(event, said.TokenTransfer)] == [
        (1, 7)
    ]
    assert block.quarantined == ()


def test_accepted_logs_are_those_that_are_told_or_quarantined() -> None:
    broken = replace(deposited(), data="0x")
    block = block_of([deposited(wallet=make_address("stranger")), wallet_created(ALICE, OWN), broken, spent()])

    told = decode(block, CHAIN, {})

    assert accepted(block.logs, CHAIN, {}) == [block.logs[i] for i in (1, 2, 3)]
    assert [event.log_index for event in told.events] == [1, 3]
    assert [one.log.log_index for one in told.quarantined] == [2]


# Spender and fee


@pytest.mark.parametrize(
    ("facts", "spender"),
    [
        ({}, ALICE),
        ({"sender": BOB}, BOB),
        ({"to": make_address("multicall")}, None),
        ({"to": None}, None),
        ({"sender": BUNDLER, "to": ENTRY_POINT, "user_operations": ((0, ALICE), (3, BOB))}, BOB),
        ({"sender": BUNDLER, "to": ENTRY_POINT, "user_operations": ((1, ALICE), (3, BOB))}, ALICE),
        ({"sender": BUNDLER, "to": ENTRY_POINT, "user_operations": ((0, ALICE),)}, None),
    ],
)
def test_spender_is_who_called_the_wallet_or_whose_operation_it_was(facts: dict[str, Any], spender: str | None) -> None:
    (_, event) = read([deposited(), spent()], receipts={0: facts}).events

    assert isinstance(event, said.SpentFromBucket)
    assert event.spender == spender


def test_fee_is_gas_and_l1_data_once_per_transaction_from_its_sender() -> None:
    block = read([deposited(), spent()], [spent()], [], receipts={0: {"l1_fee": 11}, 1: {"sender": BUNDLER}})

    assert block.fees == {
        make_hash("tx", 0): Fee(ALICE, 150_011, 50_000, 3),
        make_hash("tx", 1): Fee(BUNDLER, 150_000, 50_000, 3),
    }


# Gas paid in a token (CIP-64)


def gas_flags(*logs: Said, **facts: Any) -> list[bool]:
    block = read(list(logs), receipts={0: {"type": CIP64, **facts}})
    return [event.gas for event in block.events if isinstance(event, said.TokenTransfer)]


HANDLER = make_address("fee handler")
DEBIT = transferred(ALICE, ETH, 100)
CREDITS = (transferred(ETH, ALICE, 30), transferred(ETH, make_address("producer"), 20), transferred(ETH, HANDLER, 50))


def test_gas_legs_are_the_first_and_the_last_transfers() -> None:
    assert gas_flags(DEBIT, transferred(ALICE, SHOP, 7), *CREDITS) == [True, False, True, True, True]
    assert gas_flags(DEBIT, spent(), transferred(WALLET, SHOP, 5), *CREDITS) == [True, False, True, True, True]
    adapter = make_address("adapter")
    assert gas_flags(
        transferred(ALICE, adapter, 9), transferred(ALICE, SHOP), transferred(adapter, ALICE, 4)
    ) == [True, False, True]  # fmt: skip


def test_money_minted_to_the_sender_is_not_gas() -> None:
    assert gas_flags(DEBIT, transferred(ETH, ALICE, 1), *CREDITS) == [True, False, True, True, True]
    assert gas_flags(DEBIT, transferred(ETH, ALICE, 5_000), *CREDITS) == [True, False, True, True, True]


def test_transfers_are_payments_where_gas_is_not_paid_in_the_token() -> None:
    assert gas_flags(DEBIT, *CREDITS, type=2) == [False] * 4
    assert gas_flags(transferred(BOB, ETH, 100), *CREDITS) == [False] * 4
    assert gas_flags(transferred(ALICE, SHOP)) == [False]
    assert gas_flags(spent(), DEBIT, *CREDITS) == [False] * 4  # the debit comes before anything runs


def test_fee_in_token_units_is_no_fee_in_wei() -> None:
    assert read([spent()], receipts={0: {"type": CIP64}}).fees == {}


# What can't be read

WORD = "00" * 31
BROKEN = {
    "no data": replace(deposited(), data="0x"),
    "short": replace(deposited(), data=deposited().data[:-64]),
    "half a word": replace(deposited(), data=deposited().data[:-2]),
    "a topic too few": replace(deposited(), topics=deposited().topics[:1]),
    "a topic too many": replace(deposited(), topics=(*deposited().topics, topic(1))),
    "wide address in a topic": replace(deposited(), topics=(deposited().topics[0], "0x" + "ff" * 32)),
    "wide address in the data": replace(deposited(), data=deposited().data[:-64] + "ff" * 32),
    "bool of 2": say(WALLET, abi.BUCKET_UPDATED, (ALICE,), bytes=b"food", uint256=1, uint256_2=2),
    "wide uint8": say(WALLET, abi.FEE_COLLECTION, (ALICE, 256), uint256=1, address=USDC),
    "name of 33 bytes": spent(name=b"x" * 33),
    "offset into the head": say(WALLET, abi.MONTHLY_LIMIT_RESET, (ALICE,), uint256=0),
    "offset beyond the data": say(WALLET, abi.MONTHLY_LIMIT_RESET, (ALICE,), uint256=64, uint256_2=0),
    "offset without end": say(WALLET, abi.MONTHLY_LIMIT_RESET, (ALICE,), uint256=2**256 - 32, uint256_2=0),
    "length beyond the data": say(WALLET, abi.MONTHLY_LIMIT_RESET, (ALICE,), uint256=32, uint256_2=5),
    "padding that is not there": replace(spent(), data=spent().data[: -2 * 28]),
    "padding that is not zero": replace(spent(), data=spent().data[:-1] + "1"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_undecodable_log_is_quarantined_and_the_others_are_told(what: str) -> None:
    block = read([deposited(), BROKEN[what], spent()])

    assert [event.log_index for event in block.events] == [0, 2]
    (refused,) = block.quarantined
    assert refused.log.log_index == 1
    assert refused.reason


@given(
    st.sampled_from(sorted([*WALLET_LAYOUTS, *FACTORY_LAYOUTS, *NOTICES, abi.TRANSFER])),
    st.lists(st.binary(min_size=32, max_size=32).map(bytes.hex), max_size=4),
    st.binary(max_size=320),
)
def test_random_bytes_are_told_or_quarantined_and_never_raise(signature: str, topics: list[str], data: bytes) -> None:
    emitter = FACTORY if signature in FACTORY_LAYOUTS else USDC if signature == abi.TRANSFER else WALLET
    block = read([Said(emitter, (signature, *("0x" + one for one in topics)), "0x" + data.hex())])

    erc721 = signature == abi.TRANSFER and len(topics) == 3
    assert len(block.events) + len(block.quarantined) == (0 if erc721 else 1)


# Investments

VAULT, LOCK = make_address("vault"), make_address("lock")
INVESTING = replace(CHAIN, vaults=(Vault(VAULT, "Morpho", USDC, "Steady", 6),), yield_locks=(LOCK,))


def test_vaults_and_locks_of_the_table_are_believed_and_nobody_else() -> None:
    for emitter, counts in ((VAULT, True), (USDC, False), (WALLET, False), (make_address("impostor"), False)):
        block = decode(block_of([say(emitter, abi.DEPOSIT, (BOB, ALICE), uint256=5, uint256_2=4)]), INVESTING, {})
        assert kinds(block) == ([said.VaultDeposit] if counts else [])
    made = {"address": USDC, "uint256": 9, "uint256_2": 8, "uint256_3": 77, "bytes": b"house"}
    for emitter, counts in ((LOCK, True), (VAULT, False), (WALLET, False)):
        block = decode(block_of([say(emitter, abi.YIELD_LOCK_CREATED, (3, ALICE, VAULT), **made)]), INVESTING, {})
        assert kinds(block) == ([said.YieldLockCreated] if counts else [])


def test_vault_says_what_went_in_and_out_and_who_handed_shares_over() -> None:
    block = decode(
        block_of(
            [
                say(VAULT, abi.DEPOSIT, (BOB, ALICE), uint256=5, uint256_2=4),
                say(VAULT, abi.WITHDRAW, (SHOP, BOB, ALICE), uint256=5, uint256_2=4),
                transferred(ALICE, BOB, 4, token=VAULT),
            ]
        ),
        INVESTING,
        {},
    )
    deposit, withdraw, moved = block.events
    assert isinstance(deposit, said.VaultDeposit)
    assert (deposit.sender, deposit.owner, deposit.asset, deposit.assets, deposit.shares) == (BOB, ALICE, USDC, 5, 4)
    assert isinstance(withdraw, said.VaultWithdraw)
    assert (withdraw.sender, withdraw.receiver, withdraw.owner) == (SHOP, BOB, ALICE)
    assert isinstance(moved, said.ShareTransfer)
    assert (moved.sender, moved.recipient, moved.shares) == (ALICE, BOB, 4)


def test_both_ends_of_a_lock_say_what_was_paid() -> None:
    paid = {"uint256_1": 100, "uint256_2": 1, "uint256_3": 99}
    whole = say(LOCK, abi.YIELD_LOCK_WITHDRAWN, (3, ALICE, VAULT), uint256_0=90, **paid)
    claimed = say(LOCK, abi.EMERGENCY_FUNDS_CLAIMED, (3, ALICE), **paid)
    for end in decode(block_of([whole, claimed]), INVESTING, {}).events:
        assert isinstance(end, said.YieldLockWithdrawn)
        assert (end.lock_id, end.user, end.total_assets, end.fee, end.net_assets) == (3, ALICE, 100, 1, 99)
    short = Said(LOCK, whole.topics[:3], whole.data)
    assert decode(block_of([short]), INVESTING, {}).quarantined


# The same as web3

ADDRESSES = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "address": ADDRESSES,
    "uint256": st.integers(0, 2**256 - 1),
    "uint8": st.integers(0, 255),
    "bool": st.booleans(),
    "bytes32": st.binary(min_size=32, max_size=32),
    "string": st.text(max_size=32).filter(lambda text: len(text.encode()) <= 32),
}
INDEXED = {  # the rest of each event's parameters are in its data
    abi.DELEGATE_ADDED: 2, abi.DELEGATE_REMOVED: 2, abi.WALLET_CREATED: 2, abi.WALLET_REGISTERED: 2,
    abi.ACCOUNT_OPERATION: 3, abi.FEE_COLLECTION: 2, abi.PAUSED: 0, abi.UNPAUSED: 0, abi.FEE_UPDATED: 0,
    abi.ROLE_GRANTED: 3, abi.ROLE_REVOKED: 3, abi.ROLE_ADMIN_CHANGED: 3, abi.OWNERSHIP_TRANSFERRED: 2, abi.TRANSFER: 2,
    abi.DEPOSIT: 2, abi.WITHDRAW: 3, abi.YIELD_LOCK_CREATED: 3, abi.EMERGENCY_FUNDS_CLAIMED: 2,
}  # fmt: skip
WHOLE = (abi.YIELD_LOCK_CREATED, abi.EMERGENCY_FUNDS_CLAIMED)  # of the other lock event, parts are skipped
LAYOUTS: dict[str, Layout] = {
    **WALLET_LAYOUTS, **FACTORY_LAYOUTS, **NOTICES, **VAULT_LAYOUTS, abi.TRANSFER: TOKEN,
    **{signature: LOCK_LAYOUTS[signature] for signature in WHOLE},
}  # fmt: skip


def types_of(signature: str) -> list[str]:
    return abi.SIGNATURES[signature].partition("(")[2].rstrip(")").split(",")


@cache
def contract_of(signature: str) -> type[Contract]:
    kinds = types_of(signature)
    inputs = [{"name": f"p{i}", "type": kind, "indexed": i < INDEXED.get(signature, 1)} for i, kind in enumerate(kinds)]
    name = abi.SIGNATURES[signature].partition("(")[0]
    event = {"type": "event", "name": name, "anonymous": False, "inputs": inputs}
    return Web3().eth.contract(abi=[event])


def by_web3(signature: str, log: Log) -> list[Any]:
    """The event's parameters in order, addresses lower-case."""
    receipt: Any = {
        "address": Web3.to_checksum_address(log.address),
        "topics": [bytes.fromhex(one[2:]) for one in log.topics],
        "data": bytes.fromhex(log.data[2:]),
        "blockNumber": 1,
        "blockHash": bytes(32),
        "transactionHash": bytes(32),
        "transactionIndex": 0,
        "logIndex": 0,
    }
    args = contract_of(signature).events[abi.SIGNATURES[signature].partition("(")[0]]().process_log(receipt)["args"]
    return [args[f"p{i}"] for i in range(len(types_of(signature)))]


def plain(value: Any, kind: str) -> Any:
    """Ours and web3's in one form."""
    if kind == "string":
        return value.encode() if isinstance(value, str) else value
    if kind == "bytes32":
        return value if isinstance(value, bytes) else bytes.fromhex(value[2:])
    return value.lower() if kind == "address" else value


def own_fields(layout: Layout, log: Log) -> list[Any]:
    """What the event says beyond where it comes from, in the order of its parameters."""
    place: dict[str, Any] = {"tx_hash": log.tx_hash, "n": 0, "log_index": 0, "emitter": log.address}
    unsaid: dict[str, Any] = {"spender": None} if layout is WALLET_LAYOUTS[abi.SPENT_FROM_BUCKET] else {}
    if layout in (VAULT_LAYOUTS[abi.DEPOSIT], VAULT_LAYOUTS[abi.WITHDRAW]):
        unsaid = {"asset": USDC}
    event = layout.read(log, place | unsaid)
    if isinstance(event, said.ContractNotice):
        return list(event.arguments.values())
    order = [field for field, _, _ in (*layout.topics, *layout.words)]
    return [getattr(event, field) for field in order]


@pytest.mark.parametrize("signature", sorted(LAYOUTS), ids=abi.SIGNATURES.__getitem__)
@given(st.data())
def test_decodes_like_web3(signature: str, data: st.DataObject) -> None:
    kinds = types_of(signature)
    values = [data.draw(VALUES[kind]) for kind in kinds]
    indexed = INDEXED.get(signature, 1)
    topics = ["0x" + encode([kind], [value]).hex() for kind, value in zip(kinds, values, strict=True)][:indexed]
    body = "0x" + encode(kinds[indexed:], values[indexed:]).hex()
    log = Log(WALLET, (signature, *topics), body, make_hash("tx"), 0)

    ours = own_fields(LAYOUTS[signature], log)

    web3s = by_web3(signature, log)
    assert [plain(one, kind) for one, kind in zip(ours, kinds, strict=True)] == [
        plain(one, kind) for one, kind in zip(web3s, kinds, strict=True)
    ]
    assert list(map(type, ours)) == [
        bytes if kind in ("string", "bytes32") and signature not in (*NOTICES, *WHOLE) else type(one)
        for one, kind in zip(ours, kinds, strict=True)
    ]


@given(st.data())
def test_refuses_what_web3_refuses(data: st.DataObject) -> None:
    """Bits flipped anywhere in the data: both read the same, or ours refuses where web3 does."""
    signature = abi.SPENT_FROM_BUCKET
    good = spent(name=data.draw(st.binary(max_size=32)))
    raw = bytearray.fromhex(good.data[2:])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    log = Log(WALLET, good.topics, "0x" + raw.hex(), make_hash("tx"), 0)

    try:
        web3s = [plain(one, kind) for one, kind in zip(by_web3(signature, log), types_of(signature), strict=True)]
    except UnicodeDecodeError:
        return  # names are raw bytes to us
    except (DecodingError, OverflowError):
        web3s = None

    told = decode(block_of([Said(log.address, log.topics, log.data)]), CHAIN, {})
    if web3s is None or len(web3s[1]) > 32:
        assert told.quarantined
    else:
        (event,) = told.events
        assert isinstance(event, said.SpentFromBucket)
        assert [event.user, event.name, event.amount, event.recipient, event.token] == web3s
