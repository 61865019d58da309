"""Drives tests/clients/js/many.mjs: official clients of several versions, many in one node process."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tests.waiting import until

SCRIPT = Path(__file__).parent / "js" / "many.mjs"
LINE_BYTES = 16 * 1024 * 1024
NEWEST = "socket.io-client"
BEST_EFFORT = frozenset({"session", "session_closed", "snapshot", "chain_status", "blob"})
"""Events without a seq of their own; a snapshot's says where it stands. `blob` is a test's."""

Line = dict[str, Any]


@dataclass
class Told:
    """What one client was told, in order: connects, disconnects, errors, events, answers."""

    number: int
    node: Process
    lines: list[Line] = field(default_factory=list)
    calls: int = 0
    is_connected: bool = False

    def take(self, line: Line) -> None:
        self.lines.append(line)
        if line["is"] in {"connect", "disconnect"}:
            self.is_connected = line["is"] == "connect"

    def do(self, verb: str, /, **arguments: Any) -> None:
        assert self.node.stdin is not None
        self.node.stdin.write(orjson.dumps({"do": verb, "c": self.number, **arguments}) + b"\n")

    def all(self, what: str) -> list[Line]:
        """Lines of a kind so far."""
        return [line for line in self.lines if line["is"] == what]

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """Events so far: name and payload."""
        return [(line["name"], line["args"][0]) for line in self.all("event")]

    def durable(self) -> list[int]:
        """Seqs of the durable events so far."""
        return [payload["seq"] for name, payload in self.events() if name not in BEST_EFFORT]

    async def next(self, what: str, *, after: int = 0, timeout_s: float = 10) -> Line:
        """First line of a kind at or after a position in `lines`."""

        def found() -> Line | None:
            return next((line for line in self.lines[after:] if line["is"] == what), None)

        line: Line = await until(found, timeout_s, what=f"{what} of client {self.number}; it has {self.lines[-3:]}")
        return line

    async def call(self, name: str, *arguments: Any) -> Any:
        """Emit with acknowledgement."""
        return await self._answered("call", name, args=arguments)

    async def call_with_bytes(self, name: str) -> Any:
        """Emit an object that holds bytes, with acknowledgement."""
        return await self._answered("binary", name)

    async def _answered(self, verb: str, name: str, **more: Any) -> Any:
        self.calls += 1
        number = self.calls
        self.do(verb, name=name, id=number, **more)
        await until(lambda: any(line["id"] == number for line in self.all("answer")), what=f"the answer to {name}")
        return next(line["answer"] for line in self.all("answer") if line["id"] == number)


@dataclass
class Many:
    """The node process; `connect` makes clients in it."""

    node: Process
    clients: list[Told] = field(default_factory=list)
    is_ready: bool = False

    def connect(self, url: str, *, module: str = NEWEST, **options: Any) -> Told:
        told = Told(len(self.clients), self.node)
        self.clients.append(told)
        told.do("connect", module=module, url=url, options=options)
        return told

    async def read(self) -> None:
        assert self.node.stdout is not None
        async for text in self.node.stdout:
            line = orjson.loads(text)
            if line["is"] == "ready":
                self.is_ready = True
            else:
                self.clients[line["c"]].take(line)


@asynccontextmanager
async def many_clients() -> AsyncIterator[Many]:
    """Start node without clients."""
    node = await asyncio.create_subprocess_exec("node", str(SCRIPT), stdin=PIPE, stdout=PIPE, limit=LINE_BYTES)
    many = Many(node)
    reading = asyncio.create_task(many.read())
    try:
        await until(lambda: many.is_ready, what="node")
        yield many
    finally:
        if node.returncode is None:
            node.kill()
        await node.wait()
        await reading
