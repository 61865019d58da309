"""`python -m jobs.decoder`: turn one hostile file into clean squares, in a process that may die of it.

Reads a picture from standard input, writes a verdict to standard output (see `read_verdict`), opens nothing, asks
nobody. Limits are set before the first byte is looked at: memory, time, no files. Only pixels come through: a new
picture is made of them, so that no metadata, profile, comment, second frame or trailing bytes can.
"""

from __future__ import annotations

import io
import os
import resource
import struct
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import orjson
from PIL import Image, ImageFile, PngImagePlugin

from handlers.rules import pictures
from handlers.rules.pictures import BadPicture, NotAPicture

MEMORY_BYTES = 256 * 1024 * 1024
"""Address space of this process: what a picture of the largest size needs, decoded, and some."""
CPU_S = 4
"""Time on a processor (s): the slowest honest picture takes one."""
OPEN_FILES = 16
"""Open files: its own three, and a module being imported."""
QUALITY = 85
TEXT_BYTES = 1024 * 1024
"""What compressed texts and profiles of one PNG may unpack to."""
DAMAGED = "The picture is cut off or damaged."
TOO_MUCH = "The picture takes more memory than pictures may."

_FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "gif": "GIF"}
_ORIENTATION = 0x0112
_BROKEN_EXIF = (ArithmeticError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture upright, by its orientation (EXIF)."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a picture: squares by side, or why there are none. `peak_bytes`: memory that it took."""

    squares: dict[int, bytes]
    reason: str | None
    peak_bytes: int


def main() -> int:
    """Judge one picture; returns the exit code, 0 for every verdict."""
    _limit()
    squares, reason = judged(sys.stdin.buffer.read(pictures.MAX_BYTES + 1))
    write_verdict(sys.stdout.buffer, Verdict(squares, reason, peak_bytes()))
    return 0


def _limit() -> None:
    for kind, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
    ):
        resource.setrlimit(kind, (most, most))
    os.nice(5)  # whoever waits for a picture can wait; whoever waits for money should not
    harden()


def peak_bytes() -> int:
    """Most memory that this process has had at once (not ru_maxrss, which begins with what its parent had)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def harden() -> None:
    """Make Pillow refuse what it only warns of."""
    Image.MAX_IMAGE_PIXELS = pictures.MAX_PIXELS
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = TEXT_BYTES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def judged(raw: bytes) -> tuple[dict[int, bytes], str | None]:
    """WebP squares by side, or none and the reason; never raises."""
    try:
        return squares_of(raw), None
    except (BadPicture, NotAPicture) as error:
        return {}, str(error)
    except MemoryError:
        return {}, TOO_MUCH
    except Exception:  # noqa: BLE001 - this process ends here; whatever a decoder raises means that it can't be read
        return {}, DAMAGED


def squares_of(raw: bytes) -> dict[int, bytes]:
    """WebP squares by side, from the middle of the first frame; raises BadPicture, NotAPicture or what Pillow does."""
    header = pictures.check(raw)
    with Image.open(io.BytesIO(raw), formats=[_FORMATS[header.kind]]) as picture:
        # GIF frames may reach beyond their screen, and a PNG may say twice how large it is.
        if max(picture.size) > pictures.MAX_SIDE or picture.width * picture.height > pictures.MAX_PIXELS:
            raise BadPicture("The picture is larger than it says.")
        turn = TURNS.get(_orientation(picture))
        largest = _square(picture, max(pictures.SIZES))
    if turn is not None:
        largest = largest.transpose(turn)
    return {side: _webp(largest, side) for side in pictures.SIZES}


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except _BROKEN_EXIF:
        return 1  # we do not know how to turn it


def _square(picture: Image.Image, side: int) -> Image.Image:
    """The middle of a picture at `side` pixels, as RGB or RGBA without anything else to it."""
    if picture.format == "JPEG":
        picture.draft(None, (side, side))  # decodes at a fraction of the size where the format can
    picture.load()
    width, height = picture.size
    edge = min(width, height)
    left, top = (width - edge) / 2, (height - edge) / 2
    box = (left, top, left + edge, top + edge)
    small = _smooth(picture).resize((side, side), Image.Resampling.LANCZOS, box=box, reducing_gap=2.0)
    mode = "RGBA" if small.has_transparency_data else "RGB"
    pixels = small.convert(mode)
    return Image.frombytes(mode, pixels.size, pixels.tobytes())


def _smooth(picture: Image.Image) -> Image.Image:
    """The same picture in a mode that can be scaled smoothly."""
    if picture.mode.startswith("I"):  # 16 bits: the upper eight are kept
        return picture.point(lambda value: value * (1 / 256)).convert("L")
    if picture.has_transparency_data:
        return picture if picture.mode in {"RGBA", "LA"} else picture.convert("RGBA")
    return picture.convert("RGB") if picture.mode in {"1", "P"} else picture


def _webp(square: Image.Image, side: int) -> bytes:
    out = io.BytesIO()
    scaled = square if square.width == side else square.resize((side, side), Image.Resampling.LANCZOS)
    scaled.save(out, "WEBP", quality=QUALITY, method=4)
    return out.getvalue()


def write_verdict(out: IO[bytes], verdict: Verdict) -> None:
    """A line of JSON (reason, peak, length of each square by side), then the squares."""
    lengths = {str(side): len(square) for side, square in verdict.squares.items()}
    out.write(orjson.dumps({"reason": verdict.reason, "peak": verdict.peak_bytes, "lengths": lengths}) + b"\n")
    for square in verdict.squares.values():
        out.write(square)
    out.flush()


def read_verdict(text: bytes) -> Verdict | None:
    """What the decoder wrote, believed only where it is what an honest one writes; None otherwise."""
    head, _, rest = text.partition(b"\n")
    try:
        told = orjson.loads(head)
        reason, peak = told["reason"], int(told["peak"])
        lengths = [int(told["lengths"][str(side)]) for side in pictures.SIZES] if reason is None else []
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
    if reason is not None:
        return Verdict({}, str(reason)[:200], peak)
    if min(lengths) < 0 or sum(lengths) != len(rest):
        return None
    squares = {pictures.SIZES[0]: rest[: lengths[0]], pictures.SIZES[1]: rest[lengths[0] :]}
    honest = all(pictures.is_square(square, side) for side, square in squares.items())
    return Verdict(squares, None, peak) if honest else None


if __name__ == "__main__":
    sys.exit(main())
