"""Fields that only the product may read: AES-256-GCM before they reach the database, opened after they leave it.

Sealed bytes are `01 | length of the key id | key id | 96-bit nonce | ciphertext and 128-bit tag`. Purpose, owner and
everything before the nonce are authenticated, so that a value copied to another column or user does not open.
A random nonce repeats with a chance of 2^-32 after 2^32 values of one key: change the key long before.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from config import metrics
from config.settings import Settings, variable
from config.written import seal_key
from store.records import Address

Purpose = Literal["email", "push_token", "memo", "query"]

log = structlog.get_logger(__name__)

VERSION = 1
NONCE_BYTES = 12


class SealError(Exception):
    """A field can't be sealed or opened; the message names the key, never the text."""


class UnknownKey(SealError):
    """The key that sealed this is not in EXPENDI_SEAL_KEYS: add it back at the end of the list."""


class BrokenSeal(SealError):
    """These bytes were changed, or sealed for another purpose, owner or key of the same id."""


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys by id; `newest` seals. An empty ring opens and seals nothing."""

    keys: Mapping[str, AESGCM]
    newest: str | None

    @classmethod
    def of(cls, settings: Settings) -> KeyRing:
        """The keys of the settings, in their order."""
        pairs = [seal_key(written.get_secret_value()) for written in settings.seal_keys]
        return cls({name: AESGCM(key) for name, key in pairs}, pairs[0][0] if pairs else None)

    @property
    def header(self) -> bytes:
        """What bytes begin with that the newest key sealed; raises SealError without any key."""
        if self.newest is None:
            raise SealError(f"{variable('seal_keys')} is not set: nothing can be sealed.")
        return _header(self.newest)

    def seal(self, text: str, *, purpose: Purpose, owner: Address) -> bytes:
        """Seal a text for one purpose and owner; raises SealError without any key."""
        header, nonce = self.header, secrets.token_bytes(NONCE_BYTES)
        cipher = self.keys[self.newest or ""]
        return header + nonce + cipher.encrypt(nonce, text.encode(), _bound(header, purpose, owner))

    def unseal(self, sealed: bytes, *, purpose: Purpose, owner: Address) -> str:
        """The text; raises UnknownKey or BrokenSeal."""
        name, header, rest = _parted(sealed)
        cipher = self.keys.get(name)
        if cipher is None:
            raise UnknownKey(f"A {purpose} is sealed by key {name!r}, which {variable('seal_keys')} does not list.")
        try:
            plain = cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], _bound(header, purpose, owner))
        except (InvalidTag, ValueError):
            raise BrokenSeal(f"A {purpose} of {owner} does not open with key {name!r}.") from None
        return plain.decode()

    def readable(self, sealed: bytes, *, purpose: Purpose, owner: Address) -> str | None:
        """The text, or None when it does not open: logged and counted, for readers that have to go on without it."""
        try:
            return self.unseal(sealed, purpose=purpose, owner=owner)
        except SealError as error:
            metrics.SEALS_BROKEN.labels(purpose).inc()
            log.error("seal_broken", purpose=purpose, user=owner, error=str(error))
            return None


def _header(name: str) -> bytes:
    return bytes((VERSION, len(name))) + name.encode("ascii")


def _parted(sealed: bytes) -> tuple[str, bytes, bytes]:
    """Key id, header and the rest; raises BrokenSeal when these are no sealed bytes."""
    end = 2 + sealed[1] if len(sealed) > 1 else 0
    if not end or sealed[0] != VERSION or len(sealed) < end or not sealed[2:end].isascii():
        raise BrokenSeal("These bytes were not sealed by us.")
    return sealed[2:end].decode("ascii"), sealed[:end], sealed[end:]


def _bound(header: bytes, purpose: Purpose, owner: Address) -> bytes:
    return b"\0".join((header, purpose.encode(), owner.encode()))
