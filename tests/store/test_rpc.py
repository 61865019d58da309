"""The JSON-RPC client against a node that fails in every way it can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from prometheus_client import REGISTRY

from store import jsonrpc as module
from store.nodes import Failed
from store.rpc import Call, Rpc, RpcError, WrongChain, host, quantity
from tests.watchers.node import CHAIN_ID, Fault, ScriptedNode

TIMEOUT_S = 0.3


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


@pytest.fixture
async def node() -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode() as node:
        yield node


@pytest.fixture
async def other() -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode() as node:
        yield node


def make_rpc(session: ClientSession, *nodes: ScriptedNode, chain_id: int | None = CHAIN_ID) -> Rpc:
    return Rpc([node.url for node in nodes], TIMEOUT_S, session, chain_id=chain_id)


def errors(kind: str, chain_id: int = CHAIN_ID) -> float:
    return REGISTRY.get_sample_value("expendi_rpc_errors_total", {"chain": str(chain_id), "kind": kind}) or 0


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"chain": str(CHAIN_ID), **labels}) or 0


async def test_batch_answers_in_the_order_of_its_calls(node: ScriptedNode, session: ClientSession) -> None:
    node.mine_many(3)

    headers = await make_rpc(session, node).batch([("eth_getBlockByNumber", (hex(n), False)) for n in (2, 0, 3)])

    assert [header["hash"] for header in headers] == [node.hashes[n] for n in (2, 0, 3)]


async def test_long_batch_is_several_requests(
    node: ScriptedNode, session: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 2)

    assert await make_rpc(session, node, chain_id=None).batch([("eth_chainId", ())] * 5) == [hex(CHAIN_ID)] * 5
    assert node.requests == 3


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("drop", "transport"),
        ("hang", "timeout"),
        ("http", "http"),
        ("throttled", "http"),
        ("jsonrpc", "jsonrpc"),
        ("not_json", "malformed"),
        ("wrong_id", "malformed"),
    ],
)
async def test_failure_is_an_error_of_its_kind_and_is_counted(
    fault: Fault, kind: str, node: ScriptedNode, session: ClientSession
) -> None:
    before = errors(kind)
    node.fail("eth_getLogs", fault)

    with pytest.raises(RpcError) as caught:
        await make_rpc(session, node).call("eth_getLogs", {"blockHash": node.head.hash, "topics": [[]]})

    assert caught.value.kind == kind
    assert errors(kind) == before + 1


@pytest.mark.parametrize("fault", ["drop", "hang", "http", "throttled", "not_json", "wrong_id"])
async def test_failing_node_passes_its_calls_to_the_next_which_keeps_them(
    fault: Fault, node: ScriptedNode, other: ScriptedNode, session: ClientSession
) -> None:
    rpc = make_rpc(session, node, other)
    await rpc.call("web3_clientVersion")
    node.fail("*", fault)

    assert await rpc.call("web3_clientVersion") == "scripted/1.0"
    await rpc.call("web3_clientVersion")

    assert (node.calls["web3_clientVersion"], other.calls["web3_clientVersion"]) == (2, 2)


async def test_refusal_is_told_at_once_and_the_next_try_goes_elsewhere(
    node: ScriptedNode, other: ScriptedNode, session: ClientSession
) -> None:
    rpc = make_rpc(session, node, other)
    node.fail("web3_clientVersion", "jsonrpc")

    with pytest.raises(RpcError, match="header not found") as caught:
        await rpc.call("web3_clientVersion")

    assert caught.value.code == -32000
    assert await rpc.call("web3_clientVersion") == "scripted/1.0"
    assert other.calls["web3_clientVersion"] == 1


@pytest.mark.parametrize("refusal", ["error", "list", "413"])
async def test_batch_that_is_too_large_is_asked_for_in_halves_and_the_size_is_kept(
    refusal: str, node: ScriptedNode, other: ScriptedNode, session: ClientSession
) -> None:
    node.longest_batch, node.refuses_batch_by = 30, refusal
    rpc = make_rpc(session, node, other)
    before = counted("expendi_rpc_batches_refused_total")
    node.mine_many(99)
    calls: list[Call] = [("eth_getBlockByNumber", (hex(n), False)) for n in range(100)]

    assert [one["hash"] for one in await rpc.batch(calls)] == node.hashes
    assert other.requests == 0
    assert counted("expendi_rpc_batches_refused_total") == before + 2  # 100 and 50; 25 is taken
    asked = node.requests
    await rpc.batch(calls)

    assert node.requests - asked == 4
    assert counted("expendi_rpc_batches_refused_total") == before + 2


async def test_node_without_batches_is_asked_one_by_one(node: ScriptedNode, session: ClientSession) -> None:
    node.takes_batches = False

    assert await make_rpc(session, node).batch([("web3_clientVersion", ())] * 3) == ["scripted/1.0"] * 3


async def test_refusal_that_is_no_matter_of_size_is_not_tried_in_parts(
    node: ScriptedNode, other: ScriptedNode, session: ClientSession
) -> None:
    rpc = make_rpc(session, node, other)
    await rpc.call("web3_clientVersion")
    asked = node.requests
    node.fail("*", "throttled")

    assert await rpc.batch([("web3_clientVersion", ())] * 4) == ["scripted/1.0"] * 4
    assert node.requests - asked == 1


async def test_refused_call_of_a_batch_does_not_hide_in_it(node: ScriptedNode, session: ClientSession) -> None:
    calls = [("eth_chainId", ()), ("eth_getBlockByNumber", ("finalized", False))]
    node.finalized = None
    rpc = make_rpc(session, node)

    answers = await rpc.answers(calls)
    with pytest.raises(RpcError, match="unknown tag"):
        await rpc.batch(calls)

    assert answers[0] == hex(CHAIN_ID)
    assert isinstance(answers[1], RpcError)


async def test_node_of_another_chain_is_dropped_before_it_answers_anything(
    node: ScriptedNode, other: ScriptedNode, session: ClientSession
) -> None:
    before = counted("expendi_rpc_failovers_total", reason="wrong_chain")
    node.chain_id = 5
    rpc = make_rpc(session, node, other)

    for _ in range(3):
        await rpc.call("web3_clientVersion")

    assert node.calls == {"eth_chainId": 1}
    assert rpc.nodes == 1
    assert counted("expendi_rpc_failovers_total", reason="wrong_chain") == before + 1
    assert rpc.lies == 1


async def test_no_node_of_the_chain_refuses_to_start(node: ScriptedNode, session: ClientSession) -> None:
    node.chain_id = 5
    rpc = make_rpc(session, node)

    for _ in range(2):
        with pytest.raises(WrongChain, match="correct `id` or `rpc`"):
            await rpc.call("web3_clientVersion")

    assert node.calls["web3_clientVersion"] == 0


async def test_chain_is_asked_for_again_when_that_failed(node: ScriptedNode, session: ClientSession) -> None:
    node.fail("eth_chainId", "http", "jsonrpc")
    rpc = make_rpc(session, node)

    for _ in range(2):
        with pytest.raises(RpcError):
            await rpc.call("web3_clientVersion")

    assert await rpc.call("web3_clientVersion") == "scripted/1.0"


async def test_answer_is_read_up_to_a_limit(
    node: ScriptedNode, session: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_LIMIT_BYTES", 600)
    rpc = make_rpc(session, node)
    await rpc.call("web3_clientVersion")

    with pytest.raises(RpcError) as caught:
        await rpc.batch([("eth_getBlockByNumber", ("0x0", False))] * 5)

    assert caught.value.kind == "malformed"
    assert caught.value.too_much


async def test_method_that_is_not_offered_is_remembered_per_node(
    node: ScriptedNode, other: ScriptedNode, session: ClientSession
) -> None:
    node.unoffered.add("eth_getBlockReceipts")
    rpc = make_rpc(session, node, other)

    with pytest.raises(RpcError) as caught:
        await rpc.call("eth_getBlockReceipts", node.head.hash)

    assert caught.value.unknown_method
    assert rpc.offers("eth_getBlockReceipts")  # the other node is in use now
    await rpc.call("web3_clientVersion")
    rpc.turn()
    assert not rpc.offers("eth_getBlockReceipts")


async def test_nobody_is_shown_a_providers_key(node: ScriptedNode, session: ClientSession) -> None:
    for fault in ("drop", "hang", "http", "jsonrpc", "not_json", "wrong_id"):
        node.fail("web3_clientVersion", fault)
        with pytest.raises(RpcError) as caught:
            await make_rpc(session, node).call("web3_clientVersion")
        chain = [
            caught.value,
            caught.value.__cause__,
            None if caught.value.__suppress_context__ else caught.value.__context__,
        ]
        assert not any("key" in str(error) for error in chain)
        assert f"127.0.0.1:{node.port}" in str(caught.value)

    assert host("https://user:secret@node.example:8545/v3/key?token=1") == "https://node.example:8545"


async def test_concurrent_calls_fail_over_once(node: ScriptedNode, other: ScriptedNode, session: ClientSession) -> None:
    rpc = make_rpc(session, node, other)
    fault: Fault = "http"
    node.fail("*", *[fault] * 10)

    await asyncio.gather(*(rpc.call("web3_clientVersion") for _ in range(10)))
    asked = node.requests
    await rpc.call("web3_clientVersion")

    assert node.requests == asked


@pytest.mark.parametrize("value", [None, 5, "5", "", "0x", "0xg", "x1"])
def test_number_must_be_written_as_one(value: object) -> None:
    with pytest.raises(ValueError, match=r"number|invalid"):
        quantity(value)


async def test_node_that_is_aside_is_asked_before_the_chain_is_given_up_as_another(
    node: ScriptedNode, other: ScriptedNode, session: ClientSession
) -> None:
    other.chain_id = 5
    rpc = make_rpc(session, node, other)
    rpc.observe(0, Failed(9))
    assert rpc.usable == (1,)

    assert await rpc.call("web3_clientVersion") == "scripted/1.0"
    assert other.calls == {"eth_chainId": 1}
