"""Socket.IO by hand, so that a test sees and sends exactly what is on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

WAIT_S = 10


@dataclass
class Raw:
    """One websocket that speaks Engine.IO and Socket.IO; `events` are (name, arguments) in order."""

    ws: aiohttp.ClientWebSocketResponse
    events: list[tuple[str, list[Any]]] = field(default_factory=list)
    packets: list[str] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)
    acks: int = 0

    async def packet(self) -> str | None:
        """Next packet, pings answered; None when the server closed."""
        async with asyncio.timeout(WAIT_S):
            while True:
                message = await self.ws.receive()
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return None
                if message.data == "2":
                    await self.ws.send_str("3")
                    continue
                self.packets.append(message.data)
                return str(message.data)

    async def event(self, name: str | None = None) -> tuple[str, list[Any]]:
        """Next event, or the next of a name."""
        while True:
            packet = await self.packet()
            assert packet is not None, f"closed while waiting for {name}"
            if packet.startswith("42"):
                event, *arguments = orjson.loads(packet[2:])
                self.events.append((event, arguments))
                if name in {None, event}:
                    return event, arguments

    async def seqs(self, count: int) -> list[int]:
        """Seqs of the next `count` durable events."""
        found: list[int] = []
        while len(found) < count:
            event, arguments = await self.event()
            if event not in {"session", "snapshot", "chain_status"}:
                found.append(arguments[0]["seq"])
        return found

    async def connect(self, **auth: Any) -> dict[str, Any]:
        """CONNECT; returns the `session` payload."""
        self.answer = await self.ask_to_connect(**auth)
        assert "sid" in self.answer, self.answer
        _, (session, *_) = await self.event("session")
        return dict(session)

    async def ask_to_connect(self, **auth: Any) -> dict[str, Any]:
        await self.ws.send_str("40" + orjson.dumps(auth).decode())
        packet = await self.packet()
        assert packet is not None, "closed instead of an answer"
        assert packet[:2] in {"40", "44"}
        return dict(orjson.loads(packet[2:]))

    async def call(self, name: str, *arguments: Any) -> Any:
        """Emit with acknowledgement; events that come meanwhile are kept in `events`."""
        self.acks += 1
        await self.ws.send_str(f"42{self.acks}" + orjson.dumps([name, *arguments]).decode())
        while True:
            packet = await self.packet()
            assert packet is not None, f"closed instead of an acknowledgement of {name}"
            if packet.startswith(f"43{self.acks}["):
                return orjson.loads(packet[2 + len(str(self.acks)) :])[0]
            if packet.startswith("42"):
                event, *rest = orjson.loads(packet[2:])
                self.events.append((event, rest))

    async def closed(self) -> None:
        """Read until the server closes."""
        while await self.packet() is not None:
            pass


@asynccontextmanager
async def raw(url: str, *, headers: dict[str, str] | None = None) -> AsyncIterator[Raw]:
    """An Engine.IO session on a websocket, its OPEN packet read."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/socket.io/?EIO=4&transport=websocket", headers=headers, max_msg_size=0) as ws,
    ):
        client = Raw(ws)
        opened = await client.packet()
        assert opened is not None
        assert opened.startswith("0{")
        client.packets.clear()
        yield client
