"""Sums of one user's ledger over a span of time, exact: dollars where a price was known, and how many had none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from store.postgres import Tx
from store.records import Address
from store.statements import load

SQL = load("reports")


@dataclass(frozen=True, slots=True)
class Sum:
    """What transactions of one name came to: how many, their dollars, and how many of them have no price."""

    name: str | None
    count: int
    usd: Decimal
    unpriced: int


@dataclass(frozen=True, slots=True)
class Flow:
    """The same by type and direction."""

    type: str
    direction: str
    count: int
    usd: Decimal
    unpriced: int


@dataclass(frozen=True, slots=True)
class Sums:
    """All of it for one span."""

    flows: Sequence[Flow]
    categories: Sequence[Sum]
    payees: Sequence[Sum]
    buckets: Sequence[Sum]


async def sums(tx: Tx, user: Address, *, since: datetime, until: datetime, payees: int) -> Sums:
    """What a user's money did in [since, until): by type, category id (None: none), the first `payees`, bucket."""
    span = (user, since, until)
    return Sums(
        [Flow(*row) for row in await tx.fetch(SQL["by_type"], *span)],
        [Sum(*row) for row in await tx.fetch(SQL["by_category"], *span)],
        [Sum(*row) for row in await tx.fetch(SQL["by_payee"], *span, payees)],
        [Sum(*row) for row in await tx.fetch(SQL["by_bucket"], *span)],
    )
