"""Rate limits by GCRA: one time per cell says when its calls, evenly spaced, would be through.

The arithmetic exists twice, as a Lua script (one round trip, atomic, Redis's own clock) and as `gcra`; a test holds
them equal. Burst = limit: a minute's calls may come at once, then they come back one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha1
from time import monotonic

from redis.exceptions import NoScriptError

from store.redis import AWAY, Client, bounded

MICROSECONDS = 1_000_000
PAUSE_S = 1.0
"""After a failure Redis is not asked for this long (s): callers must not queue up behind its timeout."""

SCRIPT = """
local interval, burst, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if now == 0 then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end
local through = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local new = through + interval
local allow_at = new - interval * burst
if now < allow_at then
    return {0, 0, allow_at - now, through - now}
end
redis.call('SET', KEYS[1], string.format('%.0f', new), 'PX', math.ceil((new - now) / 1000))
return {1, math.floor((now - allow_at) / interval), 0, new - now}
"""
SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a call may go on, how many more may follow at once, and the waits (microseconds)."""

    allowed: bool
    remaining: int
    retry_after_us: int
    reset_us: int
    """Until all calls are free again."""


def gcra(through_us: int, now_us: int, *, interval_us: int, burst: int, early_us: int = 0) -> tuple[Verdict, int]:
    """Charge one call to a cell that is through at `through_us`; returns the verdict and the cell's new time.

    `early_us` lets a call come that much before its time, for a cell that follows another one with some delay.
    """
    through_us = max(through_us, now_us)
    new_us = through_us + interval_us
    allow_at_us = new_us - interval_us * burst - early_us
    if now_us < allow_at_us:
        return Verdict(False, 0, allow_at_us - now_us, through_us - now_us), through_us
    return Verdict(True, (now_us - allow_at_us) // interval_us, 0, new_us - now_us), new_us


class Cells:
    """Cells in Redis, shared by all processes."""

    def __init__(self, client: Client, *, clock: Callable[[], float] = monotonic) -> None:
        self._client = client
        self._clock = clock
        self._ask_again_at = 0.0

    async def take(self, key: str, *, interval_us: int, burst: int, now_us: int = 0) -> Verdict | None:
        """Charge one call; None when Redis does not say. `now_us` 0 takes Redis's own clock."""
        if self._clock() < self._ask_again_at:
            return None
        try:
            answer = await bounded(self._eval(key, str(interval_us), str(burst), str(now_us)))
        except AWAY:
            self._ask_again_at = self._clock() + PAUSE_S
            return None
        allowed, remaining, retry_after_us, reset_us = map(int, answer)
        return Verdict(allowed == 1, remaining, retry_after_us, reset_us)

    async def _eval(self, *arguments: str) -> list[int]:
        try:
            answer: list[int] = await self._client.evalsha(SHA, 1, *arguments)
        except NoScriptError:  # Redis was restarted or flushed
            answer = await self._client.eval(SCRIPT, 1, *arguments)
        return answer
