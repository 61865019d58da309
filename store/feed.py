"""Between a commit and the sockets: publish finished texts, and hear the channels of connected users.

At most once by design. Redis is a wake-up: what it loses is repaired from the log, so nothing here retries a message,
and nobody waits for Redis longer than a bounded time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import hiredis
import structlog
from redis.asyncio import Redis

from config import keys, metrics
from store.resp import Endpoint, Link, RedisAway, command, connect, publish_commands

log = structlog.get_logger(__name__)

RETRY_S = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Pauses between attempts to connect (s); the last one repeats. Short: meanwhile the database is asked instead."""
STEADY_S = 5.0
"""Life of a connection (s) after which its loss counts as news: a flapping Redis must not flood the log."""
UNSENT_LIMIT_BYTES = 16 * 1024 * 1024
"""Unsent bytes at which publishing gives up on a connection instead of filling memory."""
SUBSCRIBE_CHUNK = 500
"""Channels named by one SUBSCRIBE: keeps commands of a herd of clients to some 30 KB."""


@dataclass(slots=True)
class _Batch:
    """Replies that one publish still waits for."""

    missing: int
    done: asyncio.Future[bool]
    refused: bool = False


class Publisher:
    """Tells Redis what was committed. Never raises; while Redis is away each call answers False at once."""

    def __init__(self, redis: Redis | str, *, timeout_s: float = 1.0) -> None:
        """`redis`: a url, or a client whose address is taken. `timeout_s` bounds each call."""
        self._endpoint = Endpoint.of(redis)
        self._timeout_s = timeout_s
        self._link: Link | None = None
        self._batches: deque[_Batch] = deque()
        self._connecting: asyncio.Task[Link | None] | None = None
        self._attempts = 0
        self._retry_at = 0.0
        self._away = False

    async def publish(self, frames: Sequence[tuple[str, bytes]], blocks: Sequence[tuple[int, bytes]] = ()) -> bool:
        """Send event texts to their users' channels, then blocks to their chains'; False when Redis did not take all.

        `frames` are (address, text), `blocks` (chain id, JSON); order is kept within one publisher.
        """
        messages = [(keys.user_channel(user).encode(), text) for user, text in frames]
        messages += [(keys.blocks_channel(chain_id).encode(), text) for chain_id, text in blocks]
        return await self._send(messages)

    async def wake(self, channel: str, text: bytes = b"") -> bool:
        """Send a wake-up to any channel; `text` says more to those who care."""
        return await self._send([(channel.encode(), text)])

    async def close(self) -> None:
        """Close the connection; calls after that open it again."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._link is not None:
            self._link.abort()
            await self._link.closed

    async def _send(self, messages: Sequence[tuple[bytes, bytes]]) -> bool:
        if not messages:
            return True
        with metrics.PUBLISH_SECONDS.time():
            taken = await self._taken(messages)
        if not taken:
            metrics.PUBLISH_FAILURES.inc()
        return taken

    async def _taken(self, messages: Sequence[tuple[bytes, bytes]]) -> bool:
        link = await self._opened()
        if link is None:
            return False
        batch = _Batch(len(messages), asyncio.get_running_loop().create_future())
        self._batches.append(batch)
        link.write(publish_commands(messages))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await batch.done
        except TimeoutError:
            # Replies that come after this would be counted for the wrong batch: only a new connection is clean.
            link.abort()
            return False

    async def _opened(self) -> Link | None:
        link = self._link
        if link is not None and link.is_open and link.unsent_bytes < UNSENT_LIMIT_BYTES:
            return link
        if self._connecting is None:
            if asyncio.get_running_loop().time() < self._retry_at:
                return None
            self._connecting = asyncio.create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Link | None:
        if self._link is not None:
            self._link.abort()
        link = Link(self._on_reply)
        try:
            await connect(self._endpoint, link, timeout_s=self._timeout_s)
        except RedisAway as error:
            self._retry_at = asyncio.get_running_loop().time() + RETRY_S[min(self._attempts, len(RETRY_S) - 1)]
            self._attempts += 1
            self._note(away=True, why=str(error))
            return None
        finally:
            self._connecting = None
        self._link, self._attempts = link, 0
        self._batches = deque()
        link.closed.add_done_callback(partial(_refuse, self._batches))
        self._note(away=False)
        return link

    def _note(self, *, away: bool, why: str = "") -> None:
        if away and not self._away:
            log.warning("redis is away; what is published now is found in the log instead", why=why)
        if self._away and not away:
            log.info("redis is back; publishing again")
        self._away = away

    def _on_reply(self, reply: Any) -> None:
        batch = self._batches[0]
        batch.missing -= 1
        batch.refused = batch.refused or isinstance(reply, hiredis.HiredisError)
        if batch.missing:
            return
        self._batches.popleft()
        if not batch.done.done():
            batch.done.set_result(not batch.refused)


def _refuse(batches: deque[_Batch], _: asyncio.Future[None]) -> None:
    for batch in batches:
        if not batch.done.done():
            batch.done.set_result(False)
    batches.clear()


@dataclass(slots=True)
class _Joining:
    """A channel whose SUBSCRIBE is under way; who waits is told after the last confirmation that is due.

    Left and wanted again in one breath, a channel has two: the first says nothing about what follows the UNSUBSCRIBE.
    """

    done: asyncio.Future[bool]
    due: int = 0


class Subscriber:
    """Hears channels on one connection that heals itself. Callbacks run inside the read and must not block.

    After `on_lost` messages may be missing; `on_restored` says that every wanted channel is confirmed again.
    """

    def __init__(
        self,
        redis: Redis | str,
        on_message: Callable[[bytes, bytes], None],
        on_lost: Callable[[], None],
        on_restored: Callable[[], None],
        *,
        on_batch: Callable[[], None] | None = None,
        on_open: Callable[[asyncio.BaseTransport], None] | None = None,
        timeout_s: float = 2.0,
        keepalive_s: float = 5.0,
    ) -> None:
        """`on_batch` runs after all messages of one read, `on_open` gets each new connection.

        A connection silent for two `keepalive_s` is cut.
        """
        self._endpoint = Endpoint.of(redis)
        self._on_message, self._on_batch, self._on_open = on_message, on_batch, on_open
        self._on_lost, self._on_restored = on_lost, on_restored
        self._timeout_s, self._keepalive_s = timeout_s, keepalive_s
        self._wanted: dict[bytes, None] = {}
        self._joining: dict[bytes, _Joining] = {}
        self._outgoing: list[tuple[bytes, bytes]] = []
        self._link: Link | None = None
        self._refusal = ""
        self._task: asyncio.Task[None] | None = None
        self.connected = False
        """Whether every wanted channel is being heard, but for those that were asked for just now."""

    @property
    def channels(self) -> int:
        """How many channels are wanted."""
        return len(self._wanted)

    async def start(self) -> None:
        """Connect in the background; returns after the first attempt, whatever came of it."""
        first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(first))
        await first

    async def close(self) -> None:
        """Stop hearing. Callbacks do not run any more."""
        link = self._link
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        if link is not None:
            await link.closed

    async def subscribe(self, channel: str) -> bool:
        """Want a channel; True once Redis confirmed it. False at once while Redis is away: it is taken up later."""
        name = channel.encode()
        if name in self._wanted:
            joining = self._joining.get(name)
            return self.connected if joining is None else await asyncio.shield(joining.done)
        self._wanted[name] = None
        if self._link is None:
            return False
        return await asyncio.shield(self._join(name).done)

    def unsubscribe(self, channel: str) -> None:
        """Stop wanting a channel."""
        name = channel.encode()
        if self._wanted.pop(name, self) is not self and self._link is not None:
            self._ask(b"UNSUBSCRIBE", name)

    def _join(self, name: bytes) -> _Joining:
        joining = self._joining.get(name)
        if joining is None:
            joining = self._joining[name] = _Joining(asyncio.get_running_loop().create_future())
        joining.due += 1
        self._ask(b"SUBSCRIBE", name)
        return joining

    def _ask(self, verb: bytes, name: bytes) -> None:
        if not self._outgoing:
            # What one turn of the loop asks for goes out as one command: clients come in herds.
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing.append((verb, name))

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._link is None:
            return
        while outgoing:
            verb = outgoing[0][0]
            count = 1
            while count < min(len(outgoing), SUBSCRIBE_CHUNK) and outgoing[count][0] == verb:
                count += 1
            self._link.write(command(verb, *(name for _, name in outgoing[:count])))
            del outgoing[:count]

    async def _run(self, first: asyncio.Future[None]) -> None:
        loop, attempts, away = asyncio.get_running_loop(), 0, False
        while True:
            began = loop.time()
            try:
                link = await self._connect()
                away = False
                _release(first)
                await self._watch(link)
            except RedisAway as error:
                attempts = 0 if loop.time() - began > STEADY_S else attempts
                if attempts == 0:
                    log.warning("redis is away; logs are compared instead", why=str(error))
                if not away:
                    self._on_lost()
                away = True
            finally:
                self._unlink()
            _release(first)
            await asyncio.sleep(RETRY_S[min(attempts, len(RETRY_S) - 1)])
            attempts += 1

    async def _connect(self) -> Link:
        link = Link(self._on_reply, self._on_batch)
        await connect(self._endpoint, link, timeout_s=self._timeout_s)
        if self._on_open is not None and link.transport is not None:
            self._on_open(link.transport)
        self._link, self._refusal = link, ""
        waiting = [self._join(name).done for name in self._wanted]
        if waiting:
            await asyncio.wait(waiting, timeout=self._timeout_s + len(waiting) / 10_000)
        if not all(done.done() and done.result() for done in waiting):
            raise RedisAway(self._refusal or "subscriptions were not confirmed in time")
        self.connected = True
        self._on_restored()
        return link

    async def _watch(self, link: Link) -> None:
        """Return never; raise RedisAway once the connection is lost or silent."""
        reads, asked = link.reads, False
        while True:
            await asyncio.wait([link.closed], timeout=self._keepalive_s)
            if link.closed.done():
                raise RedisAway(self._refusal or "the connection was lost")
            if link.reads == reads and asked:
                raise RedisAway("the connection went silent")
            asked = link.reads == reads
            reads = link.reads
            if asked:
                link.write(command(b"PING"))

    def _unlink(self) -> None:
        link, self._link, self.connected = self._link, None, False
        if link is not None:
            link.on_reply, link.on_batch = _ignore, None
            link.abort()
        joining, self._joining = self._joining, {}
        self._outgoing.clear()
        for each in joining.values():
            if not each.done.done():
                each.done.set_result(False)

    def _on_reply(self, reply: Any) -> None:
        if type(reply) is not list:  # a PONG outside subscriptions, or an error
            return self._on_error(reply) if isinstance(reply, hiredis.HiredisError) else None
        kind = reply[0]
        if kind == b"message":
            return self._on_message(reply[1], reply[2])
        if kind == b"subscribe" and (joining := self._joining.get(reply[1])) is not None:
            joining.due -= 1
            if joining.due == 0:
                del self._joining[reply[1]]
                if not joining.done.done():
                    joining.done.set_result(True)
        return None

    def _on_error(self, error: hiredis.HiredisError) -> None:
        # A refused SUBSCRIBE leaves its waiters without an answer: start over, and say why.
        self._refusal = str(error)
        if self._link is not None:
            self._link.abort()


def _release(first: asyncio.Future[None]) -> None:
    if not first.done():
        first.set_result(None)


def _ignore(_: Any) -> None:
    """Reply of a connection that was given up."""
