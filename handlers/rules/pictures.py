"""What a picture may be, read off its first bytes: nothing is decoded here, and nothing that it says is trusted later.

The same check runs where a picture is taken in (so that its sender is told at once) and in the process that decodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

MAX_BYTES = 2 * 1024 * 1024
"""Largest picture that is taken (bytes): photographs of phones, a little compressed, fit."""
MAX_PIXELS = 16_000_000
"""Most pixels that are decoded: 12 megapixel photographs fit, and 64 MB hold them."""
MAX_WEBP_PIXELS = 8_000_000
"""The same for WebP, whose decoder keeps four copies."""
MAX_SIDE = 16_000
"""Longest side (pixels)."""
SIZES = (64, 256)
"""Sides of the squares that are made (pixels)."""
MAX_RESULT_BYTES = 512 * 1024
"""Largest square (bytes): 256 pixels squared can't need more."""

MEDIA = "media/"
"""Folder of the pictures that anyone may read, by their names."""

Kind = Literal["png", "jpeg", "webp", "gif"]

_NAME = re.compile(r"[0-9a-f]{64}-(64|256)\.webp")


class NotAPicture(Exception):
    """The bytes are of no type that is taken; the message says what to send."""


class BadPicture(Exception):
    """The picture is of a type that is taken, and can't be used; the message says why, as its sender is told."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes claim: type, width and height in pixels."""

    kind: Kind
    width: int
    height: int


def check(raw: bytes) -> Header:
    """The header of a picture within the limits; raises NotAPicture or BadPicture."""
    kind = _kind(raw)
    if kind is None:
        raise NotAPicture("Send a PNG, JPEG, WebP or GIF picture.")
    if len(raw) > MAX_BYTES:
        raise BadPicture(f"The picture has more than {MAX_BYTES // 1024} KiB.")
    size = _SIZES[kind](raw)
    if size is None:
        raise BadPicture("The picture is cut off or damaged.")
    width, height = size
    if not width or not height:
        raise BadPicture("The picture is empty.")
    most = MAX_WEBP_PIXELS if kind == "webp" else MAX_PIXELS
    if max(size) > MAX_SIDE or width * height > most:
        raise BadPicture(f"The picture has more than {most // 1_000_000} megapixels; send a smaller one.")
    return Header(kind, width, height)


def is_square(raw: bytes, side: int) -> bool:
    """Whether these bytes are one plain WebP picture of this side and nothing else: what we make ourselves."""
    if len(raw) > MAX_RESULT_BYTES or _kind(raw) != "webp" or _webp_size(raw) != (side, side):
        return False
    return int.from_bytes(raw[4:8], "little") + 8 == len(raw) and set(_riff_chunks(raw)) <= _PLAIN


def content_name(squares: Mapping[int, bytes]) -> str:
    """Name of a picture by its content: the same squares have the same name, and it tells nothing of who sent them."""
    return sha256(b"".join(sha256(squares[side]).digest() for side in SIZES)).hexdigest()


def file_name(name: str, side: int) -> str:
    """File of one square of a picture."""
    return f"{name}-{side}.webp"


def is_file_name(text: str) -> bool:
    """Whether this is the file of a square."""
    return _NAME.fullmatch(text) is not None


def link(path: str | None, cdn_url: str) -> str | None:
    """An icon's path as clients get it: pictures come from the CDN where there is one, the app serves the rest."""
    return f"{cdn_url.rstrip('/')}{path}" if path is not None and path.startswith(f"/{MEDIA}") else path


def _kind(raw: bytes) -> Kind | None:
    if raw.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if raw.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if raw.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    return "webp" if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP" else None


def _png_size(raw: bytes) -> tuple[int, int] | None:
    if raw[8:16] != b"\x00\x00\x00\x0dIHDR" or len(raw) < 24:
        return None
    return int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")


def _gif_size(raw: bytes) -> tuple[int, int] | None:
    if len(raw) < 10:
        return None
    return int.from_bytes(raw[6:8], "little"), int.from_bytes(raw[8:10], "little")


def _jpeg_size(raw: bytes) -> tuple[int, int] | None:
    """Size in the first frame header; None when the scan or the end comes before it."""
    at = 2
    while at + 9 < len(raw) and raw[at] == 0xFF:
        marker = raw[at + 1]
        if marker == 0xFF:  # fill bytes
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            return int.from_bytes(raw[at + 7 : at + 9], "big"), int.from_bytes(raw[at + 5 : at + 7], "big")
        if marker == 0xDA:
            return None
        length = int.from_bytes(raw[at + 2 : at + 4], "big")
        at += 2 if 0xD0 <= marker <= 0xD8 or marker == 0x01 else 2 + max(2, length)
    return None


def _webp_size(raw: bytes) -> tuple[int, int] | None:
    if len(raw) < 30:
        return None
    chunk = raw[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(raw[24:27], "little"), 1 + int.from_bytes(raw[27:30], "little")
    if chunk == b"VP8L" and raw[20] == 0x2F:
        bits = int.from_bytes(raw[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 " and raw[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(raw[26:28], "little") & 0x3FFF, int.from_bytes(raw[28:30], "little") & 0x3FFF
    return None


_SIZES = {"png": _png_size, "gif": _gif_size, "jpeg": _jpeg_size, "webp": _webp_size}

_PLAIN = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"}
"""Chunks of a picture without metadata, profile or animation."""


def _riff_chunks(raw: bytes) -> Iterator[bytes]:
    at = 12
    while at + 8 <= len(raw):
        yield raw[at : at + 4]
        size = int.from_bytes(raw[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
