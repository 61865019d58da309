"""Idempotency keys: who claimed one, and what the call under it was answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("idempotency")

KEPT_S = 86_400.0
"""How long an answer is kept (s): the contract says 24 hours."""
LEASE_S = 60.0
"""How long a call may run before it counts as dead (s): a request has 15, what it began in the database 30 more."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A key that was claimed before; `status` is None while its call runs."""

    fingerprint: bytes
    status: int | None
    body: bytes
    headers: Mapping[str, str]


async def claim(pool: Pool, user: Address, key: str, *, fingerprint: bytes, claim: UUID) -> Kept | None:
    """Claim a key for a call; None when it is the caller's now, else what became of its first call."""
    while True:
        if await pool.fetchval(SQL["claim"], user, key, fingerprint, claim, KEPT_S, LEASE_S):
            return None
        row = await pool.fetchrow(SQL["kept"], user, key)
        if row is not None:  # None: released between the two statements
            return Kept(row["fingerprint"], row["status"], row["body"], row["headers"])


async def keep(
    pool: Pool, user: Address, key: str, *, claim: UUID, status: int, body: bytes, headers: Mapping[str, str]
) -> None:
    """Keep the answer of the call that holds `claim`."""
    await pool.execute(SQL["keep"], user, key, claim, status, body, dict(headers))


async def release(pool: Pool, user: Address, key: str, *, claim: UUID) -> None:
    """Give a key back whose call did nothing."""
    await pool.execute(SQL["release"], user, key, claim)


async def prune(conn: Tx | Pool, *, batch: int) -> int:
    """Delete one batch of keys past their day; returns how many."""
    return int(await conn.fetchval(SQL["prune"], KEPT_S, batch))
