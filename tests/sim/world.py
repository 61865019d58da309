"""One run from one seed: a chain, its nodes, all processes and some clients; things happen, then all settles."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aiohttp
import orjson
from arq.constants import in_progress_key_prefix
from asyncpg import PostgresError

from handlers.deps import Deps
from jobs.persist import PERSIST_BLOCK
from jobs.worker import ARQ_EXTRA_S
from store import achievements
from store.feed import Publisher
from store.postgres import Connection, Pool, connect, open_pool
from tests.sim import checks
from tests.sim.bus import Bus
from tests.sim.chain import Story
from tests.sim.client import Client
from tests.sim.clock import Process, VirtualLoop
from tests.sim.engines import Engines
from tests.sim.happenings import FINALITY, Happenings
from tests.sim.node import SimNode
from tests.sim.processes import Site, Slot, Warehouse, tell_beside
from tests.sim.stage import listening_to_logs, narrow_socket, settings, virtual_wall, wallet

SETTLE_S = 240.0
"""Time in which everything must be well again after the last fault (s, virtual)."""
CLOCK_STEP_S = 5.0
PATIENCE_STEPS = 7
"""Steps of CLOCK_STEP_S after which a client must have what was committed: servers and Redis start again in 8 s."""
CLAIM_S = PERSIST_BLOCK.timeout_s + 2 * ARQ_EXTRA_S
"""Life of arq's mark of a job that runs (s)."""
PEOPLE = 4


@dataclass
class Report:
    """What came of a run."""

    seed: int
    failures: list[str]
    faults: Counter[str]
    counts: Counter[str]
    trace: list[str]
    virtual_s: float = 0.0
    stalls: int = 0


def run(seed: int, engines: Engines, *, steps: int = 60, stress: Sequence[str] = ()) -> Report:
    """Play one seed from beginning to end. `stress`: the only kinds of trouble, instead of those the seed draws."""
    random.seed(seed)  # the product's own jitter
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(postgres_port=engines.postgres.port)) as runner:
        return runner.run(World(seed, engines, steps, stress).play())


class World:
    """Everything of one run."""

    def __init__(self, seed: int, engines: Engines, steps: int, stress: Sequence[str] = ()) -> None:
        self.seed, self.engines, self.steps, self.stress = seed, engines, steps, stress
        self.faults: Counter[str] = Counter()
        self.trace_lines: list[str] = []
        self.people = [wallet(seed, i) for i in range(PEOPLE)]
        self.users = [wallet.address for wallet in self.people]
        self.tokens: dict[str, str] = {}
        self.clients: list[Client] = []
        self.story = Story(self.draw("story"), self.users)
        self.bus = Bus(engines.valkey.port, self.draw("bus"), self.faults)
        self.nodes: list[SimNode] = []
        self.slots: dict[str, Slot] = {}
        self.late: list[str] = []
        """What came too late, or was kept too long."""
        self._committed: list[dict[str, int]] = []
        self.conn: Connection
        self.pool: Pool
        self.publisher: Publisher
        self.site: Site
        self.http: aiohttp.ClientSession
        self.narrow: aiohttp.ClientSession
        """Connections whose kernel buffer is small: what is not read waits at the server."""
        self._tasks: list[asyncio.Task[Any]] = []

    def draw(self, name: str) -> random.Random:
        """Chance of one part of the run; parts don't disturb each other's."""
        return random.Random(f"{self.seed}:{name}")

    def trace(self, text: str) -> None:
        """Note what happened."""
        self.trace_lines.append(f"{asyncio.get_running_loop().time() - 1000:9.3f}  {text}")

    @property
    def node(self) -> SimNode:
        """The first node; the others share its chain."""
        return self.nodes[0]

    async def play(self) -> Report:
        """Set up, let things happen, settle, look, clean up."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.accounts.append(self.bus.owes)
        loop.expects = self.bus.expects
        loop.on_stall = self.bus.settle
        failures: list[str] = []
        async with AsyncExitStack() as closing:
            closing.enter_context(listening_to_logs(self.trace))
            closing.enter_context(virtual_wall())
            await self._set_up(closing)
            try:
                await Happenings(self).all(self.steps)
                failures += await self._settle()
                failures += self.late[:5]
                failures += await checks.faults_of(self._outcome())
            except Exception as error:  # noqa: BLE001 - whatever ends a run is its failure, told with its trace
                failures += [line for client in self.clients for line in client.failures]
                failures.append(f"the run ended: {error!r}")
                self.trace("".join(traceback.format_exception(error)))
            finally:
                await self._stop()
        counts = self._counts()
        return Report(
            self.seed, failures, self.faults, counts, self.trace_lines, loop.time() - 1000, loop.stalls
        )  # fmt: skip

    async def _set_up(self, closing: AsyncExitStack) -> None:
        url = await self.engines.fresh_database()
        self.conn = await connect(url)
        closing.push_async_callback(self.conn.close)
        self.pool = await open_pool(url, size=5)
        closing.callback(self.pool.terminate)
        await self.bus.up()
        self.publisher = Publisher(self.bus.url)
        closing.push_async_callback(self.publisher.close)
        closing.callback(self.bus.down)
        await self.bus.command(b"FLUSHALL")
        draw = self.draw("nodes")
        first = SimNode(draw=draw, faults=self.faults)
        self.nodes = [first, SimNode(blocks=first.blocks, orphans=first.orphans, draw=draw, faults=self.faults)]
        self.nodes[1].lied = first.lied
        for node in self.nodes:
            await closing.enter_async_context(node)
        self.site = Site(
            settings=settings(url, self.bus.url, draw),
            chain=first.chain(self.nodes[1], ws=first.ws, finality_depth=FINALITY),
            warehouse=Warehouse(self.draw("warehouse"), self.faults, fail=0.2),
        )
        self.http = await closing.enter_async_context(aiohttp.ClientSession())
        connector = aiohttp.TCPConnector(limit=0, socket_factory=narrow_socket)
        self.narrow = await closing.enter_async_context(aiohttp.ClientSession(connector=connector))
        for name, main in (
            ("server-1", self.site.server),
            ("server-2", self.site.server),
            ("watcher-1", self.site.watcher),
            ("watcher-2", self.site.watcher),
            ("worker", self.site.worker),
        ):
            self.slots[name] = Slot(name, main, self.draw(name), self.trace)
        self.slots["worker"].on_death = lambda: self.task(self._forget_claims())
        for i in range(self.draw("past").randint(1, 12)):
            first.blocks.append(self.story.block(first.head, fork=f"past {i}", most=1))
        self.finalize(first.head.number)
        for slot in self.slots.values():
            self.task(slot.keep())
        self.task(self._database_clock())
        self.task(self._watch_buffers())

    def task(self, work: Any) -> asyncio.Task[Any]:
        """Run something beside the rest until the end of the run."""
        # Not a part of the process that it may be started from.
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.append(task)
        return task

    def look(self) -> None:
        """Raise what ended a process that nobody killed."""
        for slot in self.slots.values():
            if slot.failure is not None:
                raise slot.failure
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def finalize(self, number: int) -> None:
        """Nothing up to this block is replaced any more."""
        for node in self.nodes:
            node.finalized = max(node.finalized or 0, number)

    async def sign_in(self, who: int) -> bool:
        """Sign in over REST, as an app does; False when it did not work."""
        self.look()
        servers = list(self.site.listening.items())
        if not servers:
            return False
        process, url = servers[0]
        wallet, now = self.people[who], process.now()
        try:
            nonce = (await self._post(url + "/v1/auth/nonce", {}))["nonce"]
            text = wallet.message(
                nonce, chain_id=self.node.chain_id, issued_at=now, expiration_time=now + timedelta(minutes=5)
            )
            got = await self._post(url + "/v1/auth/verify", {"message": text, "signature": wallet.sign(text)})
        except (aiohttp.ClientError, OSError, TimeoutError, KeyError) as error:
            self.trace(f"sign-in of {who} failed: {error!r}")
            return False
        self.tokens[wallet.address] = got["accessToken"]
        self.trace(f"person {who} signed in: {wallet.address}")
        return True

    async def sign_in_at_last(self, who: int) -> None:
        """Sign in, as often as it takes."""
        for _ in range(60):
            if await self.sign_in(who):
                return
            await asyncio.sleep(0.5)
        raise TimeoutError(f"person {who} can't sign in")

    async def _post(self, url: str, body: Any) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=10)
        async with self.http.post(url, data=orjson.dumps(body), timeout=timeout, headers=JSON) as response:
            found: dict[str, Any] = orjson.loads(await response.read())
            if response.status != 200:
                self.trace(f"{url}: {response.status} {found}")
            return found

    def join(self, who: int) -> Client:
        """Another device of somebody who signed in."""
        user = self.users[who]
        name = f"client {len(self.clients)} of {who}"
        narrow = self.draw(name + " line").random() < 0.5
        client = Client(
            user,
            name,
            self.narrow if narrow else self.http,
            lambda: self.site.urls,
            lambda: self.tokens[user],
            self.draw(name),
            self.faults,
            narrow=narrow,
            mode=self.draw(name + " mode").choice(("official", "since")),
            trace=self.trace,
        )
        self.clients.append(client)
        self.task(client.run())
        return client

    def tell(self, user: str, *, times: int) -> None:
        """Append to a user's log beside the watcher."""
        draw = self.draw(f"tell {user} {asyncio.get_running_loop().time()}")
        self.task(self._told(tell_beside(self.pool, self.publisher, user, times=times, draw=draw)))

    async def _told(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except PostgresError as error:
            self.late.append(f"an append beside the watcher failed: {error!r}")

    async def _database_clock(self) -> None:
        """PostgreSQL's clock is the machine's: let what it dates grow old with our time."""
        while True:
            await asyncio.sleep(CLOCK_STEP_S)
            await self._nobody_waits()
            await self.pool.execute("UPDATE outbox SET enqueued_at = enqueued_at - $1::interval", STEP)
            await self.pool.execute("UPDATE ledger_changes SET changed_at = changed_at - $1::interval", STEP)

    async def _nobody_waits(self) -> None:
        """A client that reads has what was committed PATIENCE_S ago, whatever others do."""
        rows = await self.pool.fetch("SELECT user_address, seq FROM user_counters")
        self._committed.append({row["user_address"]: row["seq"] for row in rows})
        then = self._committed[-PATIENCE_STEPS] if len(self._committed) >= PATIENCE_STEPS else {}
        for client in self.clients:
            client.reading = 0 if client.stalled else client.reading + 1
            if client.reading > PATIENCE_STEPS and client.seq < then.get(client.user, 0):
                self.late.append(f"{client.name} stands at {client.seq} long after {then[client.user]} was committed")

    async def _watch_buffers(self) -> None:
        """No server keeps more for a socket than the budget and one page."""
        budget = self.site.settings.socket_buffer_bytes
        while True:
            await asyncio.sleep(0.05)
            for server in self.site.servers.values():
                for member in server.hub.members():
                    transport = member.socket.transport
                    kept = 0 if transport is None else transport.get_write_buffer_size()
                    if kept > 2 * budget:
                        self.late.append(f"{kept} bytes wait for a socket whose budget is {budget}")

    async def _forget_claims(self) -> None:
        """Redis's clock is the machine's too: what a dead worker had in hand counts as running for so long."""
        claims = await self.bus.command(b"KEYS", in_progress_key_prefix.encode() + b"*")
        await asyncio.sleep(CLAIM_S)
        if claims:
            await self.bus.command(b"DEL", *claims)

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _settle(self) -> list[str]:
        """No more faults; wait until all is told. What is not after SETTLE_S is a failure."""
        self.trace("-- no more faults --")
        self.be_calm()
        if self.bus._server is None:
            await self.bus.up()
        for who in range(PEOPLE):
            if self.users[who] not in self.tokens:
                await self.sign_in_at_last(who)
                self.join(who)
        # The chain that wins is the longer one; a block more opens own balances.
        at = await self.conn.fetchval("SELECT number FROM chain_cursors") or 0
        while self.node.head.number < at + 3:
            await asyncio.sleep(1)
            self.node.blocks.append(self.story.block(self.node.head, fork="end", most=0))
            await self.node.announce()
        deadline = asyncio.get_running_loop().time() + SETTLE_S
        while waits := await self._waits_for():
            if asyncio.get_running_loop().time() > deadline:
                return [f"not settled after {SETTLE_S:g} s: {line}" for line in waits]
            await asyncio.sleep(0.5)
        # What is doubled or late may still come.
        await asyncio.sleep(3)
        return []

    def be_calm(self) -> None:
        """End every fault."""
        weather = self.bus.weather
        weather.lose = weather.double = weather.delay = 0
        for node in self.nodes:
            node.lag, node.mood.fail, node.mood.stale, node.mood.lie = 0, 0, 0, 0
            node._faults.clear()
        self.site.warehouse.fail = 0
        for slot in self.slots.values():
            if slot.process is not None:
                slot.process.doom = ""
        for client in self.clients:
            client.stall(stop=False)

    async def _waits_for(self) -> list[str]:
        self.look()
        if any(client.failures for client in self.clients):
            return []  # there is nothing to wait for
        waits: list[str] = []
        at = await self.conn.fetchrow("SELECT number, hash FROM chain_cursors")
        if at is None or at["hash"] != self.node.head.hash:
            waits.append(f"the ledger stands at {at}, the chain at {self.node.head.number}")
        opened = await self.conn.fetchval("SELECT count(*) FROM wallet_scopes WHERE opened_block IS NULL")
        if opened:
            waits.append(f"{opened} own balances are not opened")
            self.node.blocks.append(self.story.block(self.node.head, fork="more", most=0))
        outbox = await self.conn.fetchval("SELECT count(*) FROM outbox WHERE queue = 'quick'")
        late = await self.conn.fetchval("SELECT count(*) FROM blocks WHERE persisted_at IS NULL")
        changes = await self.conn.fetchval("SELECT count(*) FROM ledger_changes")
        if outbox or late or changes:
            waits.append(f"{outbox} jobs wait, {late} blocks and {changes} changes are not persisted")
        if due := await achievements.due(self.conn, _clock(), limit=PEOPLE):
            waits.append(f"the achievements of {due} are to be looked at")
        rows = await self.conn.fetch("SELECT user_address, seq FROM user_counters")
        seqs = {row["user_address"]: row["seq"] for row in rows}
        waits += [
            f"{client.name} stands at {client.seq}, live {client.live}, the log at {seqs[client.user]}"
            for client in self.clients
            if not client.live or client.seq != seqs[client.user]
        ]
        return waits

    def _outcome(self) -> checks.Outcome:
        deps = Deps(self.site.settings, {self.site.chain.id: self.site.chain}, self.pool, self.publisher, now=_clock)
        return checks.Outcome(
            self.conn,
            deps,
            self.site.chain.id,
            self.node.blocks,
            self.clients,
            sorted(self.tokens),
            self.bus.published,
            self.site.warehouse,
        )

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _counts(self) -> Counter[str]:
        return Counter(
            {
                "blocks": len(self.node.blocks),
                "events delivered": sum(len(client.received) for client in self.clients),
                "recovered": sum(client.recovered for client in self.clients),
                "snapshots": sum(client.snapshots for client in self.clients),
                "process deaths": sum(slot.deaths for slot in self.slots.values()),
            }
        )


STEP = timedelta(seconds=CLOCK_STEP_S)
JSON = {"Content-Type": "application/json"}


def _clock() -> Any:
    return Process("checks").now()
