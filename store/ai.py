"""What models are asked about, what they answered before, and what they cost.

The ledger of costs is kept by user and UTC day. A call is charged before it is made, at the most it can cost, and set
right after: so the cap holds for calls at the same time, and a worker that dies in between has charged too much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import structlog

from config import keys
from store.postgres import Pool, Tx, in_transaction
from store.records import Address
from store.redis import AWAY, Client, bounded
from store.statements import load

SQL = load("ai")

ANSWERS_KEPT_S = 7 * 86_400
"""Life of a kept answer (s): a habit of every week is asked about once."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SpendRow:
    """A spend that models may be asked about. Its memo is sealed elsewhere (store/memos.py)."""

    user: Address
    id: str
    chain_id: int
    tx_hash: str
    n: int
    counterparty: Address | None
    bucket: str | None
    usd: Decimal | None
    label: str | None
    """The user's name for the counterparty."""
    consents: bool
    """Whether the user lets others' models read it."""


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """A category of one user, `slug` of the default ones."""

    id: str
    slug: str | None
    name: str
    description: str


@dataclass(frozen=True, slots=True)
class Bill:
    """Whose calls they are: the user and UTC day, and whom they pay."""

    user: Address
    day: date
    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one model cost a user on a day; `cost_usd` in dollars."""

    day: date
    provider: str
    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal


async def uncategorized(
    conn: Tx | Pool, chain_id: int, block_hash: str, *, above: tuple[str, str], limit: int
) -> list[SpendRow]:
    """Spends of a block without a category, in the order of (user, id), from `above` on; ('', '') begins."""
    return [SpendRow(*row) for row in await conn.fetch(SQL["uncategorized"], chain_id, block_hash, *above, limit)]


async def spend(conn: Tx | Pool, user: Address, transaction_id: str) -> SpendRow | None:
    """One canonical spend of the user; None when there is none, or its category was chosen by hand."""
    row = await conn.fetchrow(SQL["spend"], user, transaction_id)
    return None if row is None else SpendRow(*row)


async def candidates(conn: Tx | Pool, users: Sequence[Address]) -> dict[Address, list[CandidateRow]]:
    """Categories that spends of these users may get, the defaults first."""
    found: dict[Address, list[CandidateRow]] = {user: [] for user in users}
    for user, id_, slug, name, description in await conn.fetch(SQL["candidates"], list(users)):
        found[user].append(CandidateRow(str(id_), slug, name, description))
    return found


async def reserve(pool: Pool, bill: Bill, cost: Decimal, *, cap: Decimal) -> bool:
    """Charge a call at `cost` dollars, the most it can; False, and nothing is charged, beyond the day's cap."""

    async def body(tx: Tx) -> bool:
        await tx.execute(SQL["lock_usage"], bill.user)
        if await spent(tx, bill.user, bill.day) + cost > cap:
            return False
        await _charge(tx, bill, (1, 0, 0), cost)
        return True

    return await in_transaction(pool, body)


async def settle(
    pool: Pool, bill: Bill, *, reserved: Decimal, cost: Decimal, input_tokens: int, output_tokens: int
) -> None:
    """Put what a call did cost in the place of what was reserved (dollars); it stays one call."""
    await _charge(pool, bill, (0, input_tokens, output_tokens), cost - reserved)


async def release(pool: Pool, bill: Bill, *, reserved: Decimal) -> None:
    """A call that was not served costs nothing and counts as none."""
    await _charge(pool, bill, (-1, 0, 0), -reserved)


async def spent(conn: Tx | Pool, user: Address, day: date) -> Decimal:
    """What a user's calls cost on a day (dollars), those under way at the most they can."""
    total: Decimal = await conn.fetchval(SQL["spent"], user, day)
    return total


async def usage(conn: Tx | Pool, user: Address, *, since: date) -> list[UsageRow]:
    """What a user's calls cost by day and model, newest day first."""
    return [UsageRow(*row) for row in await conn.fetch(SQL["usage"], user, since)]


async def _charge(conn: Tx | Pool, bill: Bill, counts: tuple[int, int, int], cost: Decimal) -> None:
    await conn.execute(SQL["charge"], bill.user, bill.day, bill.provider, bill.model, *counts, cost)


class Answers:
    """Answers by the key of their question, in Redis; nothing is found while it is away."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """What is kept under these names."""
        found: dict[str, bytes] = {}
        try:
            # One by one: in a cluster they lie apart.
            for name in names:
                kept = await bounded(self._client.get(keys.ai_answer(name)))
                if kept is not None:
                    found[name] = kept if isinstance(kept, bytes) else kept.encode()
        except AWAY as error:
            log.info("answers_not_read", error=repr(error))
        return found

    async def keep(self, answers: Mapping[str, bytes]) -> None:
        """Keep answers for ANSWERS_KEPT_S."""
        try:
            for name, answer in answers.items():
                await bounded(self._client.set(keys.ai_answer(name), answer, ex=ANSWERS_KEPT_S))
        except AWAY as error:
            log.info("answers_not_kept", error=repr(error))
