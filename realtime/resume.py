"""From CONNECT to live: who it is, which channel, where the log stands, and what this client has seen of it.

The order is what makes it exact: the socket is in the feed before SUBSCRIBE is awaited, the head is read after the
confirmation, and nothing is awaited between the choice of the sid and the socket's registration.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config import keys
from config.settings import Settings
from handlers.errors import FieldError, Internal, Invalid, Problem, Unauthenticated, Unavailable
from handlers.rules.periods import iso
from realtime import frames
from realtime.door import SignIns
from realtime.fanout import Feed, Hub, Member, kick
from realtime.ports import Identity, Ports, RequestFacts
from realtime.protocol import SocketServer
from realtime.repair import PAUSES_S, Repair, passes
from realtime.wire import Socket
from store.feed import Publisher
from store.records import Address, Head

log = structlog.get_logger(__name__)

T = TypeVar("T")

SUBSCRIBE_S = 2.0
"""Time a connect waits for Redis to confirm the channel (s); after that the log is compared instead."""
PATIENCE = 0.5
"""Part of the handshake's time in which a database that is away is asked again: a restart should not be a refusal,
since clients do not come back by themselves after one."""
MAC_BYTES = 16
ADMITTED_AT_ONCE = 64
"""Connects under way at a time: a herd waits here, before it asks for anything, and not in the database's queue."""


class Handshake(BaseModel):
    """What a client says when it connects; fields of later versions are passed over."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    token: str = Field(max_length=512)
    epoch: str | None = Field(default=None, max_length=64)
    since: int | None = Field(default=None, ge=0, lt=1 << 53)
    recovery: bool = True
    pid: str | None = Field(default=None, max_length=128)
    offset: str | None = Field(default=None, max_length=128)

    @classmethod
    def of(cls, auth: Mapping[str, Any]) -> Handshake:
        """Read it; raises Unauthenticated without a token and Invalid for wrong types."""
        if not auth.get("token"):
            raise Unauthenticated("Send the access token as auth.token.")
        try:
            return cls.model_validate(dict(auth))
        except ValidationError as error:
            raise Invalid(
                "The auth payload is {token, epoch?, since?, recovery?}.",
                errors=[FieldError("/" + "/".join(map(str, each["loc"])), each["msg"]) for each in error.errors()],
            ) from error


@dataclass(frozen=True, slots=True)
class Position:
    """Where a client says it is; `sid` only with the official recovery."""

    epoch: str
    seq: int
    sid: str | None = None


class Pids:
    """Resume tokens of the official recovery: the sid and a MAC over user and sid, checked on any node."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, user: Address, sid: str) -> str:
        """The pid of a user's socket."""
        mac = hmac.digest(self._key, f"pid:{user}:{sid}".encode(), "sha256")[:MAC_BYTES]
        return f"{sid}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"

    def sid_of(self, user: Address, pid: str) -> str | None:
        """The sid that this user may take over; None for a pid that is not its own."""
        sid = pid.partition(".")[0]
        return sid if hmac.compare_digest(self.make(user, sid).encode(), pid.encode()) else None


def claimed(handshake: Handshake, user: Address, pids: Pids) -> Position | None:
    """The position that the client claims; the official offset wins over `since`."""
    if handshake.recovery and handshake.pid is not None and handshake.offset is not None:
        sid, offset = pids.sid_of(user, handshake.pid), frames.parse_offset(handshake.offset)
        if sid is not None and offset is not None:
            return Position(*offset, sid)
    if handshake.epoch is not None and handshake.since is not None:
        return Position(handshake.epoch, handshake.since)
    return None


def reachable(position: Position, head: Head, *, limit: int) -> bool:
    """Whether the log holds all that came after the position, and no more than `limit` events of it."""
    missed = head.seq - position.seq
    return position.epoch == head.epoch and 0 <= missed <= limit and position.seq >= head.first_seq - 1


class Resume:
    """Lets sockets in."""

    def __init__(self, hub: Hub, repair: Repair, ports: Ports, *, settings: Settings, publisher: Publisher) -> None:
        self._hub, self._repair, self._ports = hub, repair, ports
        self._settings, self._publisher = settings, publisher
        self._sign_ins = SignIns(settings.socket_connects_per_minute)
        self._admitted = asyncio.Semaphore(ADMITTED_AT_ONCE)
        self._pids = Pids(settings.secret_key.get_secret_value().encode())
        self.server: SocketServer
        self.seated: Callable[[Member, Identity], bytes] = _not_told
        """Told of each accepted socket; returns frames that follow its `session` event."""

    async def admit(self, socket: Socket, auth: Mapping[str, Any]) -> None:
        """Answer a CONNECT. Runs as a task that the socket's end cancels."""
        try:
            async with self._admitted:
                await self._admit(socket, Handshake.of(auth))
        except Problem as problem:
            self.server.reject(socket, problem)
        except Exception as error:  # the one place of a connect
            if passes(error):
                self.server.reject(socket, Unavailable("The database does not answer; connect again."))
            else:
                log.exception("a connect failed")
                self.server.reject(socket, Internal("The connection could not be made; the fault is logged."))

    async def _admit(self, socket: Socket, handshake: Handshake) -> None:
        identity = await self._patiently(lambda: self._ports.auth.verify(handshake.token))
        self._sign_ins.enter(identity.user)
        feed = self._hub.hold(identity.user)
        try:
            await self._heard(feed)
            head = await self._patiently(lambda: self._repair.head(identity.user))
            if not socket.closing:
                self._seat(socket, handshake, identity, feed, head)
        finally:
            self._hub.release(feed)

    async def _patiently(self, read: Callable[[], Awaitable[T]]) -> T:
        ends = asyncio.get_running_loop().time() + self._settings.socket_connect_timeout_s * PATIENCE
        for pause_s in (*PAUSES_S, *PAUSES_S[-1:] * 60):
            try:
                return await read()
            except Exception as error:
                if not passes(error) or asyncio.get_running_loop().time() + pause_s > ends:
                    raise
                await asyncio.sleep(pause_s)
        return await read()

    async def _heard(self, feed: Feed) -> None:
        await asyncio.wait([feed.heard], timeout=SUBSCRIBE_S)

    def _seat(self, socket: Socket, handshake: Handshake, identity: Identity, feed: Feed, head: Head) -> None:
        """Register the socket and say where it stands. Nothing here is awaited: frames come in between otherwise."""
        self._align(feed, head)
        claim = claimed(handshake, identity.user, self._pids)
        position = claim if claim is not None and reachable(claim, head, limit=self._settings.replay_limit) else None
        sid = self._taken_over(position, socket, feed) or self.server.eio.generate_id()
        member = Member(
            socket,
            feed,
            sid=sid,
            session_id=identity.session_id,
            wants_offsets=handshake.recovery,
            facts=_facts(self.server.environ[socket.sid]),
        )
        socket.owner = member
        self._make_place(feed)
        pid = self._pids.make(identity.user, sid) if handshake.recovery else None
        rooms = (keys.user_room(identity.user), keys.notifications_room(identity.user))
        session = frames.event_frame(_session(identity.user, head, position))
        self.server.accept(socket, sid, rooms=rooms, pid=pid, then=session + self.seated(member, identity))
        if member.is_in:
            self._start(member, head, position)

    def _align(self, feed: Feed, head: Head) -> None:
        if feed.epoch and feed.epoch != head.epoch:
            # Older sockets first: this one must not be among those that are closed.
            self._hub.reset(feed, why="another epoch")
        if feed.epoch != head.epoch:
            feed.begin(head.epoch, head.seq)

    def _taken_over(self, position: Position | None, socket: Socket, feed: Feed) -> str | None:
        """The sid that goes on, its old socket closed: here at once, elsewhere by a message that is not waited for."""
        if position is None or position.sid is None:
            return None
        old = self.server.manager.eio_sid_from_sid(position.sid, "/")
        if old is not None and old in self.server.eio.sockets:
            self.server.eio.sockets[old].end(self.server.reason.SERVER_DISCONNECT, "now")
        else:
            self._hub.task(self._publisher.wake(feed.channel, kick(position.sid, newer=socket.sid)))
        return position.sid

    def _make_place(self, feed: Feed) -> None:
        while len(feed.members) >= self._settings.max_sockets_per_user:
            self.server.dismiss(feed.members[0].socket, reason="replaced")

    def _start(self, member: Member, head: Head, position: Position | None) -> None:
        member.seen = max(head.seq, member.feed.seq)
        if position is None:
            self._hub.snapshot(member)
        elif position.seq < member.seen:
            member.pos = position.seq
            self._hub.behind(member, member.seen)
        else:
            member.pos = position.seq
            member.go_live()


def _session(user: Address, head: Head, position: Position | None) -> bytes:
    return frames.best_effort(
        "session",
        {
            "userId": user,
            "epoch": head.epoch,
            "seq": head.seq,
            "recovered": position is not None,
            "replayed": 0 if position is None else head.seq - position.seq,
            "serverTime": iso(datetime.now(UTC)),
        },
    )


def _facts(environ: Mapping[str, str]) -> RequestFacts:
    return RequestFacts(environ["REMOTE_ADDR"], environ["HTTP_USER_AGENT"])


def _not_told(_: Member, __: Identity) -> bytes:
    return b""
