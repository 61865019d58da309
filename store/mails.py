"""Letters: one row per user and subject, claimed before it is sent and settled after, and what digests tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("mails")

DIGEST = "digest"
"""Kind of the digests; every other kind of letter is that of the notification it tells of."""

State = Literal["due", "sent", "dropped"]


@dataclass(frozen=True, slots=True)
class MailRow:
    """A claimed letter; `facts` say what it is about."""

    id: UUID
    user: Address
    subject: str
    kind: str
    facts: Mapping[str, Any]
    attempts: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Addressee:
    """Whom a letter goes to; `email` is sealed."""

    user: Address
    email: bytes | None
    time_zone: str
    digest: str


@dataclass(frozen=True, slots=True)
class NoticeWords:
    """A notification that still stands unread."""

    title: str
    body: str
    severity: str


@dataclass(frozen=True, slots=True)
class SpentRow:
    """Dollars spent in a category; name None: not categorized."""

    name: str | None
    now: Decimal
    before: Decimal
    unpriced: int
    unpriced_before: int


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """A category's budget and what was spent of it this month (dollars)."""

    name: str
    budget: Decimal
    spent: Decimal
    unpriced: int


async def digest_zones(conn: Tx | Pool, cadence: str) -> list[str]:
    """Time zones of those who want this digest and can be reached."""
    return [row["time_zone"] for row in await conn.fetch(SQL["digest_zones"], cadence)]


async def record_digests(
    conn: Tx | Pool, cadence: str, zone: str, *, subject: str, facts: Mapping[str, object], at: datetime, limit: int
) -> int:
    """Ask for the digest of everyone of a zone who has none of this subject; returns for how many, at most `limit`."""
    return len(await conn.fetch(SQL["record_digests"], cadence, zone, subject, dict(facts), at, limit))


async def record_notices(conn: Tx | Pool, *, after: datetime, until: datetime, at: datetime, limit: int) -> int:
    """Ask for letters about inbox entries made in between that still stand unread; returns how many."""
    return len(await conn.fetch(SQL["record_notices"], after, until, at, limit))


async def claim(conn: Tx | Pool, *, now: datetime, lease_s: float, limit: int) -> list[MailRow]:
    """Take letters that are due, and those whose lease ran out."""
    rows = await conn.fetch(SQL["claim"], now, now + timedelta(seconds=lease_s), limit)
    return [MailRow(*row.values()) for row in rows]


async def settle(
    conn: Tx | Pool, row: MailRow, state: State, *, not_before: datetime, reason: str | None = None
) -> None:
    """Write down what became of an attempt; a no-op when another worker has taken the letter over."""
    await conn.execute(SQL["settle"], row.id, row.attempts, state, reason, not_before)


async def addressee(conn: Tx | Pool, user: Address) -> Addressee | None:
    """Whom a letter goes to; None for a user who is gone."""
    row = await conn.fetchrow(SQL["addressee"], user)
    return None if row is None else Addressee(*row.values())


async def notice(conn: Tx | Pool, user: Address, id_: UUID) -> NoticeWords | None:
    """The notification of a letter, while it stands unread and its user wants it by e-mail."""
    row = await conn.fetchrow(SQL["notice"], user, id_)
    return None if row is None else NoticeWords(*row.values())


async def spent(
    conn: Tx | Pool, user: Address, *, before: datetime, since: datetime, until: datetime
) -> list[SpentRow]:
    """What a user spent by category from `since` to `until`, and from `before` to `since`; the most first."""
    rows = await conn.fetch(SQL["spent"], user, before, since, until)
    return [SpentRow(*row.values()) for row in rows]


async def budgets(conn: Tx | Pool, user: Address, *, since: datetime, until: datetime) -> list[BudgetRow]:
    """A user's category budgets and what was spent of them in a month, the most used first."""
    return [BudgetRow(*row.values()) for row in await conn.fetch(SQL["budgets"], user, since, until)]


async def alerts(conn: Tx | Pool, user: Address, *, since: datetime, until: datetime) -> int:
    """How many budget alerts a user got and still stand."""
    return int(await conn.fetchval(SQL["alerts"], user, since, until))


async def origin(conn: Tx | Pool, id_: UUID) -> tuple[Address, str] | None:
    """Whose letter this was, and its kind."""
    row = await conn.fetchrow(SQL["origin"], id_)
    return None if row is None else (row["user_address"], row["kind"])


async def stop_digest(tx: Tx, user: Address, *, at: datetime) -> None:
    """Turn a user's digest off."""
    await tx.execute(SQL["stop_digest"], user, at)


async def prune(conn: Tx | Pool, *, before: datetime, batch: int) -> int:
    """Delete one batch of letters older than `before`; returns how many. Their unsubscribe links end with them."""
    return int(await conn.fetchval(SQL["prune"], before, batch))
