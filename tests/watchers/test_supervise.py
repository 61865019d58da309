"""One task per chain: what ends one is told, and neither ends the others nor itself for good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import structlog
from aiohttp import ClientSession

from config.chains import Chain
from config.settings import Settings
from handlers.deps import Deps
from tests.factories import TIME
from tests.waiting import until
from tests.watchers.ledger import FakeLedger
from tests.watchers.node import ScriptedNode
from watchers import supervise
from watchers.ingest import WriterLost
from watchers.supervise import watch_all

SETTINGS = Settings(poll_interval_s=0.01, rpc_timeout_s=5)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "WRITER_RETRY_S", (0.005, 0.02))
    monkeypatch.setattr(supervise, "STOPPED_RETRY_S", 0.05)
    monkeypatch.setattr(supervise, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(supervise, "GRACE_S", 0.5)


@pytest.fixture
async def node() -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode() as node:
        node.mine_many(20)
        yield node


@pytest.fixture
async def other() -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode(chain_id=1338) as node:
        yield node


@dataclass
class Writers:
    """Ledgers by chain id; `free` says whether the chain's lock can be had."""

    ledgers: Mapping[int, FakeLedger]
    free: asyncio.Event = field(default_factory=asyncio.Event)
    entered: int = 0
    fails: list[Exception] = field(default_factory=list)

    @asynccontextmanager
    async def writer(self, _deps: Deps, chain: Chain) -> AsyncIterator[FakeLedger]:
        await self.free.wait()
        self.entered += 1
        if self.fails:
            raise self.fails.pop(0)
        yield self.ledgers[chain.id]


@asynccontextmanager
async def watching(*nodes: ScriptedNode, free: bool = True) -> AsyncIterator[Writers]:
    chains = {node.chain_id: node.chain() for node in nodes}
    writers = Writers({chain.id: FakeLedger(chain) for chain in chains.values()})
    if free:
        writers.free.set()
    nobody = cast(Any, None)  # neither pool nor publisher is used by anything but the real writer
    deps = Deps(settings=SETTINGS, chains=chains, pool=nobody, publisher=nobody, now=lambda: TIME)
    stop = asyncio.Event()
    async with ClientSession() as session:
        task = asyncio.create_task(watch_all(deps, chains.values(), session=session, writer=writers.writer, stop=stop))
        try:
            yield writers
        finally:
            stop.set()
            await asyncio.wait_for(task, timeout=5)


def at_head(writers: Writers, node: ScriptedNode) -> bool:
    return writers.ledgers[node.chain_id].hashes[-1:] == [node.head.hash]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (WriterLost("another writes"), "writer_lost"),
        (ConnectionError("the database is away"), "database_lost"),
        (TimeoutError(), "database_lost"),
        (RuntimeError("a bug"), "chain_failed"),
    ],
)
async def test_chain_goes_on_after_whatever_its_ledger_raised(error: Exception, told: str, node: ScriptedNode) -> None:
    with structlog.testing.capture_logs() as logs:
        await goes_on_after(error, node)

    assert {line["event"] for line in logs if line["log_level"] in ("warning", "error")} == {told}


async def goes_on_after(error: Exception, node: ScriptedNode) -> None:
    async with watching(node) as writers:
        ledger = writers.ledgers[node.chain_id]
        await until(lambda: at_head(writers, node))
        ledger.fails.append(error)
        node.mine()
        await until(lambda: at_head(writers, node))
        writers.fails += [error] * 3
        ledger.fails.append(error)
        node.mine()
        await until(lambda: at_head(writers, node))

    assert ledger.hashes == node.hashes
    assert writers.entered == 6


async def test_chain_that_was_stopped_leaves_the_others_running_and_resumes_when_its_node_does(
    node: ScriptedNode, other: ScriptedNode
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with watching(node, other) as writers:
            await until(lambda: at_head(writers, node) and at_head(writers, other))
            before = list(node.blocks)
            history = list(writers.ledgers[node.chain_id].history)
            node.reorg(13)
            node.mine()
            await until(lambda: sum(line["event"] == "chain_stopped" for line in logs) >= 3)
            other.mine()
            await until(lambda: at_head(writers, other))
            assert writers.ledgers[node.chain_id].history == history
            node.restore(before[-13:])
            node.mine()
            await until(lambda: at_head(writers, node))

    assert {line["log_level"] for line in logs if line["event"] == "chain_stopped"} == {"error"}


async def test_wrong_chain_refuses_to_start_and_starts_when_it_is_corrected(
    node: ScriptedNode, other: ScriptedNode
) -> None:
    async with watching(node, other) as writers:
        true, node.chain_id = node.chain_id, 5
        node.mine()
        await until(lambda: at_head(writers, other) and node.calls["eth_chainId"] >= 3)
        node.chain_id = true
        await until(lambda: at_head(writers, node))


async def test_standby_ends_as_soon_as_it_is_told_to_stop(node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "GRACE_S", 60)
    with structlog.testing.capture_logs() as logs:
        async with watching(node, free=False) as writers:
            await until(lambda: any(line["event"] == "heartbeat" for line in logs))

    assert writers.entered == 0
    assert {line["role"] for line in logs if line["event"] == "heartbeat"} == {"standby"}


async def test_node_that_hangs_does_not_keep_the_process(node: ScriptedNode) -> None:
    async with watching(node) as writers:
        await until(lambda: at_head(writers, node))
        node.fail("*", "hang", "hang", "hang")
        requests = node.requests
        await until(lambda: node.requests > requests)


async def test_heartbeat_says_where_each_chain_stands(node: ScriptedNode) -> None:
    with structlog.testing.capture_logs() as logs:
        async with watching(node) as writers:
            await until(lambda: at_head(writers, node))
            beats = len(logs)
            await until(lambda: any(line["event"] == "heartbeat" for line in logs[beats:]))

    beat = next(line for line in reversed(logs) if line["event"] == "heartbeat")
    assert (beat["role"], beat["head"], beat["cursor"], beat["lag"]) == ("writer", 20, 20, 0)
