from __future__ import annotations

from contextlib import suppress

import pytest

from handlers.rules import pictures
from handlers.rules.pictures import MAX_BYTES, BadPicture, Header, NotAPicture
from tests.jobs.pictures import (
    Case,
    canvas,
    chunk,
    ihdr,
    impossible_headers,
    no_pictures,
    png,
    polyglots,
    riff,
    rows,
    sample,
    saved,
)

TURNED_AWAY = [case for made in (no_pictures, impossible_headers, polyglots) for case in made()]
TURNED_AWAY = [case for case in TURNED_AWAY if case.fate == "turned away"]


@pytest.mark.parametrize("case", TURNED_AWAY, ids=lambda case: case.name)
def test_what_is_no_picture_is_turned_away_before_it_is_decoded(case: Case) -> None:
    with pytest.raises((NotAPicture, BadPicture)) as refusal:
        pictures.check(case.raw)
    assert str(refusal.value).endswith(".")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("GIF", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "exif": b"Exif\0\0" + bytes(40_000)}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0" + bytes(100)}),
    ],
)
def test_size_is_read_off_the_header(kind: str, options: dict[str, object]) -> None:
    raw = saved(sample(257, 31), kind, **options)
    assert pictures.check(raw) == Header(kind.lower(), 257, 31)  # type: ignore[arg-type]  # its name in lower case


def test_a_picture_at_each_limit_is_taken_and_one_beyond_is_not() -> None:
    for width, height in ((4000, 4000), (16_000, 1000), (1, 16_000)):
        assert pictures.check(png(ihdr(width, height))).width == width
        for more in ((width, height + 1), (width + 1, height)) if height != 16_000 else ((1, 16_001),):
            with pytest.raises(BadPicture):
                pictures.check(png(ihdr(*more)))
    assert pictures.check(riff(canvas(4000, 2000))).kind == "webp"
    with pytest.raises(BadPicture, match="8 megapixels"):
        pictures.check(riff(canvas(4000, 2001)))
    whole = png(ihdr(1, 1))
    pictures.check(whole + bytes(MAX_BYTES - len(whole)))
    with pytest.raises(BadPicture, match="2048 KiB"):
        pictures.check(whole + bytes(MAX_BYTES - len(whole) + 1))


def test_no_cut_of_a_picture_breaks_the_check() -> None:
    for kind in ("PNG", "GIF", "JPEG", "WEBP"):
        raw = saved(sample(9, 9), kind)
        for end in range(min(len(raw), 700)):
            with suppress(BadPicture, NotAPicture):
                assert pictures.check(raw[:end]).width == 9


def test_only_a_bare_square_of_ours_is_a_square() -> None:
    square = saved(sample(64, 64), "WEBP")
    assert pictures.is_square(square, 64)
    assert not pictures.is_square(square, 256)
    assert not pictures.is_square(square + b"<script>", 64)
    assert not pictures.is_square(square[:-4], 64)
    assert not pictures.is_square(saved(sample(64, 64), "PNG"), 64)
    assert not pictures.is_square(saved(sample(64, 64), "WEBP", exif=b"Exif\0\0MM"), 64)
    assert not pictures.is_square(saved(sample(64, 64), "WEBP", icc_profile=b"x"), 64)
    assert not pictures.is_square(b"", 64)


def test_a_name_is_its_content_and_nothing_else() -> None:
    one, other = {64: b"a", 256: b"b"}, {64: b"a", 256: b"c"}
    assert pictures.content_name(one) == pictures.content_name(dict(reversed(one.items())))
    names = {pictures.content_name(each) for each in (one, other, {64: b"ab", 256: b""}, {64: b"b", 256: b"a"})}
    assert len(names) == 4
    file = pictures.file_name(pictures.content_name(one), 64)
    assert pictures.is_file_name(file)
    for wrong in (file.upper(), file + "x", "../" + file, file.replace("64.", "65."), "", file + "\n"):
        assert not pictures.is_file_name(wrong), wrong


def test_pictures_come_from_the_cdn_and_icons_from_the_app() -> None:
    assert pictures.link("/media/x.webp", "") == "/media/x.webp"
    assert pictures.link("/media/x.webp", "https://cdn.example/") == "https://cdn.example/media/x.webp"
    assert pictures.link("/icons/food.svg", "https://cdn.example") == "/icons/food.svg"
    assert pictures.link(None, "https://cdn.example") is None


def test_corpus_helpers_make_what_they_say() -> None:
    whole = png(ihdr(8, 8), chunk(b"tEXt", b"a\0b"), rows(8, 8))
    assert pictures.check(whole) == Header("png", 8, 8)
