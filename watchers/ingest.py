"""One chain's single writer: each block is one transaction on the lock's own connection; publishing comes after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import TypeVar

import structlog

from config import keys, metrics
from config.chains import Chain
from handlers import blocks, reverts
from handlers.blocks import Openings, ParentMismatch, Terms
from handlers.chain_events import DecodedBlock, WalletEvent
from handlers.committed import Committed
from handlers.deps import Deps
from handlers.rules.holdings import NOTHING_READ, Values
from handlers.rules.prices import NONE, Prices, needed
from store import cursors, prices, spending, yields
from store.cursors import CursorMoved
from store.postgres import LOST, Connection, Tx, connect, retrying
from store.prices import PriceRow
from store.records import Address, BlockRef, Cursor
from store.yields import Source
from watchers.decode import learn
from watchers.yields import NOTHING_WANTED, Wanted, touched_locks, touched_vaults

logger = structlog.get_logger(__name__)

T = TypeVar("T")

LOCK_RETRY_S = 1.0
"""How often a standby asks for the lock (s): it takes over well within 5 s."""

OPENINGS_PER_BLOCK = 100
"""Users whose own balance is opened with one block: bounds the balanceOf calls before it."""


class WriterLost(Exception):
    """The lock or the cursor is another's now: stop writing and become a standby."""


class Ledger:
    """What the follower does to a chain's ledger. Not for concurrent use: one block at a time."""

    def __init__(self, deps: Deps, chain: Chain, conn: Connection) -> None:
        self._deps = deps
        self._chain = chain
        self._conn = conn
        self._terms = Terms.of(deps.settings)
        self._cursor: Cursor | None = None
        self._wallets: dict[Address, Address | None] = {}
        self._prices = NONE
        self._valued_at: int | None = None
        """Block at which everything open was valued last."""

    async def load(self) -> None:
        """Read cursor, known wallets and newest prices; called once the lock is held, and after every revert."""
        self._cursor = await cursors.cursor(self._conn, self._chain.id)
        # A wallet of the table serves many: no factory's word makes it one user's.
        known = await spending.wallets_of_chain(self._conn, self._chain.id)
        if self._chain.vaults:
            await yields.follow_vaults(self._conn, self._chain.id, [vault.address for vault in self._chain.vaults])
        self._wallets = known | dict.fromkeys(self._chain.wallets)
        self._prices = Prices(await prices.latest(self._conn))

    async def cursor(self) -> Cursor | None:
        """Where the ledger stands; None before the first block."""
        return self._cursor

    async def wallets(self) -> Mapping[Address, Address | None]:
        """Wallet contracts whose events count, with their owners; None for one that serves many."""
        return self._wallets

    async def to_open(self, block: DecodedBlock) -> Sequence[Address]:
        """Users whose own balance is to be read at this block: those it makes known, and those who wait."""
        named = sorted({event.user for event in block.events if isinstance(event, WalletEvent)})
        fresh = await spending.unopened(self._conn, self._chain.id, named) if named else []
        waiting = await spending.pending_openings(self._conn, self._chain.id, limit=OPENINGS_PER_BLOCK)
        return sorted({*fresh, *waiting})

    async def to_price(self, block: DecodedBlock) -> Collection[Address]:
        """Tokens whose price this block needs, of those that have a feed."""
        wanted = needed(self._chain, block, self._wallets)
        users = wanted.users
        return wanted.tokens(await spending.registered(self._conn, self._chain.id, users) if users else ())

    async def to_value(self, block: DecodedBlock, *, opening: bool) -> Wanted:
        """What to read at this block: what positions it moves are worth, and now and then all that are open."""
        chain = self._chain
        if not chain.vaults and not chain.yield_locks:
            return NOTHING_WANTED
        sources = set(touched_locks(block))
        vaults = touched_vaults(block)
        users = {user for named in vaults.values() for user in named}
        if users and await spending.registered(self._conn, chain.id, users):
            sources |= {Source(vault) for vault in vaults}
        if opening:
            sources |= {Source(vault.address) for vault in chain.vaults}
        last = self._valued_at
        full = last is None or not last < block.number < last + self._deps.settings.yield_interval_blocks
        if full:
            sources |= set(await yields.open_sources(self._conn, chain.id))
        return Wanted(tuple(sorted(sources, key=str)), full)

    async def apply(
        self,
        block: DecodedBlock,
        *,
        head: int,
        finalized: int,
        openings: Openings | None = None,
        read: Sequence[PriceRow] = (),
        values: Values = NOTHING_READ,
    ) -> None:
        """Commit a block with the prices read at it, then publish it.

        Raises WriterLost, ParentMismatch or one of store.postgres.LOST.
        """
        started = perf_counter()
        before = self._cursor
        at_block = self._prices.at_block(self._chain.id, tuple(read))

        async def body(tx: Tx) -> Committed:
            return await blocks.apply(
                tx,
                self._chain,
                block,
                before=before,
                head=head,
                finalized=finalized,
                owners=self._wallets,
                openings=openings or {},
                now=self._deps.now(),
                prices=at_block,
                terms=self._terms,
                values=values,
            )

        committed = await self._commit(body)
        self._cursor = Cursor(self._chain.id, block.number, block.hash, block.time, head, finalized)
        self._prices = at_block
        for event in block.events:
            learn(self._wallets, event)
        if values.full:
            self._valued_at = block.number
        self._measure(block, committed, seconds=perf_counter() - started)
        await self._publish(committed)
        age_s = (self._deps.now() - block.time).total_seconds()
        metrics.of_chain(self._chain.id).block_to_publish_seconds.observe(max(0.0, age_s))

    async def revert(self) -> BlockRef:
        """Take the block the ledger stands at back, then publish that; returns the new tip."""
        before = self._cursor
        if before is None:
            raise LookupError(f"chain {self._chain.id}: nothing to revert")

        async def body(tx: Tx) -> Committed:
            return await reverts.revert(tx, self._chain, before=before, now=self._deps.now())

        committed = await self._commit(body)
        self._valued_at = None  # positions are as they were told before: the next block says what they are worth
        await self.load()
        await self._publish(committed)
        return committed.ref

    async def hash_at(self, number: int) -> str | None:
        """Our canonical hash at that height; None when it is not kept."""
        if self._cursor is not None and self._cursor.number == number:
            return self._cursor.hash
        return await cursors.hash_at(self._conn, self._chain.id, number)

    async def heights(self, *, head: int, finalized: int) -> None:
        """Record the chain's heights when there is no block to apply."""
        await cursors.move_heights(self._conn, self._chain.id, head=head, finalized=finalized)

    async def _commit(self, body: Callable[[Tx], Awaitable[Committed]]) -> Committed:
        async def once() -> Committed:
            async with self._conn.transaction():
                return await body(self._conn)

        try:
            # A commit cut off half-way leaves the cursor unknown: it is finished before anyone may cancel.
            return await _uncancelled(retrying(once))
        except CursorMoved as error:
            raise WriterLost(str(error)) from error

    async def _publish(self, committed: Committed) -> None:
        frames = [(frame.user, frame.text) for frame in committed.frames]
        await self._deps.publisher.publish(frames, [(self._chain.id, committed.message)])
        if committed.transactions:
            await self._deps.publisher.wake(keys.JOBS_WAKE)

    def _measure(self, block: DecodedBlock, committed: Committed, *, seconds: float) -> None:
        count = metrics.of_chain(self._chain.id)
        count.blocks_ingested.inc()
        count.events_ingested.inc(len(block.events))
        count.ingest_seconds.observe(seconds)
        if committed.transactions:
            logger.info(
                "block_applied",
                chain=self._chain.id,
                number=block.number,
                transactions=committed.transactions,
                frames=len(committed.frames),
            )


@asynccontextmanager
async def writer(deps: Deps, chain: Chain) -> AsyncIterator[Ledger]:
    """Wait until this process is the chain's writer, and be it as long as the connection lives."""
    conn = await connect(deps.settings.database_url)
    try:
        while not await cursors.lock_writer(conn, chain.id):  # noqa: ASYNC110 - the lock is another process's
            await asyncio.sleep(LOCK_RETRY_S)
        ledger = Ledger(deps, chain, conn)
        await ledger.load()
        logger.info("writing", chain=chain.id, cursor=await ledger.cursor())
        yield ledger
    finally:
        with suppress(*LOST):
            await conn.close(timeout=2)


async def _uncancelled(work: Awaitable[T]) -> T:
    """Await `work` to its end even when cancelled meanwhile; the cancellation is raised after it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


__all__ = ["Ledger", "ParentMismatch", "WriterLost", "writer"]
