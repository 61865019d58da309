"""Drives tests/clients/js/client.mjs: the official JavaScript client, as browsers and phones run it."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

SCRIPT = Path(__file__).parent / "js" / "client.mjs"
WAIT_S = 20
LINE_BYTES = 16 * 1024 * 1024

Line = dict[str, Any]


@dataclass
class JsClient:
    """One client; `lines` is everything that happened to it, in order."""

    process: Process
    lines: list[Line] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    calls: int = 0

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self.changed:
                self.lines.append(orjson.loads(line))
                self.changed.notify_all()

    def do(self, verb: str, /, **arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(orjson.dumps({"do": verb, **arguments}) + b"\n")

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until `condition`, asked after each line, is true; returns its value."""
        async with asyncio.timeout(WAIT_S), self.changed:
            return await self.changed.wait_for(condition)

    async def connect(self, url: str, **options: Any) -> None:
        self.do("connect", url=url, options=options)

    async def next(self, what: str, *, after: int = 0) -> Line:
        """First line of a kind at or after a position in `lines`."""
        found: Line = await self.until(lambda: next((x for x in self.lines[after:] if x["is"] == what), None))
        return found

    async def call(self, name: str, *arguments: Any) -> Any:
        self.calls += 1
        number = self.calls
        self.do("call", name=name, args=arguments, id=number)
        found = await self.until(lambda: [x for x in self.lines if x["is"] == "answer" and x["id"] == number])
        return found[0].get("answer", found[0].get("failed"))

    def events(self, *names: str) -> list[Line]:
        """Events so far, of these names or (none given) of all."""
        return [x for x in self.lines if x["is"] == "event" and (not names or x["name"] in names)]

    def seqs(self, *names: str) -> list[int]:
        """Seqs of the events of these names (default: new_transaction)."""
        return [x["args"][0]["seq"] for x in self.events(*(names or ("new_transaction",)))]


@asynccontextmanager
async def js_client() -> AsyncIterator[JsClient]:
    """Start node with a client that is not connected yet."""
    process = await asyncio.create_subprocess_exec("node", str(SCRIPT), stdin=PIPE, stdout=PIPE, limit=LINE_BYTES)
    client = JsClient(process)
    reading = asyncio.create_task(client.read())
    try:
        await client.next("ready")
        yield client
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading
