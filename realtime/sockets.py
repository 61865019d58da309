"""Socket.IO at `/socket.io/`: the one entry point that realtime/app.py uses, and what ties the parts together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from aiohttp import web

from config import keys, metrics
from config.settings import Settings
from handlers.errors import Unauthenticated
from realtime.chains import ChainStatus
from realtime.engine import Rules
from realtime.fanout import Hub, Member
from realtime.inbox import Inbox
from realtime.ports import Identity, Ports
from realtime.protocol import SocketServer
from realtime.repair import Repair, passes
from realtime.resume import Resume
from realtime.turns import hear_first
from realtime.wire import Socket
from store.feed import Publisher, Subscriber

log = structlog.get_logger(__name__)

PATH = "socket.io"
REVOCATIONS_S = 1.0
"""How often revoked sessions are looked up (s); a wake-up through Redis makes it sooner."""
REVOCATIONS_OVERLAP = timedelta(seconds=30)
"""How far each look goes back before the last one: clocks differ, and a revocation may commit late."""
COUNTED_S = 1.0
"""How often the count of delivered events is handed to the metrics (s)."""
STOP_S = 5.0
"""Longest time that closing sockets may take at a stop (s)."""
_BLOCKS = keys.BLOCKS_PATTERN.partition("*")[0].encode()


class RealtimeServer:
    """The running Socket.IO server; `start` before the first request, `stop` before the pools are closed.

    Its `hub` knows the figures: `feeds`, `sessions`, `delivered`, `dropped`, `catch_ups`.
    """

    def __init__(self, ports: Ports, settings: Settings) -> None:
        self._auth = ports.auth
        self._publisher = Publisher(settings.redis_url)
        self._repair = Repair(ports, settings)
        self.hub = Hub(self._repair.catch_up)
        self._inbox = Inbox(self.hub, self._repair, ports)
        self._chains = ChainStatus(self.hub, self._repair, ports)
        self._resume = Resume(self.hub, self._repair, ports, settings=settings, publisher=self._publisher)
        self._subscriber = Subscriber(
            settings.redis_url,
            self.hub.on_message,
            self._repair.lost,
            self._repair.restored,
            on_batch=self.hub.on_batch,
            on_open=hear_first,
        )
        self.server = SocketServer(
            self,
            Rules.of(settings),
            ping_interval=settings.ping_interval_s,
            ping_timeout=settings.ping_timeout_s,
        )
        self._revoked = asyncio.Event()
        self._looked_at = datetime.now(UTC)
        self._counted = 0
        self._loops: list[asyncio.Task[None]] = []
        self._wire()

    def _wire(self) -> None:
        self._repair.hub = self.hub
        self.hub.channels, self.hub.elsewhere, self.hub.suspect = self._subscriber, self._heard, self._repair.suspect
        self._inbox.server = self._resume.server = self.server
        self._resume.seated = self._seated
        self.server.manager.on_enter, self.server.manager.on_leave = self._entered, self._left_room

    async def start(self) -> None:
        """Subscribe and start the loops. Works while Redis or the database is away."""
        await self._subscriber.start()
        self.hub.task(self._subscriber.subscribe(keys.REVOCATIONS))
        loops = (self._repair.watch(), self._chains.watch(), self._watch_revocations(), self._count())
        self._loops = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """Take no more sockets, close those there are so that they reconnect elsewhere, stop the loops."""
        self.server.eio.stopping = True
        for socket in list(self.server.eio.sockets.values()):
            socket.end(self.server.reason.SERVER_DISCONNECT, "politely")
        try:
            async with asyncio.timeout(STOP_S):
                await self.server.eio.drained()
        except TimeoutError:
            log.warning("some clients did not answer the close; they are cut")
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.server.eio.cut()
        await self.hub.stop()
        await self._subscriber.close()
        await self._publisher.close()

    # -- Gate of namespace / (realtime/protocol.py) ----------------------------------------------------------------

    async def admit(self, socket: Socket, auth: Mapping[str, Any]) -> None:
        """Let a socket in, or refuse it."""
        await self._resume.admit(socket, auth)

    def event(self, socket: Socket, name: str, arguments: list[Any], *, ack_id: int | None) -> None:
        """Answer a command."""
        self._inbox.take(socket.owner, name, arguments, ack_id=ack_id)

    def left(self, socket: Socket, reason: str) -> None:
        """Let go of a socket; its rooms, and with them the feed, are left already."""
        log.debug("socket left", user=socket.owner.user, why=reason)
        socket.owner = None

    # -- what the parts tell ---------------------------------------------------------------------------------------

    def _seated(self, member: Member, identity: Identity) -> bytes:
        self._inbox.watch_expiry(member, identity)
        return self._chains.greet(member.user)

    def _entered(self, socket: Socket, room: str) -> None:
        member: Member = socket.owner
        if room == keys.user_room(member.user):
            self.hub.enter(member)
        elif room.startswith((keys.user_room(""), keys.notifications_room(""))) and not room.endswith(member.user):
            raise ValueError("a socket can't enter another user's room")

    def _left_room(self, socket: Socket, room: str) -> None:
        if room == keys.user_room(socket.owner.user):
            self.hub.leave(socket.owner)

    def _heard(self, channel: bytes, text: bytes) -> None:
        if channel == keys.REVOCATIONS.encode():
            self._revoked.set()
        elif channel.startswith(_BLOCKS):
            self._chains.on_block(text)

    # -- loops -----------------------------------------------------------------------------------------------------

    async def _watch_revocations(self) -> None:
        while True:
            try:
                async with asyncio.timeout(REVOCATIONS_S):
                    await self._revoked.wait()
            except TimeoutError:
                pass
            self._revoked.clear()
            try:
                await self.close_revoked()
            except Exception as error:  # noqa: BLE001 - the one place of this loop, which must go on
                log.warning("revocations could not be read; trying again", why=repr(error), passing=passes(error))

    async def close_revoked(self) -> None:
        """Close the sockets of sessions revoked since the last look."""
        now = datetime.now(UTC)
        for session_id in await self._auth.revoked_since(self._looked_at - REVOCATIONS_OVERLAP):
            self.close_session(session_id, "revoked")
        self._looked_at = now

    def close_session(self, session_id: str, reason: str) -> None:
        """Close every socket of a sign-in."""
        for member in self.hub.of_session(session_id):
            self._inbox.close(member, reason, Unauthenticated("This session was ended; sign in again."))

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(COUNTED_S)
            metrics.EVENTS_DELIVERED.inc(self.hub.delivered - self._counted)
            self._counted = self.hub.delivered


def build(app: web.Application, ports: Ports, settings: Settings) -> RealtimeServer:
    """Add the Socket.IO routes to `app` and return the server that answers them; the caller starts and stops it."""
    realtime = RealtimeServer(ports, settings)
    realtime.server.attach(app, PATH)
    return realtime
