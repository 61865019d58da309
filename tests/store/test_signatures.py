"""The signature validator on a real chain, against wallets and factories that are honest, broken and hostile."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from config.embedded.chain import Anvil
from store.rpc import Rpc, RpcError, WrongChain
from store.signatures import ARTIFACT, MAX_SIGNATURE, WRAPPED, is_valid_signature, unwrap
from tests.contract_wallets import ALICE, BAD_MOODS, BOB, DIGEST, FACTORY, WALLET, Ground, Voter, grounded, signed, wrap
from tests.watchers.node import CHAIN_ID, ScriptedNode
from watchers.devnet.contracts import ARTIFACTS, Call

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Anvil]:
    """One chain for the module: what a test deploys is its own."""
    with Anvil(tmp_path_factory.mktemp("signatures"), block_time=None) as anvil:
        yield anvil


@pytest.fixture
async def ground(chain: Anvil) -> AsyncIterator[Ground]:
    async with grounded(chain.url) as ground:
        yield ground


def test_the_committed_validator_is_what_its_source_compiles_to(tmp_path: Path) -> None:
    compiler = ARTIFACTS.with_name("compile.js")
    made = ["node", str(compiler), str(tmp_path), str(ARTIFACT.parent), "paris"]
    subprocess.run(made, check=True, timeout=60, capture_output=True)
    assert json.loads((tmp_path / ARTIFACT.name).read_text()) == json.loads(ARTIFACT.read_text())
    assert [path.stem for path in ARTIFACT.parent.glob("*.sol")] == [ARTIFACT.stem]


# ERC-1271 -----------------------------------------------------------------------------------------------------------


async def test_a_deployed_wallet_approves_its_owners_signature_only(ground: Ground) -> None:
    wallet = await ground.wallet(ALICE)
    assert await ground.ask(wallet, signed(ALICE))
    assert not await ground.ask(wallet, signed(BOB))
    assert not await ground.ask(wallet, signed(ALICE), digest=bytes(32))
    assert not await ground.ask(wallet, b"")
    assert not await ground.ask(wallet, b"\x01" * MAX_SIGNATURE)


@pytest.mark.parametrize("mood", BAD_MOODS)
async def test_a_wallet_that_answers_wrongly_approves_nothing_and_is_no_error(ground: Ground, mood: str) -> None:
    assert not await ground.ask(await ground.wallet(ALICE, mood), signed(ALICE))
    planned, create = await ground.planned(ALICE, mood)
    assert not await ground.ask(planned, wrap(signed(ALICE), create))


# ERC-6492 -----------------------------------------------------------------------------------------------------------


async def test_a_wallet_not_yet_deployed_approves_its_owners_signature_only(ground: Ground) -> None:
    wallet, create = await ground.planned(ALICE)
    assert await ground.ask(wallet, wrap(signed(ALICE), create))
    assert not await ground.ask(wallet, wrap(signed(BOB), create))
    assert not await ground.ask(wallet, wrap(b"", create))
    assert not await ground.ask(wallet, signed(ALICE))
    assert await ground.code(wallet) == "0x"


async def test_a_factory_that_does_not_make_the_wallet_proves_nothing(ground: Ground) -> None:
    wallet, _ = await ground.planned(ALICE)
    _, someone_elses = await ground.planned(BOB)
    others = [FACTORY.call(ground.factory, name) for name in ("fail", "loop", "bomb")]
    nobody = Call(to=BOB.address.lower(), calldata="0x")
    for call in (someone_elses, nobody, Call(to="0x" + "0" * 40, calldata="0x"), *others):
        assert not await ground.ask(wallet, wrap(signed(ALICE), call))
        assert not await ground.ask(wallet, wrap(signed(BOB), call))


async def test_a_wrapped_signature_still_works_once_the_wallet_is_deployed(ground: Ground) -> None:
    wallet, create = await ground.planned(ALICE)
    await ground.send(create)
    assert await ground.ask(wallet, wrap(signed(ALICE), create))
    assert await ground.ask(wallet, signed(ALICE))
    assert not await ground.ask(wallet, wrap(signed(BOB), create))


async def test_the_first_owner_is_believed_no_longer_once_the_wallet_has_another(ground: Ground) -> None:
    wallet, create = await ground.planned(ALICE)
    await ground.send(create)
    await ground.send(WALLET.call(wallet, "enrol", BOB.address))
    assert not await ground.ask(wallet, wrap(signed(ALICE), create))
    assert await ground.ask(wallet, wrap(signed(BOB), create))


async def test_a_deployed_wallet_is_made_ready_by_the_call_and_stays_as_it_was(ground: Ground) -> None:
    wallet = await ground.wallet(ALICE)
    enrol = WALLET.call(wallet, "enrol", BOB.address)
    assert await ground.ask(wallet, wrap(signed(BOB), enrol))
    assert not await ground.ask(wallet, wrap(b"", enrol))
    assert not await ground.ask(wallet, signed(BOB))
    assert await ground.ask(wallet, signed(ALICE))
    assert await ground.ask(wallet, wrap(signed(ALICE), enrol))  # asked before it is made ready


async def test_a_wallet_may_toil_and_its_factory_squander(ground: Ground) -> None:
    wallet, create = await ground.planned(ALICE, "Heavy", by="squander")
    assert await ground.ask(wallet, wrap(signed(ALICE), create))
    assert not await ground.ask(wallet, wrap(signed(BOB), create))


async def test_the_worst_that_can_be_called_is_still_an_answer(ground: Ground) -> None:
    wallet, loop = await ground.wallet(ALICE, "Looping"), FACTORY.call(ground.factory, "loop")
    fill = MAX_SIGNATURE - len(wrap(b"", loop))
    longest = wrap(b"\xff" * fill, loop)
    assert len(longest) == MAX_SIGNATURE
    assert not await ground.ask(wallet, longest)


async def test_no_mutation_of_a_wrapped_signature_is_approved(ground: Ground) -> None:
    wallet, create = await ground.planned(ALICE)
    good, drawn = wrap(signed(ALICE), create), random.Random(6492)
    for _ in range(300):
        bad = bytearray(good)
        for at in drawn.sample(range(len(good)), drawn.choice((1, 1, 2, 5))):
            bad[at] ^= 1 << drawn.randrange(8)
        assert not await ground.ask(wallet, bytes(bad)), bytes(bad).hex()
    for bad_end in (good[:-1], good[32:], good[:-32], good + b"\x00", WRAPPED):
        assert not await ground.ask(wallet, bad_end)


# Keys ---------------------------------------------------------------------------------------------------------------


async def test_an_account_without_code_is_asked_by_its_key(ground: Ground) -> None:
    alice, good = ALICE.address.lower(), signed(ALICE)
    assert await ground.ask(alice, good)
    assert await ground.ask(alice, good[:64] + bytes([good[64] - 27]))
    high = (ORDER - int.from_bytes(good[32:64], "big")).to_bytes(32, "big")
    twin = good[:32] + high + bytes([27 + 28 - good[64]])
    for bad in (signed(BOB), twin, good[:64], good + b"\x00", good[:64] + b"\x02", good[:64] + b"\xff", bytes(65), b""):
        assert not await ground.ask(alice, bad)
    assert not await ground.ask(alice, wrap(good, FACTORY.call(ground.factory, "bomb")))


async def test_nobodys_address_and_precompiles_sign_nothing(ground: Ground) -> None:
    for number in (0, 1, 2, 4, 9):
        account = f"0x{number:040x}"
        for signature in (bytes(65), b"\xff" * 64 + b"\x1b", signed(ALICE), bytes.fromhex("1626ba7e") + bytes(61)):
            assert not await ground.ask(account, signature)
            assert not await ground.ask(account, wrap(signature, FACTORY.call(ground.factory, "bomb")))


async def test_an_account_that_lends_itself_code_is_asked_by_that_code(ground: Ground) -> None:
    lender = Account.create()
    delegate = await ground.wallet(ALICE)
    lent = Account.sign_authorization({"chainId": 0, "address": delegate, "nonce": 0}, lender.key)
    entry = {
        "chainId": "0x0",
        "address": delegate,
        "nonce": "0x0",
        "yParity": hex(lent.y_parity),
        "r": hex(lent.r),
        "s": hex(lent.s),
    }
    enrol = WALLET.call(lender.address, "enrol", BOB.address)
    sent = {"from": await ground.funded(), "to": lender.address, "data": enrol.calldata, "authorizationList": [entry]}
    await ground.node.receipt(await ground.node.rpc_call("eth_sendTransaction", sent))
    assert (await ground.code(lender.address)).startswith("0xef0100")
    assert await ground.ask(lender.address.lower(), signed(BOB))
    assert not await ground.ask(lender.address.lower(), signed(ALICE))


# Signatures that are taken apart ------------------------------------------------------------------------------------


def test_a_signature_without_the_mark_is_left_as_it_is() -> None:
    for signature in (b"", b"\x00", WRAPPED[:-1], WRAPPED + b"\x00", signed(ALICE)):
        parts = unwrap(signature)
        assert parts is not None
        assert (parts.signature, parts.wrapped) == (signature, False)


def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00" * 31,
        word(1) + word(96),
        word(1) + word(96) + word(128),
        word(1) + word(2**255) + word(2**255),
        word(1) + word(2**63) + word(2**63),
        word(1) + word(96) + word(128) + word(2**255) + word(0),
        word(1) + word(96) + word(128) + word(2**62) + word(0),
        word(2**160) + word(96) + word(128) + word(0) + word(0),
    ],
)
async def test_a_badly_wrapped_signature_is_refused_without_asking(body: bytes) -> None:
    assert unwrap(body + WRAPPED) is None
    async with ClientSession() as session:
        dead = Rpc(["http://127.0.0.1:1"], 1, session)
        assert not await is_valid_signature(dead, ALICE.address.lower(), DIGEST, body + WRAPPED)
        assert not await is_valid_signature(dead, ALICE.address.lower(), DIGEST, b"\x00" * (MAX_SIGNATURE + 1))


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.one_of(st.sampled_from([word(n) for n in (0, 1, 32, 96, 128, 2**63, 2**256 - 1)]), st.binary(max_size=40))
    )
)
def test_no_bytes_break_what_takes_them_apart(parts: list[bytes]) -> None:
    unwrap(b"".join(parts) + WRAPPED)


# Nodes --------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


def of(session: ClientSession, *nodes: ScriptedNode, chain_id: int = CHAIN_ID) -> Rpc:
    return Rpc([node.url for node in nodes], 0.5, session, chain_id=chain_id)


@pytest.mark.parametrize("fault", ["drop", "hang", "http", "throttled", "jsonrpc", "not_json", "wrong_id", "null"])
async def test_a_node_that_fails_passes_the_question_on(session: ClientSession, fault: Any) -> None:
    async with Voter() as first, Voter() as second:
        first.fail("eth_call", fault)
        assert await is_valid_signature(of(session, first, second), ALICE.address.lower(), DIGEST, b"x")
        assert second.calls["eth_call"] == 1


@pytest.mark.parametrize("fault", ["drop", "http", "jsonrpc", "not_json", "wrong_id", "null"])
async def test_nodes_that_all_fail_are_an_error_and_no_answer(session: ClientSession, fault: Any) -> None:
    async with Voter() as first, Voter() as second:
        for node in (first, second):
            node.fail("eth_call", *[fault] * 4)
        with pytest.raises(RpcError):
            await is_valid_signature(of(session, first, second), ALICE.address.lower(), DIGEST, b"x")


@pytest.mark.parametrize("answer", ["0x", "0x02", "0x0001", "0x" + "00" * 31 + "01", "0x" + "ff" * 1000])
async def test_an_answer_that_is_no_verdict_is_an_error(
    session: ClientSession, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Voter, "answer", answer)
    async with Voter() as node:
        with pytest.raises(RpcError, match="malformed"):
            await is_valid_signature(of(session, node), ALICE.address.lower(), DIGEST, b"x")


async def test_a_node_of_another_chain_is_not_asked(session: ClientSession) -> None:
    async with Voter() as node:
        rpc = of(session, node, chain_id=CHAIN_ID + 1)
        for _ in range(2):
            with pytest.raises(WrongChain):
                await is_valid_signature(rpc, ALICE.address.lower(), DIGEST, b"x")
        assert node.calls["eth_call"] == 0
