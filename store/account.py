"""Everything that is kept of one user, section by section, each in pages in the order of a key: for their own copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("account")

SECTIONS: Sequence[str] = (
    "profile",
    "contact",
    "category",
    "category_preference",
    "category_rule",
    "bucket",
    "balance",
    "account",
    "position",
    "goal",
    "achievement",
    "friend",
    "friend_request",
    "friend_invitation",
    "comparison",
    "challenge",
    "challenge_part",
    "challenge_invite",
    "challenge_link",
    "memo",
    "notification",
    "notification_preference",
    "device",
    "session",
    "audit",
    "ai_usage",
)
"""Kinds of lines, in the order in which they are given; transactions have a form of their own."""
SEALED = frozenset({"profile", "memo"})
"""Sections with a sealed field."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row: its key within the section, its JSON, and what of it is sealed."""

    key: str
    body: str
    sealed: bytes | None


async def lines(conn: Tx | Pool, section: str, user: Address, *, after: str, limit: int) -> list[Line]:
    """Rows of a section beyond a key ('' is before all)."""
    rows = await conn.fetch(SQL[section], user, after, limit)
    return [Line(row["key"], row["body"], row.get("sealed")) for row in rows]
