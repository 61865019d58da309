"""A file in a multipart body, read piece by piece, so that one that is too large is cut off before it fills memory."""

from __future__ import annotations

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import BadHttpMessage

from handlers.errors import FieldError, Invalid, Problem, TooLarge

MULTIPART = "multipart/form-data"
CHUNK = 64 * 1024
FRAME_BYTES = 16 * 1024
"""What boundaries and part headers may add to the file (bytes)."""


class NotMultipart(Problem):
    """The body is not multipart/form-data."""

    code, status, title = "unsupported_media_type", 415, "The body has to be multipart/form-data"


async def read(request: web.Request, name: str, *, limit: int) -> bytes:
    """The file in the part `name`; raises NotMultipart, TooLarge above `limit` bytes, or Invalid."""
    if request.content_type != MULTIPART:
        raise NotMultipart(f"Send the file as {MULTIPART}, in a part named `{name}`.")
    if (request.content_length or 0) > limit + FRAME_BYTES:
        raise _too_large(limit)
    try:
        file = await _part(request, name, limit)
    except (ValueError, RuntimeError, BadHttpMessage):
        # The words of aiohttp for a body that is no multipart body after all.
        raise Invalid("The multipart body can't be read: it is malformed or cut off.") from None
    if file is None:
        raise Invalid("The file is missing.", errors=[FieldError(f"/{name}", "is missing")])
    return file


async def _part(request: web.Request, name: str, limit: int) -> bytes | None:
    """The first part, which has to be the file; what comes after it is not looked at."""
    part = await (await request.multipart()).next()
    if not isinstance(part, BodyPartReader) or part.name != name:
        return None
    file = bytearray()
    while chunk := await part.read_chunk(CHUNK):
        file += chunk
        if len(file) > limit:
            raise _too_large(limit)
    return bytes(file)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The file is larger than {limit // 1024} KiB.")
