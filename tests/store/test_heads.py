"""New heads by websocket: told at once, across every way a connection can end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial

import pytest
from aiohttp import ClientSession
from prometheus_client import REGISTRY

from store import heads as module
from store.chain import Header
from store.heads import heads
from tests.waiting import until
from tests.watchers.node import CHAIN_ID, ScriptedNode


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECONNECT_S", (0.01, 0.05))


@pytest.fixture
async def node() -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode() as node:
        yield node


@asynccontextmanager
async def listening(node: ScriptedNode, *, silence_s: float = 5) -> AsyncIterator[list[Header]]:
    heard: list[Header] = []

    async def listen() -> None:
        async with (
            ClientSession() as session,
            aclosing(heads(node.ws, session, chain_id=CHAIN_ID, timeout_s=1, silence_s=silence_s)) as announced,
        ):
            async for header in announced:
                heard.append(header)  # noqa: PERF401 - one by one: the test looks while it goes on

    task = asyncio.create_task(listen())
    yield heard
    task.cancel()
    await asyncio.wait([task])


async def test_heads_are_heard_in_order_as_often_as_they_are_told(node: ScriptedNode) -> None:
    async with listening(node) as heard:
        await until(lambda: node.subscribers)
        for _ in range(3):
            await node.announce(node.mine(), times=2)

        await until(lambda: len(heard) == 6)

    assert [header.hash for header in heard] == [hash_ for hash_ in node.hashes[1:] for _ in range(2)]
    assert heard[0].parent_hash == node.hashes[0]
    assert heard[0].bloom is not None


async def test_connection_that_ends_is_opened_again(node: ScriptedNode) -> None:
    async with listening(node) as heard:
        await until(lambda: node.subscribers)
        await node.announce(node.mine())
        await until(lambda: len(heard) == 1)
        await node.cut()
        await until(partial(reconnected, node, since=1))
        await node.announce(node.mine())
        await until(lambda: len(heard) == 2)


async def test_silent_connection_is_opened_again(node: ScriptedNode) -> None:
    node.silent = True
    async with listening(node, silence_s=0.05) as heard:
        await until(lambda: node.calls["websocket"] >= 3)
        node.silent = False
        await until(lambda: node.subscribers)
        await node.announce(node.mine())
        await until(lambda: heard)


async def test_half_open_connection_is_noticed_by_its_missing_pong(
    node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PING_S", 0.05)
    node.deaf = True
    before = lost("timeout")
    async with listening(node, silence_s=60) as heard:
        await until(lambda: lost("timeout") >= before + 2)
        node.deaf = False
        connections = node.calls["websocket"]
        await until(lambda: node.calls["websocket"] > connections and node.subscribers)
        await until(lambda: node.subscribers == 1)
        await node.announce(node.mine())
        await until(lambda: heard)


async def test_connection_that_answers_pings_stays(node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_S", 0.02)
    async with listening(node, silence_s=60) as heard:
        await until(lambda: node.subscribers)
        for count in range(1, 11):
            await node.announce(node.mine())
            await until(partial(has, heard, count))

    assert node.calls["websocket"] == 1


def has(heard: list[Header], count: int) -> bool:
    return len(heard) == count


def lost(reason: str) -> float:
    return REGISTRY.get_sample_value("expendi_heads_lost_total", {"chain": str(CHAIN_ID), "reason": reason}) or 0


async def test_garbage_ends_the_connection_and_not_the_listening(node: ScriptedNode) -> None:
    async with listening(node) as heard:
        for text in ("{", "[]", '{"method":"eth_subscription","params":{"subscription":"0x1","result":{}}}'):
            await until(lambda: node.subscribers)
            connections = node.calls["websocket"]
            await node.say(text)
            await until(partial(reconnected, node, since=connections))
        await node.announce(node.mine())
        await until(lambda: heard)


def reconnected(node: ScriptedNode, *, since: int) -> bool:
    return node.calls["websocket"] > since and node.subscribers == 1


async def test_websocket_of_another_chain_is_dropped(node: ScriptedNode) -> None:
    node.chain_id = 5
    async with (
        ClientSession() as session,
        aclosing(heads(node.ws, session, chain_id=CHAIN_ID, timeout_s=1)) as announced,
    ):
        assert [header async for header in announced] == []

    assert node.subscribers == 0
