"""The log is the truth: bring sockets up from it, and compare its ends with where sockets are.

Connect, resume, lost, doubled and reordered frames, a restart of Redis or of PostgreSQL: all are one `catch_up`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import islice

import structlog

from config.settings import Settings
from handlers.errors import Unauthenticated, Unavailable
from realtime import frames
from realtime.fanout import Feed, Hub, Member
from realtime.ports import Ports, Snapshot
from store.postgres import is_passing
from store.records import Address, Entry, Head

log = structlog.get_logger(__name__)

GATHER_S = 0.002
"""Time in which heads asked for share one query (s): reconnecting herds ask for thousands."""
COMPARED_AT_ONCE = 2000
"""Users whose counter rows one query compares."""
PAGE_EVENTS = 500
READERS = 8
"""Catch-ups that read at the same time: fewer than the pool has connections, so that connects get theirs."""
AWAY_INTERVAL_S = 1.0
"""How often logs are compared while Redis is away (s): it is the only way then that events are found."""
CALM_S = 0.1
"""Least time between two comparisons (s), whatever asks for them."""
LAGS, LAG_S = 20, 0.05
"""How often, and how far apart (s), the log is asked again when it is behind a frame that was heard."""
PAUSES_S = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Pauses between reads while the database is away (s); the last one repeats, sockets stay."""


def passes(error: BaseException) -> bool:
    """Whether the same read may succeed later."""
    return isinstance(error, Unavailable) or is_passing(error)


class Repair:
    """Reads the log for sockets, at their pace."""

    def __init__(self, ports: Ports, settings: Settings) -> None:
        self._log = ports.log
        self._snapshots = ports.snapshots
        self._page_bytes = settings.socket_buffer_bytes // 4
        self._interval_s = settings.head_check_interval_s
        self._readers = asyncio.Semaphore(READERS)
        self._asked: dict[Address, asyncio.Future[Head]] = {}
        self._reading: dict[Address, asyncio.Task[Snapshot]] = {}
        self._urgent = asyncio.Event()
        self.away = True
        """Whether frames may be missing, because Redis is not heard."""
        self.hub: Hub

    # -- heads -----------------------------------------------------------------------------------------------------

    async def head(self, user: Address) -> Head:
        """End of a user's log; raises Unauthenticated for an account without one."""
        asked = self._asked.get(user)
        if asked is None:
            loop = asyncio.get_running_loop()
            asked = self._asked[user] = loop.create_future()
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to hear it
            if len(self._asked) == 1:
                loop.call_later(GATHER_S, lambda: self.hub.task(self._ask()))
        # Shielded: a connect that is cancelled must not cancel those that wait for the same answer.
        return await asyncio.shield(asked)

    async def _ask(self) -> None:
        asked, self._asked = self._asked, {}
        try:
            heads = await self._log.heads(list(asked))
        except Exception as error:  # noqa: BLE001 - it is passed on, to everyone who asked
            for future in asked.values():
                future.set_exception(error)
            return
        for user, future in asked.items():
            if user in heads:
                future.set_result(heads[user])
            else:
                future.set_exception(Unauthenticated("This account has no log; sign in again."))

    # -- one socket ------------------------------------------------------------------------------------------------

    async def catch_up(self, member: Member) -> None:
        """Write what a socket lacks, in order and at its pace, then let it go live. One at a time per socket."""
        pauses = lags = 0
        while not member.socket.closing:
            if not member.needs_snapshot and member.pos >= member.seen:
                # No await between the look and this: a frame in between would be lost.
                member.catching_up = None
                return member.go_live()
            await member.socket.writable()
            try:
                moved = await self._step(member)
            except Exception as error:  # the one place of this loop: a broken read must not leave a socket silent
                if not passes(error):
                    log.exception("a catch-up failed; its socket is closed", user=member.user)
                    break
                await asyncio.sleep(PAUSES_S[min(pauses, len(PAUSES_S) - 1)])
                pauses += 1
                continue
            pauses, lags = 0, 0 if moved else lags + 1
            if lags > LAGS:
                log.error("the log lacks what was told", user=member.user, position=member.pos, told=member.seen)
                break
            if not moved:
                await asyncio.sleep(LAG_S)
        return self.hub.close(member, "now")

    async def _step(self, member: Member) -> bool:
        async with self._readers:
            if member.needs_snapshot:
                return self._write_snapshot(member, await self._snapshot(member.user))
            page = await self._log.after(member.user, member.pos, limit=PAGE_EVENTS, max_bytes=self._page_bytes)
        return self._write_page(member, page)

    def _write_page(self, member: Member, page: Sequence[Entry]) -> bool:
        """Write the entries that follow the socket's position; False when there is none."""
        out: list[bytes] = []
        for entry in page:
            if entry.seq != member.pos + 1:
                break
            member.pos = entry.seq
            out.append(_framed(member, entry.event, entry.payload, entry.seq))
            if entry.event == "resync":
                member.needs_snapshot = True
                break
        if out and not member.socket.closing:
            self.hub.delivered += len(out)
            member.socket.send_frame(b"".join(out))
        return bool(out)

    def _write_snapshot(self, member: Member, snapshot: Snapshot) -> bool:
        if snapshot.epoch != member.feed.epoch:  # which of the two is old, the counter rows say
            self.suspect(member.feed)
            return False
        if snapshot.seq < member.pos:  # begun for another socket, before the event that asked for this one
            return False
        member.needs_snapshot = False
        member.pos = snapshot.seq
        if not member.socket.closing:
            member.socket.send_frame(_framed(member, "snapshot", snapshot.body, snapshot.seq))
        return True

    async def _snapshot(self, user: Address) -> Snapshot:
        """One read for all sockets of a user that ask at the same time."""
        reading = self._reading.get(user)
        if reading is None:
            reading = self._reading[user] = self.hub.task(self._snapshots.snapshot(user))
            reading.add_done_callback(lambda _: self._reading.pop(user))
            reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(reading)

    # -- all sockets -----------------------------------------------------------------------------------------------

    def lost(self) -> None:
        """Redis is not heard any more (the subscriber says so)."""
        self.away = True
        self._urgent.set()

    def restored(self) -> None:
        """Every channel is heard again: what came in between is found now."""
        self.away = False
        self._urgent.set()

    def suspect(self, _: Feed) -> None:
        """A frame came from another epoch."""
        self._urgent.set()

    async def watch(self) -> None:
        """Compare logs with sockets, for ever."""
        while True:
            await self._moment()
            urgent = self.away or self._urgent.is_set()
            self._urgent.clear()
            try:
                await self.compare(urgent=urgent)
            except Exception as error:  # noqa: BLE001 - the one place of this loop, which must go on
                if urgent:
                    self._urgent.set()
                log.warning("logs could not be compared; trying again", why=repr(error), passing=passes(error))

    async def _moment(self) -> None:
        await asyncio.sleep(CALM_S)
        wait_s = min(self._interval_s, AWAY_INTERVAL_S) if self.away else self._interval_s
        try:
            async with asyncio.timeout(wait_s - CALM_S):
                await self._urgent.wait()
        except TimeoutError:
            return

    async def compare(self, *, urgent: bool) -> None:
        """Find what sockets lack: at once, or only what the last comparison saw too, for it may be on its way."""
        feeds = iter(self.hub.feeds_with_members())
        while some := list(islice(feeds, COMPARED_AT_ONCE)):
            told = {feed.user: max((member.position for member in feed.members), default=0) for feed in some}
            heads = await self._log.heads([feed.user for feed in some])
            for feed in some:
                self._compare(feed, heads, told=told[feed.user], urgent=urgent)

    def _compare(self, feed: Feed, heads: Mapping[Address, Head], *, told: int, urgent: bool) -> None:
        head = heads.get(feed.user)
        if not feed.members:
            return
        if head is None or head.epoch != feed.epoch or head.seq < told:
            self.hub.reset(feed, why="the log is gone" if head is None else "another epoch, or fewer events")
            return
        due = head.seq if urgent else feed.swept
        feed.swept = head.seq
        for member in feed.members:
            if member.position < due:
                self.hub.behind(member, due)


def _framed(member: Member, event: str, payload: str, seq: int) -> bytes:
    text = frames.durable(event, payload, f"{member.feed.epoch}:{seq}")
    return frames.event_frame(text if member.wants_offsets else frames.without_offset(text))
