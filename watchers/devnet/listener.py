"""The demo's client: the official JavaScript client as a child process, its happenings read line by line."""

from __future__ import annotations

import asyncio
import contextlib
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from watchers.devnet.failure import DemoFailed

SCRIPT = Path(__file__).with_name("listen.js")
WAIT_S = 20.0
"""How long a happening is waited for: a slow machine needs seconds, a lost one never comes."""
_LINE_LIMIT = 64 * 1024 * 1024  # bytes; a snapshot of a user with years of buckets is one line
_QUIT_S = 3.0

Kind = Literal["connect", "disconnect", "connect_error", "event", "ack"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened to the client. `at_ms` is when it saw it, in ms since 1970; `body` the whole line."""

    kind: Kind
    at_ms: float
    body: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the event; empty for what is no event."""
        return str(self.body.get("name") or "")

    @property
    def payload(self) -> dict[str, Any]:
        """Payload of the event."""
        return dict(self.body.get("payload") or {})

    @property
    def durable(self) -> bool:
        """Whether the event stands in the user's log: it carries its offset (a snapshot does too, and does not)."""
        return self.kind == "event" and self.body.get("offset") is not None and self.name != "snapshot"


class Listener:
    """A connected client; `async with Listener(url, token)`. `happenings` grows as things happen, oldest first."""

    def __init__(self, url: str, token: str, *, tell: Callable[[Happening], None] = lambda _: None) -> None:
        self._url = url
        self._token = token
        self._tell = tell
        self.happenings: list[Happening] = []
        self._keeps = True
        self._news = asyncio.Event()
        self._child: Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._child = await asyncio.create_subprocess_exec(
            "node", str(SCRIPT), self._url, stdin=PIPE, stdout=PIPE, limit=_LINE_LIMIT
        )
        self._reader = asyncio.create_task(self._read(self._child))
        await self.command(self._token)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        child, reader = self._child, self._reader
        if child is None or reader is None:
            return
        with contextlib.suppress(ConnectionError, TimeoutError):
            await self.command("quit")
            await asyncio.wait_for(child.wait(), _QUIT_S)
        if child.returncode is None:
            child.kill()
            await child.wait()
        await reader

    async def command(self, line: str) -> None:
        """Give the client a command, as listen.js names them."""
        if self._child is None or self._child.stdin is None:
            raise RuntimeError("the listener is not open: use `async with`")
        self._child.stdin.write(line.encode() + b"\n")
        await self._child.stdin.drain()

    def stop_keeping(self) -> None:
        """From now on only tell what happens: a feed that runs for days must not grow."""
        self._keeps = False

    async def until(self, condition: Callable[[], T | None], *, what: str, timeout_s: float = WAIT_S) -> T:
        """Wait until the condition answers with something; raise DemoFailed that names `what` when it never does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    self._news.clear()
                    found = condition()
                    if found:
                        return found
                    if self._reader is None or self._reader.done():
                        raise DemoFailed(f"the client's process ended while waiting for {what}")
                    await self._news.wait()
        raise DemoFailed(f"{what} did not come within {timeout_s:g} s{self._trouble()}")

    def events(self, name: str, *, since: int = 0) -> list[Happening]:
        """The events of a name, from a position in `happenings` on."""
        return [one for one in self.happenings[since:] if one.kind == "event" and one.name == name]

    @property
    def durable(self) -> list[Happening]:
        """Every event of the user's log that was received, in the order received."""
        return [one for one in self.happenings if one.durable]

    def _trouble(self) -> str:
        errors = [one for one in self.happenings if one.kind == "connect_error"]
        return f" (last connection error: {errors[-1].body['message']})" if errors else ""

    async def _read(self, child: Process) -> None:
        if child.stdout is None:
            raise RuntimeError("the child has no stdout")
        while line := await child.stdout.readline():
            body = json.loads(line)
            happening = Happening(body.pop("kind"), body.pop("at"), body)
            if self._keeps:
                self.happenings.append(happening)
            self._tell(happening)
            self._news.set()
        self._news.set()
