"""What users read back: transactions, the log by REST, and the heights of the chains."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from config import keys
from config.chains import Chain
from handlers.deps import Deps
from handlers.errors import LogTruncated, NotFound, Unavailable
from handlers.rules import search as search_rules
from handlers.rules import wire
from handlers.rules.categorize import Assignment
from handlers.rules.heights import ChainHeights, heights
from handlers.rules.looks import category_resource, looks_of
from store import budgets, cursors, history, log, memos, outbox, search
from store.blind import Blind, Blinds
from store.history import Filters, Position
from store.postgres import frozen, in_transaction
from store.records import Address, Cursor, Entry, TransactionRow
from store.sealed import KeyRing
from store.search import Hits, Parts

EVENTS_BYTES = 1024 * 1024
"""Payload bytes of one page of the log; at least one event fits."""

NEAREST = 100
"""Texts that a search by meaning takes: beyond, nothing is like what was asked."""

_ID = re.compile(r"([0-9]{1,18}):0x[0-9a-f]{64}:[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class TransactionPage:
    """Some transactions, and where the next page begins (None: there is none)."""

    resources: Sequence[Mapping[str, object]]
    next: Position | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What is looked for by meaning: the model, and its vector as each of the user's keys turns it, by key id."""

    model: str
    vectors: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Near:
    """A place in a list that is nearest first, newest first where equally near."""

    distance: float
    position: Position

    def is_before(self, distance: float, row: TransactionRow) -> bool:
        """Whether this place comes before a row."""
        if distance != self.distance:
            return distance > self.distance
        return (row.block_time, row.id) < (self.position.block_time, self.position.id)


@dataclass(frozen=True, slots=True)
class SimilarPage:
    """Some transactions, and where the next page begins (None: there is none)."""

    resources: Sequence[Mapping[str, object]]
    next: Near | None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some of a user's log: `seq` is the position that a reader has reached with it."""

    epoch: str
    seq: int
    entries: Sequence[Entry]
    has_more: bool


@dataclass(frozen=True, slots=True)
class ChainState:
    """A chain of the table and where it is; None before its first block is committed."""

    chain: Chain
    cursor: Cursor | None
    heights: ChainHeights | None


async def narrowed(deps: Deps, user: Address, filters: Filters, q: str | None) -> Filters:
    """Filters that leave what a text finds, too; None leaves everything. What says nothing finds nothing."""
    if q is None:
        return filters
    asked = search_rules.query(q)
    prefixes = asked.prefixes or None
    if not asked.words:
        return replace(filters, prefixes=prefixes, hits=None if prefixes else Hits((), ()))
    blinds = Blinds.of(deps.settings).of_user(user)
    hits = await search.find(deps.pool, user, [[_hashed(blind, word) for word in asked.words] for blind in blinds])
    return replace(filters, prefixes=prefixes, hits=hits)


def _hashed(blind: Blind, word: search_rules.Word) -> Parts:
    return Parts(list(map(blind.number, word.exact)), list(map(blind.number, word.fuzzy)))


async def transactions(
    deps: Deps, user: Address, filters: Filters, *, q: str | None = None, below: Position | None, limit: int
) -> TransactionPage:
    """A user's transactions, newest first, with `q` those it finds; not those of chains that left the table."""
    filters = await narrowed(deps, user, filters, q)
    rows = await history.transactions(deps.pool, user, filters, below=below, limit=limit + 1)
    page = rows[:limit]
    more = Position(page[-1].block_time, page[-1].id) if len(rows) > limit else None
    return TransactionPage(await _resources(deps, page, await _levels(deps)), more)


async def similar(
    deps: Deps, user: Address, filters: Filters, *, asked: Asked, below: Near | None, limit: int
) -> SimilarPage:
    """A user's transactions whose texts mean most nearly what is asked, nearest first; raises Unavailable.

    Only vectors of the asked model count; texts that have none yet are asked for, and missing until then.
    """
    if await search.is_unread(deps.pool, user, asked.model):
        await _read_texts(deps, user)
    found = await search.nearest(deps.pool, user, asked.model, vectors=asked.vectors, limit=NEAREST)
    if not found and await search.is_unread(deps.pool, user, asked.model):
        raise Unavailable("Your transactions are being read for their meaning; try again.", retry_after_s=5)
    texts = await search.rows_of(deps.pool, user, list(found))
    few = replace(filters, hits=Hits(list(found), list(texts)))
    rows = await history.transactions(deps.pool, user, few, below=None, limit=search.FEW)
    ranked = sorted(((found[texts[row.id]], row) for row in rows), key=lambda pair: pair[0])  # stable: newest first
    rest = [(distance, row) for distance, row in ranked if below is None or below.is_before(distance, row)]
    page = [row for _, row in rest[:limit]]
    more = None
    if len(rest) > limit:
        distance, last = rest[limit - 1]
        more = Near(distance, Position(last.block_time, last.id))
    return SimilarPage(await _resources(deps, page, await _levels(deps)), more)


async def _read_texts(deps: Deps, user: Address) -> None:
    await in_transaction(deps.pool, lambda tx: outbox.request(tx, "slow", "embed_texts", {"user": user}))
    await deps.publisher.wake(keys.JOBS_WAKE)


async def transaction(deps: Deps, user: Address, id_: str) -> Mapping[str, object]:
    """One of a user's transactions; raises NotFound for anything else, other people's too."""
    match = _ID.fullmatch(id_)
    chain = deps.chains.get(int(match[1])) if match else None
    row = None if chain is None else await history.transaction(deps.pool, user, id_, chain_id=chain.id)
    if row is None:
        raise NotFound("You have no transaction of this id.")
    return (await _resources(deps, [row], await _levels(deps)))[0]


async def _resources(
    deps: Deps, rows: Sequence[TransactionRow], levels: Mapping[int, wire.Heights]
) -> list[Mapping[str, object]]:
    """Rows of one user with what the user made of them."""
    noted = await memos.for_rows(deps.pool, KeyRing.of(deps.settings), rows)
    categories = await _categories(deps, [row for row in rows if row.role == "owner"])
    return [
        wire.transaction(
            row,
            deps.chains[row.chain_id],
            status=_status(row, levels),
            category=categories.get(row.id) if row.role == "owner" else None,
            memo=noted.of_row(row),
        )
        for row in rows
    ]


async def _categories(deps: Deps, rows: Sequence[TransactionRow]) -> dict[str, Mapping[str, object]]:
    """Categories of one user's rows by transaction id, as the user sees them."""
    made = await budgets.assigned(deps.pool, [(row.user, row.id) for row in rows])
    if not made:
        return {}
    user = made[0].user
    rows_, customs = await budgets.looks(deps.pool, [user])
    looks = looks_of([user], rows_, customs, cdn_url=deps.settings.cdn_url)[user]
    found = {
        row.transaction_id: category_resource(
            looks, Assignment(row.category_id, row.confidence, row.source, row.reasoning)
        )
        for row in made
    }
    return {key: category for key, category in found.items() if category is not None}


def _status(row: TransactionRow, levels: Mapping[int, wire.Heights]) -> wire.Status:
    # A row commits together with its chain's cursor; without one it was taken back while we looked.
    reached = levels.get(row.chain_id)
    return wire.status(row.block_number, reached) if reached else "included"


async def events(deps: Deps, user: Address, *, epoch: str | None, after: int, limit: int) -> EventPage:
    """A user's log above seq `after`; raises LogTruncated when it has another epoch or does not reach back."""
    async with frozen(deps.pool) as tx:
        head = (await log.heads(tx, [user])).get(user)
        if head is None or (epoch is not None and epoch != head.epoch):
            raise LogTruncated("The log has another epoch; fetch /v1/snapshot and begin from its seq.")
        if after > head.seq or after + 1 < head.first_seq:
            raise LogTruncated(
                f"The log holds {head.first_seq} to {head.seq}; fetch /v1/snapshot and begin from its seq."
            )
        entries = await log.after(tx, user, after, limit=limit, max_bytes=EVENTS_BYTES)
    seq = entries[-1].seq if entries else after
    return EventPage(head.epoch, seq, entries, seq < head.seq)


async def chains(deps: Deps) -> list[ChainState]:
    """Every chain of the table and where it is, in the order of the table."""
    standing = await cursors.cursors(deps.pool)
    return [
        ChainState(chain, cursor, None if cursor is None else heights(cursor, chain))
        for chain in deps.chains.values()
        for cursor in [standing.get(chain.id)]
    ]


async def chain_heights(deps: Deps) -> dict[int, ChainHeights]:
    """Heights of every chain that has a committed block."""
    return {state.chain.id: state.heights for state in await chains(deps) if state.heights is not None}


async def unfinal(deps: Deps, users: Sequence[Address]) -> dict[Address, dict[int, int]]:
    """Highest block number with a transaction that is not final, by user and chain; others are left out."""
    reached = await chain_heights(deps)
    return await history.unfinal(deps.pool, users, {chain_id: facts.finalized for chain_id, facts in reached.items()})


async def _levels(deps: Deps) -> dict[int, wire.Heights]:
    return {chain_id: facts.levels for chain_id, facts in (await chain_heights(deps)).items()}
