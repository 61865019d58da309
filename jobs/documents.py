"""`write_export`: documents for users, made piece by piece from the ledger, and deleted when their time is over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, cast

import structlog

from handlers import account_copy, documents, extracts, history, reports
from handlers.deps import Deps
from handlers.documents import Piece, Run, Work
from handlers.rules import columns
from handlers.rules.columns import Format
from jobs.images import storage
from jobs.job import Job, Tools
from store.documents import ExportRow
from store.history import Filters, Position
from store.objects import PART_BYTES, Objects
from store.outbox import AWAY, Claim

log = structlog.get_logger(__name__)

TIMEOUT_S = 60.0
"""Limit of one run (s): a slice of 20 s and the piece in hand; Parquet is made in one go."""
PRUNED = 100
"""Documents deleted by one look at the clock."""


async def run(tools: Tools, claim: Claim) -> bool:
    """Write an export, from where the last run ended."""
    taken = await documents.take(tools.deps, claim)
    if taken is None:
        return await documents.end(tools.deps, claim)
    try:
        async with storage(tools) as objects:
            return await _write(tools, objects, claim, run=taken)
    finally:
        with suppress(*AWAY):
            await documents.leave(tools.deps, taken)


async def _write(tools: Tools, objects: Objects, claim: Claim, *, run: Run) -> bool:
    deps, row = tools.deps, run.row
    filters = await _filters(deps, row) if row.kind != "report" else None
    if row.upload is None or not _resumable(row):
        total = None if filters is None else await extracts.count(deps, row.user_address, filters)
        begun = await documents.begin(deps, objects, run, total=total)
        if begun is None:
            return await documents.end(deps, claim)
        run = begun
    work = Work(_pieces(tools, run.row, filters), resumable=_resumable(row))
    done = await documents.write(deps, objects, claim, run=run, work=work)
    log.info("export_written" if done else "export_goes_on", export=row.id, kind=row.kind)
    return done


def _resumable(row: ExportRow) -> bool:
    return row.format != "parquet"


async def _filters(deps: Deps, row: ExportRow) -> Filters:
    """What the export is narrowed to, with what its search finds now."""
    filters = extracts.filters_from(row.params) if row.kind == "transactions" else Filters(chain_ids=list(deps.chains))
    return await history.narrowed(deps, row.user_address, filters, documents.query_of(deps, row))


def _pieces(tools: Tools, row: ExportRow, filters: Filters | None) -> AsyncIterator[Piece]:
    if filters is None:
        return _report(tools.deps, row)
    if row.kind == "account":
        return _account(tools.deps, row, filters)
    return _parquet(tools, row, filters) if row.format == "parquet" else _transactions(tools.deps, row, filters)


async def _transactions(deps: Deps, row: ExportRow, filters: Filters) -> AsyncIterator[Piece]:
    format_ = cast(Format, row.format)
    below, head = _position(row.place), columns.head(format_) if row.place is None else b""
    while True:
        write = partial(columns.lines, format_)
        part = await extracts.part(
            deps, row.user_address, filters, below=below, least_bytes=PART_BYTES - len(head), write=write
        )
        yield Piece(head + part.body, part.rows, _place(part.next))
        if part.next is None:
            return
        below, head = part.next, b""


async def _account(deps: Deps, row: ExportRow, filters: Filters) -> AsyncIterator[Piece]:
    """Sections first, then transactions; each piece is filled up, whatever it is made of."""
    place: Any = row.place or {"section": [0, ""]}
    body, rows = bytearray(), 0
    while place is not None:
        if "section" in place:
            section, after = place["section"]
            lines = await account_copy.lines(deps, row.user_address, section=section, after=after)
            body += lines.body
            place = {"below": None} if lines.next is None else {"section": list(lines.next)}
        else:
            part = await extracts.part(
                deps,
                row.user_address,
                filters,
                below=_position(place["below"]),
                least_bytes=max(1, PART_BYTES - len(body)),
                write=account_copy.transactions,
            )
            body += part.body
            rows += part.rows
            place = None if part.next is None else {"below": _place(part.next)}
        if len(body) >= PART_BYTES or place is None:
            yield Piece(bytes(body), rows, place)
            body, rows = bytearray(), 0


async def _report(deps: Deps, row: ExportRow) -> AsyncIterator[Piece]:
    yield Piece(await reports.made(deps, row.user_address, row.params["month"], format_=row.format), 0, None)


async def _parquet(tools: Tools, row: ExportRow, filters: Filters) -> AsyncIterator[Piece]:
    body = bytearray()
    async for chunk in await extracts.parquet(tools.deps, tools.analytics, row.user_address, filters):
        body += chunk
        while len(body) > PART_BYTES:
            yield Piece(bytes(body[:PART_BYTES]), 0, {"parquet": True})
            del body[:PART_BYTES]
    yield Piece(bytes(body), row.total_rows or 0, None)


def _position(place: Any) -> Position | None:
    return None if place is None else Position(datetime.fromisoformat(place[0]), place[1])


def _place(position: Position | None) -> list[str] | None:
    return None if position is None else [position.block_time.isoformat(), position.id]


async def prune(tools: Tools) -> int:
    """Delete documents whose time is over."""
    async with storage(tools) as objects:
        return await documents.prune(tools.deps, objects, limit=PRUNED)


WRITE_EXPORT = Job(documents.JOB, "slow", run, TIMEOUT_S)
