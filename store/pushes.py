"""Push intents: recorded with their event, claimed before the provider is called, settled after; one per effect.

States: due -> sending -> sent | held (a device showed it) | dropped; a failure that passes -> due again, later. A push
whose effect stays taken back: sent -> replacing -> replaced. A claim is a lease: whatever dies, another worker goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Literal
from uuid import UUID

import asyncpg

from store.notifications import Severity
from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("pushes")

State = Literal["due", "sent", "held", "dropped", "replacing", "replaced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A phone is to be told of an effect.

    `subject` names the effect for ever: `<transaction id>:<kind>`, or an alert's identity (scope, subject, period,
    edge). `event_id` is the event that tells of it; `facts` are what handlers/rules/push_texts.py reads for `kind`.
    """

    user: Address
    subject: str
    event_id: str
    kind: str
    facts: Mapping[str, object]
    severity: Severity = "info"
    transaction_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRow:
    """A claimed push. `stands`: its transaction is in the ledger; `delivered`: ids of devices that have it already."""

    id: UUID
    user: Address
    subject: str
    transaction_id: str | None
    event_id: str
    seq: int
    kind: str
    facts: Mapping[str, object]
    severity: Severity
    silent: bool
    delivered: frozenset[UUID]
    attempts: int
    reverted_at: datetime | None
    created_at: datetime
    stands: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of one attempt; `not_before` is when a push that is due again may be tried."""

    state: State
    reason: str | None = None
    not_before: datetime
    delivered: frozenset[UUID] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Audience:
    """What a user's settings say about pushes."""

    user: Address
    time_zone: str
    locale: str
    quiet_start: time | None
    quiet_end: time | None
    hide_amounts: bool


async def record(tx: Tx, intents: Sequence[Intent], *, at: datetime, hold_s: float) -> None:
    """Record intents in the transaction of their events, after these were appended to the log; sent after `hold_s`.

    An effect that was recorded before is not told a second time.
    """
    if not intents:
        return
    rows = [(i.user, i.subject, i.event_id, i.kind, dict(i.facts), i.severity, i.transaction_id) for i in intents]
    await tx.execute(SQL["record"], *map(list, zip(*rows, strict=True)), at + timedelta(seconds=hold_s), at)


async def take_back(tx: Tx, user: Address, event_ids: Sequence[str], *, at: datetime) -> None:
    """Note, in the transaction that corrects these events, that their effects are gone."""
    if event_ids:
        await tx.execute(SQL["take_back"], user, list(event_ids), at)


async def claim(conn: Tx | Pool, *, now: datetime, lease_s: float, limit: int) -> list[PushRow]:
    """Take pushes that are due, and those whose lease ran out, oldest first."""
    rows = await conn.fetch(SQL["claim"], now, now + timedelta(seconds=lease_s), limit)
    return sorted(map(_row, rows), key=lambda row: (row.created_at, row.seq))


async def claim_reverted(
    conn: Tx | Pool, *, now: datetime, after_s: float, lease_s: float, limit: int
) -> list[PushRow]:
    """Take pushes that phones show though their effect has been taken back for `after_s`."""
    gone, lease = now - timedelta(seconds=after_s), now + timedelta(seconds=lease_s)
    return list(map(_row, await conn.fetch(SQL["claim_reverted"], now, gone, lease, limit)))


async def still(conn: Tx | Pool, ids: Sequence[UUID]) -> set[UUID]:
    """Which of these claimed pushes are still to be sent: the last look before they are."""
    return {row["id"] for row in await conn.fetch(SQL["still"], list(ids))}


async def settle(conn: Tx | Pool, row: PushRow, outcome: Settled) -> None:
    """Write down what became of an attempt; a no-op when another worker has taken the push over."""
    await conn.execute(
        SQL["settle"],
        row.id,
        row.attempts,
        outcome.state,
        outcome.reason,
        outcome.not_before,
        list(outcome.delivered),
    )


async def audience(conn: Tx | Pool, users: Sequence[Address]) -> dict[Address, Audience]:
    """What these users' settings say; one who was deleted is left out."""
    rows = await conn.fetch(SQL["audience"], list(users))
    return {row["address"]: Audience(*row.values()) for row in rows}


async def prune(conn: Tx | Pool, *, before: datetime, batch: int) -> int:
    """Delete one batch of pushes older than `before`; returns how many. Call until it is less than `batch`."""
    return int(await conn.fetchval(SQL["prune"], before, batch))


def _row(row: asyncpg.Record) -> PushRow:
    return PushRow(
        id=row["id"],
        user=row["user_address"],
        subject=row["subject"],
        transaction_id=row["transaction_id"],
        event_id=row["event_id"],
        seq=row["seq"],
        kind=row["kind"],
        facts=row["facts"],
        severity=row["severity"],
        silent=row["silent"],
        delivered=frozenset(row["delivered"]),
        attempts=row["attempts"],
        reverted_at=row["reverted_at"],
        created_at=row["created_at"],
        stands=row["stands"],
    )
