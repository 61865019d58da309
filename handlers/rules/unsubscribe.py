"""Links that end a kind of letter: signed, so that none can be made up, and without a word about whose they are."""

from __future__ import annotations

import base64
import binascii
import hmac
from uuid import UUID

from config.settings import Settings

PATH = "/v1/unsubscribe/"
MAC_BYTES = 16
"""128 bits: nobody guesses a link."""


def link(settings: Settings, letter: UUID) -> str:
    """The whole address of a letter's link."""
    return settings.public_url.rstrip("/") + PATH + token(settings, letter)


def token(settings: Settings, letter: UUID) -> str:
    """What names a letter in its link."""
    return base64.urlsafe_b64encode(_mac(settings, letter) + letter.bytes).rstrip(b"=").decode()


def letter_of(settings: Settings, text: str) -> UUID | None:
    """The letter of a token; None for one that is not ours."""
    try:
        raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        letter = UUID(bytes=raw[MAC_BYTES:])
    except (binascii.Error, UnicodeEncodeError, ValueError):
        return None
    return letter if hmac.compare_digest(raw[:MAC_BYTES], _mac(settings, letter)) else None


def _mac(settings: Settings, letter: UUID) -> bytes:
    key = settings.secret_key.get_secret_value().encode()
    return hmac.digest(key, b"unsubscribe\0" + letter.bytes, "sha256")[:MAC_BYTES]
