"""The search index is made of what the ledger, memos, contacts and categories say, after each of them changed.

A job's arguments name what to look at again; it reads that as it is now and writes it, in one transaction for each
chunk, under the users' search locks: run twice, or beside another, it leaves the index as the newest state has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from config import keys
from handlers.deps import Deps
from handlers.rules.search import Document
from store import memos, outbox, people, search
from store.blind import Blind, Blinds
from store.outbox import Claim, Wanted
from store.postgres import Tx, frozen, in_transaction
from store.records import Address
from store.sealed import KeyRing
from store.search import BEFORE_ALL, RowKey, Source, Text

CHUNK = 500
"""Transactions of one transaction of ours: some 50 ms."""
CHUNKS = 20
"""Chunks of one run; the rest is a run of its own, so that no run takes long."""

BLOCK, ROWS, MANY = "index_block", "index_rows", "index_many"
EMBED = "embed_texts"
EMBEDDED_AT_ONCE = 32
"""Texts read for their meaning by one call of a model: some 100 ms of the local one."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """What a chunk wrote: the last transaction looked at (None: it was the last chunk), and whose they were."""

    last: RowKey | None
    done: bool


async def index(deps: Deps, claim: Claim) -> bool:
    """Bring the index of what a claim names to the present; False when it was asked for again meanwhile."""
    after: RowKey = tuple(claim.args.get("after", BEFORE_ALL))
    for left in range(CHUNKS - 1, -1, -1):
        chunk = await in_transaction(deps.pool, partial(_chunk, deps, claim=claim, after=after, more=left > 0))
        if chunk.last is None:
            return chunk.done
        after = chunk.last
    await deps.publisher.wake(keys.JOBS_WAKE)
    return chunk.done


async def _chunk(deps: Deps, tx: Tx, *, claim: Claim, after: RowKey, more: bool) -> Indexed:
    """One chunk beyond `after`; the last of a run (not `more`) asks for the rest, the last of all ends the claim."""
    found = await _keys(tx, claim.args, after=after)
    if found:
        await search.lock(tx, {user for user, _ in found})
        new = await write(tx, found, ring=KeyRing.of(deps.settings), blinds=Blinds.of(deps.settings))
        await outbox.request_each(tx, [Wanted("slow", EMBED, {"user": user}) for user in new])
    if len(found) < CHUNK:
        return Indexed(None, await outbox.done(tx, claim))
    if more:
        return Indexed(found[-1], done=False)
    await outbox.request(tx, "slow", MANY, {**claim.args, "after": list(found[-1])})
    return Indexed(found[-1], await outbox.done(tx, claim))


async def _keys(tx: Tx, args: Mapping[str, Any], *, after: RowKey) -> list[RowKey]:
    """Transactions that the arguments of a job name, in order beyond `after`."""
    match args:
        case {"chainId": chain_id, "hash": block_hash}:
            return await search.of_block(tx, chain_id, block_hash, after=after, limit=CHUNK)
        case {"user": user, "chainId": chain_id, "txHash": tx_hash}:
            return await search.of_hash(tx, user, chain_id, tx_hash, after=after, limit=CHUNK)
        case {"user": user, "payee": payee}:
            return await search.of_payee(tx, user, payee, after=after, limit=CHUNK)
        case {"user": user, "category": category_id}:
            return await search.of_category(tx, user, category_id, after=after, limit=CHUNK)
        case {"user": user}:
            return await search.of_user(tx, user, after=after, limit=CHUNK)
    raise ValueError(f"{args!r} names nothing to index")


async def write(tx: Tx, wanted: Sequence[RowKey], *, ring: KeyRing, blinds: Blinds) -> list[Address]:
    """Write the index rows of these transactions; call under the search locks of their users.

    Returns signed-in users with a new text: what it means is to be read.
    """
    rows: dict[RowKey, int | None] = dict.fromkeys(wanted)
    texts: dict[tuple[Address, int], Text] = {}
    hashing = _by_user(blinds)
    for source, document in await documents(tx, wanted, ring=ring):
        grams = document.grams
        if grams:
            blind = hashing(source.user)
            number = text_id(blind, document)
            rows[source.user, source.id] = number
            if (source.user, number) not in texts:
                hashes = sorted({blind.number(gram) for gram in grams})
                texts[source.user, number] = Text(source.user, number, blind.key_id, hashes)
    return await search.save(tx, texts.values(), rows)


async def documents(tx: Tx, wanted: Sequence[RowKey], *, ring: KeyRing) -> list[tuple[Source, Document]]:
    """What these transactions say now, memos opened; those that do not count are left out."""
    found = await search.sources(tx, wanted)
    owned = [source for source in found if source.role == "owner"]
    noted = await memos.for_transactions(tx, ring, {s.user for s in owned}, {(s.chain_id, s.tx_hash) for s in owned})
    return [(source, _document(source, noted)) for source in found]


def _document(source: Source, noted: memos.Memos) -> Document:
    memo = noted.of(source.user, source.chain_id, source.tx_hash, source.n) if source.role == "owner" else None
    told = (memo, source.label, source.bucket, source.to_bucket, source.category)
    return Document(*(text or "" for text in told))


def text_id(blind: Blind, document: Document) -> int:
    """Id of a document among its user's: a hash of all it says."""
    return blind.number("\x1f".join(("text", *document.texts)))


def _by_user(blinds: Blinds) -> Callable[[Address], Blind]:
    made: dict[Address, Blind] = {}

    def of(user: Address) -> Blind:
        if user not in made:
            made[user] = blinds.of_user(user)[0]
        return made[user]

    return of


# Meaning ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """A text that is to be read: its id, the key that is to turn its vector, and the text."""

    id: int
    blind: Blind
    text: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Texts that a model has not read; `above` is where to look on, None: there are no more."""

    texts: Sequence[Said]
    above: int | None


async def waiting(deps: Deps, user: Address, model: str, *, above: int) -> Waiting:
    """Some of a user's texts without a vector of a model.

    One whose transaction says something else by now is left out: its own job indexes it anew.
    """
    async with frozen(deps.pool) as tx:
        found = await search.unread(tx, user, model, above=above, limit=EMBEDDED_AT_ONCE)
        said = await documents(tx, [(user, each.transaction_id) for each in found], ring=KeyRing.of(deps.settings))
    by_id = {source.id: document for source, document in said}
    blinds = {blind.key_id: blind for blind in Blinds.of(deps.settings).of_user(user)}
    texts = [
        Said(each.id, blinds[each.key_id], document.said)
        for each in found
        if each.key_id in blinds
        and (document := by_id.get(each.transaction_id)) is not None
        and text_id(blinds[each.key_id], document) == each.id
    ]
    return Waiting(texts, found[-1].id if len(found) == EMBEDDED_AT_ONCE else None)


async def keep(deps: Deps, user: Address, model: str, *, vectors: Mapping[int, str]) -> None:
    """Keep vectors of a user's texts by their ids."""
    await search.keep_vectors(deps.pool, user, model, vectors)


async def consents(deps: Deps, user: Address) -> bool:
    """Whether a user lets others' models read what is theirs."""
    person = await people.person(deps.pool, user)
    return person is not None and person.ai_consent
