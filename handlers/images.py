"""A picture for a category or as avatar: taken in raw, processed by a job, shown by the name of its content."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from config import keys
from handlers.deps import Deps
from handlers.errors import NotFound, Problem, Unavailable
from handlers.rules import category_tree, pictures
from handlers.rules.periods import iso
from handlers.rules.pictures import MEDIA, SIZES, BadPicture, NotAPicture, file_name, link
from store import categories, images, log, outbox, people
from store.images import ImageRow, Subject
from store.log import Counter
from store.objects import Objects, ObjectsAway
from store.outbox import Claim
from store.postgres import Tx, in_transaction
from store.records import Address, Draft, Frame

UPLOADS = "uploads"
"""Folder of what users sent; nobody but us reads it."""
UPLOAD_BYTES = 16
UPLOADS_KEPT = timedelta(days=1)
"""Age at which an upload that nobody waits for is deleted: its web process died before it could ask for the job."""
WEBP = "image/webp"
SHOWN_SIDE = 256
"""Side of the square that a category shows (pixels): an icon of 64 points on a sharp screen."""

JOB = "category_image"
FORGET_UPLOAD = "forget_upload"
FORGET_PICTURE = "forget_picture"


class UnsupportedPicture(Problem):
    """The file is not of a type that is taken."""

    code, status, title = "unsupported_picture", 415, "Not a picture that can be taken"


class PictureRefused(Problem):
    """The file is a picture, and can't be used; the detail says why."""

    code, status, title = "picture_refused", 422, "The picture can't be used"


@dataclass(frozen=True, slots=True)
class Sent:
    """A picture that a user sent: for which subject, and where it lies raw."""

    user: Address
    subject: Subject
    upload: str

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> Sent:
        """What a job was asked for."""
        return cls(args["user"], args.get("categoryId"), args["upload"])

    @property
    def args(self) -> dict[str, object]:
        """How a job is asked for it."""
        return {"user": self.user, "categoryId": self.subject, "upload": self.upload}


# What users ask ----------------------------------------------------------------------------------------------------


async def take(deps: Deps, objects: Objects, user: Address, subject: Subject, raw: bytes) -> Mapping[str, object]:
    """Take a picture in and ask for its processing; raises UnsupportedPicture, PictureRefused or NotFound."""
    try:
        pictures.check(raw)
    except NotAPicture as error:
        raise UnsupportedPicture(str(error)) from None
    except BadPicture as error:
        raise PictureRefused(str(error)) from None
    await _visible(deps, user, subject)
    sent = Sent(user, subject, f"{UPLOADS}/{secrets.token_hex(UPLOAD_BYTES)}")
    try:
        await objects.put(sent.upload, raw, media="application/octet-stream", public=False)
    except ObjectsAway as error:
        raise Unavailable("The storage of pictures does not answer; try again.", retry_after_s=5) from error

    async def body(tx: Tx) -> None:
        await log.lock(tx, [user])
        await images.ask(tx, user, subject, sent.upload, at=deps.now())
        await outbox.request(tx, "slow", JOB, sent.args)

    await in_transaction(deps.pool, body)
    await deps.publisher.wake(keys.JOBS_WAKE)
    return await status(deps, user, subject)


async def status(deps: Deps, user: Address, subject: Subject) -> Mapping[str, object]:
    """How far the last picture of a subject is; raises NotFound when there is none."""
    row = await images.one(deps.pool, user, subject)
    if row is None:
        raise _none()
    return _resource(subject, row, cdn_url=deps.settings.cdn_url)


async def remove(deps: Deps, user: Address, subject: Subject) -> None:
    """Show a category's own icon again, or no avatar; raises NotFound when there is no picture of the user's."""

    async def body(tx: Tx) -> list[Frame]:
        counters = await log.lock(tx, [user])
        row = await images.one(tx, user, subject)
        if row is None:
            raise _none()
        await images.remove(tx, user, subject)
        await _forget_picture(tx, row.picture)
        drafts = await _show(deps, tx, counters[user], subject, None)
        return await log.append(tx, counters, drafts if row.picture else [], at=deps.now())

    await _publish(deps, await in_transaction(deps.pool, body))


async def square(objects: Objects, file: str) -> bytes:
    """A finished square by its file name; raises NotFound or Unavailable."""
    try:
        found = await objects.get(MEDIA + file) if pictures.is_file_name(file) else None
    except ObjectsAway as error:
        raise Unavailable("The storage of pictures does not answer; try again.", retry_after_s=5) from error
    if found is None:
        raise NotFound("There is no such picture.")
    return found


def _resource(subject: Subject, row: ImageRow, *, cdn_url: str) -> dict[str, object]:
    small, large = (link(_path(row.picture, side), cdn_url) for side in SIZES)
    urls: dict[str, object] = {"avatarUrl": large, "smallAvatarUrl": small}
    if subject is not None:
        urls = {"categoryId": subject, "iconUrl": large, "smallIconUrl": small}
    return {
        **urls,
        "status": row.status,
        "reason": row.reason,
        "createdAt": iso(row.created_at),
        "updatedAt": iso(row.updated_at),
    }


def _path(picture: str | None, side: int) -> str | None:
    return None if picture is None else f"/{MEDIA}{file_name(picture, side)}"


async def _visible(deps: Deps, user: Address, subject: Subject) -> None:
    if subject is None:
        return
    row = await categories.one(deps.pool, user, subject)
    if row is None or not row.is_active:
        raise NotFound("There is no category of yours with this id.")


# What jobs do ------------------------------------------------------------------------------------------------------


async def start(deps: Deps, sent: Sent) -> int | None:
    """Count a try; how many there were, None when another picture was sent since, or this one has its outcome."""
    return await images.start(deps.pool, sent.user, sent.subject, sent.upload, at=deps.now())


async def show(deps: Deps, objects: Objects, claim: Claim, squares: Mapping[int, bytes]) -> bool:
    """Store the squares and let the category show them; ends the claim. Raises ObjectsAway."""
    picture = pictures.content_name(squares)

    async def body(tx: Tx) -> tuple[bool, list[Frame]]:
        # First, and before anyone's counter row is locked: storing takes a while, and blocks must not wait for it.
        await images.hold_picture(tx, picture)
        for side, square_ in squares.items():
            await objects.put(MEDIA + file_name(picture, side), square_, media=WEBP, public=True)
        return await _end(deps, tx, claim, status="done", picture=picture)

    return await _ended(deps, await in_transaction(deps.pool, body))


async def refuse(deps: Deps, claim: Claim, reason: str | None) -> bool:
    """Tell why the picture can't be shown; ends the claim. No reason: it was passed over, nothing is told."""

    async def body(tx: Tx) -> tuple[bool, list[Frame]]:
        return await _end(deps, tx, claim, status="refused" if reason else None, reason=reason)

    return await _ended(deps, await in_transaction(deps.pool, body))


async def _end(
    deps: Deps,
    tx: Tx,
    claim: Claim,
    *,
    status: Literal["done", "refused"] | None,
    reason: str | None = None,
    picture: str | None = None,
) -> tuple[bool, list[Frame]]:
    """The last step of the job, in the transaction of its effects: whether it is done, and what to publish."""
    sent = Sent.of(claim.args)
    user, subject = sent.user, sent.subject
    counters = await log.lock(tx, [user])
    before = await images.one(tx, user, subject)
    finished = status is not None and await images.finish(
        tx, user, subject, sent.upload, status=status, reason=reason, picture=picture, at=deps.now()
    )
    drafts: list[Draft] = []
    if finished and picture is not None:
        drafts = await _show(deps, tx, counters[user], subject, _path(picture, SHOWN_SIDE))
        await _forget_picture(tx, before.picture if before is not None and before.picture != picture else None)
    else:
        await _forget_picture(tx, picture)  # another one was sent meanwhile
    await outbox.request(tx, "slow", FORGET_UPLOAD, {"upload": sent.upload})
    done = await outbox.done(tx, claim)
    return done, await log.append(tx, counters, drafts, at=deps.now())


async def forget_upload(deps: Deps, objects: Objects, claim: Claim) -> bool:
    """Delete a raw upload; ends the claim."""
    await objects.delete(claim.args["upload"])
    return await in_transaction(deps.pool, lambda tx: outbox.done(tx, claim))


async def forget_picture(deps: Deps, objects: Objects, claim: Claim) -> bool:
    """Delete the squares of a picture unless somebody shows it; ends the claim."""
    picture: str = claim.args["picture"]

    async def body(tx: Tx) -> bool:
        await images.hold_picture(tx, picture)
        if not await images.is_used(tx, picture):
            for side in SIZES:
                await objects.delete(MEDIA + file_name(picture, side))
        return await outbox.done(tx, claim)

    return await in_transaction(deps.pool, body)


async def sweep(deps: Deps, objects: Objects) -> int:
    """Delete old uploads that nobody waits for; returns how many. At most a thousand are looked at."""
    old = await objects.older(UPLOADS, deps.now() - UPLOADS_KEPT)
    waiting = await images.pending(deps.pool, old)
    gone: Sequence[str] = [upload for upload in old if upload not in waiting]
    for upload in gone:
        await objects.delete(upload)
    return len(gone)


async def _forget_picture(tx: Tx, picture: str | None) -> None:
    if picture is not None:
        await outbox.request(tx, "slow", FORGET_PICTURE, {"picture": picture})


async def _show(deps: Deps, tx: Tx, counter: Counter, subject: Subject, path: str | None) -> list[Draft]:
    """Show a picture, or none, where its subject is shown; what is told of it. An avatar is read when it is shown."""
    user = counter.user
    if subject is None:
        await people.set_avatar(tx, user, path, at=deps.now())
        return []
    await categories.set_icon(tx, user, subject, path)
    row = await categories.one(tx, user, subject)
    assert row is not None
    shown = category_tree.resource(row, cdn_url=deps.settings.cdn_url)
    return [category_tree.updated(user, shown, counter.epoch, counter.seq)]


def _none() -> NotFound:
    return NotFound("You have sent no picture for this.")


async def _ended(deps: Deps, outcome: tuple[bool, list[Frame]]) -> bool:
    done, frames = outcome
    await _publish(deps, frames)
    return done


async def _publish(deps: Deps, frames: Sequence[Frame]) -> None:
    await deps.publisher.publish([(frame.user, frame.text) for frame in frames])
    await deps.publisher.wake(keys.JOBS_WAKE)
