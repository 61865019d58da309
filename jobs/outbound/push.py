"""The seam of push: what is handed to a provider, and what it says became of it (jobs/outbound/fcm.py is one)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Protocol

Fate = Literal["sent", "gone", "refused", "later"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a phone gets. `silent`: takes the place of what it shows under `collapse_key`, without a sound."""

    title: str
    body: str
    data: Mapping[str, str]
    badge: int
    collapse_key: str
    ttl: timedelta
    expires_at: int
    """When APNs gives up (seconds since 1970)."""
    icon: str | None = None
    colour: str | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one token: `gone` for good, `refused` (the message is wrong), or to be tried `later`."""

    fate: Fate
    reason: str | None = None
    retry_after_s: float | None = None


class Push(Protocol):
    """Who delivers to phones."""

    async def send(self, message: Message, tokens: Sequence[str]) -> list[Outcome]:
        """Send to every token; outcomes in their order. Raises nothing for what provider and network do."""
        ...
