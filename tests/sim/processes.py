"""The product's processes in one loop: wired as their `__main__` does, each killable, each started again."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from config import keys
from config.chains import Chain
from config.settings import Settings
from handlers.deps import Deps
from jobs.__main__ import PATIENCE_S
from jobs.achievements import EVALUATE
from jobs.job import Tools
from jobs.persist import PERSIST_BLOCK
from jobs.schedule import ask_unpersisted, close_days
from jobs.search import INDEX_BLOCK
from jobs.worker import Worker
from realtime.app import SERVER, build
from realtime.signatures import Signatures
from realtime.sockets import RealtimeServer
from store import log, outbox
from store.clickhouse import Analytics
from store.feed import Publisher, Subscriber
from store.postgres import Pool, open_pool
from store.records import Draft
from store.redis import open_redis
from tests.sim.clock import Process, wall
from watchers.ingest import writer
from watchers.supervise import watch_all

DOWN_S = 6.0
"""Longest time until a process that died is started again (s, virtual)."""

Key = tuple[Any, ...]


class MortalPublisher(Publisher):
    """The real one, in a process that may die right before it publishes, or half-way."""

    def __init__(self, url: str, process: Process) -> None:
        super().__init__(url)
        self._process = process

    async def publish(self, frames: Sequence[tuple[str, bytes]], blocks: Sequence[tuple[int, bytes]] = ()) -> bool:
        doom = self._process.doom
        if doom in ("committed, not published", "half published"):
            if doom == "half published" and frames:
                await super().publish(frames[: (len(frames) + 1) // 2])
            self._process.die()
            await asyncio.get_running_loop().create_future()
        return await super().publish(frames, blocks)


@dataclass
class Warehouse(Analytics):
    """Stands in for ClickHouse: what was inserted, newest version of each sort key; inserts fail by chance."""

    draw: random.Random
    faults: Counter[str]
    fail: float = 0.0
    kept: dict[Key, Mapping[str, Any]] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)

    async def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, token: str) -> None:
        fate = self.draw.random()
        await asyncio.sleep(self.draw.uniform(0, 0.3))
        if fate < self.fail / 2:
            self.faults["ClickHouse away"] += 1
            raise ConnectionRefusedError("the warehouse is closed")
        if token not in self.tokens:
            self.tokens.add(token)
            for row in rows:
                self._keep(dict(zip(columns, row, strict=True)))
        if fate < self.fail:
            self.faults["ClickHouse answer lost"] += 1
            raise TimeoutError("the warehouse took it and did not say so")

    def _keep(self, row: Mapping[str, Any]) -> None:
        names = ("user_id", "chain_id", "timestamp", "transaction_hash", "n", "block_hash")
        key = tuple(row[name] for name in names)
        if key not in self.kept or self.kept[key]["version"] <= row["version"]:
            self.kept[key] = row

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class Slot:
    """A place for one process: it is started again some time after it died."""

    name: str
    main: Callable[[Process], Awaitable[None]]
    draw: random.Random
    trace: Callable[[str], None]
    process: Process | None = None
    deaths: int = 0
    failure: BaseException | None = None
    on_death: Callable[[], object] | None = None

    async def keep(self) -> None:
        """Run it for ever."""
        while True:
            process = self.process = Process(self.name)
            running = process.spawn(_as_coroutine(self.main(process)))
            doomed = asyncio.ensure_future(process.doomed.wait())
            try:
                await asyncio.wait({running, doomed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self.process = None
                doomed.cancel()
                await process.kill()
            if not running.cancelled() and (error := running.exception()) is not None and not process.doomed.is_set():
                self.failure = error
                return
            self.deaths += 1
            if self.on_death is not None:
                self.on_death()
            self.trace(f"{self.name} ended")
            await asyncio.sleep(self.draw.uniform(0, DOWN_S))
            self.trace(f"{self.name} starts")


async def _as_coroutine(work: Awaitable[None]) -> None:
    await work


async def tell_beside(pool: Pool, publisher: Publisher, user: str, *, times: int, draw: random.Random) -> None:
    """What jobs and commands do while blocks are written: append to a user's log, each time in its own transaction."""
    for _ in range(times):
        async with pool.acquire() as conn, conn.transaction():
            counters = await log.lock(conn, [user])
            for _ in range(draw.randint(0, 6)):
                await conn.execute("SELECT 1")  # whoever does not wait for the lock comes in between
            cause = draw.randbytes(16).hex()
            draft = Draft(user, cause, "resync", 1, {"reason": "correction"})
            frames = await log.append(conn, counters, [draft], at=wall())
        await publisher.publish([(frame.user, frame.text) for frame in frames])
        await asyncio.sleep(draw.uniform(0, 0.1))


@dataclass
class Site:
    """What all processes of a run share: settings, chain, and the addresses of servers that listen."""

    settings: Settings
    chain: Chain
    warehouse: Warehouse
    listening: dict[Process, str] = field(default_factory=dict)
    servers: dict[Process, RealtimeServer] = field(default_factory=dict)

    @property
    def urls(self) -> list[str]:
        return list(self.listening.values())

    async def _deps(self, process: Process, closing: AsyncExitStack, *, size: int) -> Deps:
        pool = await open_pool(self.settings.database_url, size=size)
        closing.callback(pool.terminate)
        publisher = MortalPublisher(self.settings.redis_url, process)
        return Deps(self.settings, {self.chain.id: self.chain}, pool, publisher, now=process.now)

    async def watcher(self, process: Process) -> None:
        """`python -m watchers`."""
        async with AsyncExitStack() as closing:
            deps = await self._deps(process, closing, size=2)
            session = await closing.enter_async_context(aiohttp.ClientSession())
            await watch_all(deps, [self.chain], session=session, writer=writer, stop=process.stop)

    async def server(self, process: Process) -> None:
        """`python -m realtime`."""
        async with AsyncExitStack() as closing:
            deps = await self._deps(process, closing, size=5)
            session = await closing.enter_async_context(aiohttp.ClientSession())
            redis = open_redis(self.settings.redis_url)
            closing.push_async_callback(redis.aclose)
            app = build(deps, redis, Signatures(deps.chains, session))
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            try:
                await site.start()
                self.listening[process] = f"http://127.0.0.1:{runner.addresses[0][1]}"
                self.servers[process] = app[SERVER]
                await process.stop.wait()
                await runner.cleanup()
            finally:
                self.listening.pop(process, None)
                self.servers.pop(process, None)
                if site._server is not None:
                    site._server.close()

    async def worker(self, process: Process) -> None:
        """`python -m jobs quick`, with a stand-in for ClickHouse."""
        async with AsyncExitStack() as closing:
            deps = await self._deps(process, closing, size=5)
            tools = Tools(deps, self.warehouse)
            redis = outbox.open_queue(self.settings.queue, "quick")
            closing.push_async_callback(redis.aclose, close_connection_pool=True)
            worker = Worker(tools, redis, "quick", (PERSIST_BLOCK, INDEX_BLOCK, EVALUATE))
            subscriber = Subscriber(self.settings.redis_url, lambda *_: worker.wake(), _nothing, worker.wake)
            await subscriber.start()
            working = worker.start()
            await subscriber.subscribe(keys.JOBS_WAKE)
            sweeping = asyncio.create_task(_sweep(tools))
            stopping = asyncio.create_task(process.stop.wait())
            await asyncio.wait({working, sweeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in (working, sweeping):
                if task.done():
                    task.result()
            await worker.stop(patience_s=PATIENCE_S)
            await subscriber.close()


async def _sweep(tools: Tools) -> None:
    """What arq's cron would start, every five seconds by our time."""
    while True:
        await asyncio.sleep(5)
        try:
            await ask_unpersisted(tools)
            await close_days(tools)
        except outbox.AWAY:
            continue


def _nothing() -> None:
    """Nothing to do while wake-ups are lost."""
