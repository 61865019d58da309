"""Bytes on the wire: event texts as the publisher ends them, and the websocket frames around them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from struct import Struct

from store.log import best_effort_text

_SHORT = Struct(">BB").pack
_MIDDLE = Struct(">BBH").pack
_LONG = Struct(">BBQ").pack
_FINAL_TEXT, _FINAL_BINARY = 0x81, 0x82
_MIDDLE_MARK, _LONG_MARK = 126, 127


def _header(length: int, opcode: int) -> bytes:
    if length < _MIDDLE_MARK:
        return _SHORT(opcode, length)
    if length < 1 << 16:
        return _MIDDLE(opcode, _MIDDLE_MARK, length)
    return _LONG(opcode, _LONG_MARK, length)


def text_frame(text: bytes) -> bytes:
    """An unmasked, uncompressed websocket text frame, as servers send them."""
    return _header(len(text), _FINAL_TEXT) + text


def binary_frame(data: bytes) -> bytes:
    """An unmasked, uncompressed websocket binary frame."""
    return _header(len(data), _FINAL_BINARY) + data


# Most events have some hundred bytes; building their header costs as much as finding it twice.
_EVENT_HEADERS = [_header(length + 2, _FINAL_TEXT) + b"42" for length in range(4096)]


def event_frame(text: bytes) -> bytes:
    """Frame of one Socket.IO event of namespace `/`; `text` is its JSON array."""
    length = len(text)
    if length < len(_EVENT_HEADERS):
        return _EVENT_HEADERS[length] + text
    return _header(length + 2, _FINAL_TEXT) + b"42" + text


def texts(frames: bytes) -> Iterator[bytes]:
    """Take text frames of ours apart again, for clients that poll."""
    at = 0
    while at < len(frames):
        mark = frames[at + 1]
        size = {_MIDDLE_MARK: 2, _LONG_MARK: 8}.get(mark, 0)
        start = at + 2 + size
        length = int.from_bytes(frames[at + 2 : start], "big") if size else mark
        at = start + length
        yield frames[start:at]


def best_effort(event: str, payload: Mapping[str, object]) -> bytes:
    """Text of an event outside the log: one JSON object, so that it never ends in a string taken for an offset."""
    return best_effort_text(event, payload)


def durable(event: str, payload: str, offset: str) -> bytes:
    """Text of an event of the log; `offset` is `<epoch>:<seq>`."""
    return f'["{event}",{payload},"{offset}"]'.encode()


def without_offset(text: bytes) -> bytes:
    """The same event for a socket that asked for no recovery: the offset argument is cut off."""
    return text[: text.rindex(b',"')] + b"]"


def offset_of(text: bytes) -> tuple[str, int] | None:
    """Epoch and seq at the end of a published event text; None when it does not end in an offset."""
    start = text.rfind(b',"')
    if start < 0 or not text.endswith(b'"]'):
        return None
    return parse_offset(text[start + 2 : -2].decode(errors="replace"))


def parse_offset(offset: str) -> tuple[str, int] | None:
    """Epoch and seq of `<epoch>:<seq>`; None when it is something else."""
    epoch, _, seq = offset.rpartition(":")
    if not epoch or not seq.isascii() or not seq.isdigit() or len(seq) > 18:
        return None
    return epoch, int(seq)
