"""One Engine.IO session. A websocket is written straight through its transport, in the order of the calls: no queue, no
writer task, no task per ping. A client that polls has a queue within the same byte budget.
"""

from __future__ import annotations

import asyncio
import base64
import socket as sockets
from asyncio import TimerHandle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from aiohttp import WSMessage, WSMsgType, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from engineio.async_socket import AsyncSocket
from engineio.packet import MESSAGE
from engineio.packet import Packet as EnginePacket

from realtime import frames
from realtime.body import packets_of
from realtime.door import HELD_S, Pace

if TYPE_CHECKING:
    from realtime.engine import EngineServer

PING, PONG, CLOSE, NOOP, UPGRADE = "2", "3", "1", "6", "5"
PROBE_S = 10.0
"""Time an upgrade may take between its first packet and its last (s), as in Node's server."""
GOODBYE_S = 2.0
"""Time a client has to answer a close (s), or a polling client to fetch its last packets."""
POLL_PACKETS = 16
"""Packets in one answer to a poll: python-engineio's client takes no more."""
EARLY_PACKETS = 64
"""Packets and KiB that a socket may send before it has signed in: a CONNECT and some pongs are enough."""
STALL_S = 60.0
"""Time without room in a socket's buffer (s) after which nobody reads it any more, though it may send."""

How = Literal["now", "politely", "theirs"]
"""How a session ends: cut (a slow or hostile client), with a close and its answer, or closed by the client."""


class Overlap(Exception):
    """A second poll, or a second post, while one of the same session is open: the session is closed."""


class Socket(AsyncSocket):  # type: ignore[misc]  # engineio ships no types
    """An Engine.IO session; `owner` is what Socket.IO keeps for it, `phase` where its handshake is."""

    server: EngineServer
    sid: str
    connected: bool
    upgrading: bool
    upgraded: bool
    closing: bool
    """The session ended; for a polling client last words may still wait."""
    closed: bool

    def __init__(self, server: EngineServer, sid: str) -> None:
        super().__init__(server, sid)
        self.owner: Any = None
        self.assembling: Any = None
        """A packet whose attachments are still to come."""
        self.phase: Literal["new", "joining", "in", "out"] = "new"
        self.joining: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None
        """Set while a websocket carries the session."""
        self._ws: web.WebSocketResponse | None = None
        self._drainer: AbstractStreamWriter | None = None
        self._queue: list[bytes] = []
        self._queued_bytes = 0
        self._poll: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._posting = False
        self._pace = Pace()
        self._intake: BaseProtocol | None = None
        self.caller: str | None = None
        """Whose door it stands in until it has signed in."""
        self.left_by_client = False
        self._timer: TimerHandle | None = None
        self._deadline: TimerHandle | None = None
        self._goodbye: asyncio.Task[Any] | None = None

    # -- writing -------------------------------------------------------------------------------------------------------

    def send_frame(self, frame: bytes) -> None:
        """Write finished websocket text frames (one or several); a client over its budget is cut."""
        transport = self.transport
        if transport is None:
            return self._queue_texts(frame)
        transport.write(frame)
        if transport.get_write_buffer_size() > self.server.rules.budget_bytes:
            self.server.overflowed(self)
        return None

    def send_text(self, text: str) -> None:
        """Write one Engine.IO packet."""
        if not self.closed:
            self.send_frame(frames.text_frame(text.encode()))

    def send_message(self, data: str | bytes) -> None:
        """Write one message of Socket.IO: text, or an attachment."""
        if isinstance(data, str):
            self.send_text("4" + data)
        elif self.transport is None:
            self.send_text("b" + base64.b64encode(data).decode())
        elif not self.closed:
            self.send_frame(frames.binary_frame(data))

    async def send(self, pkt: EnginePacket) -> None:
        """Write a packet of python-engineio (its own paths come here)."""
        # Messages not by pkt.encode(): it keeps the first form it made, for every other recipient too.
        if pkt.packet_type == MESSAGE and isinstance(pkt.data, str | bytes):
            self.send_message(pkt.data)
        else:
            self.send_text(pkt.encode())

    async def writable(self) -> None:
        """Wait until a quarter of the byte budget is free again; returns early when the session ends."""
        try:
            async with asyncio.timeout(STALL_S):
                while not self.closing and self._queued_bytes > self.server.rules.pace_bytes:
                    self._room = self._room or asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._room)
                if not self.closing and self._drainer is not None:
                    await self._drainer.drain()
        except ConnectionError:
            return
        except TimeoutError:
            self.server.overflowed(self)

    def _queue_texts(self, frame: bytes) -> None:
        if self.closing:
            return
        before = len(self._queue)
        self._queue.extend(frames.texts(frame))
        self._queued_bytes += sum(map(len, self._queue[before:]))
        if self._queued_bytes > self.server.rules.budget_bytes:
            self.server.overflowed(self)
        self._end_poll()

    # -- life ----------------------------------------------------------------------------------------------------------

    def arm(self, timeout_s: float, then: Callable[[], None]) -> None:
        """Set the one deadline of the handshake (s); a later call replaces it."""
        self.disarm()
        self._deadline = asyncio.get_running_loop().call_later(timeout_s, then)

    def disarm(self) -> None:
        """Take the deadline away."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def schedule_ping(self) -> None:
        """Ping after the interval; a client that does not answer in time is gone."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self.server.ping_interval, self._ping)

    def _ping(self) -> None:
        self.send_text(PING)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.server.ping_timeout, self.end, self.server.reason.PING_TIMEOUT, "now")

    async def close(self, wait: bool = True, abort: bool = False, reason: str | None = None) -> None:
        """End the session (python-engineio's own name for it)."""
        self.end(reason or self.server.reason.SERVER_DISCONNECT, "now" if abort else "politely")
        if wait and self._goodbye is not None:
            await asyncio.wait([self._goodbye])

    def end(self, reason: str, how: How) -> None:
        """End the session once. Rooms and feeds are left before this returns, whatever the transport still does."""
        if self.closing:
            return
        self.closing = True
        self.disarm()
        for handle in (self._timer, self.joining):
            if handle is not None:
                handle.cancel()
        self.server.ended(self, reason)
        self._give_room()
        if self.transport is not None:
            self._end_websocket(self.transport, how)
        else:
            self._end_polling(how)

    def _end_websocket(self, transport: asyncio.Transport, how: How) -> None:
        self.closed = True
        self.server.forget(self)
        if how == "now" or transport.is_closing():
            transport.abort()
        elif how == "politely" and self._ws is not None:
            self._goodbye = self.server.in_background(self._ws.close())

    def _end_polling(self, how: How) -> None:
        if how == "now":
            self._queue.clear()
        if how == "politely" and self._poll is None:
            # What was said last waits for the next poll, as in Node's server.
            self.arm(GOODBYE_S, self._gone)
            return
        self._gone()

    def _gone(self) -> None:
        self.disarm()
        self.closed = True
        self.server.forget(self)
        self._end_poll()

    # -- reading -------------------------------------------------------------------------------------------------------

    def take(self, packet: str) -> None:
        """Act on one Engine.IO packet of the client; anything that is not in the protocol ends the session."""
        if packet[:1] == "4":
            self.server.handlers["message"](self, packet[1:])
        elif packet[:1] == "b" and self.transport is None:
            self._take_base64(packet[1:])
        elif packet == PONG:
            self.schedule_ping()
        elif packet == CLOSE:
            self.left_by_client = True
            self.end(self.server.reason.CLIENT_DISCONNECT, "theirs" if self.transport is None else "politely")
        else:
            self.server.refuse(self, "engine packet")

    def _take_base64(self, text: str) -> None:
        try:
            self.server.handlers["message"](self, base64.b64decode(text, validate=True))
        except ValueError:
            self.server.refuse(self, "engine packet")

    async def _paced(self, size: int) -> None:
        """Count what the client sent (characters): others have their turn, and who sends too much is read later."""
        wait_s = self._pace.charge(size, asyncio.get_running_loop().time())
        if self.caller is not None and self._pace.taken > EARLY_PACKETS:
            self.server.refuse(self, "too much before CONNECT")
        elif self._pace.held_s > HELD_S:
            self.server.refuse(self, "too many packets")
        elif wait_s is not None:
            await self._hold_back(wait_s)

    async def _hold_back(self, wait_s: float) -> None:
        """Let `wait_s` pass, and read nothing more meanwhile: what was read already is enough to go on with."""
        if self._intake is None:
            return await asyncio.sleep(wait_s)
        self._intake.pause_reading()
        try:
            return await asyncio.sleep(wait_s)
        finally:
            self._intake.resume_reading()

    # -- polling -------------------------------------------------------------------------------------------------------

    async def poll(self) -> bytes:
        """Answer to one poll: what is queued, or what comes until the session ends or moves to a websocket."""
        if self._poll is not None:
            self.end(self.server.reason.TRANSPORT_ERROR, "now")
            raise Overlap
        if not (self._queue or self.closing or self.upgrading):
            self._poll = asyncio.get_running_loop().create_future()
            try:
                await self._poll
            except asyncio.CancelledError:
                self.end(self.server.reason.TRANSPORT_ERROR, "now")
                raise
            finally:
                self._poll = None
        return self._polled()

    def _polled(self) -> bytes:
        taken, self._queue = self._queue[:POLL_PACKETS], self._queue[POLL_PACKETS:]
        self._queued_bytes = sum(map(len, self._queue))
        if self._queued_bytes <= self.server.rules.pace_bytes:
            self._give_room()
        if self.closing and not self._queue:
            taken.append((NOOP if self.left_by_client else CLOSE).encode())
            self._gone()
        return b"\x1e".join(taken or [NOOP.encode()])

    def _end_poll(self) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)

    def _give_room(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    async def post(self, request: web.Request) -> bool:
        """Take the packets of one POST; False, and the end of the session, when they are bad. Raises Overlap."""
        if self._posting:
            self.end(self.server.reason.TRANSPORT_ERROR, "now")
            raise Overlap
        self._posting = True
        try:
            packets = await packets_of(request, self.server.rules.message_bytes)
            if packets is None:
                self.server.refuse(self, "post body")
            for packet in packets or ():
                if self.closing:
                    break
                self.take(packet)
                await self._paced(len(packet))
        finally:
            self._posting = False
        return self.left_by_client or not self.closing

    # -- websocket -----------------------------------------------------------------------------------------------------

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """Carry the session on a websocket until it ends: from its start, or after the client's upgrade."""
        # The offer of permessage-deflate is not taken: it costs 90 KB per connection and 13 us per event.
        # Pings are answered here: aiohttp answers as many as were sent before it gives anyone else a turn.
        ws = web.WebSocketResponse(
            compress=False, timeout=GOODBYE_S, max_msg_size=self.server.rules.message_bytes, autoping=False
        )
        self.upgrading = self.connected
        self._intake = request.protocol
        try:
            drainer = await ws.prepare(request)
            if self.upgrading and not await self._probed(ws):
                await ws.close()
                return ws
            if self._carried_by(ws, request.transport, drainer):
                await self._read(ws)
        except ConnectionError:
            # The peer is gone already; aiohttp would write a traceback for each client of a herd that was cut.
            return web.Response()
        finally:
            if not self.upgrading:
                self.end(self.server.reason.TRANSPORT_CLOSE, "theirs")
            self.upgrading = False
        return ws

    async def _probed(self, ws: web.WebSocketResponse) -> bool:
        try:
            async with asyncio.timeout(PROBE_S):
                if (await self._received(ws)).data != PING + "probe":
                    return False
                await ws.send_str(PONG + "probe")
                self._end_poll()
                return (await self._received(ws)).data == UPGRADE and not self.closing
        except TimeoutError:
            return False

    def _carried_by(
        self, ws: web.WebSocketResponse, transport: asyncio.Transport | None, drainer: AbstractStreamWriter
    ) -> bool:
        if self.closing or transport is None:
            return False
        rules = self.server.rules
        transport.set_write_buffer_limits(high=rules.pace_bytes)
        handle = transport.get_extra_info("socket")
        if handle is not None and handle.family != sockets.AF_UNIX:
            # The kernel's own buffer comes before our budget: left alone it grows to megabytes for each slow client.
            handle.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, rules.budget_bytes)
        self._ws, self._drainer, self.transport = ws, drainer, transport
        self.connected = self.upgraded = True
        self.upgrading = False
        waiting, self._queue, self._queued_bytes = self._queue, [], 0
        self._end_poll()
        self._give_room()
        if waiting:
            self.send_frame(b"".join(map(frames.text_frame, waiting)))
        return True

    async def _read(self, ws: web.WebSocketResponse) -> None:
        while not self.closing:
            message = await self._received(ws)
            if message.type is WSMsgType.TEXT:
                self.take(message.data)
            elif message.type is WSMsgType.BINARY:
                self.server.handlers["message"](self, message.data)
            else:
                break
        if self._goodbye is not None:
            await asyncio.wait([self._goodbye])

    async def _received(self, ws: web.WebSocketResponse) -> WSMessage:
        """The next message; control frames are answered, and everything is paced."""
        while True:
            message = await ws.receive()
            if message.type is WSMsgType.PING:
                await ws.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                break
            await self._paced(0)
        if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
            await self._paced(len(message.data))
        return message
