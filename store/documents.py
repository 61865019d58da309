"""Documents: exports that users asked for and how far each is, and ClickHouse's own Parquet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import asyncpg

from store.clickhouse import Analytics
from store.history import Filters
from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("documents")
PARQUET = load("clickhouse/documents")["parquet"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Kind = Literal["transactions", "account", "report"]
Status = Literal["queued", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class ExportRow:
    """An export; see the table. `place` and `parts` are how far its writing is."""

    id: str
    user_address: Address
    kind: Kind
    format: str
    params: Mapping[str, Any]
    query: bytes | None
    status: Status
    reason: str | None
    file_name: str
    media: str
    object: str
    upload: str | None
    parts: Sequence[str]
    place: Any
    rows: int
    total_rows: int | None
    bytes: int
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Asked:
    """What a user asks for."""

    user: Address
    kind: Kind
    format: str
    params: Mapping[str, Any]
    query: bytes | None
    fingerprint: bytes
    file_name: str
    media: str


@dataclass(frozen=True, slots=True)
class Step:
    """A part that is stored: its number (from 1) and tag, where to go on, how many rows and bytes it has."""

    number: int
    tag: str
    place: Any
    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the list of a user's exports, newest first: what follows is older."""

    created_at: datetime
    id: str


LAST = Place(datetime(9999, 12, 31, tzinfo=UTC), "ffffffff-ffff-ffff-ffff-ffffffffffff")
"""Before the newest."""


async def ask(tx: Tx, asked: Asked, *, object_: str, at: datetime, until: datetime) -> tuple[ExportRow, bool]:
    """Keep an export to be written; the one under way when the same was asked before (True: it is new)."""
    row = await tx.fetchrow(
        SQL["ask"],
        asked.user,
        asked.kind,
        asked.format,
        asked.params,
        asked.query,
        asked.fingerprint,
        asked.file_name,
        asked.media,
        object_,
        at,
        until,
    )
    if row is not None:
        return _row(row), True
    row = await tx.fetchrow(SQL["under_way"], asked.user, asked.fingerprint)
    if row is None:
        raise asyncpg.SerializationError("the export that was under way has ended meanwhile")
    return _row(row), False


async def count_under_way(tx: Tx, user: Address) -> int:
    """How many exports of a user wait or are written."""
    return int(await tx.fetchval(SQL["count_under_way"], user))


async def one(conn: Tx | Pool, user: Address, export_id: str) -> ExportRow | None:
    """An export of a user; None for anything else, other people's too."""
    row = await conn.fetchrow(SQL["one"], user, UUID(export_id))
    return None if row is None else _row(row)


async def any_one(conn: Tx | Pool, export_id: str) -> ExportRow | None:
    """An export whoever asked for it: for who has a link, and for the job."""
    row = await conn.fetchrow(SQL["any_one"], UUID(export_id))
    return None if row is None else _row(row)


async def page(conn: Tx | Pool, user: Address, *, after: Place, limit: int) -> list[ExportRow]:
    """A user's exports after a place, newest first."""
    rows = await conn.fetch(SQL["page"], user, after.created_at, UUID(after.id), limit)
    return [_row(row) for row in rows]


async def cancel(tx: Tx, user: Address, export_id: str, *, at: datetime) -> ExportRow | None:
    """Let an export and its object go; None when the user has none of this id."""
    row = await tx.fetchrow(SQL["cancel"], user, UUID(export_id), at)
    return None if row is None else _row(row)


async def take(conn: Tx | Pool, export_id: str, run: UUID, *, at: datetime, until: datetime) -> ExportRow | None:
    """Let one run write an export up to `until`; None when another does, or it is not to be written any more."""
    row = await conn.fetchrow(SQL["take"], UUID(export_id), run, at, until)
    return None if row is None else _row(row)


async def leave(conn: Tx | Pool, export_id: str, run: UUID) -> None:
    """Let the next run write it."""
    await conn.execute(SQL["leave"], UUID(export_id), run)


async def start(
    conn: Tx | Pool, export_id: str, run: UUID, *, upload: str, total: int | None, at: datetime
) -> ExportRow | None:
    """Begin from the start: `upload` is where parts go. None when it is not this run's any more."""
    row = await conn.fetchrow(SQL["start"], UUID(export_id), run, upload, total, at)
    return None if row is None else _row(row)


async def keep_part(tx: Tx, export_id: str, run: UUID, step: Step, *, at: datetime) -> bool:
    """Note that a part is stored; False when it is not this run's to write any more."""
    facts = (step.number, step.tag, step.place, step.rows, step.size)
    return bool(await tx.fetchval(SQL["keep_part"], UUID(export_id), run, *facts, at))


async def finish(tx: Tx, export_id: str, run: UUID, *, at: datetime, until: datetime) -> bool:
    """Say that its object is whole; False when it is not this run's any more."""
    return bool(await tx.fetchval(SQL["finish"], UUID(export_id), run, at, until))


async def fail(tx: Tx, export_id: str, reason: str, *, at: datetime) -> None:
    """Say that it can't be made."""
    await tx.execute(SQL["fail"], UUID(export_id), reason, at)


async def expired(conn: Tx | Pool, *, now: datetime, limit: int) -> list[ExportRow]:
    """Exports whose time is over."""
    return [_row(row) for row in await conn.fetch(SQL["expired"], now, limit)]


async def forget(conn: Tx | Pool, export_id: str) -> None:
    """Delete the row of an export whose object is gone."""
    await conn.execute(SQL["forget"], UUID(export_id))


def _row(row: asyncpg.Record) -> ExportRow:
    found = {field.name: row[field.name] for field in fields(ExportRow)}
    return ExportRow(**{**found, "id": str(row["id"]), "parts": tuple(row["parts"])})


def parquet(
    analytics: Analytics, user: Address, filters: Filters, *, ids: Sequence[str] | None
) -> AsyncIterator[bytes]:
    """A user's transactions as Parquet, made by ClickHouse; `ids` are the only ones wanted, None: all.

    Words and prefixes of `filters` are not looked at: whoever searches names what was found.
    """
    return analytics.stream(
        PARQUET,
        user=user,
        chains=list(filters.chain_ids) or [0],
        since=_milliseconds(filters.since),
        until=_milliseconds(filters.until),
        any_type=int(filters.types is None),
        types=list(filters.types or [""]),
        account=filters.account_type or "",
        bucket=filters.bucket or "",
        token=filters.token or "",
        category="" if filters.category is None else str(filters.category),
        min=_decimal(filters.min_usd),
        max=_decimal(filters.max_usd),
        any_id=int(ids is None),
        ids=list(ids or [""]),
    )


def _milliseconds(moment: datetime) -> int:
    """Up to the next one: block times have whole seconds, and a bound between two excludes the earlier."""
    return -((EPOCH - moment) // timedelta(milliseconds=1))


def _decimal(usd: Decimal | None) -> str:
    return "" if usd is None else f"{usd:f}"
