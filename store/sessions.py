"""Nonces, sessions and their tokens. Tokens themselves never come here, only their SHA-256."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from store.audit import Caller, ip_or_none
from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("sessions")

PRUNES = ("prune_nonces", "prune_access", "prune_refresh", "prune_sessions")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an access token speaks for, and until when (aware UTC)."""

    user: Address
    session_id: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class RefreshRow:
    """A refresh token, its row locked: used ones stay, so that using one again is recognised."""

    session_id: str
    user: Address
    expires_at: datetime
    used_at: datetime | None
    revoked: bool


@dataclass(frozen=True, slots=True)
class UserRow:
    """A registered user's profile."""

    address: Address
    display_name: str | None
    avatar_url: str | None
    time_zone: str
    locale: str
    risk_profile: str
    ai_consent: bool


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A live sign-in of a user."""

    id: str
    user_agent: str
    ip_address: str | None
    created_at: datetime
    last_used_at: datetime


async def put_nonce(conn: Tx | Pool, nonce: str, *, expires_at: datetime) -> None:
    """Keep a nonce that was handed out."""
    await conn.execute(SQL["put_nonce"], nonce, expires_at)


async def nonce_end(conn: Tx | Pool, nonce: str) -> datetime | None:
    """A nonce's end of life, without using it up; None when it never was or is used already."""
    found: datetime | None = await conn.fetchval(SQL["nonce_end"], nonce)
    return found


async def take_nonce(tx: Tx, nonce: str) -> datetime | None:
    """Use a nonce up; its end of life, or None when it never was or is used already. Of many takers one gets it."""
    found: datetime | None = await tx.fetchval(SQL["take_nonce"], nonce)
    return found


async def register(tx: Tx, user: Address, *, chain_ids: Iterable[int], at: datetime) -> None:
    """Make someone who signs in known: user row, opened log, own balance followed on every chain.

    The user's counter row must be locked (store.log.lock). Everything here is a no-op the second time.
    """
    await tx.execute(SQL["register"], user)
    await tx.execute(SQL["open_log"], user, at)
    await tx.execute(SQL["follow_wallet"], list(chain_ids), user)


async def user(conn: Tx | Pool, address: Address) -> UserRow | None:
    """The profile of a registered user."""
    row = await conn.fetchrow(SQL["user"], address)
    return None if row is None else UserRow(*row)


async def start(tx: Tx, user: Address, caller: Caller, *, at: datetime) -> str:
    """Begin a session; returns its id."""
    return str(await tx.fetchval(SQL["start_session"], user, caller.user_agent, ip_or_none(caller.remote), at))


async def add_access(tx: Tx, session_id: str, token_hash: bytes, *, expires_at: datetime) -> None:
    """Let an access token speak for a session."""
    await tx.execute(SQL["add_access"], token_hash, UUID(session_id), expires_at)


async def add_refresh(tx: Tx, session_id: str, token_hash: bytes, *, expires_at: datetime) -> None:
    """Let a refresh token renew a session, once."""
    await tx.execute(SQL["add_refresh"], token_hash, UUID(session_id), expires_at)


async def identity(conn: Tx | Pool, token_hash: bytes) -> Identity | None:
    """Who an access token speaks for, expired or not; None when it is unknown or its session revoked."""
    row = await conn.fetchrow(SQL["access"], token_hash)
    return None if row is None else Identity(row["user_address"], str(row["session_id"]), row["expires_at"])


async def refresh_owner(conn: Tx | Pool, token_hash: bytes) -> Address | None:
    """Whose refresh token this is, used ones too."""
    owner: Address | None = await conn.fetchval(SQL["refresh_owner"], token_hash)
    return owner


async def lock_refresh(tx: Tx, token_hash: bytes) -> RefreshRow | None:
    """Lock a refresh token; None when it is unknown."""
    row = await tx.fetchrow(SQL["lock_refresh"], token_hash)
    if row is None:
        return None
    return RefreshRow(
        str(row["session_id"]), row["user_address"], row["expires_at"], row["used_at"], row["revoked_at"] is not None
    )


async def use_refresh(tx: Tx, session_id: str, token_hash: bytes, *, at: datetime) -> None:
    """Use a locked refresh token up."""
    await tx.execute(SQL["use_refresh"], token_hash, at)
    await tx.execute(SQL["touch"], UUID(session_id), at)


async def revoke(tx: Tx, user: Address, session_id: str | None, *, reason: str) -> list[str]:
    """End one live session of a user, or (None) all; returns the ids of those that were ended."""
    only = None if session_id is None else UUID(session_id)
    return [str(row["id"]) for row in await tx.fetch(SQL["revoke"], user, only, reason)]


async def revoked_since(conn: Tx | Pool, since: datetime) -> list[str]:
    """Ids of sessions revoked at or after `since` (and a little before: ending a session twice changes nothing)."""
    return [str(row["id"]) for row in await conn.fetch(SQL["revoked_since"], since)]


async def sessions_of(conn: Tx | Pool, user: Address, *, now: datetime) -> list[SessionRow]:
    """Live sessions of a user, the last used first."""
    rows = await conn.fetch(SQL["sessions_of"], user, now)
    return [
        SessionRow(
            str(row["id"]),
            row["user_agent"],
            None if row["ip_address"] is None else str(row["ip_address"]),
            row["created_at"],
            row["last_used_at"],
        )
        for row in rows
    ]


async def prune(conn: Tx | Pool, *, before: datetime, batch: int) -> int:
    """Delete nonces, tokens and sessions that were over before `before`, at most `batch` of each; returns how many.

    Call again until it returns 0. `before` should be a day ago: an expired token is still told from an unknown one.
    """
    return sum([int(await conn.fetchval(SQL[name], before, batch)) for name in PRUNES])
