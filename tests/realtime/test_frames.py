from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime import frames

EPOCH = "0123456789abcdef" * 2


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 4093, 4094, 4095, 4096, 65535, 65536, 70000])
def test_a_frame_holds_its_text_whatever_the_length(length: int) -> None:
    text = b"x" * length
    frame = frames.text_frame(text)
    head = {True: 2, length > 125: 4, length > 65535: 10}[True]
    assert frame[0] == 0x81
    assert frame[head:] == text
    assert list(frames.texts(frame)) == [text]
    assert frames.event_frame(text) == frames.text_frame(b"42" + text)


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_frames_that_were_joined_come_apart_again(texts: list[bytes]) -> None:
    assert list(frames.texts(b"".join(map(frames.text_frame, texts)))) == texts


@given(st.text(), st.integers(0, 10**17))
def test_the_offset_is_read_off_the_tail_and_cut_off_again(note: str, seq: int) -> None:
    payload = orjson.dumps({"note": note}).decode() if note.isprintable() else '{"note":"\\",\\""}'
    text = frames.durable("e", payload, f"{EPOCH}:{seq}")
    assert frames.offset_of(text) == (EPOCH, seq)
    assert frames.without_offset(text) == f'["e",{payload}]'.encode()


@pytest.mark.parametrize(
    "offset", ["", ":", "e:", ":1", "e", "e:-1", "e:1.5", "e:x", "e: 1", "e:²", "e:" + "9" * 19, "e:1\n"]
)
def test_what_is_no_offset(offset: str) -> None:
    assert frames.parse_offset(offset) is None


@pytest.mark.parametrize("text", [b"", b"[]", b'["e",{}]', b'["e","x"]', b'["e",{},"e:1"', b"\xff"])
def test_what_ends_in_no_offset(text: bytes) -> None:
    assert frames.offset_of(text) is None


def test_an_epoch_may_hold_colons() -> None:
    assert frames.parse_offset("a:b:3") == ("a:b", 3)


def test_a_best_effort_event_never_ends_in_a_string() -> None:
    assert frames.best_effort("chain_status", {"at": "x"}) == b'["chain_status",{"at":"x"}]'
