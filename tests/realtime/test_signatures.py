"""The signature check of sign-in by itself and at the edge: how long, how many at once, and what a caller is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import ClientSession

from handlers.errors import Unavailable
from realtime import signatures as module
from realtime.rest.boundary import REQUEST_S
from realtime.signatures import AT_ONCE, CHECK_S, NODE_S, Signatures
from store.postgres import Pool
from store.rpc import Rpc
from tests.conftest import MakeSettings
from tests.contract_wallets import Voter
from tests.realtime.served import serving
from tests.realtime.wallets import Wallet
from tests.realtime.wiring import CHAIN, busy, wire
from tests.waiting import until
from tests.watchers.node import Fault

CONTRACT = "0x" + "5a" * 20


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


@pytest.fixture
async def node() -> AsyncIterator[Voter]:
    async with Voter(chain_id=CHAIN.id) as node:
        yield node


def asking(session: ClientSession, *urls: str, timeout_s: float = NODE_S) -> Signatures:
    return Signatures({CHAIN.id: replace(CHAIN, rpc=urls)}, session, timeout_s=timeout_s)


async def test_a_key_is_known_without_a_node_and_another_account_is_asked(session: ClientSession, node: Voter) -> None:
    wallet, check = Wallet(), asking(session, node.url)
    signature = bytes.fromhex(wallet.sign("text")[2:])
    node.answer = "0x00"
    assert await check("text", signature, address=wallet.address, chain_id=CHAIN.id)
    assert node.requests == 0
    assert not await check("text", signature, address=Wallet().address, chain_id=CHAIN.id)
    assert not await check("Text", signature, address=wallet.address, chain_id=CHAIN.id)
    assert node.calls["eth_call"] == 2


async def test_a_check_ends_in_time_whatever_the_nodes_do(
    session: ClientSession, node: Voter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CHECK_S < REQUEST_S
    monkeypatch.setattr(module, "CHECK_S", 0.2)
    node.fail("*", "hang", "hang")
    with pytest.raises(Unavailable):
        await asking(session, node.url, timeout_s=60)("text", b"\x01", address=CONTRACT, chain_id=CHAIN.id)


async def test_a_hanging_node_is_left_for_the_next(session: ClientSession, node: Voter) -> None:
    async with Voter(chain_id=CHAIN.id) as other:
        node.fail("*", "hang", "hang")
        check = asking(session, node.url, other.url, timeout_s=0.2)
        assert await check("text", b"\x01", address=CONTRACT, chain_id=CHAIN.id)
        assert await check("text", b"\x01", address=CONTRACT, chain_id=CHAIN.id)
        assert (node.requests, other.calls["eth_call"]) == (1, 2)


async def test_strangers_make_us_ask_so_much_at_once_and_no_more(session: ClientSession, node: Voter) -> None:
    check = asking(session, node.url, timeout_s=60)
    assert await check("text", b"\x01", address=CONTRACT, chain_id=CHAIN.id)
    hangs: list[Fault] = ["hang"] * AT_ONCE
    node.fail("eth_call", *hangs)
    asked = node.calls["eth_call"]
    tries = [
        asyncio.create_task(check("text", b"\x01", address=CONTRACT, chain_id=CHAIN.id)) for _ in range(3 * AT_ONCE)
    ]
    await until(lambda: node.calls["eth_call"] == asked + AT_ONCE)
    await Rpc([node.url], 10, session).call("eth_chainId")  # time for more to arrive
    assert node.calls["eth_call"] == asked + AT_ONCE
    node._released.set()
    assert await asyncio.gather(*tries) == [True] * (3 * AT_ONCE)


async def test_a_caller_is_told_to_come_again_and_may_with_the_same_message(
    pool: Pool, make_settings: MakeSettings, session: ClientSession, node: Voter
) -> None:
    check = asking(session, node.url)
    async with serving(wire(pool, busy(make_settings)), check) as anyone:
        nonce = (await anyone.post("/v1/auth/nonce")).json["nonce"]
        body = {"message": Wallet().message(nonce, address=CONTRACT), "signature": "0x01"}
        node.fail("eth_call", "http", "drop")
        for _ in range(2):
            got = await anyone.post("/v1/auth/verify", body)
            assert (got.status, got.json["code"], got.headers["Retry-After"]) == (503, "unavailable", "5")
            assert str(CHAIN.id) in got.json["detail"]
            assert node.url not in got.body.decode()
        assert (await anyone.post("/v1/auth/verify", body)).json["user"]["address"] == CONTRACT
        assert (await anyone.post("/v1/auth/verify", body)).status == 401
