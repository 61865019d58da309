"""From a user's channel to that user's sockets: written when it is the next event, else repaired from the log.

Redis may lose, double or reorder frames. Each socket has a position: a frame is written only if its seq is the next,
an older one is dropped, anything else raises what the socket must reach and starts one catch-up (realtime/repair.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime
from typing import Any, Protocol

import structlog

from config import keys, metrics
from realtime import frames
from realtime.ports import RequestFacts
from realtime.wire import How, Socket
from store.records import Address

log = structlog.get_logger(__name__)

_R = ord("r")
_KICK = b"!"
"""First byte of a message between web processes on a user's channel; event texts begin with `[`."""


class Member:
    """One accepted socket and how far its client has been told."""

    __slots__ = (
        "answering", "asked", "catching_up", "due", "expires_at", "expiry", "facts", "feed", "needs_snapshot", "out",
        "pos", "seen", "session_id", "sid", "socket", "wants_offsets",
    )  # fmt: skip

    def __init__(
        self, socket: Socket, feed: Feed, *, sid: str, session_id: str, wants_offsets: bool, facts: RequestFacts
    ) -> None:
        self.socket = socket
        self.feed = feed
        self.sid = sid
        self.session_id = session_id
        self.wants_offsets = wants_offsets
        self.facts = facts
        self.expires_at: datetime | None = None
        self.expiry: asyncio.TimerHandle | None = None
        self.due = 0
        """Seq that may be written live; 0 while the log is read instead."""
        self.pos = 0
        """Seq written last; behind `due` while live."""
        self.seen = 0
        """Seq that the log is known to have; a catch-up ends there."""
        self.needs_snapshot = False
        self.catching_up: asyncio.Task[None] | None = None
        self.out: list[bytes] = []
        self.asked: list[tuple[str, list[Any], int | None]] = []
        """Commands that wait for their turn: name, arguments, number of the acknowledgement."""
        self.answering: asyncio.Task[None] | None = None

    @property
    def is_in(self) -> bool:
        """Whether the socket is still this member's and connected."""
        return self.socket.owner is self and not self.socket.closing

    @property
    def user(self) -> Address:
        """Whose socket this is."""
        return self.feed.user

    @property
    def position(self) -> int:
        """Seq that the client was told last."""
        return self.due - 1 if self.due else self.pos

    def go_live(self) -> None:
        """From here on frames are written as they come."""
        self.due = self.pos + 1

    def stop_live(self) -> None:
        """From here on frames only raise `seen`."""
        self.pos, self.due = self.position, 0


class Feed:
    """A connected user's stream on this process."""

    __slots__ = ("channel", "epoch", "expected", "form", "heard", "hint", "holds", "members", "seq", "swept", "user")

    def __init__(self, user: Address, heard: asyncio.Task[bool]) -> None:
        self.user = user
        self.channel = keys.user_channel(user)
        self.heard = heard
        """The subscription under way; True when it is confirmed."""
        self.holds = 0
        """Sockets here and on their way here; at 0 the channel is left."""
        self.members: list[Member] = []
        self.epoch = ""
        """Epoch of the log; empty until a head was read."""
        self.seq = 0
        """Highest seq that a frame had."""
        self.hint: tuple[str, int] | None = None
        """Offset of a frame that came before the first head did."""
        self.swept = 0
        """The log's end at the last comparison: what a socket lacks of that is not just on its way."""
        self.form = self.expected = b""

    def begin(self, epoch: str, seq: int) -> None:
        """Follow this epoch from here on."""
        self.epoch, self.seq, self.swept = epoch, seq, seq
        if self.hint is not None and self.hint[0] == epoch:
            self.seq = max(seq, self.hint[1])
        self.form = b',"' + epoch.encode().replace(b"%", b"%%") + b':%d"]'
        self.expected = self.form % (self.seq + 1)

    def advance(self, seq: int) -> None:
        """Note the highest seq; the tail of the text after it is known from here on."""
        self.seq = seq
        self.expected = self.form % (seq + 1)


class Channels(Protocol):
    """The subscriber (store/feed.py)."""

    async def subscribe(self, channel: str) -> bool:
        """Want a channel; True once it is confirmed."""

    def unsubscribe(self, channel: str) -> None:
        """Stop wanting a channel."""


class Hub:
    """All feeds of this process. Frames are collected per socket and written once per read from Redis."""

    def __init__(self, catch_up: Callable[[Member], Coroutine[Any, Any, None]]) -> None:
        self._catch_up = catch_up
        self._feeds: dict[bytes, Feed] = {}
        self._sessions: dict[str, set[Member]] = {}
        self._dirty: list[Member] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self.channels: Channels
        self.elsewhere: Callable[[bytes, bytes], None] = _unheard
        """Gets messages of channels that are no user's."""
        self.suspect: Callable[[Feed], None] = _trusted
        """Told of a feed whose frames come from another epoch."""
        self.delivered = 0
        """Events that came from channels, written since the process began."""
        self.dropped = 0
        """Frames that a socket had already."""
        self.catch_ups = 0

    # -- feeds -----------------------------------------------------------------------------------------------------

    @property
    def feeds(self) -> int:
        """Users with a socket here, or one on its way."""
        return len(self._feeds)

    @property
    def sessions(self) -> int:
        """Sign-ins with a socket here."""
        return len(self._sessions)

    def members(self) -> Iterator[Member]:
        """Every accepted socket."""
        for feed in self._feeds.values():
            yield from feed.members

    def feeds_with_members(self) -> list[Feed]:
        """Feeds that somebody reads."""
        return [feed for feed in self._feeds.values() if feed.members]

    def feed_of(self, user: Address) -> Feed | None:
        """A connected user's feed."""
        return self._feeds.get(keys.user_channel(user).encode())

    def hold(self, user: Address) -> Feed:
        """Keep a user's channel subscribed; each hold needs one `release`."""
        name = keys.user_channel(user).encode()
        feed = self._feeds.get(name)
        if feed is None:
            feed = self._feeds[name] = Feed(user, self.task(self.channels.subscribe(keys.user_channel(user))))
        feed.holds += 1
        return feed

    def release(self, feed: Feed) -> None:
        """Let go of one hold; the last one leaves the channel."""
        feed.holds -= 1
        if feed.holds == 0:
            del self._feeds[feed.channel.encode()]
            self.channels.unsubscribe(feed.channel)

    def task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work`; `stop` cancels what is left."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        """Cancel what runs and wait for it."""
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    # -- members ---------------------------------------------------------------------------------------------------

    def enter(self, member: Member) -> None:
        """Begin to deliver to a socket (realtime/rooms.py says when)."""
        member.feed.holds += 1
        member.feed.members.append(member)
        self._sessions.setdefault(member.session_id, set()).add(member)
        metrics.SOCKETS_CONNECTED.inc()

    def leave(self, member: Member) -> None:
        """Deliver to a socket no more. No await before this: whoever writes next must not find it."""
        member.feed.members.remove(member)
        member.out.clear()
        self._drop_session(member)
        for handle in (member.catching_up, member.expiry):
            if handle is not None:
                handle.cancel()
        self.release(member.feed)
        metrics.SOCKETS_CONNECTED.dec()

    def move_session(self, member: Member, session_id: str) -> None:
        """A socket was renewed with a token of another sign-in of the same user."""
        self._drop_session(member)
        member.session_id = session_id
        self._sessions.setdefault(session_id, set()).add(member)

    def _drop_session(self, member: Member) -> None:
        of_session = self._sessions[member.session_id]
        of_session.discard(member)
        if not of_session:
            del self._sessions[member.session_id]

    def of_session(self, session_id: str) -> list[Member]:
        """Sockets of one sign-in."""
        return list(self._sessions.get(session_id, ()))

    def reset(self, feed: Feed, *, why: str) -> None:
        """The log began anew or went back: sockets reconnect and get a snapshot."""
        log.warning("a log began anew; its sockets are closed", user=feed.user, why=why)
        for member in list(feed.members):
            metrics.SOCKETS_CLOSED.labels("new_epoch").inc()
            self.close(member, "politely")

    def close(self, member: Member, how: How) -> None:
        """Close a socket so that its client comes back by itself."""
        member.socket.end(member.socket.server.reason.SERVER_DISCONNECT, how)

    # -- delivery --------------------------------------------------------------------------------------------------

    def on_message(self, channel: bytes, text: bytes) -> None:
        """A published message. Runs for each event of each user here: everything that can wait is elsewhere."""
        feed = self._feeds.get(channel)
        if feed is None:
            return self.elsewhere(channel, text)
        if text.endswith(feed.expected) and feed.epoch:
            seq = feed.seq + 1
        else:
            seq = self._seq_of(feed, text)
            if not seq:
                return None
        if seq > feed.seq:
            feed.advance(seq)
        is_resync = text[2] == _R and text.startswith(b'["resync"')
        frame = cut = b""
        for member in feed.members:
            if member.due != seq:
                self._out_of_step(member, seq)
                continue
            member.due = seq + 1
            if not member.out:
                self._dirty.append(member)
            if member.wants_offsets:
                frame = frame or frames.event_frame(text)
                member.out.append(frame)
            else:
                cut = cut or frames.event_frame(frames.without_offset(text))
                member.out.append(cut)
            if is_resync:
                self.snapshot(member)
        return None

    def on_batch(self) -> None:
        """Write what one read from Redis brought: one send per socket, whatever the number of its events."""
        dirty, self._dirty = self._dirty, []
        for member in dirty:
            out, member.out = member.out, []
            if out and not member.socket.closing:
                self.delivered += len(out)
                member.socket.send_frame(out[0] if len(out) == 1 else b"".join(out))

    def _seq_of(self, feed: Feed, text: bytes) -> int:
        """Seq of a text that is not the expected one; 0 when it says nothing about this log."""
        if text.startswith(_KICK):
            self._kicked(feed, text[1:].decode())
            return 0
        offset = frames.offset_of(text)
        if offset is None:
            self._pass_on(feed, text)
            return 0
        if not feed.epoch:
            feed.hint = offset
            return 0
        if offset[0] != feed.epoch:
            self.suspect(feed)
            return 0
        return offset[1]

    def _pass_on(self, feed: Feed, text: bytes) -> None:
        """Write an event outside the log, which never ends in a string, to those who are not being brought up."""
        if not (text.startswith(b'["') and text.endswith(b"}]")):
            log.warning("a message on a user's channel is no event", channel=feed.channel)
            return
        frame = frames.event_frame(text)
        for member in feed.members:
            if member.due:  # one that is being brought up has better things to read
                if not member.out:
                    self._dirty.append(member)
                member.out.append(frame)

    def _out_of_step(self, member: Member, seq: int) -> None:
        if seq <= member.position:
            self.dropped += 1
        else:
            self.behind(member, seq)

    def snapshot(self, member: Member) -> None:
        """Send a fresh snapshot, then go on from there."""
        member.needs_snapshot = True
        self.behind(member, member.position)

    def behind(self, member: Member, seq: int) -> None:
        """Bring a socket up to `seq` from the log."""
        member.seen = max(member.seen, seq)
        if member.catching_up is None and not member.socket.closing:
            member.stop_live()
            self.catch_ups += 1
            metrics.CATCH_UPS.inc()
            member.catching_up = self.task(self._catch_up(member))

    # -- other web processes -----------------------------------------------------------------------------------------

    def _kicked(self, feed: Feed, text: str) -> None:
        sid, _, newer = text.partition(" ")
        for member in list(feed.members):
            if member.sid == sid and member.socket.sid != newer:
                self.close(member, "now")


def kick(sid: str, *, newer: str) -> bytes:
    """Message that closes a socket of this sid on any process, but for the session `newer` that took it over."""
    return _KICK + f"{sid} {newer}".encode()


def _unheard(channel: bytes, _: bytes) -> None:
    log.debug("a message of a channel that nobody reads any more", channel=channel.decode(errors="replace"))


def _trusted(_: Feed) -> None:
    """Nobody looks into epochs yet."""
