"""Contract wallets sign in: a real database, a real chain, and nodes that are away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import ClientSession
from prometheus_client import REGISTRY

from config.chains import Chain
from config.embedded.chain import Anvil
from handlers import auth
from handlers.auth import Proof, SignedIn, SignInRefused
from handlers.deps import Deps
from handlers.errors import Unavailable
from realtime.signatures import Signatures
from realtime.siwe import parse, personal_hash
from store.audit import Caller
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.contract_wallets import ALICE, BOB, Ground, Voter, grounded, signed, wrap
from tests.realtime.wallets import Wallet
from tests.realtime.wiring import CHAIN, OTHER_CHAIN, FakeClock, busy, wire
from tests.watchers.node import Fault

CALLER = Caller("203.0.113.7", "Phone/1.0")
NODE_S = 0.3


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Anvil]:
    with Anvil(tmp_path_factory.mktemp("wallets"), block_time=None) as anvil:
        yield anvil


@pytest.fixture
async def ground(chain: Anvil) -> AsyncIterator[Ground]:
    async with grounded(chain.url) as ground:
        yield ground


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings) -> Deps:
    return wire(pool, busy(make_settings), clock=FakeClock())


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


@pytest.fixture
async def node() -> AsyncIterator[Voter]:
    async with Voter(chain_id=CHAIN.id) as node:
        yield node


def asking(session: ClientSession, *urls: str, chain: Chain = CHAIN) -> Signatures:
    return Signatures({chain.id: replace(chain, rpc=urls)}, session, timeout_s=NODE_S)


async def text_for(deps: Deps, address: str, **changes: Any) -> str:
    nonce = await auth.issue_nonce(deps)
    facts = {"address": address, "issued_at": deps.now(), "expiration_time": None}
    return Wallet().message(nonce.value, **{**facts, **changes})


def digest(text: str) -> bytes:
    return personal_hash(text.encode())


def proof(text: str, signature: bytes) -> Proof:
    return Proof(text, parse(text), signature)


async def counts(deps: Deps) -> dict[str, int]:
    tables = ("auth_nonces", "sessions", "users", "audit_logs")
    return {table: await deps.pool.fetchval(f"SELECT count(*) FROM {table}") for table in tables}


def outcomes(outcome: str) -> float:
    return REGISTRY.get_sample_value("expendi_sign_ins_total", {"outcome": outcome}) or 0


async def test_a_deployed_wallet_signs_in_as_itself(
    deps: Deps, ground: Ground, chain: Anvil, session: ClientSession
) -> None:
    wallet = await ground.wallet(ALICE)
    text = await text_for(deps, wallet)
    check = asking(session, chain.url)
    got = await auth.sign_in(deps, check, proof(text, signed(ALICE, digest(text))), caller=CALLER)
    assert got.user.address == wallet
    with pytest.raises(SignInRefused):
        await auth.sign_in(deps, check, proof(text, signed(ALICE, digest(text))), caller=CALLER)
    text = await text_for(deps, wallet)
    with pytest.raises(SignInRefused):
        await auth.sign_in(deps, check, proof(text, signed(BOB, digest(text))), caller=CALLER)
    assert await counts(deps) == {"auth_nonces": 0, "sessions": 1, "users": 1, "audit_logs": 3}


async def test_a_wallet_not_yet_deployed_signs_in_as_itself(
    deps: Deps, ground: Ground, chain: Anvil, session: ClientSession
) -> None:
    wallet, create = await ground.planned(ALICE)
    check = asking(session, chain.url)
    text = await text_for(deps, wallet)
    got = await auth.sign_in(deps, check, proof(text, wrap(signed(ALICE, digest(text)), create)), caller=CALLER)
    assert got.user.address == wallet
    text = await text_for(deps, wallet)
    for bad in (wrap(signed(BOB, digest(text)), create), signed(ALICE, digest(text))):
        with pytest.raises(SignInRefused):
            await auth.sign_in(deps, check, proof(text, bad), caller=CALLER)
    assert (await counts(deps))["sessions"] == 1


async def test_a_wallet_that_reverts_is_refused_and_no_fault_of_the_node(
    deps: Deps, ground: Ground, chain: Anvil, session: ClientSession
) -> None:
    text = await text_for(deps, await ground.wallet(ALICE, "Reverting"))
    with pytest.raises(SignInRefused):
        await auth.sign_in(deps, asking(session, chain.url), proof(text, signed(ALICE, digest(text))), caller=CALLER)
    assert (await counts(deps))["auth_nonces"] == 0


async def test_a_signature_of_another_message_is_refused(
    deps: Deps, ground: Ground, chain: Anvil, session: ClientSession
) -> None:
    wallet = await ground.wallet(ALICE)
    other, text = await text_for(deps, wallet), await text_for(deps, wallet)
    with pytest.raises(SignInRefused):
        await auth.sign_in(deps, asking(session, chain.url), proof(text, signed(ALICE, digest(other))), caller=CALLER)


@pytest.mark.parametrize("fault", ["drop", "hang", "http", "jsonrpc", "null"])
async def test_while_no_node_answers_nothing_is_spent_and_the_same_message_works_later(
    deps: Deps, session: ClientSession, node: Voter, fault: Fault
) -> None:
    check, before = asking(session, node.url), outcomes("unavailable")
    text = await text_for(deps, "0x" + "5a" * 20)
    node.fail("eth_call", fault, fault)
    for _ in range(2):
        with pytest.raises(Unavailable) as told:
            await auth.sign_in(deps, check, proof(text, b"\x01"), caller=CALLER)
        assert told.value.retry_after_s
    assert await counts(deps) == {"auth_nonces": 1, "sessions": 0, "users": 0, "audit_logs": 0}
    assert outcomes("unavailable") == before + 2
    assert isinstance(await auth.sign_in(deps, check, proof(text, b"\x01"), caller=CALLER), SignedIn)
    with pytest.raises(SignInRefused):
        await auth.sign_in(deps, check, proof(text, b"\x01"), caller=CALLER)
    assert node.calls["eth_call"] == 3  # the replay had no nonce to ask with


async def test_a_node_of_another_chain_is_away_until_it_is_the_right_one(
    deps: Deps, session: ClientSession, node: Voter
) -> None:
    check, text = asking(session, node.url), await text_for(deps, "0x" + "5a" * 20)
    node.chain_id = 1
    for _ in range(2):
        with pytest.raises(Unavailable):
            await auth.sign_in(deps, check, proof(text, b"\x01"), caller=CALLER)
    node.chain_id = CHAIN.id
    assert await auth.sign_in(deps, check, proof(text, b"\x01"), caller=CALLER)


async def test_a_nonce_that_ends_while_no_node_answers_is_refused_at_last(
    deps: Deps, session: ClientSession, node: Voter
) -> None:
    check = asking(session, "http://127.0.0.1:1")
    text = await text_for(deps, "0x" + "5a" * 20, issued_at=deps.now())
    with pytest.raises(Unavailable):
        await auth.sign_in(deps, check, proof(text, b"\x01"), caller=CALLER)
    assert isinstance(deps.now, FakeClock)
    deps.now.pass_(deps.settings.nonce_ttl_s)
    with pytest.raises(SignInRefused):
        await auth.sign_in(deps, check, proof(text, b"\x01"), caller=CALLER)


async def test_a_key_signs_in_though_no_node_answers(deps: Deps, session: ClientSession) -> None:
    wallet = Wallet()
    text = await text_for(deps, wallet.address)
    check = asking(session, "http://127.0.0.1:1")
    got = await auth.sign_in(deps, check, proof(text, bytes.fromhex(wallet.sign(text)[2:])), caller=CALLER)
    assert got.user.address == wallet.address


async def test_only_the_chain_of_the_message_is_asked(deps: Deps, session: ClientSession, node: Voter) -> None:
    async with Voter(chain_id=OTHER_CHAIN.id) as other:
        other.answer = "0x00"
        chains = {CHAIN.id: replace(CHAIN, rpc=(node.url,)), OTHER_CHAIN.id: replace(OTHER_CHAIN, rpc=(other.url,))}
        check = Signatures(chains, session)
        text = await text_for(deps, "0x" + "5a" * 20, chain_id=OTHER_CHAIN.id)
        with pytest.raises(SignInRefused):
            await auth.sign_in(deps, check, proof(text, b"\x01"), caller=CALLER)
        assert (node.requests, other.calls["eth_call"]) == (0, 1)


async def test_nobody_makes_us_ask_a_node_without_a_nonce_or_for_a_chain_not_ours(
    deps: Deps, session: ClientSession, node: Voter
) -> None:
    check = asking(session, node.url)
    bad: list[dict[str, Any]] = [{"nonce": "a" * 16}, {"chain_id": 1}, {"domain": "evil.example"}]
    for changes in bad:
        nonce = (await auth.issue_nonce(deps)).value
        text = Wallet().message(**{"nonce": nonce, "issued_at": deps.now(), **changes})
        with pytest.raises(SignInRefused):
            await auth.sign_in(deps, check, proof(text, b"\x01"), caller=CALLER)
    assert not await check(text, b"\x01", address="0x" + "5a" * 20, chain_id=1)
    assert node.requests == 0


async def test_a_hundred_sign_ins_of_a_wallet_racing_with_one_nonce_let_one_in(
    deps: Deps, session: ClientSession, node: Voter
) -> None:
    check, text = asking(session, node.url), await text_for(deps, "0x" + "5a" * 20)
    tries = [auth.sign_in(deps, check, proof(text, b"\x01"), caller=CALLER) for _ in range(100)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(result, SignedIn) for result in results) == 1
    assert sum(isinstance(result, SignInRefused) for result in results) == 99
