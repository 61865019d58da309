"""What hostile sockets send, and the process that sends it: tests/load/hostile.py starts it and reads its figures.

It says that it is ready; one JSON object on standard input says what to do, one on standard output what was done.
Frames are written by hand, so that sending costs less than being sent to.
"""

from __future__ import annotations

import asyncio
import os
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

CLOSED_S = 5.0
"""Time within which the server must have closed a socket that sent what it may not (s): before a lost pong does it."""
SILENCE_S = 12.0
"""Time within which the server must have closed a socket that says nothing (s)."""
SILENT_MAX = 100
"""Silent sockets held open at a time."""
TEXT, CONTINUED, BINARY, CLOSE, PING = 1, 0, 2, 8, 9
KEY = b"aG9zdGlsZSAxNiBieXRlcw=="

Chance = random.Random


def frame(data: str | bytes, *, opcode: int = TEXT, final: bool = True, claims: int | None = None) -> bytes:
    """A client's frame, masked with zeros; `claims`: another length than it has."""
    body = data.encode() if isinstance(data, str) else data
    first, size = (0x80 if final else 0) | opcode, len(body) if claims is None else claims
    if size < 126:
        head = struct.pack(">BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", first, 0x80 | 127, size)
    return head + b"\0\0\0\0" + body


# -- bursts: what is tolerated and senseless first, then what must end the socket --------------------------------------


def malformed(chance: Chance) -> list[bytes]:
    texts = [
        '42["ack",{',
        "42[",
        "42{}",
        "42",
        "4",
        "",
        "9",
        '42["ack"]]',
        "4/",
        "43[]",
        '42[1,"ack"]',
        "421e5[]",
        "\0",
    ]
    return [frame(chance.choice(texts))]


def numbers(chance: Chance) -> list[bytes]:
    number = chance.choice(["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "0x1", "01", "1."])
    return [frame('42["ack",{"seq":%s}]' % number)]  # noqa: UP031 - the braces are JSON's


def names(chance: Chance) -> list[bytes]:
    name = chance.choice(["connect", "disconnect", "connect_error", "disconnecting", "newListener", "removeListener"])
    return [frame(f'42{chance.choice(["", "7"])}["{name}",{{"token":"x"}}]')]


def attachments(chance: Chance) -> list[bytes]:
    count = chance.choice([1, 4096, 10_000_000, 10**40])
    head = frame(f'45{count}-["ack",{{"_placeholder":true,"num":0}}]')
    return [head, *(frame(b"\1" * 64, opcode=BINARY) for _ in range(chance.randint(1, 20))), *malformed(chance)]


def nested(chance: Chance) -> list[bytes]:
    depth = chance.choice([200, 900, 1020, 1030, 5000, 20_000])
    inside = "[" * depth + "]" * depth if chance.random() < 0.5 else '{"a":' * (depth // 2) + "1" + "}" * (depth // 2)
    return [frame(f'42{n}["ack",{inside}]') for n in range(4)] + malformed(chance)


def oversized(chance: Chance) -> list[bytes]:
    if chance.random() < 0.2:
        return [frame("4" + "x" * 100, claims=chance.choice([1 << 20, 1 << 40, (1 << 63) - 1]))]
    return [frame('42["ack","' + "x" * chance.randint(65_536, 300_000) + '"]')]


def fragmented(chance: Chance) -> list[bytes]:
    size, pieces = chance.choice([(1, 300), (400, 200), (4000, 40)])
    parts = [frame('42["ack","', final=False)]
    parts += [frame("y" * size, opcode=CONTINUED, final=False) for _ in range(pieces)]
    between = frame(b"", opcode=PING)
    parts.insert(chance.randrange(1, len(parts)), between)
    ends = chance.choice([frame('"', opcode=CONTINUED), frame("42[]"), frame(b"\xff\xfe", opcode=CONTINUED)])
    return [b"".join([*parts, ends])]


def early(chance: Chance) -> list[bytes]:
    """Engine.IO packets that nobody asked for, broken UTF-8, wrong opcodes, and a second CONNECT."""
    odd = [
        frame(b"\xc3\x28"),
        frame(b"x", opcode=5),
        frame("0{}"),
        frame("5"),
        frame("6"),
        frame("2probe"),
        frame("40{}"),
    ]
    return [chance.choice(odd)]


def garbage(chance: Chance) -> list[bytes]:
    """Well-formed, senseless, a pong before each: tolerated until the last packet."""
    senseless: list[bytes] = []
    for number in range(chance.randint(10, 40)):
        body = orjson.dumps({"k" * chance.randint(1, 40): [None] * chance.randint(0, 200)}).decode()
        name = chance.choice(["ack", "join_user_room", "renew", "set_category", "x" * 200, "__proto__", "\\u0000"])
        senseless += [frame("3"), frame(f'42{number}["{name}",{body}]')]
    return senseless + malformed(chance)


BURSTS: dict[str, Callable[[Chance], list[bytes]]] = {
    "malformed": malformed,
    "numbers": numbers,
    "names": names,
    "attachments": attachments,
    "nested": nested,
    "oversized": oversized,
    "fragmented": fragmented,
    "early": early,
    "garbage": garbage,
}
SENSELESS = [frame('42["nobody",1]'), frame("3"), frame('43999["x"]'), frame("4/nowhere,"), frame("40/nowhere,{}")]
"""Tolerated by the protocol: answered with a refusal, or passed over."""


@dataclass
class Attack:
    """What is done, and what came of it."""

    host: str
    port: int
    packets: int
    per_second: float
    attackers: int
    tokens: list[str]
    """One user for each attacker."""
    seed: int
    sent: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    broken_off: int = 0
    """Connections that ended before anything hostile was sent."""
    survived: Counter[str] = field(default_factory=Counter)
    """Sockets that were not closed in time although they sent what they may not."""
    silent: set[asyncio.Task[None]] = field(default_factory=set)
    refused: int = 0
    """Connects that were refused: too many of one user, or of one address."""

    async def run(self) -> None:
        self.began, self.began_ns = asyncio.get_running_loop().time(), time.clock_gettime_ns(time.CLOCK_REALTIME)
        await asyncio.gather(*(Attacker(self, n).run() for n in range(self.attackers)))
        self.ended_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
        for task in self.silent:
            task.cancel()
        await asyncio.gather(*self.silent, return_exceptions=True)

    def figures(self) -> dict[str, Any]:
        return {
            "sent": dict(self.sent),
            "connections": self.connections,
            "broken_off": self.broken_off,
            "refused": self.refused,
            "survived": dict(self.survived),
            "began_ns": self.began_ns,
            "ended_ns": self.ended_ns,
        }


class Attacker:
    """One of them, with an address and a user of its own."""

    def __init__(self, attack: Attack, number: int) -> None:
        self.all = attack
        self._chance = random.Random(attack.seed * 1000 + number)
        self._token = attack.tokens[number % len(attack.tokens)]
        self._address = (f"127.0.1.{number + 1}", 0)

    async def run(self) -> None:
        chance, everyone = self._chance, self.all
        while (done := everyone.sent.total()) < everyone.packets:
            ahead = everyone.began + done / everyone.per_second - asyncio.get_running_loop().time()
            # Each at its own moment: fifty that wait for the same one would come as a herd.
            await asyncio.sleep(max(0.0, ahead) + chance.random() * everyone.attackers / everyone.per_second)
            what = chance.random()
            try:
                if what < 0.05:
                    self._stay_silent(chance)
                elif what < 0.15:
                    await self._by_polling(chance)
                else:
                    await self._by_websocket(chance)
            except (OSError, asyncio.IncompleteReadError):
                everyone.broken_off += 1

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.all.connections += 1
        return await asyncio.open_connection(self.all.host, self.all.port, local_addr=self._address)

    async def _opened(self, *, signed_in: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self._connected()
        writer.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head, head
        if signed_in:
            writer.write(frame("40" + orjson.dumps({"token": self._token}).decode()))
            self.all.refused += not await asyncio.wait_for(_let_in(reader), CLOSED_S)
        return reader, writer

    async def _by_websocket(self, chance: Chance) -> None:
        signed_in = chance.random() < 0.7
        reader, writer = await self._opened(signed_in=signed_in)
        kind = chance.choice(list(BURSTS))
        packets = chance.choices(SENSELESS, k=chance.randint(0, 12)) if signed_in else []
        packets += BURSTS[kind](chance)
        try:
            for packet in packets:
                if writer.transport.is_closing():
                    break
                writer.write(packet)
                self.all.sent[kind] += 1
            await writer.drain()
            await self._closed(reader, kind)
        except ConnectionError:
            return
        finally:
            writer.transport.abort()

    async def _closed(self, reader: asyncio.StreamReader, kind: str, *, within_s: float = CLOSED_S) -> None:
        try:
            async with asyncio.timeout(within_s):
                while await reader.read(65_536):
                    pass
        except TimeoutError:
            self.all.survived[kind] += 1

    async def _by_polling(self, chance: Chance) -> None:
        reader, writer = await self._connected()
        try:
            writer.write(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"}")
            sid = head.partition(b'"sid":"')[2].partition(b'"')[0].decode()
            body = "\x1e".join(
                ['42["nobody"]', "3", "4" + "[" * chance.randint(1, 2000), "b////", "x"] * chance.randint(1, 9)
            )
            self.all.sent["polling"] += body.count("\x1e") + 1
            url = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
            writer.write(f"POST {url} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), CLOSED_S)
            if b" 400 " not in answer:
                self.all.survived["polling"] += 1
        except TimeoutError:
            self.all.survived["polling"] += 1
        finally:
            writer.transport.abort()

    def _stay_silent(self, chance: Chance) -> None:
        if len(self.all.silent) < SILENT_MAX:
            self.all.sent["silence"] += 1
            task = asyncio.create_task(self._silent(chance.random() < 0.5, chance))
            self.all.silent.add(task)
            task.add_done_callback(self.all.silent.discard)

    async def _silent(self, signed_in: bool, chance: Chance) -> None:
        writer = None
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await self._opened(signed_in=signed_in)
            await self._closed(reader, "silence", within_s=SILENCE_S)
        if writer is not None:
            writer.transport.abort()


async def _let_in(reader: asyncio.StreamReader) -> bool:
    """Read the answer to a CONNECT; False for a refusal."""
    seen = b""
    while b'42["session"' not in seen:
        part = await reader.read(65_536)
        if b"44{" in part or not part:
            return False
        seen += part
    return True


def main() -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 5)  # what attackers cost themselves is not what is measured
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    attack = Attack(**orjson.loads(sys.stdin.buffer.read()))
    asyncio.run(attack.run())
    sys.stdout.buffer.write(orjson.dumps(attack.figures()))


if __name__ == "__main__":
    main()
