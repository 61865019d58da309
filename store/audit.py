"""The append-only record of sign-ins, refusals and revocations; the database itself refuses to change it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("audit")

USER_AGENT_MAX = 256
"""Characters of a user agent that are kept: the longest of real browsers are about 250."""

Action = Literal[
    "sign_in",
    "sign_in_refused",
    "refresh",
    "refresh_refused",
    "refresh_reused",
    "logout",
    "session_revoked",
    "sessions_revoked",
    "join_refused",
    "profile_changed",
    "friend_requested",
    "friend_request_withdrawn",
    "friend_accepted",
    "friend_declined",
    "friend_removed",
    "friend_blocked",
    "friend_unblocked",
    "friend_invited",
    "friend_invitation_revoked",
    "challenge_created",
    "challenge_changed",
    "challenge_cancelled",
    "challenge_joined",
    "challenge_left",
    "challenge_invited",
    "challenge_declined",
    "challenge_link_made",
    "challenge_link_revoked",
]


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a call came from: address by the trusted proxy chain ('' when there is none) and user agent as sent."""

    remote: str = ""
    user_agent: str = ""

    def __post_init__(self) -> None:
        """Keep of the user agent what can be shown."""
        object.__setattr__(self, "user_agent", shown(self.user_agent, USER_AGENT_MAX))


@dataclass(frozen=True, slots=True)
class Written:
    """An entry as it was written."""

    id: int
    action: str
    metadata: Mapping[str, object]
    ip_address: str | None
    user_agent: str
    at: datetime


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Something that happened to an account; `user` is None while nobody was named."""

    user: Address | None
    action: Action
    caller: Caller
    at: datetime
    metadata: Mapping[str, object] = field(default_factory=dict)


def shown(text: str, length: int) -> str:
    """A stranger's text as it is kept: printable (PostgreSQL takes neither NUL nor half a surrogate) and capped."""
    whole = text.encode("utf-8", errors="replace").decode()
    return "".join(char for char in whole if char.isprintable())[:length]


def ip_or_none(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address as PostgreSQL's inet takes it; None for what is none (a unix socket)."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


async def record(conn: Tx | Pool, entry: AuditEntry) -> None:
    """Append an entry."""
    caller = entry.caller
    await conn.execute(
        SQL["record"],
        entry.user,
        entry.action,
        dict(entry.metadata),
        ip_or_none(caller.remote),
        caller.user_agent,
        entry.at,
    )


async def audit_of(conn: Tx | Pool, user: Address, *, before: int | None, limit: int) -> list[Written]:
    """Entries about a user, newest first, below id `before`."""
    rows = await conn.fetch(SQL["audit_of"], user, before, limit)
    return [
        Written(
            row["id"],
            row["action"],
            row["metadata"],
            None if row["ip_address"] is None else str(row["ip_address"]),
            row["user_agent"],
            row["timestamp"],
        )
        for row in rows
    ]
