"""Engine.IO over aiohttp: the HTTP side of the protocol, to the letter of its document (EIO 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import engineio
import orjson
import structlog
from aiohttp import web

from config import metrics
from config.settings import Settings
from handlers.errors import OriginRefused, Problem, Unavailable
from realtime import outdated
from realtime.door import Door
from realtime.peers import Peers
from realtime.ports import RequestFacts
from realtime.wire import Overlap, Socket

log = structlog.get_logger(__name__)

MESSAGE_BYTES = 64 * 1024
"""Largest message of a client (bytes): commands are small, and each socket may make us hold one."""
LOG_EVERY_S = 60.0
"""Least time between two log lines about bad packets of one kind (s): garbage must not become a log flood."""
PREFLIGHT_MAX_AGE_S = 600

UNKNOWN_TRANSPORT = (0, "Transport unknown")
UNKNOWN_SESSION = (1, "Session ID unknown")
BAD_METHOD = (2, "Bad handshake method")
BAD_REQUEST = (3, "Bad request")
UNSUPPORTED_VERSION = (5, "Unsupported protocol version")


@dataclass(frozen=True, slots=True)
class Rules:
    """Bounds of every session, in bytes and seconds."""

    budget_bytes: int
    pace_bytes: int
    message_bytes: int
    handshake_s: float
    peers: Peers
    door: Door

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """The bounds that the settings state. A replay waits at a quarter of the budget that closes a slow socket."""
        return cls(
            budget_bytes=settings.socket_buffer_bytes,
            pace_bytes=settings.socket_buffer_bytes // 4,
            message_bytes=MESSAGE_BYTES,
            handshake_s=settings.socket_connect_timeout_s,
            peers=Peers.of(settings),
            door=Door.of(settings),
        )


class Refused(Exception):
    """A request that the protocol does not have; carries Engine.IO's code and message."""

    def __init__(self, reason: tuple[int, str]) -> None:
        super().__init__(reason[1])
        self.code, self.message = reason


class EngineServer(engineio.AsyncServer):  # type: ignore[misc]  # engineio ships no types
    """Holds the sessions. Handlers are plain functions that get the Socket, so that nothing waits between packets."""

    sockets: dict[str, Socket]
    handlers: dict[str, Callable[..., None]]

    def __init__(self, *, rules: Rules, **options: Any) -> None:
        super().__init__(**options)
        self.rules = rules
        self.stopping = False
        self._background: set[asyncio.Task[Any]] = set()
        self._logged: dict[str, float] = {}

    def create_queue(self, *_: Any, **__: Any) -> None:
        """No asyncio.Queue: three of its deques would cost each session two KB."""

    # -- what sessions tell ----------------------------------------------------------------------------------------

    def ended(self, socket: Socket, reason: str) -> None:
        """Pass on that a session ended."""
        self.signed_in(socket)
        self.handlers["disconnect"](socket, reason)

    def signed_in(self, socket: Socket) -> None:
        """A session is no stranger's any more, or is over."""
        caller, socket.caller = socket.caller, None
        if caller is not None:
            self.rules.door.leave(caller)

    def forget(self, socket: Socket) -> None:
        """Drop a session whose last words were said."""
        self.sockets.pop(socket.sid, None)

    def overflowed(self, socket: Socket) -> None:
        """Cut a client that does not read: it resumes from the log, and nobody else waits for it."""
        metrics.SOCKETS_CLOSED.labels("slow").inc()
        socket.end(self.reason.TRANSPORT_ERROR, "now")

    def refuse(self, socket: Socket, what: str) -> None:
        """Cut a client that sent what the protocol does not have, at the cost of at most a log line a minute."""
        metrics.SOCKETS_CLOSED.labels("bad_packet").inc()
        now = asyncio.get_running_loop().time()
        if now - self._logged.get(what, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._logged[what] = now
            log.warning("bad packet; its socket is closed, and so are others of this minute", what=what)
        socket.end(self.reason.TRANSPORT_ERROR, "now")

    def in_background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` as a task that `drained` waits for."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def drained(self) -> None:
        """Wait for what runs in the background."""
        while self._background:
            await asyncio.wait(self._background)

    async def cut(self) -> None:
        """End at once what is left: sessions, and what runs in the background."""
        for socket in list(self.sockets.values()):
            socket.end(self.reason.SERVER_DISCONNECT, "now")
            self.forget(socket)
        for task in self._background:
            task.cancel()
        await self.drained()

    # -- requests --------------------------------------------------------------------------------------------------

    def attach(self, app: web.Application, engineio_path: str = "engine.io") -> None:
        """Answer every method at the path: a wrong one is a 400 of the protocol, not the router's 405."""
        app.router.add_route("*", f"/{engineio_path.strip('/')}/", self.handle_request)

    async def handle_request(self, request: web.Request) -> web.StreamResponse:
        """Answer one request: preflight, handshake, poll, post or websocket."""
        origin = request.headers.get("Origin")
        if origin is not None and not self.rules.peers.allows(origin):
            return _problem(OriginRefused("Pages of this origin may not connect; add it to EXPENDI_ORIGINS."), request)
        try:
            response = await self._answered(request)
        except Problem as problem:
            response = _problem(problem, request)
        except Refused as refused:
            response = _json(400, {"code": refused.code, "message": refused.message})
        except Overlap:
            response = _json(400, {"code": BAD_REQUEST[0], "message": "Overlapping requests"})
        if origin is not None and not response.prepared:
            response.headers.update(_cors(request, origin))
        return response

    async def _answered(self, request: web.Request) -> web.StreamResponse:
        if request.method == "OPTIONS":
            return web.Response(status=204)
        transport = request.query.get("transport", "")
        if transport not in self.transports:
            raise Refused(UNKNOWN_TRANSPORT)
        if (transport == "websocket") != _wants_websocket(request):
            raise Refused(BAD_REQUEST)
        sid = request.query.get("sid")
        if sid is None:
            return await self._opened(request, transport)
        socket = self.sockets.get(sid)
        if socket is None:
            raise Refused(UNKNOWN_SESSION)
        if socket.transport is not None or (transport == "websocket" and (socket.upgrading or socket.closing)):
            raise Refused(BAD_REQUEST)
        if transport == "websocket":
            return await socket.websocket(request)
        return await self._polled(request, socket)

    async def _opened(self, request: web.Request, transport: str) -> web.StreamResponse:
        if request.method != "GET":
            raise Refused(BAD_METHOD)
        version = request.query.get("EIO")
        if version in outdated.OLDER:
            return await self._outdated(request, transport)
        if version != "4":
            raise Refused(UNSUPPORTED_VERSION)
        if self.stopping:
            raise Unavailable("This server is stopping; connect again.")
        facts = self.rules.peers.facts(request)
        caller = self.rules.door.enter(facts.remote)
        socket = Socket(self, self.generate_id())
        socket.caller = caller
        self.sockets[socket.sid] = socket
        socket.send_text("0" + orjson.dumps(self._greeting(socket.sid, transport)).decode())
        self.handlers["connect"](socket, _environ(request, facts))
        socket.schedule_ping()
        if transport == "websocket":
            return await socket.websocket(request)
        socket.connected = True
        return _text(await socket.poll())

    async def _outdated(self, request: web.Request, transport: str) -> web.StreamResponse:
        door, sid = self.rules.door, self.generate_id()
        caller = door.enter(self.rules.peers.remote(request))
        metrics.SOCKETS_CLOSED.labels("outdated").inc()
        try:
            if transport == "websocket":
                return await outdated.by_websocket(request, sid)
            return _text(outdated.payload(outdated.packets(sid)).encode())
        finally:
            door.leave(caller)

    def _greeting(self, sid: str, transport: str) -> Mapping[str, object]:
        return {
            "sid": sid,
            "upgrades": ["websocket"] if transport == "polling" and "websocket" in self.transports else [],
            "pingInterval": round(self.ping_interval * 1000),
            "pingTimeout": round(self.ping_timeout * 1000),
            "maxPayload": self.rules.message_bytes,
        }

    async def _polled(self, request: web.Request, socket: Socket) -> web.StreamResponse:
        if request.method == "GET":
            body = await socket.poll()
            connection = request.transport
            if connection is None or connection.is_closing():
                # The answer has nowhere to go, and what it holds would be missing from the next one.
                socket.end(self.reason.TRANSPORT_CLOSE, "now")
            return _text(body)
        if request.method != "POST":
            raise Refused(BAD_METHOD)
        if socket.closing:
            raise Refused(UNKNOWN_SESSION)
        if not await socket.post(request):
            raise Refused(BAD_REQUEST)
        return _text(b"ok")


def _environ(request: web.Request, facts: RequestFacts) -> dict[str, str]:
    return {
        "REMOTE_ADDR": facts.remote,
        "HTTP_USER_AGENT": facts.user_agent,
        "QUERY_STRING": request.query_string,
        "PATH_INFO": request.path,
    }


def _wants_websocket(request: web.Request) -> bool:
    return request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket"


def _cors(request: web.Request, origin: str) -> dict[str, str]:
    headers = {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}
    if request.method == "OPTIONS":
        headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
        headers["Access-Control-Max-Age"] = str(PREFLIGHT_MAX_AGE_S)
        if asked := request.headers.get("Access-Control-Request-Headers"):
            headers["Access-Control-Allow-Headers"] = asked
    return headers


def _text(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="text/plain", charset="UTF-8", headers={"Cache-Control": "no-store"})


def _json(status: int, body: Mapping[str, object]) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")


def _problem(problem: Problem, request: web.Request) -> web.Response:
    body = orjson.dumps(problem.body(request.get("request_id")))
    response = web.Response(status=problem.status, body=body, content_type="application/problem+json")
    if problem.retry_after_s is not None:
        response.headers["Retry-After"] = str(max(1, round(problem.retry_after_s)))
    response.force_close()  # else the next refusal is asked for on the same connection, thousands at once
    return response
