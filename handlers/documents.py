"""Documents: what is too large for one answer is written by a job, piece by piece, and fetched by a signed link.

Asked twice while it is under way it is one document. A piece is stored first and counted after, so a worker that dies
loses the piece in hand; the next one goes on where the count is. Whoever has a link has the document for LINK_S.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import orjson

from config import keys
from handlers.deps import Deps
from handlers.errors import Conflict, NotFound, Problem, Unavailable
from handlers.rules.columns import file_name
from handlers.rules.money import ratio_text
from handlers.rules.periods import iso
from store import documents, log, outbox
from store.documents import LAST, Asked, ExportRow, Kind, Place, Step
from store.objects import Objects, ObjectsAway
from store.outbox import Claim
from store.postgres import Tx, in_transaction
from store.records import Address
from store.sealed import KeyRing

JOB = "write_export"
LINK_S = 900
"""Life of a link (s)."""
UNDER_WAY_MAX = 3
"""Documents of one user that may be under way."""
TRIES = 10
"""Attempts that may fail for no engine's fault, or die, before a document is given up."""
GIVEN_UP = "The document could not be made; ask for it again."
LEASE = timedelta(seconds=75)
"""Time a run has an export to itself: its limit and a little more, so that one that was killed is followed soon."""
SLICE_S = 20.0
"""Time of one run (s); what is left is a run of its own, so that no worker is held long."""
END = {"end": True}
"""Place after the last piece."""
PATH = "/v1/exports/{id}/file"


class Busy(ConnectionError):
    """Another run writes this export, or had died not long ago: the same attempt works a little later."""


class LinkExpired(Problem):
    """The link was good once: read the export again for a new one."""

    code, status, title = "link_expired", 410, "The link has expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a user asks for: `called` begins its file name, `q` is kept sealed."""

    kind: Kind
    format: str
    media: str
    called: str
    params: Mapping[str, object] = field(default_factory=dict)
    q: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of a document, how many rows are in it, and where the next piece begins (None: it was the last)."""

    body: bytes
    rows: int
    place: Any


@dataclass(frozen=True, slots=True)
class Work:
    """How a document is made: `pieces` from a place on (None: from the start). Not `resumable`: always from there."""

    pieces: AsyncIterator[Piece]
    resumable: bool = True


@dataclass(frozen=True, slots=True)
class ExportPage:
    """Some exports, and where the next page begins (None: there is none)."""

    resources: list[Mapping[str, object]]
    next: Place | None


# What users ask ----------------------------------------------------------------------------------------------------


async def ask(deps: Deps, objects: Objects, user: Address, wanted: Wanted) -> Mapping[str, object]:
    """Have a document written; the one that is under way when the same was asked before. Raises Conflict."""
    now = deps.now()
    kept = timedelta(hours=deps.settings.export_kept_hours)
    asked = Asked(
        user=user,
        kind=wanted.kind,
        format=wanted.format,
        params=wanted.params,
        query=None if wanted.q is None else _sealed(deps, user, wanted.q),
        fingerprint=_fingerprint(deps, wanted),
        file_name=file_name(wanted.called, now, wanted.format),
        media=wanted.media,
    )
    object_ = f"exports/{secrets.token_hex(16)}.{wanted.format}"

    async def body(tx: Tx) -> ExportRow:
        await log.lock(tx, [user])  # one at a time, so that counting them counts
        row, new = await documents.ask(tx, asked, object_=object_, at=now, until=now + kept)
        if new:
            if await documents.count_under_way(tx, user) > UNDER_WAY_MAX:
                raise Conflict(f"{UNDER_WAY_MAX} documents of yours are being written; wait for one.", retry_after_s=10)
            await outbox.request(tx, "slow", JOB, {"id": row.id})
        return row

    row = await in_transaction(deps.pool, body)
    await deps.publisher.wake(keys.JOBS_WAKE)
    return await resource(deps, objects, row)


async def read(deps: Deps, objects: Objects, user: Address, export_id: str) -> Mapping[str, object]:
    """How far an export is, with a fresh link once it is done; raises NotFound."""
    row = await documents.one(deps.pool, user, export_id)
    if row is None or row.expires_at <= deps.now():
        raise _unknown()
    return await resource(deps, objects, row)


async def listed(deps: Deps, objects: Objects, user: Address, *, after: Place | None, limit: int) -> ExportPage:
    """A user's exports, newest first."""
    rows = await documents.page(deps.pool, user, after=after or LAST, limit=limit + 1)
    page = rows[:limit]
    more = Place(page[-1].created_at, page[-1].id) if len(rows) > limit else None
    return ExportPage([await resource(deps, objects, row) for row in page if row.expires_at > deps.now()], more)


async def cancel(deps: Deps, user: Address, export_id: str) -> None:
    """Stop an export or delete its document; raises NotFound. The sweep deletes what is stored of it."""
    if await in_transaction(deps.pool, lambda tx: documents.cancel(tx, user, export_id, at=deps.now())) is None:
        raise _unknown()


async def resource(deps: Deps, objects: Objects, row: ExportRow) -> Mapping[str, object]:
    """An export as its user reads it."""
    url, until = None, None
    if row.status == "done":
        until = deps.now() + timedelta(seconds=LINK_S)
        url = await _link(deps, objects, row, until)
    share = "1" if row.status == "done" else ratio_text(min(row.rows, row.total_rows or 0), row.total_rows or 0)
    return {
        "id": row.id,
        "kind": row.kind,
        "format": row.format,
        "status": row.status,
        "reason": row.reason,
        "progress": share,
        "rows": row.rows,
        "totalRows": row.total_rows,
        "bytes": row.bytes,
        "fileName": row.file_name,
        "mediaType": row.media,
        "url": url,
        "urlExpiresAt": None if until is None else iso(until),
        "createdAt": iso(row.created_at),
        "finishedAt": None if row.finished_at is None else iso(row.finished_at),
        "expiresAt": iso(row.expires_at),
    }


async def _link(deps: Deps, objects: Objects, row: ExportRow, until: datetime) -> str:
    try:
        link = await objects.link(row.object, called=row.file_name, media=row.media, seconds=LINK_S)
    except ObjectsAway as error:
        raise Unavailable("The storage of documents does not answer; try again.", retry_after_s=5) from error
    moment = int(until.timestamp())
    return link or PATH.format(id=row.id) + "?" + urlencode(
        {"until": moment, "signature": _signed(deps, row.id, moment)}
    )


async def linked(deps: Deps, export_id: str, *, until: int, signature: str) -> ExportRow:
    """The document of a link of ours; raises NotFound for what we did not sign, LinkExpired for an old one."""
    if not hmac.compare_digest(signature.encode(), _signed(deps, export_id, until).encode()):
        raise _unknown()
    if until <= deps.now().timestamp():
        raise LinkExpired("Read the export again: it brings a new link.")
    row = await documents.any_one(deps.pool, export_id)
    if row is None or row.status != "done" or row.expires_at <= deps.now():
        raise _unknown()
    return row


def _signed(deps: Deps, export_id: str, until: int) -> str:
    key = deps.settings.secret_key.get_secret_value().encode()
    return hmac.new(key, f"document\0{export_id}\0{until}".encode(), sha256).hexdigest()


def _fingerprint(deps: Deps, wanted: Wanted) -> bytes:
    """What makes two asks the same; keyed, since it is made of what was searched for too."""
    what = [wanted.kind, wanted.format, wanted.called, wanted.params, wanted.q]
    key = deps.settings.secret_key.get_secret_value().encode()
    return hmac.digest(key, b"export\0" + orjson.dumps(what, option=orjson.OPT_SORT_KEYS), "sha256")


def _sealed(deps: Deps, user: Address, q: str) -> bytes:
    return KeyRing.of(deps.settings).seal(q, purpose="query", owner=user)


def query_of(deps: Deps, row: ExportRow) -> str | None:
    """What was searched for; raises SealError when it does not open."""
    ring = KeyRing.of(deps.settings)
    return None if row.query is None else ring.unseal(row.query, purpose="query", owner=row.user_address)


def _unknown() -> NotFound:
    return NotFound("You have no export of this id.")


# What jobs do ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the job over one export, as it stood when the run began or was begun anew."""

    id: UUID
    row: ExportRow


async def take(deps: Deps, claim: Claim) -> Run | None:
    """Take an export to write it; None when it is not to be written any more. Raises Busy while another run does."""
    row = await documents.any_one(deps.pool, claim.args["id"])
    if row is None or row.status not in {"queued", "running"}:
        return None
    if claim.attempts > TRIES:
        await in_transaction(deps.pool, lambda tx: documents.fail(tx, row.id, GIVEN_UP, at=deps.now()))
        return None
    run, now = uuid4(), deps.now()
    taken = await documents.take(deps.pool, row.id, run, at=now, until=now + LEASE)
    if taken is None:
        raise Busy("another run writes this export")
    return Run(run, taken)


async def leave(deps: Deps, run: Run) -> None:
    """Let the next run go on."""
    await documents.leave(deps.pool, run.row.id, run.id)


async def end(deps: Deps, claim: Claim) -> bool:
    """End a claim about an export that is not to be written."""
    return await in_transaction(deps.pool, lambda tx: outbox.done(tx, claim))


async def begin(deps: Deps, objects: Objects, run: Run, *, total: int | None) -> Run | None:
    """Begin to write from the start; None when it is not wanted any more."""
    row = run.row
    if row.upload is not None:
        await objects.abandon(row.object, row.upload)
    upload = await objects.begin(row.object, media=row.media)
    started = await documents.start(deps.pool, row.id, run.id, upload=upload, total=total, at=deps.now())
    if started is None:
        await objects.abandon(row.object, upload)
        return None
    return Run(run.id, started)


async def write(deps: Deps, objects: Objects, claim: Claim, *, run: Run, work: Work) -> bool:
    """Write pieces until the document is whole or the slice is over; False: run again at once."""
    number, deadline = len(run.row.parts), time.monotonic() + SLICE_S
    if run.row.place != END:
        async for piece in work.pieces:
            number += 1
            if not await _keep(deps, objects, run, piece=piece, number=number):
                return await _stopped(deps, objects, claim, run=run)
            if work.resumable and piece.place is not None and time.monotonic() > deadline:
                await outbox.forgive(deps.pool, claim)
                return False
    return await _finish(deps, objects, claim, run=run)


async def _keep(deps: Deps, objects: Objects, run: Run, *, piece: Piece, number: int) -> bool:
    row = run.row
    assert row.upload is not None
    tag = await objects.put_part(row.object, row.upload, number, piece.body)
    place, now = END if piece.place is None else piece.place, deps.now()
    step = Step(number, tag, place, piece.rows, len(piece.body))
    return await in_transaction(deps.pool, lambda tx: documents.keep_part(tx, row.id, run.id, step, at=now))


async def _stopped(deps: Deps, objects: Objects, claim: Claim, *, run: Run) -> bool:
    """It was cancelled, then what is stored of it goes; or this run took too long, and another has it."""
    now = await documents.any_one(deps.pool, run.row.id)
    if now is not None and now.status == "running":
        raise Busy("another run has taken this export")
    if now is None or now.status == "cancelled":
        assert run.row.upload is not None
        await objects.abandon(run.row.object, run.row.upload)
    return await end(deps, claim)


async def _finish(deps: Deps, objects: Objects, claim: Claim, *, run: Run) -> bool:
    row = await documents.any_one(deps.pool, run.row.id)
    if row is None or row.upload is None or row.status != "running":
        return await _stopped(deps, objects, claim, run=run)
    await objects.finish(row.object, row.upload, row.parts)

    async def body(tx: Tx) -> bool:
        until = deps.now() + timedelta(hours=deps.settings.export_kept_hours)
        finished = await documents.finish(tx, row.id, run.id, at=deps.now(), until=until)
        return finished and await outbox.done(tx, claim)

    return await in_transaction(deps.pool, body)


async def prune(deps: Deps, objects: Objects, *, limit: int) -> int:
    """Delete documents whose time is over; returns how many."""
    rows = await documents.expired(deps.pool, now=deps.now(), limit=limit)
    for row in rows:
        if row.upload is not None and row.status != "done":
            await objects.abandon(row.object, row.upload)
        await objects.delete(row.object)
        await documents.forget(deps.pool, row.id)
    return len(rows)
