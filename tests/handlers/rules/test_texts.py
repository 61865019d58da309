from __future__ import annotations

import pytest

from handlers.rules.texts import masked_email, plain


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("  Ann \t\n Example ", "Ann Example"),
        ("safe\u202egnp.exe", "safegnp.exe"),
        ("a\u200bb\x00c\x1b[31md", "abc[31md"),
        ("line\u2028break", "line break"),
        ("Cafe\u0301", "Café"),
        ("\ud83d", ""),
        ("\u200b \u2066", ""),
        ("長い名前 🍜", "長い名前 🍜"),
        ("<b>&amp;'; DROP TABLE", "<b>&amp;'; DROP TABLE"),
    ],
)
def test_text_is_one_line_without_what_nobody_sees(written: str, shown: str) -> None:
    assert plain(written) == shown
    assert plain(shown) == shown


def test_an_email_address_is_masked_to_its_first_letter_and_domain() -> None:
    assert masked_email("ann.example@mail.example.com") == "a***@mail.example.com"
    assert masked_email("x@y.org") == "x***@y.org"
