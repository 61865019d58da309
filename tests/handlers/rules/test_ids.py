from __future__ import annotations

import pytest

from handlers.rules.ids import bucket_id, event_id, shown_name
from tests.handlers.scripted import ALICE, BOB, WALLET


def test_same_cause_is_the_same_id_and_any_other_is_another() -> None:
    assert event_id("a", 1, "x") == event_id("a", 1, "x") == "f586914ce6cff79bcf0074acd1194b50"
    assert len({event_id("a", 1, "x"), event_id("a", 1, "y"), event_id("a", 1), event_id("a", "1x")}) == 4


def test_parts_of_a_cause_do_not_run_together() -> None:
    assert event_id("a", "bc", "d") != event_id("a", "b", "cd")


def test_names_that_look_alike_are_different_buckets() -> None:
    assert shown_name(b"food") == shown_name("fo\u200bod".encode())
    assert bucket_id(1, WALLET, ALICE, b"food") != bucket_id(1, WALLET, ALICE, "fo\u200bod".encode())
    assert bucket_id(1, WALLET, ALICE, b"food") != bucket_id(1, WALLET, BOB, b"food")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("caf\u00e9".encode(), "caf\u00e9"),
        ("cafe\u0301".encode(), "caf\u00e9"),
        ("a\u202eb".encode(), "ab"),
        (b"a\x00\x1bb\nc", "ab c"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * 100, "x" * 64),
        (b"", ""),
    ],
)
def test_hostile_name_is_shown_as_safe_text(raw: bytes, shown: str) -> None:
    assert shown_name(raw) == shown
