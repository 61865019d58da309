"""Cursors and links of lists: a cursor is a place in one list, signed, so that only what we gave is taken back."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from pydantic import Field

from config.settings import Settings
from handlers.errors import FieldError, Invalid
from realtime.rest.api import Query
from realtime.rest.call import Answer, Call

MAC_BYTES = 12
"""96 bits: a cursor gives away nothing and grants nothing, it only must not be made up."""

Limit = Annotated[int, Query("Most entries of one page."), Field(ge=1, le=200)]
CursorText = Annotated[str | None, Query("`nextCursor` of the page before."), Field(max_length=512)]
DEFAULT_LIMIT = 50


def cursor_of(settings: Settings, kind: str, *place: str | float) -> str:
    """A place in lists of `kind` as an opaque text."""
    body = orjson.dumps(place)
    return base64.urlsafe_b64encode(_mac(settings, kind, body) + body).rstrip(b"=").decode()


def place_of(settings: Settings, kind: str, cursor: str) -> list[Any]:
    """The place of a cursor that was made for lists of `kind`; raises Invalid for any other text."""
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except (binascii.Error, UnicodeEncodeError):
        raw = b""
    mac, body = raw[:MAC_BYTES], raw[MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(settings, kind, body)):
        raise _not_ours()
    place: list[Any] = orjson.loads(body)
    return place


def hidden_cursor_of(settings: Settings, kind: str, *place: str | float) -> str:
    """A place that the client must not read, such as others' figures: the same place, the same text."""
    body = _hiding(settings).encrypt(orjson.dumps(place), [kind.encode()])
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def hidden_place_of(settings: Settings, kind: str, cursor: str) -> list[Any]:
    """The place of a hidden cursor that was made for lists of `kind`; raises Invalid for any other text."""
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        place: list[Any] = orjson.loads(_hiding(settings).decrypt(raw, [kind.encode()]))
    except (binascii.Error, UnicodeEncodeError, InvalidTag, ValueError):
        raise _not_ours() from None
    return place


def _hiding(settings: Settings) -> AESSIV:
    # Deterministic, so that a page which did not change keeps its ETag.
    key = settings.secret_key.get_secret_value().encode()
    return AESSIV(hmac.digest(key, b"hidden cursor", "sha512"))


def _not_ours() -> Invalid:
    return Invalid("The cursor is not one of ours.", errors=[FieldError("/query/cursor", "is not one of ours")])


def _mac(settings: Settings, kind: str, body: bytes) -> bytes:
    key = settings.secret_key.get_secret_value().encode()
    return hmac.digest(key, b"cursor\0" + kind.encode() + b"\0" + body, "sha256")[:MAC_BYTES]


def page(call: Call, resources: Sequence[Mapping[str, object]], cursor: str | None) -> Answer:
    """A list's answer; its `Link` repeats the request with the next cursor."""
    headers = {}
    if cursor is not None:
        headers["Link"] = f'<{call.url.update_query(cursor=cursor)}>; rel="next"'
    return Answer(body={"data": resources, "hasMore": cursor is not None, "nextCursor": cursor}, headers=headers)
