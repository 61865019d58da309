"""Pictures of categories and avatars: taken in over REST, and served to anyone who knows their names."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path as File
from typing import Annotated, Literal
from uuid import UUID

from handlers import images
from handlers.errors import NotFound
from handlers.images import PictureRefused, UnsupportedPicture
from handlers.resources import Resource, Time
from handlers.rules import pictures
from realtime.rest.api import Path, Upload, endpoint
from realtime.rest.call import Answer, Call
from store.objects import IMMUTABLE

ICONS = File(__file__).parents[1] / "icons"
SVG = "image/svg+xml"
ICON_CACHING = "public, max-age=86400"
"""A day: an icon keeps its name when it is drawn anew."""

CategoryId = Annotated[str, Path("Category id.")]


class CategoryImage(Resource):
    """How far the last picture sent is; the urls are those of the picture that is shown now, null before the first."""

    category_id: str
    status: Literal["queued", "processing", "done", "refused"]
    reason: str | None
    icon_url: str | None
    small_icon_url: str | None
    created_at: Time
    updated_at: Time


@endpoint(
    "POST",
    "/v1/categories/{id}/image",
    tag="categories",
    answers=CategoryImage,
    scope="upload.image",
    writes=True,
    once=True,
    status=202,
    problems=(NotFound, UnsupportedPicture, PictureRefused),
)
async def send_image(
    call: Call,
    *,
    id: CategoryId,  # noqa: A002 - the path's own name
    image: Annotated[bytes, Upload("A PNG, JPEG, WebP or GIF picture.", pictures.MAX_BYTES)],
) -> Answer:
    """Send a picture for a category.

    Its middle is shown, as a square without anything else that the file held. It is processed later: follow it by
    `GET` on this path; when it is done, `category_updated` brings the new `customIconUrl`.
    """
    category_id = _id(id)
    taken = await images.take(call.deps, call.web.objects, call.me.user, category_id, image)
    return Answer(body=taken, headers={"Location": f"/v1/categories/{category_id}/image"})


@endpoint(
    "GET", "/v1/categories/{id}/image", tag="categories", answers=CategoryImage, tagged=True, problems=(NotFound,)
)
async def image_status(call: Call, *, id: CategoryId) -> Mapping[str, object]:  # noqa: A002 - the path's own name
    """Say how far the last picture sent for a category is."""
    return await images.status(call.deps, call.me.user, _id(id))


@endpoint(
    "DELETE", "/v1/categories/{id}/image", tag="categories", scope="upload.image", writes=True, problems=(NotFound,)
)
async def remove_image(call: Call, *, id: CategoryId) -> None:  # noqa: A002 - the path's own name
    """Show the category's own icon again."""
    await images.remove(call.deps, call.me.user, _id(id))


class Avatar(Resource):
    """How far the last picture sent is; the urls are those of the avatar that is shown now, null before the first."""

    status: Literal["queued", "processing", "done", "refused"]
    reason: str | None
    avatar_url: str | None
    small_avatar_url: str | None
    created_at: Time
    updated_at: Time


@endpoint(
    "POST",
    "/v1/me/avatar",
    tag="me",
    answers=Avatar,
    scope="upload.image",
    writes=True,
    once=True,
    status=202,
    problems=(UnsupportedPicture, PictureRefused),
)
async def send_avatar(
    call: Call, *, image: Annotated[bytes, Upload("A PNG, JPEG, WebP or GIF picture.", pictures.MAX_BYTES)]
) -> Answer:
    """Send a picture to be shown to friends.

    Processed like that of a category: its middle, as a square without anything else that the file held.
    """
    taken = await images.take(call.deps, call.web.objects, call.me.user, None, image)
    return Answer(body=taken, headers={"Location": "/v1/me/avatar"})


@endpoint("GET", "/v1/me/avatar", tag="me", answers=Avatar, tagged=True, problems=(NotFound,))
async def avatar_status(call: Call) -> Mapping[str, object]:
    """Say how far the last picture sent as avatar is."""
    return await images.status(call.deps, call.me.user, None)


@endpoint("DELETE", "/v1/me/avatar", tag="me", scope="upload.image", writes=True, problems=(NotFound,))
async def remove_avatar(call: Call) -> None:
    """Show no avatar any more."""
    await images.remove(call.deps, call.me.user, None)


def _id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise NotFound("There is no category of yours with this id.") from None


@endpoint("GET", "/icons/{name}", tag="media", media=SVG, access="public", scope=None, problems=(NotFound,))
async def icon(call: Call, *, name: Annotated[str, Path("File name, as `food.svg`.")]) -> Answer:  # noqa: ARG001 - every route gets its call
    """Give the icon of a default category."""
    if name not in await asyncio.to_thread(_icons):
        raise NotFound("There is no such icon.")
    return Answer(body=await asyncio.to_thread((ICONS / name).read_bytes), headers={"Cache-Control": ICON_CACHING})


def _icons() -> set[str]:
    return {path.name for path in ICONS.glob("*.svg")}


@endpoint("GET", "/media/{name}", tag="media", media=images.WEBP, access="public", problems=(NotFound,))
async def media(call: Call, *, name: Annotated[str, Path("File name, as `customIconUrl` ends.")]) -> Answer:
    """Give a picture; what has a name here never changes."""
    return Answer(body=await images.square(call.web.objects, name), headers={"Cache-Control": IMMUTABLE})


ROUTES = (send_image, image_status, remove_image, send_avatar, avatar_status, remove_avatar, icon, media)
