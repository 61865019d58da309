"""Pictures on their way to a category: what was sent last, how far it is, what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("images")

Status = Literal["queued", "processing", "done", "refused"]


@dataclass(frozen=True, slots=True)
class ImageRow:
    """The last picture sent: its raw object, how far it is, and the picture that is shown meanwhile and after it."""

    upload: str
    status: Status
    reason: str | None
    picture: str | None
    tries: int
    created_at: datetime
    updated_at: datetime


async def ask(tx: Tx, user: Address, category_id: str, upload: str, *, at: datetime) -> None:
    """Note that a picture was sent; an earlier one that is on its way is passed over from now on."""
    await tx.execute(SQL["ask"], user, UUID(category_id), upload, at)


async def one(conn: Tx | Pool, user: Address, category_id: str) -> ImageRow | None:
    """The last picture sent for a category; None when there was none, or it was removed."""
    row = await conn.fetchrow(SQL["one"], user, UUID(category_id))
    return None if row is None else ImageRow(**dict(row))


async def start(conn: Tx | Pool, user: Address, category_id: str, upload: str, *, at: datetime) -> int | None:
    """Count a try to process this upload; how many there were, None when it is not the last one or has its outcome."""
    tries: int | None = await conn.fetchval(SQL["start"], user, UUID(category_id), upload, at)
    return tries


async def finish(
    tx: Tx,
    user: Address,
    category_id: str,
    upload: str,
    *,
    status: Status,
    at: datetime,
    reason: str | None = None,
    picture: str | None = None,
) -> bool:
    """Note the outcome of this upload; False when it is not the last one or has one already."""
    arguments = (user, UUID(category_id), upload, status, reason, picture, at)
    return bool(await tx.fetchval(SQL["finish"], *arguments))


async def remove(tx: Tx, user: Address, category_id: str) -> None:
    """Forget the picture of a category, one on its way too."""
    await tx.execute(SQL["remove"], user, UUID(category_id))


async def hold_picture(tx: Tx, picture: str) -> None:
    """Be the only one to store or delete this picture until the transaction ends."""
    await tx.execute(SQL["hold_picture"], picture)


async def is_used(tx: Tx, picture: str) -> bool:
    """Whether anyone's category shows this picture."""
    return bool(await tx.fetchval(SQL["is_used"], picture))


async def pending(conn: Tx | Pool, uploads: Sequence[str]) -> set[str]:
    """Which of these uploads still wait for their outcome."""
    return {row["upload"] for row in await conn.fetch(SQL["pending_uploads"], list(uploads))}
