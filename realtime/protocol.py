"""Socket.IO between sessions (realtime/wire.py) and what they are for (a Gate), hardened in this one place.

Stock python-socketio trusts clients. What is different here, each with a contract test in tests/realtime:

- Events named like the library's own (`connect`, `disconnect`, ...) close the socket: the stock server runs handlers.
- NaN, Infinity and lone surrogates are no JSON (orjson reads); binary packets and attachments close the socket.
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

import re
from collections.abc import Mapping
from typing import Any, Protocol

import orjson
import socketio
from socketio import packet

from config import metrics
from handlers.errors import Problem
from realtime import frames
from realtime.engine import EngineServer, Rules
from realtime.rooms import ROOT, Rooms
from realtime.wire import Socket

RESERVED = frozenset({"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"})
"""Names that client libraries emit by themselves; nobody may send them."""
REFUSAL_GRACE_S = 1.0
"""Time between a refused CONNECT and the end of its connection (s): a client that was told leaves by itself first."""

CONNECT_CHARS = 4096
"""Characters of a packet of a socket that has not signed in: a token and a position have some 700 at most."""
PARTS = 256
"""Arrays and objects (brackets and braces, also those in strings) of one packet: commands have a handful. Each is an
object that the garbage collector looks at, and 64 KiB hold 20,000 of them."""

_HEAD = re.compile(r"([0-3])(?:(/[^,?]{0,100})(?:\?[^,]*)?(?:,|$))?([0-9]{1,15})?(.*)", re.DOTALL)


class BadPacket(ValueError):
    """Text that is no Socket.IO packet a client may send."""


class Json:
    """orjson under the names that python-socketio calls."""

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        """Compact JSON text."""
        return orjson.dumps(value).decode()

    @staticmethod
    def loads(text: str) -> Any:
        """Strict JSON; raises ValueError."""
        return orjson.loads(text)


class Packet(packet.Packet):  # type: ignore[misc]  # socketio ships no types
    """A Socket.IO packet whose decoder takes only what a client may send."""

    json = Json
    data: Any
    namespace: str

    def decode(self, encoded_packet: Any) -> int:
        """Decode text; raises BadPacket. Never has attachments."""
        found = _HEAD.fullmatch(encoded_packet) if isinstance(encoded_packet, str) else None
        if found is None:
            raise BadPacket("not a packet")
        kind, namespace, number, data = found.groups()
        self.packet_type = int(kind)
        self.namespace = namespace or ROOT
        self.id = int(number) if number else None
        try:
            self.data = orjson.loads(data) if data else None
        except orjson.JSONDecodeError as error:
            raise BadPacket("not JSON") from error
        if not self._is_well_formed():
            raise BadPacket("wrong arguments")
        return 0

    def _is_well_formed(self) -> bool:
        data = self.data
        if self.packet_type == packet.CONNECT:
            return self.id is None and (data is None or isinstance(data, dict))
        if self.packet_type == packet.DISCONNECT:
            return self.id is None and data is None
        if self.packet_type == packet.ACK:
            return self.id is not None and isinstance(data, list)
        return isinstance(data, list) and bool(data) and isinstance(data[0], str) and data[0] not in RESERVED


def _look(text: str, *, signed_in: bool) -> None:
    """Refuse, before anything is parsed, what can't be a packet of this socket; raises BadPacket."""
    if not text:
        raise BadPacket("not a packet")
    if not signed_in:
        if text[0] != "0" and text[1:2] != "/":
            raise BadPacket("packet before CONNECT")
        if len(text) > CONNECT_CHARS:
            raise BadPacket("CONNECT is too large")
    if len(text) > PARTS and text.count("[") + text.count("{") > PARTS:
        raise BadPacket("too many parts")


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

    def _handle_eio_message(self, socket: Socket, text: str) -> None:
        try:
            _look(text, signed_in=socket.phase == "in")
            pkt = Packet(encoded_packet=text)
        except BadPacket as error:
            return self.eio.refuse(socket, str(error))
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
