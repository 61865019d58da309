"""Wait for a condition with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

POLL_S = 0.02


async def until(condition: Callable[[], Any | Awaitable[Any]], timeout_s: float = 10, *, what: str = "") -> Any:
    """Call `condition` until it is truthy and return its value; raise TimeoutError naming `what` otherwise."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(what or getattr(condition, "__name__", "condition"))
        await asyncio.sleep(POLL_S)
