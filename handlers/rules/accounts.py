"""Names of accounts: one per user, chain and type. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from store.records import AccountType, Address

ACCOUNT_TYPES: tuple[AccountType, ...] = ("spending", "investment", "savings")
"""In the order in which the V2 contract numbers them."""

_ID = re.compile(r"eip155:([1-9][0-9]{0,18}):(0x[0-9a-f]{40}):(spending|investment|savings)")


@dataclass(frozen=True, slots=True)
class Place:
    """Which account an id names."""

    user: Address
    chain_id: int
    type: AccountType


def account_id(user: Address, chain_id: int, kind: AccountType) -> str:
    """`eip155:<chainId>:<address>:<type>`: CAIP-10, and which of the user's accounts there."""
    return f"eip155:{chain_id}:{user}:{kind}"


def account_of(text: str) -> Place | None:
    """The account an id names, in any case; None for what is no such id."""
    found = _ID.fullmatch(text.lower())
    if found is None or int(found[1]) >= 2**63:
        return None
    kind = next(kind for kind in ACCOUNT_TYPES if kind == found[3])
    return Place(found[2], int(found[1]), kind)
