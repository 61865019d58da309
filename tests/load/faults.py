"""Every way in which a node of a chain can be bad, and the stage on which one of three is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from prometheus_client import REGISTRY

from config.chains import Chain
from handlers.deps import Deps
from store.postgres import Pool
from tests.load.liars import CHAIN_ID, Liar, Script
from tests.waiting import until
from tests.watchers.node import Fault
from watchers.ingest import writer
from watchers.supervise import watch_all

CONFIRMATIONS = 3
LAG_BLOCKS = 10
STALE_S = 0.4
PROBE_S = 0.05
ASIDE_S = 0.02
TIMEOUT_S = 0.4
POLL_S = 0.02


@dataclass(frozen=True)
class Plan:
    """How much is done to the nodes."""

    times: int = 100
    """Of each kind of fault."""
    behind: int = 3_000
    """Blocks to catch up with at the end."""
    rate: float = 0.02
    """Chance that a request of the catch-up meets a fault."""
    pace_s: float = 0.04
    """Time between two blocks."""
    seed: int = 1


@dataclass(frozen=True)
class Kind:
    """One way to be bad: a fault of a request, or a state that one node is in until it is noticed."""

    name: str
    metric: str
    label: str = ""
    values: tuple[str, ...] = ()
    """Values of the label that count."""
    fault: Fault | None = None
    state: Callable[[Stage, Liar], None] | None = None
    pace: float = 1.0
    """Blocks come so much slower meanwhile."""

    def seen(self) -> float:
        """How often the metric has counted it."""
        chain = {"chain": str(CHAIN_ID)}
        labels = [{**chain, self.label: value} for value in self.values] or [chain]
        return sum(REGISTRY.get_sample_value(self.metric, one) or 0.0 for one in labels)


def _error(name: str, fault: Fault, *kinds: str) -> Kind:
    return Kind(name, "expendi_rpc_errors_total", "kind", kinds, fault=fault)


def _failover(name: str, state: Callable[[Stage, Liar], None], *reasons: str, pace: float = 1.0) -> Kind:
    return Kind(name, "expendi_rpc_failovers_total", "reason", reasons, state=state, pace=pace)


@dataclass
class Stage:
    """The chain, its nodes, and the watcher that follows it."""

    plan: Plan
    deps: Deps
    chain: Chain
    script: Script
    nodes: Sequence[Liar]
    pool: Pool
    session: aiohttp.ClientSession
    slower: float = 1.0
    told: tuple[int, int] = (0, 0)
    """Events doubled and taken back so far."""

    @property
    def cursor(self) -> int:
        """Where the ledger stands."""
        return int(REGISTRY.get_sample_value("expendi_chain_cursor", {"chain": str(CHAIN_ID)}) or 0)

    async def mine(self) -> None:
        """Blocks, for ever."""
        while True:
            await asyncio.sleep(self.plan.pace_s * self.slower)
            self.script.mine()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """The watcher's process, as its `__main__` starts it."""
        stop = asyncio.Event()
        task = asyncio.create_task(watch_all(self.deps, [self.chain], session=self.session, writer=writer, stop=stop))
        try:
            yield
        finally:
            stop.set()
            await task

    async def all_in_use(self) -> None:
        """Wait until no node is put aside: only one is bad at a time."""
        now = asyncio.get_running_loop().time()

        def asked() -> bool:
            return all(node.asked_at > now for node in self.nodes)

        await until(asked, 30, what="all nodes in use")

    async def caught_up(self) -> None:
        """Wait until the ledger stands at the chain's newest block of now."""
        head = self.script.blocks[-1].number
        await until(lambda: self.cursor >= head, 60, what=f"block {head}")


# The kinds ---------------------------------------------------------------------------------------------------------


def lag(stage: Stage, node: Liar) -> None:
    """It gets no new blocks, and there are many at once."""
    node.frozen = len(stage.script.blocks)
    for _ in range(LAG_BLOCKS + 1):
        stage.script.mine()


def _stand_still(stage: Stage, node: Liar) -> None:
    node.frozen = len(stage.script.blocks)


def _step_back(stage: Stage, node: Liar) -> None:
    """Far enough to be told from a load balancer's; a node that has just come back can only be seen to lag."""
    node.lag = LAG_BLOCKS + stage.script.draw.randint(2, 8)


def _serve_another(stage: Stage, node: Liar) -> None:
    node.foreign = True


def _part(stage: Stage, node: Liar) -> None:
    """Other blocks from a little below the ledger's newest, some confirmed and some not, and every one after."""
    node.part_at(max(1, stage.cursor - stage.script.draw.randint(0, 3 * CONFIRMATIONS)))


KINDS = (
    _error("connection dropped", "drop", "transport"),
    _error("no answer in time", "hang", "timeout"),
    _error("HTTP 500", "http", "http"),
    _error("HTTP 429", "throttled", "http"),
    _error("JSON-RPC error", "jsonrpc", "jsonrpc"),
    _error("malformed JSON", "not_json", "malformed"),
    _error("answer of another id", "wrong_id", "malformed"),
    _error("null answers", "null", "null", "malformed"),
    Kind("batch refused", "expendi_rpc_batches_refused_total", fault="too_large"),
    Kind("empty logs against the bloom", "expendi_empty_logs_total", "outcome", ("repaired",), fault="empty"),
    _failover("lag", lag, "lag"),
    _failover("stale head", _stand_still, "stale", pace=4),
    _failover("head stepping back", _step_back, "stale", "lag"),
    _failover("wrong chain", _serve_another, "wrong_chain"),
    _failover("disagreement (fork)", _part, "disagreement"),
)
