"""How many calls each caller may make: a cell per scope and subject, in Redis, or here while Redis is away."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

from config import keys, metrics
from config.settings import Settings
from handlers.errors import RateLimited
from store.limits import MICROSECONDS, Cells, Verdict, gcra

WINDOW_S = 60
"""Limits are told per minute (s)."""
LOCAL_CELLS = 50_000
"""Cells kept in the process: some 10 MB; the least recently charged go first."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A scope and how many calls a minute it takes."""

    scope: str
    per_minute: int

    @property
    def interval_us(self) -> int:
        """Time after which one more call is free (microseconds)."""
        return WINDOW_S * MICROSECONDS // self.per_minute

    def headers(self, verdict: Verdict) -> dict[str, str]:
        """`RateLimit` and its policy; with a refusal `Retry-After` too."""
        told = {
            "RateLimit-Policy": f'"{self.scope}";q={self.per_minute};w={WINDOW_S}',
            "RateLimit": f'"{self.scope}";r={verdict.remaining};t={_seconds(verdict.reset_us)}',
        }
        return told if verdict.allowed else {**told, "Retry-After": str(_seconds(verdict.retry_after_us))}


def _seconds(microseconds: int) -> int:
    return math.ceil(microseconds / MICROSECONDS)


class LocalCells:
    """The same cells in this process, charged for every call: so they are right when Redis goes away.

    A call reaches them a little after Redis and not always equally late, so it may come half an interval early.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic, size: int = LOCAL_CELLS) -> None:
        self._clock = clock
        self._size = size
        self._through_us: OrderedDict[str, int] = OrderedDict()

    def spent(self, key: str, *, interval_us: int, burst: int) -> Verdict | None:
        """The refusal that a call would get now; None when it would be let through. Charges nothing."""
        verdict, _ = self._judged(key, interval_us=interval_us, burst=burst)
        return None if verdict.allowed else verdict

    def _judged(self, key: str, *, interval_us: int, burst: int) -> tuple[Verdict, int]:
        now_us = int(self._clock() * MICROSECONDS)
        return gcra(
            self._through_us.get(key, 0), now_us, interval_us=interval_us, burst=burst, early_us=interval_us // 2
        )

    def take(self, key: str, *, interval_us: int, burst: int) -> Verdict:
        """Charge one call."""
        verdict, through_us = self._judged(key, interval_us=interval_us, burst=burst)
        self._through_us[key] = through_us
        self._through_us.move_to_end(key)
        if len(self._through_us) > self._size:
            self._through_us.popitem(last=False)
        return verdict


class Limiter:
    """Charges calls. While Redis is away each process counts alone: N processes let N times as much through."""

    def __init__(self, cells: Cells, local: LocalCells, limits: Mapping[str, int]) -> None:
        """`limits`: calls per minute by the first word of a scope (`auth` of `auth.refresh`)."""
        self._cells = cells
        self._local = local
        self._limits = limits

    @classmethod
    def of(cls, cells: Cells, settings: Settings) -> Limiter:
        """The limits that the settings state."""
        return cls(
            cells,
            LocalCells(),
            {
                "auth": settings.sign_in_limit_per_minute,
                "read": settings.read_limit_per_minute,
                "command": settings.command_limit_per_minute,
                "upload": settings.upload_limit_per_minute,
                "export": settings.export_limit_per_minute,
            },
        )

    def limit(self, scope: str) -> Limit:
        """The limit of a scope; one that has none of its own counts as a socket command."""
        return Limit(scope, self._limits.get(scope.partition(".")[0], self._limits["command"]))

    async def take(self, scope: str, subject: str) -> Verdict:
        """Charge one call of `subject` and say whether it may go on."""
        limit, key = self.limit(scope), keys.rate_limit(scope, subject)
        spent = self._local.spent(key, interval_us=limit.interval_us, burst=limit.per_minute)
        if spent is not None:
            # Redis would say the same, and a flood must not cost a round trip for each refusal.
            metrics.RATE_LIMITED.labels(scope=scope).inc()
            return spent
        verdict = await self._cells.take(key, interval_us=limit.interval_us, burst=limit.per_minute)
        if verdict is None or verdict.allowed:
            # Also asked when Redis allows: calls that Redis did not answer in time were let through here alone.
            local = self._local.take(key, interval_us=limit.interval_us, burst=limit.per_minute)
            verdict = verdict if verdict is not None and local.allowed else local
        if not verdict.allowed:
            metrics.RATE_LIMITED.labels(scope=scope).inc()
        return verdict

    async def allow(self, scope: str, subject: str) -> None:
        """Charge one call; raises RateLimited when it is one too many."""
        verdict = await self.take(scope, subject)
        if not verdict.allowed:
            raise refused(verdict)


def refused(verdict: Verdict) -> RateLimited:
    """The problem for a call that is one too many."""
    wait_s = _seconds(verdict.retry_after_us)
    return RateLimited(f"Too many calls; try again in {wait_s} s.", retry_after_s=wait_s)
