"""How single settings are written: lists, urls, origins, secrets. Checks raise ValueError, which shows no secret."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

SECRET_LENGTH = 32
"""Least length of the secret (characters): 256 bits when it was drawn as base64 or hex."""
SEAL_KEY_BYTES = 32
"""Bytes of a key that seals fields: AES-256."""
_SEAL_KEY_ID = re.compile(r"[A-Za-z0-9_\-]{1,16}")


def listed(value: object) -> object:
    """Read a list as people write it: a JSON list, or values between commas."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    try:
        return tuple(json.loads(value))
    except ValueError as error:
        raise ValueError("is not a JSON list") from error


def url_of(*schemes: str) -> Callable[[str], str]:
    """A check for urls of these schemes."""

    def check(value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in schemes or not (parts.netloc or parts.path):
            raise ValueError(f"should be a url that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        _ = parts.port  # a port that is no number raises here, where it can be named
        return value

    return check


def origin(value: str) -> str:
    """A browser origin: scheme and host, no path."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path or parts.query or parts.fragment:
        raise ValueError(f"names {value!r}, which should be an origin like https://app.expendi.example without a path")
    return value


def network(value: str) -> str:
    """A network (CIDR)."""
    ipaddress.ip_network(value)
    return value


def long_enough(value: SecretStr) -> SecretStr:
    """A secret that nobody guesses."""
    if len(value.get_secret_value()) < SECRET_LENGTH:
        raise ValueError(f"should have at least {SECRET_LENGTH} characters")
    return value


def seal_key(written: str) -> tuple[str, bytes]:
    """Id and key of `<id>:<base64 of 32 bytes>`; raises ValueError, which does not show the key."""
    name, _, text = written.partition(":")
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not _SEAL_KEY_ID.fullmatch(name) or len(key) != SEAL_KEY_BYTES:
        raise ValueError("should hold entries like k1:<base64 of 32 random bytes>")
    return name, key


def seal_keys(values: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Sealing keys, each id once."""
    names = [seal_key(value.get_secret_value())[0] for value in values]
    if len(set(names)) < len(names):
        raise ValueError("names one key id twice")
    return values


def mail_url(value: SecretStr) -> SecretStr:
    """Who delivers e-mail; it may hold a password."""
    if text := value.get_secret_value():
        url_of("smtp", "smtps", "ses")(text)
    return value


PostgresUrl = Annotated[str, AfterValidator(url_of("postgresql", "postgres"))]
RedisUrl = Annotated[str, AfterValidator(url_of("redis", "rediss", "redis+cluster", "rediss+cluster", "unix"))]
HttpUrl = Annotated[str, AfterValidator(url_of("http", "https"))]
Listed = BeforeValidator(listed)
UsdAmount = Annotated[Decimal, Field(ge=0, le=10_000)]
