"""Pictures on their way to a category, or to be an avatar: what was sent last, how far it is, what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("images")

Status = Literal["queued", "processing", "done", "refused"]
Subject: TypeAlias = str | None
"""What a picture is for: the id of a category, or None for the user's avatar."""


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


async def ask(tx: Tx, user: Address, subject: Subject, upload: str, *, at: datetime) -> None:
    """Note that a picture was sent; an earlier one that is on its way is passed over from now on."""
    await tx.execute(SQL["ask"], user, _key(subject), upload, at)


async def one(conn: Tx | Pool, user: Address, subject: Subject) -> ImageRow | None:
    """The last picture sent for a subject; None when there was none, or it was removed."""
    row = await conn.fetchrow(SQL["one"], user, _key(subject))
    return None if row is None else ImageRow(**dict(row))


async def start(conn: Tx | Pool, user: Address, subject: Subject, upload: str, *, at: datetime) -> int | None:
    """Count a try to process this upload; how many there were, None when it is not the last one or has its outcome."""
    tries: int | None = await conn.fetchval(SQL["start"], user, _key(subject), upload, at)
    return tries


async def finish(
    tx: Tx,
    user: Address,
    subject: Subject,
    upload: str,
    *,
    status: Status,
    at: datetime,
    reason: str | None = None,
    picture: str | None = None,
) -> bool:
    """Note the outcome of this upload; False when it is not the last one or has one already."""
    arguments = (user, _key(subject), upload, status, reason, picture, at)
    return bool(await tx.fetchval(SQL["finish"], *arguments))


async def remove(tx: Tx, user: Address, subject: Subject) -> None:
    """Forget the picture of a subject, one on its way too."""
    await tx.execute(SQL["remove"], user, _key(subject))


async def hold_picture(tx: Tx, picture: str) -> None:
    """Be the only one to store or delete this picture until the transaction ends."""
    await tx.execute(SQL["hold_picture"], picture)


async def is_used(tx: Tx, picture: str) -> bool:
    """Whether anything of anyone's shows this picture."""
    return bool(await tx.fetchval(SQL["is_used"], picture))


async def pending(conn: Tx | Pool, uploads: Sequence[str]) -> set[str]:
    """Which of these uploads still wait for their outcome."""
    return {row["upload"] for row in await conn.fetch(SQL["pending_uploads"], list(uploads))}


def _key(subject: Subject) -> UUID | None:
    return None if subject is None else UUID(subject)
