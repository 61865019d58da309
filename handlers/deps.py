"""What handlers are given: one frozen bundle, wired by hand in each process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from config.chains import Chain
from config.settings import Settings
from store.postgres import Pool

if TYPE_CHECKING:  # a watcher needs neither
    from store.answers import Answers
    from store.clickhouse import Analytics


class Publisher(Protocol):
    """The wake-up after a commit (store/feed.py); False when Redis did not take it, which loses nothing."""

    async def publish(self, frames: Sequence[tuple[str, bytes]], blocks: Sequence[tuple[int, bytes]] = ()) -> bool:
        """Send finished event texts to their users' channels and blocks to their chains' channels."""
        ...

    async def wake(self, channel: str) -> bool:
        """Send an empty wake-up."""
        ...


class Clock(Protocol):
    """Where handlers take the time from."""

    def __call__(self) -> datetime:
        """Now, aware, UTC."""
        ...


@dataclass(frozen=True, slots=True)
class Deps:
    """Everything a handler may touch."""

    settings: Settings
    chains: Mapping[int, Chain]
    pool: Pool
    publisher: Publisher
    now: Clock


@dataclass(frozen=True, slots=True)
class Figures:
    """What analytics answers are made from: the truth, ClickHouse beside it, and Redis, which keeps answers."""

    deps: Deps
    analytics: Analytics
    answers: Answers
