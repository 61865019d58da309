"""What strangers may cost: connections and waiting sockets per address, packets per socket, sign-ins per user.

All of it is counted in this process alone: asking Redis would cost more than what is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from time import monotonic

from config import metrics
from config.settings import Settings
from handlers.errors import Problem, RateLimited, Unavailable
from realtime.limits import WINDOW_S, LocalCells, refused
from store.limits import MICROSECONDS

PACKETS_PER_S = 50
"""Packets a socket may send for ever (1/s): an eager client sends some two a second. Each KiB counts as one more."""
PACKETS_BURST = 256
"""Packets a socket may send at once, as one that comes back from a tunnel; what is more is read later."""
TURN_PACKETS = 16
"""Packets of one socket that are taken in one go; then it is everyone else's turn."""
HELD_S = 10.0
"""Time a socket that sends too much is held back in a row (s); then it is closed: unread, its end is not seen."""
UNIT_BYTES = 1024
RETRY_S = 5.0
"""When a client that found this process full may come again (s)."""
PREFIX_BITS = 64
"""IPv6 addresses of one network count as one caller: whoever has one of them has all."""


class Pace:
    """What one socket may send."""

    __slots__ = ("_in_turn", "_through", "held_s", "taken")

    def __init__(self) -> None:
        self.taken = 0
        """Packets and KiB so far."""
        self.held_s = 0.0
        """How long it was held back in a row (s)."""
        self._in_turn = 0
        self._through = 0.0

    def charge(self, size: int, now: float) -> float | None:
        """Count a packet of `size` characters at `now` (s); the time (s) to wait before the next one, None for none.

        Zero means to let others have their turn.
        """
        cost = 1 + size // UNIT_BYTES
        self._through = max(self._through, now) + cost / PACKETS_PER_S
        self.taken += cost
        self._in_turn += cost
        if self._in_turn < TURN_PACKETS:
            return None
        self._in_turn = 0
        wait_s = max(0.0, self._through - now - PACKETS_BURST / PACKETS_PER_S)
        self.held_s = self.held_s + wait_s if wait_s else 0.0
        return wait_s


class Door:
    """Lets connections in: so many a minute of one address, so many that have not signed in yet, of it and of all."""

    def __init__(
        self, *, per_minute: int, waiting_each: int, waiting_all: int, clock: Callable[[], float] = monotonic
    ) -> None:
        self._per_minute = per_minute
        self._interval_us = WINDOW_S * MICROSECONDS // per_minute
        self._each, self._all = waiting_each, waiting_all
        self._cells = LocalCells(clock=clock)
        self._waiting: Counter[str] = Counter()
        self.waiting = 0
        """Sockets that have not signed in yet."""

    @classmethod
    def of(cls, settings: Settings) -> Door:
        """The limits that the settings state."""
        return cls(
            per_minute=settings.connect_limit_per_minute,
            waiting_each=settings.waiting_sockets_per_address,
            waiting_all=settings.waiting_sockets,
        )

    def enter(self, address: str) -> str:
        """Count a connection; returns what `leave` takes. Raises RateLimited, or Unavailable when all are too many."""
        caller = of_network(address)
        if self.waiting >= self._all:
            raise self._refusal(
                Unavailable("Too many connections wait to sign in; connect again.", retry_after_s=RETRY_S)
            )
        if self._waiting[caller] >= self._each:
            raise self._refusal(RateLimited("Too many connections wait to sign in; close some.", retry_after_s=RETRY_S))
        verdict = self._cells.take(caller, interval_us=self._interval_us, burst=self._per_minute)
        if not verdict.allowed:
            raise self._refusal(refused(verdict))
        self._waiting[caller] += 1
        self.waiting += 1
        return caller

    def leave(self, caller: str) -> None:
        """A socket signed in, or is gone."""
        self.waiting -= 1
        self._waiting[caller] -= 1
        if not self._waiting[caller]:
            del self._waiting[caller]

    def _refusal(self, problem: Problem) -> Problem:
        metrics.RATE_LIMITED.labels(scope="connect").inc()
        return problem


class SignIns:
    """How often one user may connect: each connect reads the database, and a snapshot is the dearest read there is."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = monotonic) -> None:
        self._per_minute = per_minute
        self._interval_us = WINDOW_S * MICROSECONDS // per_minute
        self._cells = LocalCells(clock=clock)

    def enter(self, user: str) -> None:
        """Count one; raises RateLimited."""
        verdict = self._cells.take(user, interval_us=self._interval_us, burst=self._per_minute)
        if not verdict.allowed:
            metrics.RATE_LIMITED.labels(scope="sign_in").inc()
            raise refused(verdict)


def of_network(address: str) -> str:
    """The caller that an address belongs to: itself, or its network of IPv6."""
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    return str(ip_network((parsed, PREFIX_BITS), strict=False))
