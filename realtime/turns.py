"""The event loop of the web process: one turn of it stays short, whatever a crowd of clients sends at once.

asyncio takes every ready connection into one turn, and whatever Redis brings waits until all of them were served. Here
a turn takes a few, the connection that brings events comes first, and the garbage collector never walks through what
was loaded at the start (50 to 70 ms each time, which anyone who sends nested JSON could call for).
"""

from __future__ import annotations

import asyncio
import gc
import select
from collections.abc import Callable, Mapping
from math import ceil
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, SelectorKey
from time import perf_counter
from typing import Any, Protocol

from config import metrics

AT_ONCE = 8
"""Connections served in one turn, besides those that come first. One more system call for eight of them is little."""
READ_BYTES = 8 * 1024
"""Bytes read from a client in one go: asyncio's own 256 KiB hold 40,000 frames, or chunks of a body, to be parsed."""
YOUNGEST, YOUNG = 700, 4
"""New containers after which the collector looks at them, as Python has it, and how many such lots it looks at again:
less than half of Python's, so that one look takes half a millisecond at most."""
LONG_S = 0.00025
"""Turns longer than this are counted in the metrics (s): each costs a microsecond then."""


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


File = int | _HasFileno


class Turns(BaseSelector):
    """Tells the loop which connections are ready: those that come `first`, and at most AT_ONCE others."""

    def __init__(self) -> None:
        self._keys: dict[int, SelectorKey] = {}
        self._all, self._urgent = select.epoll(), select.epoll()
        self._first: set[int] = set()
        self._began = perf_counter()

    def first(self, file: File) -> None:
        """Serve this connection before others, until it is unregistered."""
        fd = _fd(file)
        if fd in self._keys and fd not in self._first:
            self._first.add(fd)
            self._urgent.register(fd, _mask(self._keys[fd].events))

    def register(self, fileobj: File, events: int, data: Any = None) -> SelectorKey:
        """Watch a connection; raises KeyError when it is watched already."""
        fd = _fd(fileobj)
        if fd in self._keys:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        self._all.register(fd, _mask(events))
        key = self._keys[fd] = SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: File) -> SelectorKey:
        """Watch a connection no more; raises KeyError when it is not watched."""
        fd = _fd(fileobj)
        key = self._keys.pop(fd)
        _forget(self._all, fd)
        if fd in self._first:
            self._first.discard(fd)
            _forget(self._urgent, fd)
        return key

    def modify(self, fileobj: File, events: int, data: Any = None) -> SelectorKey:
        """Watch a connection for something else."""
        fd = _fd(fileobj)
        old = self._keys[fd]
        if events != old.events:
            self._all.modify(fd, _mask(events))
            if fd in self._first:
                self._urgent.modify(fd, _mask(events))
        key = self._keys[fd] = SelectorKey(old.fileobj, fd, events, data)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Wait for ready connections (s, None: for ever). The loop calls this between two turns."""
        took = perf_counter() - self._began
        if took > LONG_S:
            metrics.LOOP_TURN_SECONDS.observe(took)
        # Rounded up to the milliseconds that epoll knows: rounded down, the loop would spin until a timer is due.
        wait_s = -1.0 if timeout is None else ceil(max(timeout, 0.0) * 1e3) / 1e3
        ready = self._all.poll(wait_s, AT_ONCE)
        if len(ready) > 1 and self._first:
            ready = self._in_order(ready)
        self._began = perf_counter()
        return [(key, _events(mask) & key.events) for fd, mask in ready if (key := self._keys.get(fd)) is not None]

    def _in_order(self, ready: list[tuple[int, int]]) -> list[tuple[int, int]]:
        others = [each for each in ready if each[0] not in self._first]
        if len(ready) < AT_ONCE:
            return [each for each in ready if each[0] in self._first] + others
        return self._urgent.poll(0) + others  # more may be ready than were told

    def close(self) -> None:
        """Watch nothing any more."""
        self._all.close()
        self._urgent.close()
        self._keys.clear()

    def get_key(self, fileobj: File) -> SelectorKey:
        """What is watched of a connection; raises KeyError when nothing is."""
        return self._keys[_fd(fileobj)]

    def get_map(self) -> Mapping[Any, SelectorKey]:
        """What is watched, by file descriptor."""
        return self._keys


def _fd(file: File) -> int:
    return file if isinstance(file, int) else file.fileno()


def _mask(events: int) -> int:
    return (select.EPOLLIN if events & EVENT_READ else 0) | (select.EPOLLOUT if events & EVENT_WRITE else 0)


def _events(mask: int) -> int:
    # An error or a hang-up wakes readers and writers alike, as in the standard library's own selector.
    return (EVENT_READ if mask & ~select.EPOLLOUT else 0) | (EVENT_WRITE if mask & ~select.EPOLLIN else 0)


def _forget(epoll: select.epoll, fd: int) -> None:
    try:
        epoll.unregister(fd)
    except OSError:
        return  # closed before it was unregistered: the kernel has forgotten it already


class Loop(asyncio.SelectorEventLoop):
    """asyncio's own loop over Turns."""

    def __init__(self) -> None:
        self._turns = Turns()
        super().__init__(self._turns)

    async def create_server(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], *args: Any, backlog: int = 100, **options: Any
    ) -> asyncio.Server:
        """Listen. asyncio takes as many connections in one turn as may wait (`backlog`); here a few of them."""
        server = await super().create_server(lambda: _Arrival(protocol_factory), *args, backlog=AT_ONCE, **options)
        for each in server.sockets:
            with each.dup() as same:
                same.listen(backlog)
        return server

    def hear_first(self, transport: asyncio.BaseTransport) -> None:
        """Read what this connection brings before anything else of a turn."""
        handle = transport.get_extra_info("socket")
        if handle is not None:
            self._turns.first(handle.fileno())


class _Arrival(asyncio.Protocol):
    """A client's connection at its first moment: bounds what one read brings, then gives way to its protocol."""

    def __init__(self, protocol_factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self._protocol_factory = protocol_factory

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio calls this."""
        assert isinstance(transport, asyncio.Transport)
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # asyncio's own transports have it
        protocol = self._protocol_factory()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


def hear_first(transport: asyncio.BaseTransport) -> None:
    """`Loop.hear_first` of the running loop; any other loop serves all alike."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, Loop):
        loop.hear_first(transport)


def settle() -> None:
    """Take what was loaded until now out of the collector's sight: it stays for the life of the process.

    Without this a full collection walks through some 400,000 objects, and stops every client meanwhile.
    """
    gc.set_threshold(YOUNGEST, YOUNG)
    gc.collect()
    gc.freeze()
    gc.collect()  # else the next full one waits until a quarter of what was frozen has come anew
