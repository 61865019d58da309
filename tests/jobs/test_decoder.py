from __future__ import annotations

import asyncio
import io
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from handlers.rules import pictures
from handlers.rules.pictures import SIZES
from jobs import decoder
from jobs.decoder import Verdict, read_verdict, squares_of, write_verdict
from tests.jobs.pictures import SECRET, Case, corpus, exif, sample, saved
from tests.waiting import until

CASES = corpus()
NEAR = 24
"""How far a colour may be from what was drawn: WebP at quality 85 blurs edges."""


@pytest.fixture(autouse=True)
def hardened(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pillow as the decoder's own process has it, until the end of the test."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    for module, name in ((PngImagePlugin, "MAX_TEXT_CHUNK"), (PngImagePlugin, "MAX_TEXT_MEMORY")):
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoder.harden()
        yield


def opened(square: bytes) -> Image.Image:
    return Image.open(io.BytesIO(square))


def shown(raw: bytes) -> Image.Image:
    return opened(squares_of(raw)[256])


def colour(picture: Image.Image, x: float, y: float) -> tuple[int, ...]:
    """Colour at a place given as shares of the sides."""
    found = picture.getpixel((int(x * picture.width), int(y * picture.height)))
    assert isinstance(found, tuple)
    return found


def near(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return all(abs(a - b) <= NEAR for a, b in zip(found, wanted, strict=True))


def test_the_corpus_is_large() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 100


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_hostile_file_is_refused_or_comes_out_clean(case: Case) -> None:
    squares, reason = decoder.judged(case.raw)
    assert (reason is None) == (set(squares) == set(SIZES))
    if case.fate != "survived":
        assert (reason is None) == (case.fate == "cleaned"), reason
    for side, square in squares.items():
        assert pictures.is_square(square, side)
        assert SECRET not in square
        picture = opened(square)
        assert (picture.format, picture.size, getattr(picture, "n_frames", 1)) == ("WEBP", (side, side), 1)
        assert not dict(picture.getexif())
        assert not {"exif", "xmp", "icc_profile", "comment"} & {str(key) for key in picture.info}


def test_the_middle_is_shown() -> None:
    wide = Image.new("RGB", (300, 100), "#FF0000")
    wide.paste("#0000FF", (100, 0, 200, 100))
    for raw in (saved(wide, "PNG"), saved(wide.rotate(90, expand=True), "PNG")):
        picture = shown(raw)
        for x, y in ((0.05, 0.5), (0.95, 0.5), (0.5, 0.05), (0.5, 0.95), (0.5, 0.5)):
            assert near(colour(picture, x, y), (0, 0, 255))


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_photograph_stands_upright(turn: int) -> None:
    upright = sample(80, 80)
    # What a camera stores that was held so that `turn` brings it upright again.
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(turn, decoder.TURNS.get(turn))
    stored = upright if back is None else upright.transpose(back)
    picture = shown(saved(stored, "JPEG", exif=exif(turn), quality=95))
    for x, y in ((0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.75, 0.75)):
        assert near(colour(picture, x, y), colour(upright, x, y)), (turn, x, y)


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "1"])
def test_colours_of_other_modes_stay(mode: str) -> None:
    source = sample(80, 80).quantize(8) if mode == "P" else sample(80, 80, mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    picture = shown(saved(source, kind, **({"quality": 95} if kind == "JPEG" else {})))
    assert picture.mode == "RGB"
    if mode == "1":
        return  # dots, of which scaling makes grey
    rgb = source.convert("RGB")
    for x, y in ((0.1, 0.1), (0.9, 0.1), (0.75, 0.75)):
        assert near(colour(picture, x, y), colour(rgb, x, y)), (x, y)


def test_sixteen_bits_become_eight() -> None:
    for level in (0, 0x4000, 0x8000, 0xFFFF):
        picture = shown(saved(Image.new("I;16", (40, 40), level), "PNG"))
        assert near(colour(picture, 0.5, 0.5), (level >> 8,) * 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_clear_stays_clear(mode: str) -> None:
    source = sample(80, 80, "RGBA")
    source.putalpha(Image.linear_gradient("L").resize((80, 80)))
    if mode == "P":
        raw = saved(sample(80, 80).quantize(4), "PNG", transparency=bytes([0, 255, 255, 255]))
        alpha = shown(raw).getchannel("A")
        assert alpha.getextrema() == (0, 255)
        return
    alpha = shown(saved(source.convert(mode), "PNG")).getchannel("A")
    assert colour(alpha.convert("RGB"), 0.5, 0.05)[0] < 40
    assert colour(alpha.convert("RGB"), 0.5, 0.95)[0] > 215


def test_the_first_frame_of_an_animation_is_shown() -> None:
    frames = [Image.new("RGB", (40, 40), each) for each in ("#FF0000", "#00FF00", "#0000FF")]
    for kind in ("GIF", "PNG", "WEBP"):
        raw = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
        assert near(colour(shown(raw), 0.5, 0.5)[:3], (255, 0, 0)), kind


def test_the_same_picture_makes_the_same_squares() -> None:
    raw = saved(sample(), "PNG")
    assert squares_of(raw) == squares_of(saved(sample(), "PNG", exif=exif(1)))


def test_only_pixels_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []
    save = Image.Image.save

    def noted(self: Image.Image, *args: Any, **options: Any) -> None:
        written.append(dict(self.info))
        save(self, *args, **options)

    raw = saved(sample(), "JPEG", exif=exif(), comment=SECRET, icc_profile=SECRET)
    monkeypatch.setattr(Image.Image, "save", noted)
    squares_of(raw)
    assert written == [{}, {}]


async def test_the_decoder_limits_itself_before_it_reads() -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", "jobs.decoder"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", env={}
    )
    limits = Path(f"/proc/{child.pid}/limits")
    wanted = {
        "Max address space": decoder.MEMORY_BYTES,
        "Max cpu time": decoder.CPU_S,
        "Max file size": 0,
        "Max core file size": 0,
        "Max processes": 0,
        "Max open files": decoder.OPEN_FILES,
    }
    try:
        for name, most in wanted.items():
            row = rf"^{name}\s+{most}\s+{most}\s"
            await until(lambda row=row: re.search(row, limits.read_text(), re.MULTILINE), what=name)  # type: ignore[misc]  # bound now
    finally:
        out, _ = await child.communicate(b"<html>")
    assert (read_verdict(out) or Verdict({}, None, 0)).reason == "Send a PNG, JPEG, WebP or GIF picture."


def said(verdict: Verdict) -> bytes:
    out = io.BytesIO()
    write_verdict(out, verdict)
    return out.getvalue()


def test_a_verdict_is_read_as_it_was_written() -> None:
    for verdict in (Verdict(squares_of(saved(sample(), "PNG")), None, 7), Verdict({}, "Bad.", 7)):
        assert read_verdict(said(verdict)) == verdict


def test_a_decoder_that_was_taken_over_is_not_believed() -> None:
    honest = said(Verdict(squares_of(saved(sample(), "PNG")), None, 7))
    head, _, body = honest.partition(b"\n")
    facts = orjson.loads(head)
    page = b"<html>" + bytes(facts["lengths"]["256"] - 6)
    lies = [
        b"",
        b"{}\n",
        b"[]\n" + body,
        b"null\n",
        head,
        honest + b"x",
        honest[:-1],
        head + b"\n" + body[: facts["lengths"]["64"]] + page,
        orjson.dumps({**facts, "lengths": {"64": -1, "256": len(body) + 1}}) + b"\n" + body,
        orjson.dumps({**facts, "lengths": {"64": facts["lengths"]["256"], "256": facts["lengths"]["64"]}})
        + b"\n"
        + body,
        orjson.dumps({**facts, "peak": "much"}) + b"\n" + body,
    ]
    assert [lie for lie in lies if read_verdict(lie) is not None] == []
    told = read_verdict(said(Verdict({}, "x" * 10_000, 7)))
    assert told is not None
    assert len(told.reason or "") == 200
