"""All nodes asked at once, over real HTTP: who serves what, who is behind, and who is right."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import structlog
from aiohttp import ClientSession
from prometheus_client import REGISTRY

from store import probe as module
from store.chain import headers_at
from store.probe import probe, vote
from store.rpc import Limits, Rpc
from tests.watchers.node import CHAIN_ID, ScriptedNode

LIMITS = Limits(lag_blocks=2, aside_s=60)


@pytest.fixture
async def nodes() -> AsyncIterator[list[ScriptedNode]]:
    """Three nodes of one chain of 20 blocks; each may change its copy."""
    async with AsyncExitStack() as closing:
        nodes = [await closing.enter_async_context(ScriptedNode()) for _ in range(3)]
        nodes[0].mine_many(20)
        for node in nodes[1:]:
            node.blocks = list(nodes[0].blocks)
        yield nodes


@pytest.fixture
async def rpc(nodes: list[ScriptedNode]) -> AsyncIterator[Rpc]:
    async with ClientSession() as session:
        rpc = Rpc([node.url for node in nodes], 1, session, chain_id=CHAIN_ID, limits=LIMITS)
        rpc.stands_at(20, (15, nodes[0].hashes[15]))
        yield rpc


def failovers(reason: str) -> float:
    return REGISTRY.get_sample_value("expendi_rpc_failovers_total", {"chain": str(CHAIN_ID), "reason": reason}) or 0


def gauge(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"chain": str(CHAIN_ID), **labels})


async def test_healthy_nodes_cost_one_request_each(nodes: list[ScriptedNode], rpc: Rpc) -> None:
    await probe(rpc, within_s=1)

    assert [node.requests for node in nodes] == [1, 1, 1]
    assert rpc.nodes == 3
    assert gauge("expendi_rpc_nodes", state="usable") == 3
    assert gauge("expendi_rpc_nodes", state="aside") == 0


async def test_each_nodes_lag_is_shown_without_its_key(nodes: list[ScriptedNode], rpc: Rpc) -> None:
    nodes[1].lag = 2
    await probe(rpc, within_s=1)

    labels = [f"http://127.0.0.1:{node.port}" for node in nodes]
    assert [gauge("expendi_rpc_node_lag_blocks", node=label) for label in labels] == [0, 2, 0]


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("kind", ["lag", "wrong_chain", "disagreement", "error", "hang"])
async def test_bad_node_is_put_aside_for_what_it_does(
    kind: str, which: int, nodes: list[ScriptedNode], rpc: Rpc
) -> None:
    bad = nodes[which]
    before = failovers("error" if kind == "hang" else kind)
    times = 1
    match kind:
        case "lag":
            bad.lag = 3
        case "wrong_chain":
            bad.chain_id = 5
        case "disagreement":
            bad.reorg(8)
        case "error":
            times = 3
            bad.fail("*", "http", "drop", "not_json")
        case "hang":
            times = 2
            bad.fail("*", "hang", "hang")
    for _ in range(times):
        await probe(rpc, within_s=0.2)

    asked = bad.requests
    await probe(rpc, within_s=1)
    await rpc.call("web3_clientVersion")
    assert bad.requests == asked
    assert rpc.nodes == 2
    assert failovers("error" if kind == "hang" else kind) > before


async def test_node_that_lacks_a_block_below_its_own_head_is_put_aside_in_the_end(
    nodes: list[ScriptedNode], rpc: Rpc
) -> None:
    for times in range(3):
        assert rpc.nodes == 3, times
        nodes[1].unknown_numbers = {15}
        await probe(rpc, within_s=1)

    assert rpc.nodes == 2


async def test_changed_chain_blames_nobody(nodes: list[ScriptedNode], rpc: Rpc) -> None:
    for node in nodes:
        node.reorg(8)
    await probe(rpc, within_s=1)

    assert rpc.nodes == 3
    assert rpc.lies == 0


async def test_block_that_is_not_settled_is_not_compared(nodes: list[ScriptedNode], rpc: Rpc) -> None:
    nodes[1].reorg(3)
    await probe(rpc, within_s=1)

    assert rpc.nodes == 3


# Votes


async def test_node_alone_against_two_is_outvoted(nodes: list[ScriptedNode], rpc: Rpc) -> None:
    number, ours = 18, nodes[0].hashes[18]
    nodes[0].reorg(5)
    (theirs,) = await headers_at(rpc, [number])
    assert theirs is not None
    disagreements = gauge("expendi_rpc_disagreements_total") or 0

    with structlog.testing.capture_logs() as logs:
        assert await vote(rpc, number, ours, theirs=theirs.hash, grave=False) == "outvoted"

    assert gauge("expendi_rpc_disagreements_total") == disagreements + 1
    assert [line["log_level"] for line in logs if line["event"] == "rpc_disagreement"] == ["warning"]
    assert rpc.nodes == 3  # not put aside: reorgs reach nodes one after the other
    (again,) = await headers_at(rpc, [number])
    assert again is not None
    assert again.hash == ours  # but another is asked from now on


async def test_majority_is_believed_against_what_we_committed(nodes: list[ScriptedNode], rpc: Rpc) -> None:
    number, ours = 18, nodes[0].hashes[18]
    for node in nodes[:2]:
        node.reorg(5)
    (theirs,) = await headers_at(rpc, [number])
    assert theirs is not None

    with structlog.testing.capture_logs() as logs:
        assert await vote(rpc, number, ours, theirs=theirs.hash, grave=True) == "upheld"

    assert rpc.nodes == 2
    assert any(line["event"] == "rpc_disagreement" and line["log_level"] == "error" for line in logs)


async def test_vote_that_nobody_else_answers_says_so(
    nodes: list[ScriptedNode], rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VOTE_S", 0.1)
    number, ours = 18, nodes[0].hashes[18]
    nodes[0].reorg(5)
    (theirs,) = await headers_at(rpc, [number])
    assert theirs is not None
    nodes[1].fail("*", "hang")
    nodes[2].lag = 6

    assert await vote(rpc, number, ours, theirs=theirs.hash, grave=True) == "unanswered"


async def test_node_that_is_aside_for_its_errors_still_votes_and_one_that_lied_does_not(
    nodes: list[ScriptedNode], rpc: Rpc
) -> None:
    for _ in range(2):
        nodes[1].fail("*", "not_json")
        await probe(rpc, within_s=1)
    nodes[2].chain_id = 5
    await probe(rpc, within_s=1)
    assert rpc.nodes == 1
    number, ours = 18, nodes[0].hashes[18]
    nodes[0].reorg(5)
    (theirs,) = await headers_at(rpc, [number])
    assert theirs is not None
    asked = [node.requests for node in nodes]

    assert await vote(rpc, number, ours, theirs=theirs.hash, grave=True) == "outvoted"
    assert [node.requests for node in nodes] == [asked[0], asked[1] + 1, asked[2]]
