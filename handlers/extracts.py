"""Extracts: a user's transactions as CSV, NDJSON or Parquet, a few at a time, so that no history fills memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from handlers.deps import Deps
from handlers.errors import Invalid
from handlers.rules import columns, wire
from handlers.rules.categorize import Assignment
from handlers.rules.columns import Exported, Format
from handlers.rules.heights import heights
from handlers.rules.looks import Look, category_resource, looks_of
from store import budgets, cursors, documents, history, memos, people
from store.clickhouse import Analytics
from store.history import Filters, Position
from store.postgres import Tx, frozen
from store.records import Address, TransactionRow
from store.sealed import KeyRing

BATCH = 500
"""Rows held at a time: some 10 ms of work between two breaths of the loop."""
Write = Callable[[Sequence[Exported]], bytes]
"""How rows are written."""
NAMED_MAX = 2000
"""Transactions that a search may name to ClickHouse: a statement of 250 KiB holds some more."""


class TooManyNamed(Invalid):
    """A search that finds more than can be asked of ClickHouse by name."""

    code, title = "too_many_found", "The search finds too much for this format"


@dataclass(frozen=True, slots=True)
class Extract:
    """What every row of one user's extract needs, read once."""

    user: Address
    ring: KeyRing
    looks: Mapping[str, Look]
    levels: Mapping[int, wire.Heights]

    async def of(self, tx: Tx, rows: Sequence[TransactionRow]) -> list[Exported]:
        """Rows as they are exported, with what the user made of them."""
        noted = await memos.for_rows(tx, self.ring, rows)
        labels = await people.labels(tx, [(row.user, row.counterparty) for row in rows if row.counterparty])
        owned = [(row.user, row.id) for row in rows if row.role == "owner"]
        made = {row.transaction_id: row for row in await budgets.assigned(tx, owned)}
        return [
            columns.exported(
                row,
                status=self._status(row),
                label=labels.get((row.user, row.counterparty or "")),
                category=self._category(made.get(row.id) if row.role == "owner" else None),
                memo=noted.of_row(row),
            )
            for row in rows
        ]

    def _status(self, row: TransactionRow) -> str:
        reached = self.levels.get(row.chain_id)
        return wire.status(row.block_number, reached) if reached else "included"

    def _category(self, made: budgets.AssignedRow | None) -> tuple[str, str] | None:
        if made is None:
            return None
        assignment = Assignment(made.category_id, made.confidence, made.source, made.reasoning)
        shown = category_resource(self.looks, assignment)
        return None if shown is None else (str(shown["id"]), str(shown["name"]))


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an extract: its bytes, how many rows, and where the next one begins (None: it was the last)."""

    body: bytes
    rows: int
    next: Position | None


async def opened(deps: Deps, tx: Tx, user: Address) -> Extract:
    """What an extract of this user needs, as it is now."""
    rows, customs = await budgets.looks(tx, [user])
    looks = looks_of([user], rows, customs, cdn_url=deps.settings.cdn_url)[user]
    standing = await cursors.cursors(tx)
    levels = {id_: heights(standing[id_], chain).levels for id_, chain in deps.chains.items() if id_ in standing}
    return Extract(user, KeyRing.of(deps.settings), looks, levels)


async def is_large(deps: Deps, user: Address, filters: Filters) -> bool:
    """Whether this is more than one answer may hold (EXPENDI_EXPORT_ROWS)."""
    most = deps.settings.export_rows
    async with frozen(deps.pool) as tx:
        return await history.count(tx, user, filters, most=most + 1) > most


async def count(deps: Deps, user: Address, filters: Filters) -> int:
    """How many transactions these filters leave."""
    async with frozen(deps.pool) as tx:
        return await history.count(tx, user, filters, most=2**31 - 1)


async def stream(deps: Deps, user: Address, filters: Filters, *, format_: Format) -> AsyncIterator[bytes]:
    """All of it as CSV or NDJSON, as one instant has it; holds a connection until it is read to its end or closed."""
    yield columns.head(format_)
    async with frozen(deps.pool) as tx:
        extract = await opened(deps, tx, user)
        async for rows in history.read_through(tx, user, filters, batch=BATCH):
            yield columns.lines(format_, await extract.of(tx, rows))


async def part(
    deps: Deps, user: Address, filters: Filters, *, below: Position | None, least_bytes: int, write: Write
) -> Part:
    """A piece of about `least_bytes` (the last one has less) as `write` has it, beginning below a place."""
    body, rows, done = bytearray(), 0, False
    async with frozen(deps.pool) as tx:
        extract = await opened(deps, tx, user)
        while len(body) < least_bytes and not done:
            found = await history.transactions(tx, user, filters, below=below, limit=BATCH)
            body += write(await extract.of(tx, found))
            rows += len(found)
            done = len(found) < BATCH
            below = below if not found else Position(found[-1].block_time, found[-1].id)
    return Part(bytes(body), rows, None if done else below)


async def parquet(deps: Deps, analytics: Analytics, user: Address, filters: Filters) -> AsyncIterator[bytes]:
    """All of it as Parquet, from what ClickHouse has; raises TooManyNamed for a search that finds too much.

    While ClickHouse does not answer this raises as every question to it does: once an answer has begun, its status is
    told.
    """
    await analytics.version()
    ids = None
    if filters.hits is not None or filters.prefixes is not None:
        async with frozen(deps.pool) as tx:
            found = await history.transactions(tx, user, filters, below=None, limit=NAMED_MAX + 1)
        if len(found) > NAMED_MAX:
            raise TooManyNamed(f"Parquet takes a search that finds up to {NAMED_MAX}; narrow it, or take NDJSON.")
        ids = [row.id for row in found]
    return documents.parquet(analytics, user, filters, ids=ids)


def params_of(filters: Filters) -> dict[str, object]:
    """Filters as a document remembers them; what a search found is looked for again."""
    return {
        "chain_ids": list(filters.chain_ids),
        "types": None if filters.types is None else list(filters.types),
        "account_type": filters.account_type,
        "bucket": filters.bucket,
        "token": filters.token,
        "since": filters.since.isoformat(),
        "until": filters.until.isoformat(),
        "min_usd": None if filters.min_usd is None else str(filters.min_usd),
        "max_usd": None if filters.max_usd is None else str(filters.max_usd),
        "category": None if filters.category is None else str(filters.category),
    }


def filters_from(params: Mapping[str, Any]) -> Filters:
    """What `params_of` wrote down."""
    least, most, category = params["min_usd"], params["max_usd"], params["category"]
    return Filters(
        chain_ids=params["chain_ids"],
        types=params["types"],
        account_type=params["account_type"],
        bucket=params["bucket"],
        token=params["token"],
        since=datetime.fromisoformat(params["since"]),
        until=datetime.fromisoformat(params["until"]),
        min_usd=None if least is None else Decimal(least),
        max_usd=None if most is None else Decimal(most),
        category=None if category is None else UUID(category),
    )
