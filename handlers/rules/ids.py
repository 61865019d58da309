"""Ids derived from causes, equal on every machine and after every restart, and names made safe to show."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

from handlers.rules.texts import plain
from store.records import Address

ID_HEX = 32
"""128 bits: no collision among all events of all chains."""

NAMES_KEPT = 4096
"""Names whose shown form is remembered: the same few are spent from again and again, and making one costs 9 us."""

NAME_MAX = 64
"""Characters of a bucket name that are shown; the contract's 32 bytes always fit."""


def event_id(kind: str, *cause: object) -> str:
    """Id of an event from what caused it; callers give block hash and generation among the parts."""
    return sha256("\x1f".join((kind, *map(str, cause))).encode()).hexdigest()[:ID_HEX]


def bucket_id(chain_id: int, wallet: Address, owner: Address, raw_name: bytes) -> str:
    """`<chainId>:<wallet>:<owner>:<hash of the raw name>`: two names that look alike stay two buckets."""
    return f"{chain_id}:{wallet}:{owner}:{sha256(raw_name).hexdigest()[:ID_HEX]}"


@lru_cache(maxsize=NAMES_KEPT)
def shown_name(raw: bytes) -> str:
    """A hostile name as safe text: normalised, without control and bidi characters, capped."""
    return plain(raw.decode("utf-8", errors="replace"))[:NAME_MAX]
