"""A proxy between the product and Valkey: it loses, doubles and delays what is published, and can be down.

It reads both directions, so that it knows what Valkey still owes: answers to commands, and published messages to
subscribers. Virtual time stands still as long as it owes anything.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import hiredis

_MORE = object()
_SUBSCRIBES = {b"SUBSCRIBE", b"UNSUBSCRIBE"}


@dataclass
class Weather:
    """How badly messages are treated: chances per message."""

    lose: float = 0.0
    double: float = 0.0
    delay: float = 0.0
    longest_delay_s: float = 0.5


class Bus:
    """The proxy. `down` is a Redis that was killed, `flush` one that lost everything."""

    def __init__(self, upstream_port: int, draw: random.Random, faults: Counter[str]) -> None:
        self.weather = Weather()
        self.published: list[tuple[bytes, bytes]] = []
        """(channel, text) in the order in which they were published."""
        self.port = 0
        self.outstanding = 0
        self.undelivered = 0
        self.draw, self.faults = draw, faults
        self.upstream_port = upstream_port
        self.lines: set[_Line] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def owes(self) -> bool:
        """Whether Valkey owes anybody an answer."""
        return self.outstanding > 0

    def expects(self) -> bool:
        """Whether subscribers will probably hear something yet."""
        return self.undelivered > 0

    def settle(self) -> None:
        """Forget what was owed: it does not come."""
        self.outstanding = self.undelivered = 0
        for line in self.lines:
            line.asked.clear()

    async def up(self) -> None:
        """Listen, on the same port as before."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Line(self), "127.0.0.1", self.port, reuse_address=True)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def down(self) -> None:
        """Refuse connections and cut those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Cut every connection."""
        for line in list(self.lines):
            line.abort()

    async def command(self, *words: bytes) -> Any:
        """Ask Valkey itself."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        line = _Line(self)
        line.on_answer = answer.set_result
        await line.open()
        line.data_received(encode(list(words)))
        try:
            return await answer
        finally:
            line.abort()

    def deliver(self, line: _Line, message: list[Any]) -> None:
        """Pass a published message on as the weather has it."""
        weather, draw = self.weather, self.draw
        if message[1] != b"revocations" and draw.random() < weather.lose:
            self.faults["message lost"] += 1
            return
        copies = 1
        if draw.random() < weather.double:
            self.faults["message doubled"] += 1
            copies = 2
        for _ in range(copies):
            if draw.random() < weather.delay:
                self.faults["message delayed past others"] += 1
                delay_s = draw.uniform(0, weather.longest_delay_s)
                asyncio.get_running_loop().call_later(delay_s, line.say, encode(message))
            else:
                line.say(encode(message))


class _Line(asyncio.Protocol):
    """One connection of the product, and ours to Valkey behind it."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.asked: deque[bytes] = deque()
        self.subscriber = False
        self.on_answer: Any = None
        self._down: asyncio.Transport | None = None
        self._up: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._opening: asyncio.Task[None] | None = None
        self._commands = hiredis.Reader(notEnoughData=_MORE)
        self._answers = hiredis.Reader(notEnoughData=_MORE, replyError=_Refusal)

    async def open(self) -> None:
        """Connect to Valkey."""
        self.bus.lines.add(self)
        loop = asyncio.get_running_loop()
        up, _ = await loop.create_connection(lambda: _Upstream(self), "127.0.0.1", self.bus.upstream_port)
        self._up = up
        for data in self._early:
            up.write(data)
        self._early.clear()
        if self not in self.bus.lines:
            up.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._down = transport
        self._opening = asyncio.get_running_loop().create_task(self.open())

    def data_received(self, data: bytes) -> None:
        self._commands.feed(data)
        while (command := self._commands.gets()) is not _MORE:
            name = bytes(command[0]).upper()
            count = len(command) - 1 if name in _SUBSCRIBES else 1
            self.subscriber = self.subscriber or name in _SUBSCRIBES
            self.asked.extend([name] * count)
            self.bus.outstanding += count
            if name == b"PUBLISH":
                self.bus.published.append((bytes(command[1]), bytes(command[2])))
        if self._up is None:
            self._early.append(data)
        else:
            self._up.write(data)

    def answered(self, data: bytes) -> None:
        """Take what Valkey said."""
        self._answers.feed(data)
        while (answer := self._answers.gets()) is not _MORE:
            if isinstance(answer, list) and answer[:1] == [b"message"]:
                self.bus.undelivered = max(0, self.bus.undelivered - 1)
                self.bus.deliver(self, answer)
                continue
            if self.asked:
                self.bus.outstanding -= 1
                if self.asked.popleft() == b"PUBLISH" and isinstance(answer, int):
                    self.bus.undelivered += answer
            if self.on_answer is not None:
                self.on_answer(answer)
            elif self.subscriber:
                self.say(encode(answer))
        if not self.subscriber:
            self.say(data)

    def say(self, data: bytes) -> None:
        """Write to the product."""
        if self._down is not None and not self._down.is_closing():
            self._down.write(data)

    def abort(self) -> None:
        """Cut both ends."""
        self.bus.lines.discard(self)
        self.bus.outstanding -= len(self.asked)
        self.asked.clear()
        if self.subscriber:
            self.bus.undelivered = 0
        for transport in (self._down, self._up):
            if transport is not None:
                transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.abort()


class _Upstream(asyncio.Protocol):
    def __init__(self, line: _Line) -> None:
        self._line = line

    def data_received(self, data: bytes) -> None:
        self._line.answered(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._line.abort()


class _Refusal(Exception):
    """An error of Valkey on its way to whoever asked."""


def encode(value: Any) -> bytes:
    """RESP of a reply or command."""
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(map(encode, value))
    if isinstance(value, int):
        return b":%d\r\n" % value
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, Exception):
        return b"-%b\r\n" % str(value).encode()
    text = bytes(value)
    return b"$%d\r\n%b\r\n" % (len(text), text)
