"""The search index: which text each transaction has, and by which parts a text is found. Parts come hashed.

Whoever writes takes `lock` first, in the transaction that reads what is written: so the last writer has read last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID
from zlib import crc32

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("search")

LOCKS = 64
"""Locks that all users share."""
FEW = 2000
"""Transactions up to which a search fetches them by their ids; beyond, it walks the history and looks at each."""

RowKey = tuple[Address, str]
"""User and transaction id."""
BEFORE_ALL: RowKey = ("", "")


@dataclass(frozen=True, slots=True)
class Source:
    """What a transaction says beside its memo, which is sealed: None where it says nothing."""

    user: Address
    id: str
    chain_id: int
    tx_hash: str
    n: int
    role: str
    bucket: str | None
    to_bucket: str | None
    label: str | None
    category: str | None


@dataclass(frozen=True, slots=True)
class Text:
    """A distinct text of one user: its id, the key that hashed it, and the hashes of its parts."""

    user: Address
    id: int
    key_id: str
    grams: Sequence[int]


@dataclass(frozen=True, slots=True)
class Unread:
    """A text whose meaning no vector of a model has, the key that hashed it, and a transaction that says it."""

    id: int
    key_id: str
    transaction_id: str


@dataclass(frozen=True, slots=True)
class Parts:
    """A word that is looked for, hashed: parts that a text must have all, else parts of which half will do."""

    exact: Sequence[int]
    fuzzy: Sequence[int]


@dataclass(frozen=True, slots=True)
class Hits:
    """What a search found: texts, and the transactions that have them where these are FEW."""

    texts: Sequence[int]
    ids: Sequence[str] | None


async def lock(tx: Tx, users: Iterable[Address]) -> None:
    """Let nobody else write these users' rows until the end of this transaction."""
    await tx.execute(SQL["lock"], sorted({crc32(user.encode()) % LOCKS for user in users}))


async def of_block(conn: Tx | Pool, chain_id: int, block_hash: str, *, after: RowKey, limit: int) -> list[RowKey]:
    """Transactions of a block, reverted ones too, in order beyond `after`."""
    return [tuple(row) for row in await conn.fetch(SQL["of_block"], chain_id, block_hash, *after, limit)]


async def of_hash(
    conn: Tx | Pool, user: Address, chain_id: int, tx_hash: str, *, after: RowKey, limit: int
) -> list[RowKey]:
    """A user's rows of one transaction of the chain, in order beyond `after`."""
    return [tuple(row) for row in await conn.fetch(SQL["of_hash"], user, chain_id, tx_hash, after[1], limit)]


async def of_payee(conn: Tx | Pool, user: Address, payee: Address, *, after: RowKey, limit: int) -> list[RowKey]:
    """A user's transactions with one counterparty, in order beyond `after`."""
    return [tuple(row) for row in await conn.fetch(SQL["of_payee"], user, payee, after[1], limit)]


async def of_category(conn: Tx | Pool, user: Address, category_id: str, *, after: RowKey, limit: int) -> list[RowKey]:
    """A user's transactions of one category, in order beyond `after`."""
    return [tuple(row) for row in await conn.fetch(SQL["of_category"], user, UUID(category_id), after[1], limit)]


async def of_user(conn: Tx | Pool, user: Address, *, after: RowKey, limit: int) -> list[RowKey]:
    """All of a user's transactions, in order beyond `after`."""
    return [tuple(row) for row in await conn.fetch(SQL["of_user"], user, after[1], limit)]


async def users(conn: Tx | Pool, *, after: Address, limit: int) -> list[Address]:
    """Users with a ledger in the order of their addresses, beyond `after` ('' is before all)."""
    return [row["user_address"] for row in await conn.fetch(SQL["users"], after, limit)]


async def sources(tx: Tx, keys: Sequence[RowKey]) -> list[Source]:
    """What these transactions say now; those that no longer count are left out."""
    if not keys:
        return []
    return [Source(*row) for row in await tx.fetch(SQL["sources"], *map(list, zip(*keys, strict=True)))]


async def save(tx: Tx, texts: Iterable[Text], rows: Mapping[RowKey, int | None]) -> list[Address]:
    """Say which text these transactions have (None: none), with those texts; texts that nobody has any more go.

    Returns the signed-in users who have a text that they had not before.
    """
    wanted = {(text.user, text.id): text for text in texts}
    new = []
    if wanted:
        columns = [(t.user, t.id, t.key_id, "{" + ",".join(map(str, t.grams)) + "}") for t in wanted.values()]
        found = await tx.fetch(SQL["save_texts"], *map(list, zip(*columns, strict=True)))
        new = [row["user_address"] for row in found]
    if rows:
        columns_ = [(user, id_, text) for (user, id_), text in rows.items()]
        old = await tx.fetch(SQL["save_rows"], *map(list, zip(*columns_, strict=True)))
        if old:
            await tx.execute(SQL["forget_texts"], *map(list, zip(*(tuple(row) for row in old), strict=True)))
    return new


async def find(conn: Tx | Pool, user: Address, asked: Sequence[Sequence[Parts]]) -> Hits:
    """Texts of a user that have every word; `asked` holds the words once for each key that may have hashed them."""
    known: set[int] = set()
    for words in asked:
        flat = [(at, part) for at, word in enumerate(words) for part in word.exact]
        known |= {
            row["word"] for row in await conn.fetch(SQL["known_words"], user, *map(list, zip(*flat, strict=True)))
        }
    found: list[int] = []
    for words in asked:
        found += await _texts(conn, user, words, known)
    if not found:
        return Hits((), ())
    ids = [row["transaction_id"] for row in await conn.fetch(SQL["transactions_of"], user, found, FEW + 1)]
    return Hits(found, None if len(ids) > FEW else ids)


async def _texts(conn: Tx | Pool, user: Address, words: Sequence[Parts], known: set[int]) -> list[int]:
    """Those hashed by one key; `known` words have to be there whole."""
    whole = sorted({part for at, word in enumerate(words) if at in known for part in word.exact})
    meant = [(at, part) for at, word in enumerate(words) if at not in known for part in word.fuzzy]
    if any(at not in known and not word.fuzzy for at, word in enumerate(words)):
        return []
    if not meant:
        return [row["id"] for row in await conn.fetch(SQL["texts_with"], user, whole)]
    rows = await conn.fetch(SQL["texts_like"], user, whole, *map(list, zip(*meant, strict=True)))
    return [row["id"] for row in rows]


async def unread(conn: Tx | Pool, user: Address, model: str, *, above: int, limit: int) -> list[Unread]:
    """A user's texts without a vector of a model, in the order of their ids above one."""
    return [Unread(*row) for row in await conn.fetch(SQL["unread"], user, model, above, limit)]


async def is_unread(conn: Tx | Pool, user: Address, model: str) -> bool:
    """Whether a user has texts without a vector of a model."""
    return bool(await conn.fetchval(SQL["is_unread"], user, model))


async def keep_vectors(conn: Tx | Pool, user: Address, model: str, vectors: Mapping[int, str]) -> None:
    """Keep vectors (as pgvector writes them) of texts by their ids, in place of those of another model."""
    await conn.execute(SQL["keep_vectors"], user, model, list(vectors), list(vectors.values()))


async def nearest(
    conn: Tx | Pool, user: Address, model: str, *, vectors: Mapping[str, str], limit: int
) -> dict[int, float]:
    """A user's texts nearest to a vector, which is given as each key turns it: id -> distance, nearest first."""
    found: list[tuple[float, int]] = []
    for key_id, vector in vectors.items():
        rows = await conn.fetch(SQL["nearest"], user, model, key_id, vector, limit)
        found += [(row["distance"], row["id"]) for row in rows]
    return {id_: distance for distance, id_ in sorted(found)[:limit]}


async def rows_of(conn: Tx | Pool, user: Address, texts: Sequence[int]) -> dict[str, int]:
    """Transactions of texts, FEW at most, those of the first ones first: transaction id -> text id."""
    return {row["transaction_id"]: row["text_id"] for row in await conn.fetch(SQL["rows_of"], user, list(texts), FEW)}
