"""A user's own copy of everything that is kept of them: one JSON object a line, `{"kind", "data"}`, nothing sealed.

Secrets stay out: tokens of devices and sessions were never theirs to read. Events of the log tell of what is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from handlers.deps import Deps
from handlers.rules.columns import Exported
from store import account
from store.account import SECTIONS, Line
from store.records import Address
from store.sealed import KeyRing, Purpose

LINES = 2000
"""Lines read at a time; most sections have fewer."""

_SEALED: dict[str, tuple[str, Purpose]] = {"profile": ("email", "email"), "memo": ("memo", "memo")}
"""Under which name a section's sealed field is given, and what it was sealed for."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Some lines of a copy; `next` is the section and key after which it goes on, None after the last section."""

    body: bytes
    count: int
    next: tuple[int, str] | None


async def lines(deps: Deps, user: Address, *, section: int, after: str) -> Lines:
    """The next lines of a copy, of one section (its number in SECTIONS), beyond a key ('' begins)."""
    name, ring = SECTIONS[section], KeyRing.of(deps.settings)
    found = await account.lines(deps.pool, name, user, after=after, limit=LINES)
    body = b"".join(_line(name, line, user, ring) for line in found)
    if len(found) == LINES:
        return Lines(body, len(found), (section, found[-1].key))
    return Lines(body, len(found), (section + 1, "") if section + 1 < len(SECTIONS) else None)


def _line(section: str, line: Line, user: Address, ring: KeyRing) -> bytes:
    if section not in _SEALED:
        return orjson.dumps({"kind": section, "data": orjson.Fragment(line.body)}) + b"\n"
    field, purpose = _SEALED[section]
    text = None if line.sealed is None else ring.readable(line.sealed, purpose=purpose, owner=user)
    return orjson.dumps({"kind": section, "data": {**orjson.loads(line.body), field: text}}) + b"\n"


def transactions(rows: Sequence[Exported]) -> bytes:
    """Transactions as lines of a copy."""
    return b"".join(orjson.dumps({"kind": "transaction", "data": row}) + b"\n" for row in rows)
