"""What a job is, and what jobs are given: everything in this package is built from these two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from handlers.deps import Deps
from jobs.outbound.models import Models
from store.clickhouse import Analytics
from store.outbox import Claim, Queue


@dataclass(frozen=True, slots=True)
class Tools:
    """Everything a job may touch, wired by hand in jobs/__main__.py."""

    deps: Deps
    analytics: Analytics
    models: Models | None = None
    """Who is asked for categories; None: nobody, rules and history decide alone."""


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of job: its name in the outbox, whose workers run it, and what it does.

    `run` is idempotent, since every job may run twice, and ends its claim (`outbox.done`) in the transaction of its
    own effects. It returns what `done` said: False to run again at once.
    """

    name: str
    queue: Queue
    run: Callable[[Tools, Claim], Awaitable[bool]]
    timeout_s: float
    """Time one attempt may take (s). Short: after a SIGKILL a job waits for the longest limit of its worker + 10 s."""
