"""The product as strangers run it: real processes on real engines, the official client, people on a real chain."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from config.embedded.chain import Anvil
from config.embedded.children import free_port
from store.postgres import LOST, connect
from tests.waiting import until
from watchers.devnet.listener import Listener
from watchers.devnet.people import Devnet, Person
from watchers.devnet.rest import Rest
from watchers.devnet.table import render
from watchers.devnet.view import apply_all, differences

DOMAIN = "localhost"
STOP_S = 10.0


class Process:
    """One process of the Procfile; its output goes to a file that a failing test shows."""

    def __init__(self, name: str, arguments: Sequence[str], *, environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-m", *arguments], env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()

    async def stop_by_itself(self) -> int:
        """Wait until it is done; returns its exit code."""
        return await asyncio.to_thread(self._child.wait, 60)

    async def stop(self) -> int:
        """Ask it to stop as an operator does; returns its exit code."""
        if self.running:
            self._child.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self._child.wait, STOP_S)


@dataclass
class Stack:
    """Engines by url, one chain, and the processes a test starts."""

    folder: Path
    urls: Mapping[str, str]
    devnet: Devnet
    session: aiohttp.ClientSession
    chains_file: Path
    processes: list[Process] = field(default_factory=list)

    @property
    def chain_id(self) -> int:
        return self.devnet.at.chain_id

    def start(self, *arguments: str, **settings: str) -> Process:
        number = len(self.processes)
        log = self.folder / f"{number}-{arguments[0]}.log"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "EXPENDI_ENV": "production",
            "EXPENDI_SECRET_KEY": "a secret of this test, 32 characters",
            "EXPENDI_SEAL_KEYS": "k1:" + base64.b64encode(b"a seal key of this test, 32 long").decode(),
            "EXPENDI_CHAINS_FILE": str(self.chains_file),
            "EXPENDI_DOMAIN": DOMAIN,
            "EXPENDI_POLL_INTERVAL_S": "0.2",
            "EXPENDI_SIGN_IN_LIMIT_PER_MINUTE": "10000",
            **{f"EXPENDI_{name.upper()}": value for name, value in {**self.urls, **settings}.items()},
        }
        process = Process(arguments[0], arguments, environment=environment, log=log)
        self.processes.append(process)
        return process

    async def watch(self, **settings: str) -> Process:
        """A watcher, once it follows the chain live."""
        process = self.start("watchers", **settings)
        await until(lambda: '"live"' in process.output or not process.running, 20, what="a watcher that is live")
        assert process.running, process.output
        return process

    async def serve(self, **settings: str) -> tuple[str, Process]:
        """A web process that is ready; returns its url."""
        port = free_port()
        process = self.start("realtime", port=str(port), **settings)
        url = f"http://127.0.0.1:{port}"
        await until(lambda: self._answers(url, process), 20, what="a web process that is ready")
        return url, process

    async def caught_up(self, *, timeout_s: float = 20) -> None:
        """Wait until the ledger stands at the chain's head: nothing of the chain is still on its way to it."""

        async def level() -> bool:
            head = await self.devnet.rpc_call("eth_getBlockByNumber", "latest", False)
            try:
                row = await value_of(self.urls["database_url"], "SELECT hash FROM chain_cursors")
            except LOST:
                return False
            return bool(row == head["hash"])

        await until(level, timeout_s, what="the ledger at the chain's head")

    async def _answers(self, url: str, process: Process) -> bool:
        assert process.running, process.output
        try:
            async with self.session.get(url + "/readyz") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def sign_in(self, who: Person, url: str) -> Client:
        """A person signed in at one web process, not yet on a socket."""
        rest = Rest(self.session, url)
        tokens = await rest.sign_in(who, domain=DOMAIN, chain_id=self.chain_id)
        return Client(self, who, rest, tokens.access)


@dataclass
class Client:
    """A signed-in person; `view` is what their app shows when it applies what the socket told."""

    made: Stack
    who: Person
    rest: Rest
    token: str

    @asynccontextmanager
    async def listen(self, url: str) -> AsyncIterator[Listener]:
        """The official client on a socket, once it has its first snapshot."""
        async with Listener(url, self.token) as listener:
            await listener.until(lambda: listener.events("snapshot"), what="the first snapshot")
            yield listener

    def view(self, listener: Listener) -> dict[str, Any]:
        told = [(one.name, one.payload) for one in listener.happenings if one.durable or one.name == "snapshot"]
        first = next(i for i, (name, _) in enumerate(told) if name == "snapshot")
        return apply_all({}, told[first:])

    async def settled(self, listener: Listener, *, timeout_s: float = 20) -> dict[str, Any]:
        """Wait until the ledger is at the chain's head and the view equals a fresh snapshot, and return that."""
        await self.made.caught_up(timeout_s=timeout_s)
        fresh: dict[str, Any] = {}

        async def equal() -> bool:
            nonlocal fresh
            fresh = await self.rest.snapshot()
            return not differences(self.view(listener), fresh)

        try:
            await until(equal, timeout_s)
        except TimeoutError:
            raise AssertionError("\n".join(differences(self.view(listener), fresh))) from None
        return fresh


async def value_of(url: str, statement: str) -> Any:
    """One value over a connection of its own: the database may just have been restarted."""
    conn = await connect(url)
    try:
        return await conn.fetchval(statement)
    finally:
        await conn.close()


def assert_exactly_once(listener: Listener) -> None:
    """seq is contiguous from the first snapshot on, over every cut; a later snapshot moves it on."""
    position: int | None = None
    for one in listener.happenings:
        if one.name == "snapshot":
            assert position is None or one.payload["seq"] >= position
            position = one.payload["seq"]
        elif one.durable:
            assert position is not None
            assert one.payload["seq"] == position + 1, f"{one.payload['seq']} after {position}"
            position += 1


@asynccontextmanager
async def stack(
    folder: Path, anvil: Anvil, *, database_url: str, redis_url: str, clickhouse_url: str = ""
) -> AsyncIterator[Stack]:
    """Contracts on the chain and a table that names them; every process still running is stopped at the end."""
    async with AsyncExitStack() as exits:
        devnet = await exits.enter_async_context(Devnet(anvil.rpc))
        session = await exits.enter_async_context(aiohttp.ClientSession())
        table = folder / "chains.toml"
        table.write_text(render(devnet.at, rpc=anvil.rpc, ws=anvil.ws))
        urls = {
            "database_url": database_url,
            "redis_url": redis_url,
            "clickhouse_url": clickhouse_url or "http://127.0.0.1:1/none",
        }
        made = Stack(folder, urls, devnet, session, table)
        try:
            yield made
        finally:
            for process in made.processes:
                if process.running:
                    process.kill()
