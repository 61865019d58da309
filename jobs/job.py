"""What a job is, and what jobs are given: everything in this package is built from these two."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from handlers.deps import Deps
from jobs.letters import Templates
from jobs.outbound.mail import Mail
from jobs.outbound.models import Models
from jobs.outbound.push import Push
from jobs.outbound.vectors import Meaning
from store.clickhouse import Analytics
from store.outbox import Claim, Queue
from store.redis import Client


@dataclass(frozen=True, slots=True)
class Tools:
    """Everything a job may touch, wired by hand in jobs/__main__.py."""

    deps: Deps
    analytics: Analytics
    redis: Client | None = None
    """What devices have shown, and caches; None: not known, nothing cached."""
    push: Push | None = None
    """Who delivers to phones; None: nobody."""
    pushing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while pushes are sent: runs that wait for a slow provider must not pile up."""
    mail: Mail | None = None
    """Who delivers e-mail; None: nobody."""
    mailing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while letters are sent, as `pushing` is."""
    templates: Templates = field(default_factory=Templates)
    """What letters are made from."""
    meaning: Meaning | None = None
    """Who reads texts for their meaning; None: nobody."""
    models: Models | None = None
    """Who is asked for categories; None: nobody, rules and history decide alone."""
    decoding: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, 1))
    """Held while a picture is decoded: one at a time, since each may take 150 MB."""


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
