"""`python -m watchers backfill`: rebuild the past of a running chain from what its nodes say.

The writer keeps writing meanwhile. State is folded in memory from the chain's first block to the finalized one; ledger
rows that are missing are added on the way; at the end, under the cursor's lock, the state is put in place and
everyone concerned gets one `resync`. Stopped and started again, it goes on from its last checkpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from time import monotonic

import structlog

from config.chains import Chain
from handlers.chain_events import DecodedBlock
from handlers.deps import Deps
from handlers.rebuild import Replay, add_missing, put_in_place, registered_in
from handlers.rules.prices import NONE, Prices, needed
from store import cursors, rebuild
from store.chain import heights
from store.postgres import Tx, in_transaction
from store.rebuild import Checkpoint
from store.records import Address, Block, Cursor, Frame
from store.rpc import Rpc
from watchers.catchup import RangeSize, blocks_below
from watchers.decode import decode
from watchers.fetch import fetch_range, interest_in
from watchers.prices import Feeds

logger = structlog.get_logger(__name__)

CHECKPOINT_S = 15.0
"""How often progress is kept and told (s): what a stop may cost."""
PLACING_TRIES = 20
"""Times the newest blocks are fetched again because the writer moved on meanwhile; each takes a fraction of a block."""


class NothingToRebuild(Exception):
    """The chain has no ledger yet: let a watcher follow it first."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild is: blocks by number, ledger rows added so far."""

    block: int
    last: int
    rows: int


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did."""

    through: int
    rows: int
    users: int


@dataclass(slots=True)
class Backfill:
    """One rebuild of one chain, adding ledger rows from block `first` on."""

    deps: Deps
    chain: Chain
    rpc: Rpc
    first: int
    report: Callable[[Progress], None]
    head: int = 0
    rows: int = 0
    added: set[Address] = field(default_factory=set)
    _feeds: Feeds = field(init=False)

    def __post_init__(self) -> None:
        self._feeds = Feeds(self.chain, self.rpc, every_blocks=self.deps.settings.price_every_blocks)

    async def run(self, stop: asyncio.Event) -> Rebuilt | None:
        """Rebuild; None when told to stop before the end, to be gone on with later."""
        cursor = await cursors.cursor(self.deps.pool, self.chain.id)
        if cursor is None:
            raise NothingToRebuild(f"chain {self.chain.id} has no ledger yet: run a watcher first")
        newest, finalized = await heights(self.rpc, finality_depth=self.chain.finality_depth)
        self.head = newest.number
        through = min(finalized, cursor.number)
        replay, start = await self._take_up()
        if not await self._fold(replay, start, through, stop):
            return None
        frames, users = await self._place(replay, through)
        await self.deps.publisher.publish([(frame.user, frame.text) for frame in frames])
        return Rebuilt(through, self.rows, len(users))

    async def _take_up(self) -> tuple[Replay, int]:
        """A stopped rebuild with the same `first` goes on; any other begins at the chain's first block."""
        kept = await rebuild.checkpoint(self.deps.pool, self.chain.id)
        if kept is not None and kept.first == self.first:
            logger.info("backfill_resumed", chain=self.chain.id, block=kept.next)
            return Replay.load(self.chain, kept.state), kept.next
        return Replay(self.chain, wallets=dict.fromkeys(self.chain.wallets)), self.chain.first_block

    async def _fold(self, replay: Replay, start: int, through: int, stop: asyncio.Event) -> bool:
        async def wallets() -> dict[Address, Address | None]:
            return replay.wallets

        kept_at = monotonic()
        blocks = blocks_below(self.rpc, self.chain, start, through, wallets=wallets, size=RangeSize())
        async with aclosing(blocks):
            async for block in blocks:
                await self._take(replay, self._decoded(block, replay))
                if stop.is_set() or monotonic() - kept_at > CHECKPOINT_S:
                    await self._keep(replay, block.number + 1, through)
                    kept_at = monotonic()
                if stop.is_set():
                    return False
        await self._keep(replay, through + 1, through)
        return True

    async def _take(self, replay: Replay, block: DecodedBlock) -> None:
        for refused in block.quarantined:
            logger.warning("log_refused", chain=self.chain.id, number=block.number, reason=refused.reason)
        if not block.events:
            return

        async def register(tx: Tx) -> set[Address]:
            return await registered_in(tx, self.chain, [block])

        async def add(tx: Tx) -> list[Address]:
            return [row.user for row in await add_missing(tx, block, book.rows)]

        # Folded between the transactions: one that is run again must not fold its block twice.
        users = await in_transaction(self.deps.pool, register)
        prices = await self._prices(block) if block.number >= self.first else NONE
        book = replay.fold(block, users, prices=prices)
        if block.number < self.first:
            return
        added = await in_transaction(self.deps.pool, add)
        self.rows += len(added)
        self.added.update(added)

    async def _keep(self, replay: Replay, following: int, last: int) -> None:
        at = Checkpoint(self.first, following, replay.dump())
        await rebuild.save_checkpoint(self.deps.pool, self.chain.id, at)
        self.report(Progress(following - 1, last, self.rows))

    async def _place(self, replay: Replay, through: int) -> tuple[list[Frame], set[Address]]:
        """Put the state in place at a moment when we hold exactly the blocks up to the cursor."""
        for _ in range(PLACING_TRIES):
            cursor = await cursors.cursor(self.deps.pool, self.chain.id)
            if cursor is None or cursor.number < through:
                raise NothingToRebuild(f"chain {self.chain.id}: the ledger went back below its finalized block")
            later = [block async for block in self._later(replay, through, cursor)]
            prices = {block.hash: await self._prices(block) for block in later}
            if later and later[-1].hash != cursor.hash:
                continue

            async def body(
                tx: Tx,
                cursor: Cursor = cursor,
                later: Sequence[DecodedBlock] = later,
                prices: Mapping[str, Prices] = prices,
            ) -> tuple[list[Frame], set[Address]] | None:
                locked = await rebuild.lock_cursor(tx, self.chain.id)
                if locked is None or locked.ref != cursor.ref:
                    return None
                await registered_in(tx, self.chain, later)
                mine = Replay.load(self.chain, replay.dump())
                done = await put_in_place(
                    tx, mine, later, prices=prices, cursor=cursor, added=self.added, now=self.deps.now()
                )
                await rebuild.forget_checkpoint(tx, self.chain.id)
                return done

            placed = await in_transaction(self.deps.pool, body)
            if placed is not None:
                return placed
        raise TimeoutError(f"chain {self.chain.id}: the writer moved on {PLACING_TRIES} times; run backfill again")

    async def _later(self, replay: Replay, through: int, cursor: Cursor) -> AsyncGenerator[DecodedBlock, None]:
        ahead = Replay.load(self.chain, replay.dump())
        interest = interest_in(_without_tokens(self.chain))
        async with aclosing(fetch_range(self.rpc, self.chain.id, through + 1, cursor.number, interest)) as blocks:
            async for block in blocks:
                decoded = self._decoded(block, ahead)
                ahead.fold(decoded, ())
                yield decoded

    async def _prices(self, block: DecodedBlock) -> Prices:
        """Prices at a block of what its wallet events move; those that are stored are the writer's."""
        wanted = needed(self.chain, block, {}).certain
        return NONE.at_block(self.chain.id, await self._feeds.read(block, wanted, head=self.head))

    def _decoded(self, block: Block, replay: Replay) -> DecodedBlock:
        return decode(block, _without_tokens(self.chain), replay.wallets)


def _without_tokens(chain: Chain) -> Chain:
    """Token and share transfers are not rebuilt: they are followed from a chain's first live block on."""
    return replace(chain, tokens=(), vaults=())


def percent(progress: Progress, *, first: int) -> int:
    """How much of the way is done (%)."""
    span = max(1, progress.last - first + 1)
    return min(100, 100 * (progress.block - first + 1) // span)
