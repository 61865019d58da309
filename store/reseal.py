"""Change of key: seal again, under the newest key, what an older one sealed; `python -m store reseal` runs it.

Add the new key in front of EXPENDI_SEAL_KEYS, restart, run this, then take the old key out. It may be stopped and run
again, beside everything else: a row is replaced only if it is still what was read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from store.postgres import Pool
from store.sealed import KeyRing, Purpose, SealError
from store.statements import load

SQL = load("reseal")

BATCH = 500
"""Rows read and written at a time."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Column:
    """A sealed column: the statement that pages through what other keys sealed, from `first` on, and the replacing one.

    A row is its key, the owner first, and then the sealed bytes.
    """

    name: str
    purpose: Purpose
    page: str
    replace: str
    first: tuple[object, ...]


COLUMNS = (
    Column("e-mail", "email", "emails_to_reseal", "reseal_emails", ("",)),
    Column("memo", "memo", "memos_to_reseal", "reseal_memos", ("", 0, "", -1)),
    Column("push token", "push_token", "devices_to_reseal", "reseal_devices", ("", "")),
)


@dataclass(slots=True)
class Progress:
    """How far one column is. `failed`: rows that no key of the settings opens; they stay as they are."""

    column: str
    resealed: int = 0
    failed: int = 0
    finished: bool = False


async def reseal(pool: Pool, ring: KeyRing, *, batch: int = BATCH) -> AsyncIterator[Progress]:
    """Reseal every column, telling the progress after each batch; raises SealError without a key."""
    for column in COLUMNS:
        progress, after = Progress(column.name), column.first
        while not progress.finished:
            # Keyset paging: what was replaced, and what can't be, lies behind.
            rows = [tuple(row.values()) for row in await pool.fetch(SQL[column.page], ring.header, batch, *after)]
            progress.resealed += await _replace(pool, column, _resealed(ring, column, rows, progress))
            progress.finished = len(rows) < batch
            after = after if progress.finished else rows[-1][:-1]
            yield progress


def _resealed(
    ring: KeyRing, column: Column, rows: Sequence[tuple[Any, ...]], progress: Progress
) -> list[tuple[Any, ...]]:
    """Rows with their new bytes; those that do not open are counted and left out."""
    opened = []
    for row in rows:
        owner, sealed = row[0], row[-1]
        try:
            text = ring.unseal(sealed, purpose=column.purpose, owner=owner)
        except SealError as error:
            progress.failed += 1
            log.error("reseal_failed", column=column.name, user=owner, error=str(error))
        else:
            opened.append((*row, ring.seal(text, purpose=column.purpose, owner=owner)))
    return opened


async def _replace(pool: Pool, column: Column, rows: Sequence[tuple[Any, ...]]) -> int:
    if not rows:
        return 0
    return int(await pool.fetchval(SQL[column.replace], *map(list, zip(*rows, strict=True))))
