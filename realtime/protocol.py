"""Socket.IO between sessions (realtime/wire.py) and what they are for (a Gate), hardened in this one place.

Stock python-socketio trusts clients. What is different here, each with a contract test in tests/realtime:

- Events named like the library's own (`connect`, `disconnect`, ...) close the socket: the stock server runs handlers.
- NaN, Infinity and lone surrogates are no JSON (orjson reads); attachments are few and small (realtime/packets.py).
- Any packet that the protocol does not have closes the socket, with at most one log line a minute and kind.
- Events before CONNECT close the socket; the deadline of the handshake runs until CONNECT was answered.
- The origin is checked against a list at the HTTP handshake, never against X-Forwarded-Host (realtime/peers.py).
- The caller's address is the real one, by the list of trusted proxies (realtime/peers.py).
- What waits for a slow client is bounded, then the client is cut (realtime/wire.py).
- permessage-deflate is not negotiated; messages of clients are bounded before they are parsed (realtime/wire.py).
- What strangers may cost is bounded before they sign in: connections, waiting sockets, size (realtime/door.py).
- Packets of one socket are taken a few at a time, and at a pace (realtime/door.py).
- An unknown namespace is answered `Invalid namespace`, as the reference server does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import orjson
import socketio
from socketio import packet

from config import metrics
from handlers.errors import Problem
from realtime import frames
from realtime.engine import EngineServer, Rules
from realtime.packets import BadPacket, Json, Packet, look
from realtime.rooms import ROOT, Rooms
from realtime.wire import Socket

REFUSAL_GRACE_S = 1.0
"""Time between a refused CONNECT and the end of its connection (s): a client that was told leaves by itself first."""


class Gate(Protocol):
    """What namespace `/` is for. `admit` answers CONNECT through the server's `accept` or `reject`."""

    async def admit(self, socket: Socket, auth: Mapping[str, Any]) -> None:
        """Let a socket in, or refuse it. Runs as a task that the end of the socket cancels."""

    def event(self, socket: Socket, name: str, arguments: list[Any], *, ack_id: int | None) -> None:
        """Act on an event of an accepted socket."""

    def left(self, socket: Socket, reason: str) -> None:
        """Let go of a socket that was accepted; its rooms are left already."""


class SocketServer(socketio.AsyncServer):  # type: ignore[misc]  # socketio ships no types
    """python-socketio's server with a strict decoder, our sessions below it and a Gate above it.

    Namespaces other than `/` work as in the stock server, for those that handlers are registered for.
    """

    manager: Rooms
    eio: EngineServer

    def __init__(self, gate: Gate, rules: Rules, **options: Any) -> None:
        self._gate = gate
        super().__init__(
            client_manager=Rooms(),
            serializer=Packet,
            async_mode="aiohttp",
            monitor_clients=False,
            cors_allowed_origins=[],
            rules=rules,
            **options,
        )
        self.manager_initialized = True

    def _engineio_server_class(self) -> type[EngineServer]:
        return EngineServer

    # -- answers to CONNECT ----------------------------------------------------------------------------------------

    def accept(self, socket: Socket, sid: str, *, rooms: tuple[str, ...], pid: str | None, then: bytes) -> None:
        """Register a socket under its sid, in its rooms, and answer its CONNECT; `then` are frames that follow."""
        socket.phase = "in"
        socket.disarm()
        self.eio.signed_in(socket)
        self.manager.register(sid, socket.sid, rooms=rooms)
        answer = {"sid": sid} if pid is None else {"sid": sid, "pid": pid}
        socket.send_frame(frames.text_frame(b"40" + orjson.dumps(answer)) + then)

    def reject(self, socket: Socket, problem: Problem) -> None:
        """Answer CONNECT with a problem; the connection ends soon after."""
        if socket.closing:
            return
        socket.phase = "out"
        body = problem.body()
        socket.send_message("4" + Json.dumps({"message": body["title"], "data": body}))
        socket.arm(REFUSAL_GRACE_S, lambda: socket.end(self.reason.SERVER_DISCONNECT, "politely"))

    def dismiss(self, socket: Socket, farewell: bytes = b"", *, reason: str) -> None:
        """Disconnect from `/` so that clients do not come back by themselves; `farewell` is a frame said before."""
        if not socket.closing:
            metrics.SOCKETS_CLOSED.labels(reason).inc()
            socket.send_frame(farewell)
            socket.send_message("1")
            socket.end(self.reason.SERVER_DISCONNECT, "politely")

    # -- what sessions tell ----------------------------------------------------------------------------------------

    def _handle_eio_connect(self, socket: Socket, environ: dict[str, str]) -> None:
        self.environ[socket.sid] = environ
        self._await_connect(socket)

    def _await_connect(self, socket: Socket) -> None:
        socket.arm(self.eio.rules.handshake_s, lambda: self.eio.refuse(socket, "no CONNECT in time"))

    def _handle_eio_message(self, socket: Socket, message: str | bytes) -> None:
        try:
            pkt = self._assembled(socket, message)
        except BadPacket as error:
            return self.eio.refuse(socket, str(error))
        return self._act(socket, pkt) if pkt is not None else None

    def _assembled(self, socket: Socket, message: str | bytes) -> Packet | None:
        """The packet that a message completes; None while attachments are missing. Raises BadPacket."""
        pending: Packet | None = socket.assembling
        if isinstance(message, bytes):
            if pending is None:
                raise BadPacket("binary message")
            pending.attach(message)
        elif pending is not None:
            raise BadPacket("text instead of an attachment")
        else:
            look(message, signed_in=socket.phase == "in")
            pending = Packet(encoded_packet=message)
        socket.assembling = None if pending.is_complete else pending
        return pending if pending.is_complete else None

    def _act(self, socket: Socket, pkt: Packet) -> None:
        if pkt.namespace != ROOT:
            return self._elsewhere(socket, pkt)
        if pkt.packet_type == packet.CONNECT:
            return self._connect(socket, pkt)
        if socket.phase != "in":
            return self.eio.refuse(socket, "packet before CONNECT")
        if pkt.packet_type == packet.EVENT:
            return self._gate.event(socket, pkt.data[0], pkt.data[1:], ack_id=pkt.id)
        if pkt.packet_type == packet.DISCONNECT:
            return self._leave(socket, self.reason.CLIENT_DISCONNECT)
        return self._answered(socket, pkt)

    def _connect(self, socket: Socket, pkt: Packet) -> None:
        if socket.phase != "new":
            return self.eio.refuse(socket, "second CONNECT")
        socket.phase = "joining"
        socket.joining = self.eio.in_background(self._gate.admit(socket, pkt.data or {}))
        return None

    def _leave(self, socket: Socket, reason: str) -> None:
        """The client left `/`; it may CONNECT again on the same connection, within the handshake's time."""
        self._forget(socket, reason)
        socket.phase = "new"
        self._await_connect(socket)

    def _handle_eio_disconnect(self, socket: Socket, reason: str) -> None:
        self.environ.pop(socket.sid, None)
        self._forget(socket, reason)
        for namespace in [each for each in self.manager.get_namespaces() if each != ROOT]:
            if self.manager.sid_from_eio_sid(socket.sid, namespace) is not None:
                self.eio.in_background(self._handle_disconnect(socket.sid, namespace, reason))

    def _forget(self, socket: Socket, reason: str) -> None:
        sid = self.manager.sid_from_eio_sid(socket.sid, ROOT)
        if sid is not None:
            # Rooms first: they find the session, and through it the feed, by what is still registered.
            self.manager.basic_disconnect(sid, ROOT)
            self._gate.left(socket, reason)

    def _answered(self, socket: Socket, pkt: Packet) -> None:
        """Acknowledgement of an `emit` with callback or a `call`."""
        sid = self.manager.sid_from_eio_sid(socket.sid, ROOT)
        if pkt.id in self.manager.callbacks.get(sid, ()) and pkt.id != 0:
            self.eio.in_background(self.manager.trigger_callback(sid, pkt.id, pkt.data))

    # -- other namespaces ------------------------------------------------------------------------------------------

    def _elsewhere(self, socket: Socket, pkt: Packet) -> None:
        namespace = pkt.namespace
        known = namespace in self.handlers or namespace in self.namespace_handlers
        if pkt.packet_type == packet.CONNECT and not known:
            socket.send_message(f'4{namespace},{{"message":"Invalid namespace"}}')
        elif pkt.packet_type == packet.CONNECT:
            self.eio.in_background(self._handle_connect(socket.sid, namespace, pkt.data))
        elif self.manager.sid_from_eio_sid(socket.sid, namespace) is None:
            self.eio.refuse(socket, "packet before CONNECT")
        elif pkt.packet_type == packet.DISCONNECT:
            self.eio.in_background(self._handle_disconnect(socket.sid, namespace))
        elif pkt.packet_type == packet.EVENT:
            self.eio.in_background(self._handle_event(socket.sid, namespace, pkt.id, pkt.data))
        else:
            self.eio.in_background(self._handle_ack(socket.sid, namespace, pkt.id, pkt.data))

    async def drained(self) -> None:
        """Wait until nothing of any socket runs any more."""
        await self.eio.drained()
