"""Virtual time: a loop on which waiting costs nothing, and the processes of one run with what they opened.

Time stands still while anything is under way: ready callbacks, bytes in a socket of ours, an answer that PostgreSQL or
Valkey owes us. Only when nothing is, it jumps to the next timer.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import time
import weakref
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

STALL_S = 20.0
"""Real time an engine may owe an answer (s); then it is taken to wait for a lock that a timer of ours will free."""
STUCK_S = 10.0
"""Real time without anything to do or to wait for (s): the run hangs."""
LATE_S = 0.004
"""Real time to wait for a published message (s): Valkey writes it together with the publisher's answer."""
EPOCH = datetime.now(UTC)
"""Where wall clocks begin: sockets take the machine's own clock when they look at the end of a token."""

_READY = tuple(b"Z\x00\x00\x00\x05" + state for state in (b"I", b"T", b"E"))
"""How an answer of PostgreSQL ends."""
_NO_TLS = b"N"
_AT_COMMIT = ("commit unsent", "commit unanswered")


class Stuck(Exception):
    """Nothing is ready, nothing is owed and no timer is set: somebody waits for what never comes."""


Doom = Literal["", "now", "commit unsent", "commit unanswered", "committed, not published", "half published"]


class Process:
    """One process of the product inside ours: its tasks and connections, so that it can be killed as by SIGKILL."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.transports: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()
        self.ahead = timedelta()
        """How far its wall clock is ahead of the run's."""
        self.doom: Doom = ""
        """Where it dies next."""
        self.doomed = asyncio.Event()
        self.on_begin: Callable[[], object] | None = None
        """Told when it begins a transaction."""
        self.stop = asyncio.Event()
        """Set to ask it to end as by SIGTERM."""

    def now(self) -> datetime:
        """Its wall clock, aware UTC."""
        return wall() + self.ahead

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something as part of this process."""
        token = OWNER.set(self)
        try:
            return asyncio.get_running_loop().create_task(work)
        finally:
            OWNER.reset(token)

    def die(self) -> None:
        """Ask its supervisor to kill it."""
        self.doom = ""
        self.doomed.set()

    def cut(self, port: int) -> int:
        """Abort its connections to a port; returns how many there were."""
        cut = 0
        for transport in list(self.transports):
            peer = transport.get_extra_info("peername")
            if peer is not None and peer[1] == port and not transport.is_closing():
                transport.abort()
                cut += 1
        return cut

    async def kill(self) -> None:
        """End it in the middle of whatever it does: nothing it owns runs on."""
        while True:
            for transport in list(self.transports):
                transport.abort()
            left = [task for task in self.tasks if not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=0.01)


OWNER: ContextVar[Process | None] = ContextVar("owner", default=None)


class _Watched:
    """A socket to PostgreSQL that knows whether the server owes an answer."""

    def __init__(self, sock: socket.socket, loop: VirtualLoop, owner: Process | None) -> None:
        self._sock, self._loop, self._owner = sock, loop, owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, data: bytes) -> int:
        if self._owner is not None and self._owner.doom in _AT_COMMIT and b"COMMIT;" in bytes(data):
            unsent = self._owner.doom == "commit unsent"
            self._owner.die()
            if unsent:
                return len(data)
        if self._owner is not None and self._owner.on_begin is not None and b"BEGIN;" in bytes(data):
            self._owner.on_begin()
        self._loop.owed.add(self)
        return self._sock.send(data)

    def recv(self, size: int) -> bytes:
        data = self._sock.recv(size)
        if not data or data == _NO_TLS or data.endswith(_READY):
            self._loop.owed.discard(self)
        return data

    def close(self) -> None:
        self._loop.owed.discard(self)
        self._sock.close()


class _Patient(selectors.EpollSelector):
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        began = time.monotonic()
        while not events and self.loop.owes:
            events = super().select(0.05)
            if not events and time.monotonic() - began > STALL_S:
                self.loop.stalled()
                break
        if not events and self.loop.expects():
            events = super().select(LATE_S)
            if not events:
                self.loop.on_stall()
        if not events:
            os.sched_yield()
            events = super().select(0)
        if not events and timeout is None:
            events = super().select(STUCK_S)
            if not events:
                raise Stuck
        if not events and timeout is not None:
            self.loop.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer when there is nothing else to do."""

    def __init__(self, *, postgres_port: int) -> None:
        self.now = 1000.0
        self.owed: set[object] = set()
        self.stalls = 0
        self.accounts: list[Callable[[], bool]] = []
        """Asked whether somebody else is owed an answer."""
        self.expects: Callable[[], bool] = bool
        """Asked whether something may come that nobody asked for."""
        self.on_stall: Callable[[], None] = _nothing
        self._postgres_port = postgres_port
        selector = _Patient()
        selector.loop = self
        super().__init__(selector)
        self.set_task_factory(_owned)

    def time(self) -> float:
        return self.now

    @property
    def owes(self) -> bool:
        """Whether an engine owes an answer."""
        return bool(self.owed) or any(account() for account in self.accounts)

    def stalled(self) -> None:
        """Give up waiting in real time; the next timer goes."""
        self.stalls += 1
        self.owed.clear()
        self.on_stall()

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]  # passed on as it is
        future = super().run_in_executor(executor, func, *args)
        self.owed.add(future)
        future.add_done_callback(self.owed.discard)
        return future

    def _make_socket_transport(self, sock: socket.socket, *args: Any, **options: Any) -> asyncio.Transport:
        transport: Any = super()._make_socket_transport(sock, *args, **options)  # type: ignore[misc]  # asyncio's own
        owner = OWNER.get()
        if owner is not None:
            owner.transports.add(transport)
        peer = transport.get_extra_info("peername")
        if peer is not None and peer[1] == self._postgres_port:
            transport._sock = _Watched(sock, self, owner)
        return transport  # type: ignore[no-any-return]  # asyncio's own


def _owned(loop: asyncio.AbstractEventLoop, coro: Any, *, context: Any = None) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, context=context)
    owner = OWNER.get() if context is None else context.get(OWNER)
    if owner is not None:
        owner.tasks.add(task)
    return task


def _nothing() -> None:
    """Nothing to settle."""


def wall() -> datetime:
    """The run's wall clock, aware UTC."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


def wall_ms() -> int:
    """The run's wall clock as arq counts it (ms)."""
    return int(wall().timestamp() * 1000)
