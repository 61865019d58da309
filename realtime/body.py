"""The body of a POST of Engine.IO: packets with a separator between them, bounded before they are read."""

from __future__ import annotations

from aiohttp import web

SEPARATOR = "\x1e"


async def packets_of(request: web.Request, limit_bytes: int) -> list[str] | None:
    """Read the packets; None when they are more than `limit_bytes`, no text, or cut off."""
    body = await _bounded(request, limit_bytes)
    try:
        return None if body is None else body.decode().split(SEPARATOR)
    except UnicodeDecodeError:
        return None


async def _bounded(request: web.Request, limit_bytes: int) -> bytes | None:
    body = bytearray()
    if (request.content_length or 0) > limit_bytes:
        return None
    try:
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > limit_bytes:
                return None
    except (ConnectionError, web.RequestPayloadError):
        return None
    return bytes(body)
