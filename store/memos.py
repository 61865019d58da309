"""Memos: a user's own notes on transactions, sealed at rest.

A note for a whole transaction (n None) may come before the transaction does; a note on one of its rows goes before it.
An empty note on a row says that none is wanted there, whatever is noted for the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from store.postgres import Pool, Tx
from store.records import Address, TransactionRow
from store.sealed import KeyRing
from store.statements import load

SQL = load("memos")

MemoKey = tuple[Address, int, str, int | None]
"""User, chain id, transaction hash, and the row within the transaction; None: the whole."""


@dataclass(frozen=True, slots=True)
class Memos:
    """Notes that were read, in clear."""

    texts: Mapping[MemoKey, str]

    def of(self, user: Address, chain_id: int, tx_hash: str, n: int) -> str | None:
        """A user's note on one row, or the one for the whole transaction; None without one."""
        own = self.texts.get((user, chain_id, tx_hash, n))
        return (self.texts.get((user, chain_id, tx_hash, None)) if own is None else own) or None

    def of_row(self, row: TransactionRow) -> str | None:
        """What is shown with a ledger row: its owner's note. A delegate has none."""
        return self.of(row.user, row.chain_id, row.tx_hash, row.n) if row.role == "owner" else None

    def by_id(self, rows: Iterable[tuple[int, str, int]]) -> dict[Address, dict[str, str]]:
        """Notes by user and transaction id, for these rows (chain id, transaction hash, n) whoever they concern."""
        writers: dict[tuple[int, str], set[Address]] = {}
        for user, chain_id, tx_hash, _ in self.texts:
            writers.setdefault((chain_id, tx_hash), set()).add(user)
        found: dict[Address, dict[str, str]] = {}
        for chain_id, tx_hash, n in rows:
            for user in writers.get((chain_id, tx_hash), ()):
                text = self.of(user, chain_id, tx_hash, n)
                if text is not None:
                    found.setdefault(user, {})[f"{chain_id}:{tx_hash}:{n}"] = text
        return found


async def for_transactions(
    conn: Tx | Pool, ring: KeyRing, users: Iterable[Address], transactions: Iterable[tuple[int, str]]
) -> Memos:
    """What these users noted on these transactions (chain id, hash), in one query.

    A note that does not open (its key left the settings) is left out, logged and counted: a block must not wait for it.
    """
    keys = set(transactions)
    who: Sequence[Address] = list(set(users))
    if not who or not keys:
        return Memos({})
    chain_ids, hashes = list({chain_id for chain_id, _ in keys}), list({tx_hash for _, tx_hash in keys})
    texts: dict[MemoKey, str] = {}
    for row in await conn.fetch(SQL["memos"], who, chain_ids, hashes):
        text = ring.readable(row["memo"], purpose="memo", owner=row["user_address"])
        if text is not None:
            texts[row["user_address"], row["chain_id"], row["tx_hash"], row["n"]] = text
    return Memos(texts)


async def for_rows(conn: Tx | Pool, ring: KeyRing, rows: Sequence[TransactionRow]) -> Memos:
    """What their owners noted on these ledger rows, in one query."""
    owned = [row for row in rows if row.role == "owner"]
    return await for_transactions(conn, ring, [row.user for row in owned], [(r.chain_id, r.tx_hash) for r in owned])


async def put(tx: Tx, key: MemoKey, sealed: bytes, *, at: datetime) -> None:
    """Keep a sealed note, in place of an earlier one."""
    await tx.execute(SQL["put_memo"], *key, sealed, at)


async def delete(tx: Tx, key: MemoKey) -> None:
    """Forget a note; without one nothing happens."""
    await tx.execute(SQL["delete_memo"], *key)


async def has_whole(tx: Tx, user: Address, chain_id: int, tx_hash: str) -> bool:
    """Whether the user noted something for the whole transaction."""
    return bool(await tx.fetchval(SQL["has_whole"], user, chain_id, tx_hash))


async def owned(tx: Tx, user: Address, chain_id: int, tx_hash: str) -> list[str]:
    """Ids of the user's own canonical rows of one transaction."""
    rows = await tx.fetch(SQL["owned"], user, chain_id, tx_hash)
    return [f"{chain_id}:{tx_hash}:{row['n']}" for row in rows]
