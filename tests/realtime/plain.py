"""The protocol without the product: a server whose `/` lets everyone in and echoes, as the official suites have it.

What the product says after CONNECT (`session`, `snapshot`) is its Gate's; with this Gate the next packet is the test's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from socketio.packet import ACK, EVENT, Packet

from realtime import frames
from realtime.engine import Rules
from realtime.protocol import SocketServer
from realtime.wire import Socket
from tests.realtime.stage import settings
from tests.waiting import until

CUSTOM = "/custom"


class Echo:
    """Lets everyone in, says what came as auth, and sends every event back."""

    server: SocketServer

    async def admit(self, socket: Socket, auth: Mapping[str, Any]) -> None:
        told = frames.event_frame(frames.best_effort("auth", auth))
        self.server.accept(socket, self.server.eio.generate_id(), rooms=(), pid=None, then=told)

    def event(self, socket: Socket, name: str, arguments: list[Any], *, ack_id: int | None) -> None:
        # Not by `emit`: at `/` it refuses events that end in a string, which clients take for an offset.
        echo = Packet(EVENT, data=[f"{name}-back", *arguments])
        if ack_id is not None:
            echo = Packet(ACK, data=arguments, id=ack_id)
        encoded = echo.encode()
        for part in encoded if isinstance(encoded, list) else [encoded]:
            socket.send_message(part)

    def left(self, socket: Socket, reason: str) -> None:
        """Nothing is kept."""


@asynccontextmanager
async def plain(**overrides: Any) -> AsyncIterator[tuple[SocketServer, str]]:
    """The server and its url; at the end nothing of any socket may be left."""
    echo, app = Echo(), web.Application()
    chosen = settings("redis://unused", **{"ping_interval_s": 0.3, "ping_timeout_s": 0.2, **overrides})
    server = SocketServer(
        echo, Rules.of(chosen), ping_interval=chosen.ping_interval_s, ping_timeout=chosen.ping_timeout_s
    )
    echo.server = server
    server.on("message", lambda _, *data: data, namespace=CUSTOM)
    server.attach(app, "socket.io")
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield server, f"http://127.0.0.1:{runner.addresses[0][1]}/socket.io/?EIO=4"
        await until(lambda: not server.eio.sockets and not server.environ, what="sockets are gone")
    finally:
        await server.eio.cut()
        await runner.cleanup()


class Spoken:
    """A websocket on which packets are said as they are."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.opened: dict[str, Any] = {}

    async def say(self, *packets: str | bytes) -> None:
        for packet in packets:
            await (self.ws.send_str(packet) if isinstance(packet, str) else self.ws.send_bytes(packet))

    async def hear(self, *, pings: bool = False) -> str | bytes | None:
        """The next packet but for pings, which are answered unless they are asked for; None at the end."""
        while True:
            message = await self.ws.receive(timeout=10)
            if message.type not in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}:
                return None
            if message.data != "2" or pings:
                return message.data  # type: ignore[no-any-return]  # text or bytes
            await self.say("3")

    async def join(self) -> None:
        """CONNECT to `/`, answers heard."""
        await self.say("40")
        assert str(await self.hear()).startswith("40{")
        assert await self.hear() == '42["auth",{}]'


@asynccontextmanager
async def websocket(url: str) -> AsyncIterator[Spoken]:
    """A session on a websocket, its OPEN packet heard."""
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}&transport=websocket") as ws:
        spoken = Spoken(ws)
        opened = await spoken.hear()
        assert isinstance(opened, str)
        assert opened[0] == "0"
        spoken.opened = orjson.loads(opened[1:])
        yield spoken


class Polled:
    """A session by long polling on which bodies are said as they are."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.base = session, f"{url}&transport=polling"
        self.url = ""

    async def get(self) -> tuple[int, str]:
        async with self.session.get(self.url or self.base) as response:
            return response.status, await response.text()

    async def post(self, body: str) -> tuple[int, str]:
        async with self.session.post(self.url, data=body) as response:
            return response.status, await response.text()

    async def heard(self, count: int) -> list[str]:
        """The next packets, however many polls they take; pings are answered."""
        found: list[str] = []
        while len(found) < count:
            status, body = await self.get()
            assert status == 200, body
            for packet in body.split("\x1e"):
                if packet == "2":
                    await self.post("3")
                else:
                    found.append(packet)
        return found


@asynccontextmanager
async def polling(url: str) -> AsyncIterator[Polled]:
    """A session by long polling, opened."""
    async with aiohttp.ClientSession() as session:
        polled = Polled(session, url)
        status, body = await polled.get()
        assert (status, body[0]) == (200, "0")
        polled.url = f"{polled.base}&sid={orjson.loads(body[1:])['sid']}"
        yield polled
