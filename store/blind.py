"""Blind hashes: what may be looked up but not read. Keyed by a seal key and the user, so nobody else can make them.

A table of them tells how often one user's texts share a part, and nothing of what it is; hashes of two users have
nothing in common. A guess can't be checked without the key. 64 bits: of a million parts of one user, two fall together
with a chance of 3 in 10^8, and then something is found that should not be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from config.settings import Settings
from config.written import seal_key
from store.records import Address

UNSEALED = "-"
"""Key id where no seal key is set: then nothing is sealed, and the key is made of the secret."""
PURPOSE = b"expendi blind index"


@dataclass(frozen=True, slots=True)
class Blind:
    """What hashes parts of one user's texts under one key."""

    key_id: str
    key: bytes

    def number(self, text: str) -> int:
        """A signed 64-bit hash of a text."""
        return int.from_bytes(blake2b(text.encode(), key=self.key, digest_size=8).digest(), "big", signed=True)


@dataclass(frozen=True, slots=True)
class Blinds:
    """Master keys by the id of the seal key that each is made of, the newest first."""

    masters: Mapping[str, bytes]

    @classmethod
    def of(cls, settings: Settings) -> Blinds:
        """The keys of the settings, in their order."""
        pairs = [seal_key(written.get_secret_value()) for written in settings.seal_keys]
        pairs = pairs or [(UNSEALED, settings.secret_key.get_secret_value().encode())]
        return cls({name: _derived(key, PURPOSE) for name, key in pairs})

    def of_user(self, user: Address) -> list[Blind]:
        """One user's keys; what is written is hashed by the first, what is looked up by each."""
        return [Blind(name, _derived(master, user.encode())) for name, master in self.masters.items()]


def _derived(key: bytes, purpose: bytes) -> bytes:
    return blake2b(purpose, key=key[:64], digest_size=32).digest()
