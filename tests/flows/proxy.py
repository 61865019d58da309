"""A TCP proxy between client and server: it can be pointed elsewhere, and it can cut every connection."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self, cast


class _End(asyncio.Protocol):
    """One end of a connection through the proxy: what it receives goes to the other end, and so does its end."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self.waiting: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.proxy.ends.add(self)
        for piece in self.waiting:
            self.transport.write(piece)
        self.waiting.clear()

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        if self.other.transport is None:
            self.other.waiting.append(data)
        else:
            self.other.transport.write(data)

    def connection_lost(self, _: Exception | None) -> None:
        self.proxy.ends.discard(self)
        if self.other is not None:
            self.other.abort()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class _Client(_End):
    """The end that faces the client; connects to wherever the proxy points."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.other = _End(self.proxy)
        self.other.other = self
        super().connection_made(transport)
        self.proxy.connecting(self, self.other)


class Proxy:
    """Listens on a free loopback port; `target` is where new connections go."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.ends: set[_End] = set()
        self._server: asyncio.Server | None = None
        self._connects: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Client(self), "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await asyncio.gather(*self._connects)
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Drop every connection without a word."""
        for end in list(self.ends):
            end.abort()

    def connecting(self, client: _Client, server: _End) -> None:
        task = asyncio.create_task(self._connect(client, server))
        self._connects.add(task)
        task.add_done_callback(self._connects.discard)

    async def _connect(self, client: _Client, server: _End) -> None:
        host, port = self.target.removeprefix("http://").split(":")
        try:
            await asyncio.get_running_loop().create_connection(lambda: server, host, int(port))
        except OSError:
            client.abort()
