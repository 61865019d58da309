"""One raw RESP connection to Redis, without a task or a future per message: the wire under store/feed.py."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import SSLConnection, parse_url

SLICE_BYTES = 16 * 1024
"""hiredis moves all it has not parsed yet after each KiB it parsed: fed 256 KiB at once it costs five times more."""

_MORE = object()


class RedisAway(Exception):
    """Redis does not answer: it can't be reached, refuses us, or the connection was lost."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where Redis listens and how to sign in there."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str | None = None
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, target: Redis | str) -> Endpoint:
        """The endpoint of a url (`redis://`, `rediss://`, `unix://`) or of an existing client."""
        if isinstance(target, str):
            options: dict[str, Any] = dict(parse_url(target))
            kind = options.get("connection_class")
        else:
            options, kind = target.connection_pool.connection_kwargs, target.connection_pool.connection_class
        secured = isinstance(kind, type) and issubclass(kind, SSLConnection)
        return cls(
            host=options.get("host", "127.0.0.1"),
            port=options.get("port", 6379),
            path=options.get("path"),
            username=options.get("username"),
            password=options.get("password"),
            tls=ssl.create_default_context(cafile=options.get("ssl_ca_certs")) if secured else None,
        )


class Link(asyncio.Protocol):
    """An open connection. `on_reply` gets each parsed reply; `on_batch` runs after all replies of one read."""

    def __init__(self, on_reply: Callable[[Any], None], on_batch: Callable[[], None] | None = None) -> None:
        self.on_reply = on_reply
        self.on_batch = on_batch
        self.closed = asyncio.get_running_loop().create_future()
        self.reads = 0
        """How many times bytes came: a watcher compares it to see that the other end lives."""
        reader = hiredis.Reader(notEnoughData=_MORE)
        self._feed, self._gets = reader.feed, reader.gets
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """Whether something written now may arrive."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def transport(self) -> asyncio.Transport | None:
        """The open transport."""
        return self._transport

    @property
    def unsent_bytes(self) -> int:
        """Bytes written that the kernel has not taken."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Queue bytes; a lost connection swallows them."""
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        """Cut the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio calls this)."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse what came and hand out each reply (asyncio calls this)."""
        self.reads += 1
        feed, gets, on_reply, more = self._feed, self._gets, self.on_reply, _MORE
        try:
            for start in range(0, len(data), SLICE_BYTES):
                feed(data, start, min(SLICE_BYTES, len(data) - start))
                while (reply := gets()) is not more:
                    on_reply(reply)
        except hiredis.ProtocolError:
            self.abort()
        if self.on_batch is not None:
            self.on_batch()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature; why does not matter
        """Tell whoever waits (asyncio calls this)."""
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(None)


def command(*parts: bytes) -> bytes:
    """One command in RESP."""
    return b"".join((b"*%d\r\n" % len(parts), *(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)))


def publish_commands(messages: Sequence[tuple[bytes, bytes]]) -> bytes:
    """PUBLISH of each (channel, text), ready to be written at once."""
    return b"".join(
        [
            b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(text), text)
            for channel, text in messages
        ]
    )


async def connect(endpoint: Endpoint, link: Link, *, timeout_s: float) -> None:
    """Open `link` and sign in; raises RedisAway."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            if endpoint.path:
                await loop.create_unix_connection(lambda: link, endpoint.path)
            else:
                await loop.create_connection(lambda: link, endpoint.host, endpoint.port, ssl=endpoint.tls)
            if endpoint.password:
                await _sign_in(endpoint, link)
    except (OSError, TimeoutError) as error:
        link.abort()
        raise RedisAway(str(error) or "no answer in time") from error


async def _sign_in(endpoint: Endpoint, link: Link) -> None:
    on_reply, answer = link.on_reply, asyncio.get_running_loop().create_future()
    link.on_reply = answer.set_result
    names = [name.encode() for name in (endpoint.username, endpoint.password) if name]
    link.write(command(b"AUTH", *names))
    done, _ = await asyncio.wait((answer, link.closed), return_when=asyncio.FIRST_COMPLETED)
    link.on_reply = on_reply
    if answer not in done or isinstance(answer.result(), hiredis.HiredisError):
        link.abort()
        raise RedisAway("Redis refused the user name or password of its url")
