"""One chain's follower: each head is one of four cases, and the ledger is moved to it block by block.

Nothing here writes: the ledger (watchers/ingest.py) commits each block and tells people after it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Literal, Protocol, TypeAlias

import structlog

from config import metrics
from config.chains import Chain
from handlers.chain_events import DecodedBlock
from handlers.rules.holdings import NOTHING_READ, Values
from store.chain import Header, header_at, headers_at
from store.prices import PriceRow
from store.probe import vote
from store.records import Address, Block, BlockRef, Cursor
from store.rpc import Rpc, RpcError
from watchers.balances import STATE_DEPTH, read_openings
from watchers.catchup import RangeSize, blocks_below, has_history
from watchers.decode import decode
from watchers.fetch import fetch, fetch_range, interest_in
from watchers.heads import Heads
from watchers.pacing import Backoff, rest
from watchers.prices import Feeds
from watchers.reorg import ReorgTooDeep, common_ancestor
from watchers.yields import Wanted, read_values

logger = structlog.get_logger(__name__)

RETRY_S = (0.1, 5.0)
"""First and longest pause after a node failed (s): a node that is one block late answers the first retry."""
VOTES = 5
"""Votes that no other node need answer before a node is believed alone (3 s): the others may be gone for long."""
SAME_HEAD_TRIES = 5
"""Tries of one announced head before the node is asked for its newest: it may have been replaced (3 s in all)."""

Case: TypeAlias = Literal["same", "behind", "gap", "next"]


class Ledger(Protocol):
    """One chain's single writer. Raises when the lock or the database is lost; then nothing was written."""

    async def cursor(self) -> Cursor | None:
        """Where the ledger stands; None before the first block."""
        ...

    async def wallets(self) -> Mapping[Address, Address | None]:
        """The chain table's wallets and those named by factories, with their owners; None for one that serves many."""
        ...

    async def to_open(self, block: DecodedBlock) -> Sequence[Address]:
        """Users whose wallet-scope balance opens with this block."""
        ...

    async def to_price(self, block: DecodedBlock) -> Collection[Address]:
        """Tokens whose price this block needs."""
        ...

    async def to_value(self, block: DecodedBlock, *, opening: bool) -> Wanted:
        """What of positions is to be read at this block; `opening`: whether users' own balances open with it."""
        ...

    async def apply(
        self,
        block: DecodedBlock,
        *,
        head: int,
        finalized: int,
        openings: Mapping[Address, Mapping[Address, int]] | None = None,
        read: Sequence[PriceRow] = (),
        values: Values = NOTHING_READ,
    ) -> None:
        """Commit the block, then publish it. `openings`: user -> token -> balanceOf at this block; `read`: prices."""
        ...

    async def revert(self) -> BlockRef:
        """Take the newest block back; returns the new tip."""
        ...

    async def hash_at(self, number: int) -> str | None:
        """Our canonical hash at that height; None when it is not kept."""
        ...

    async def heights(self, *, head: int, finalized: int) -> None:
        """Record that the chain's heights moved without a block to apply."""
        ...


def classify(tip: BlockRef, head: Header) -> Case:
    """What a head is to a ledger that stands at `tip`.

    - same: the ledger has it.
    - next: it follows the tip, by parent hash and not by number alone.
    - gap: it is further ahead; what lies between must be fetched, and tells whether the tip is still the chain's.
    - behind: it is not ahead, or follows another block: a reorg, or a node that lags.
    """
    if head.hash == tip.hash:
        return "same"
    if head.number > tip.number + 1:
        return "gap"
    if head.number == tip.number + 1 and head.parent_hash == tip.hash:
        return "next"
    return "behind"


class Follower:
    """Moves one ledger along one chain. Every step leaves the ledger at a block of the chain, or raises."""

    def __init__(
        self, chain: Chain, rpc: Rpc, ledger: Ledger, heads: Heads, stop: asyncio.Event, *, feeds: Feeds
    ) -> None:
        self.chain = chain
        self.tip: BlockRef | None = None
        self.moved = False
        """Whether a block was applied since the start."""
        self._rpc = rpc
        self._ledger = ledger
        self._heads = heads
        self._stop = stop
        self._feeds = feeds
        self._interest = interest_in(chain)
        self._range_size = RangeSize()
        self._live = False
        self._told = (0, 0)
        self._final = 0
        """Number of the newest block of ours that a node named final."""
        self._unanswered = 0
        """Votes in a row that no other node answered."""
        self._final_looked: BlockRef | None = None
        self._recent: deque[BlockRef] = deque(maxlen=chain.confirmations + 1)

    async def load(self) -> None:
        """Take up where the ledger stands.

        A ledger that was live follows token transfers: from there on every block is read, however far it has fallen
        behind. It is known by its heights: live, it is never told a finalized height that it has not passed
        (`_heights`), and a reorg takes it back by the finality depth at most.
        """
        cursor = await self._ledger.cursor()
        if cursor is not None:
            self.tip = cursor.ref
            self._final = min(cursor.finalized, cursor.number)
            self._stand()
            if cursor.number > cursor.finalized - self.chain.finality_depth:
                self._go_live()

    async def advance(self, head: Header) -> None:
        """Move the ledger to a head, or as far as it goes before stopping."""
        if not self._live:
            await self._catch_up()
        tip = self.tip
        if tip is None or not self._live:
            return  # told to stop before the first block, or while catching up
        match classify(tip, head):
            case "same":
                pass
            case "next":
                for block in await fetch(self._rpc, self.chain.id, [head], self._interest):
                    await self._apply(block)
            case "gap":
                await self._follow_to(head.number)
            case "behind":
                if await self._reconcile():
                    await self._follow_to(head.number)
        await self._tell_heights()

    # Catch-up -------------------------------------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        """Below the finalized height by log ranges; live from there on."""
        await self._heads.poll()
        if self.tip is not None:
            (theirs,) = await headers_at(self._rpc, [self.tip.number])
            if theirs is not None and theirs.hash != self.tip.hash:
                await self._doubt(self.tip.number)
                raise ReorgTooDeep(f"block {self.tip.number} {self.tip.hash} was final and is not the node's")
        while (first := self._next_unread()) <= self._heads.finalized:
            blocks = blocks_below(
                self._rpc,
                self.chain,
                first,
                self._heads.finalized,
                wallets=self._ledger.wallets,
                size=self._range_size,
            )
            async with aclosing(blocks):
                async for block in blocks:
                    await self._apply(block)
                    if self._stop.is_set():
                        return
            await self._heads.poll()
        self._go_live()

    def _go_live(self) -> None:
        """From here on every block is read, with its token transfers."""
        self._live = True
        logger.info("live", chain=self.chain.id, number=self.tip.number if self.tip else None)

    def _next_unread(self) -> int:
        """Where to go on. A chain's first block is a final one, so that a reorg always finds an ancestor."""
        if not has_history(self.chain):
            return max(self._heads.finalized, self.tip.number + 1 if self.tip else 0)
        return self.tip.number + 1 if self.tip else min(self.chain.first_block, self._heads.finalized)

    # Live -----------------------------------------------------------------------------------------------------------

    async def _follow_to(self, number: int) -> None:
        """Apply every block up to a height, across reorgs that happen meanwhile."""
        while self.tip is not None and self.tip.number < number and not self._stop.is_set():
            blocks = fetch_range(self._rpc, self.chain.id, self.tip.number + 1, number, self._interest)
            async with aclosing(blocks):
                async for block in blocks:
                    if block.parent_hash != self.tip.hash:
                        break
                    await self._apply(block)
                    await self._heads.refresh()
                    if self._stop.is_set():
                        return
                else:
                    return
            if not await self._reconcile():
                raise self._rpc.fault("malformed", "a block does not follow its parent", method="eth_getBlockByNumber")

    async def _reconcile(self) -> bool:
        """Take back what is no longer the chain's, newest first; False when the tip still is."""
        tip = self.tip
        if tip is None:
            return False
        try:
            ancestor = await common_ancestor(self._rpc, self._ledger, tip, depth=self.chain.finality_depth)
        except ReorgTooDeep:
            await self._doubt(tip.number)
            raise
        if ancestor is None or ancestor == tip:
            return False
        await self._doubt(ancestor.number + 1)
        depth = tip.number - ancestor.number
        logger.warning("reorg", chain=self.chain.id, depth=depth, ancestor=ancestor.number, was=tip.hash)
        metrics.of_chain(self.chain.id).reorg_depth.observe(depth)
        self._feeds.forget()
        while tip.number > ancestor.number:
            self.tip = tip = await self._ledger.revert()
            self._stand()
        return True

    async def _doubt(self, number: int) -> None:
        """Before anything is taken back, let the other nodes vote on a block that one of them has replaced.

        Raises an RpcError when they still have ours: the node is passed over, and the next one is asked anew. It is
        raised a few times as well while none of them answers.
        """
        tip = self.tip
        if tip is None or self._rpc.alone:
            return
        ours = tip.hash if number == tip.number else await self._ledger.hash_at(number)
        theirs = await header_at(self._rpc, number)
        grave = number <= tip.number - self.chain.confirmations
        outcome = await vote(self._rpc, number, ours, theirs=theirs.hash, grave=grave) if theirs.hash != ours else None
        self._unanswered = self._unanswered + 1 if outcome == "unanswered" else 0
        if outcome in (None, "outvoted"):
            raise RpcError("malformed", f"another block {number} than the other nodes'", method="eth_getBlockByNumber")
        if 0 < self._unanswered < VOTES:
            raise RpcError("null", f"no other node says which block {number} is", method="eth_getBlockByNumber")
        self._unanswered = 0

    # The ledger -----------------------------------------------------------------------------------------------------

    async def _apply(self, block: Block) -> None:
        decoded = decode(block, self.chain, await self._ledger.wallets())
        await self._look_for_final(block.number)
        head, finalized = self._heights(block.number)
        openings: Mapping[Address, Mapping[Address, int]] = {}
        values = NOTHING_READ
        if self._live and head - block.number <= STATE_DEPTH:
            users = await self._ledger.to_open(decoded)
            openings = await read_openings(self._rpc, self.chain, block.ref, users)
            wanted = await self._ledger.to_value(decoded, opening=bool(openings))
            values = await read_values(self._rpc, self.chain, block.ref, wanted)
        read = await self._feeds.read(decoded, await self._ledger.to_price(decoded), head=head)
        await self._ledger.apply(decoded, head=head, finalized=finalized, openings=openings, read=read, values=values)
        self.tip = block.ref
        self._unanswered = 0
        self._stand()
        self.moved = True
        self._told = (head, finalized)
        metrics.of_chain(self.chain.id).seen(head, cursor=block.number)

    async def _tell_heights(self) -> None:
        """Tell the ledger when head or finalized moved and no block did."""
        if self.tip is not None:
            await self._look_for_final(self.tip.number + 1)
        if self.tip is not None and (now := self._heights(self.tip.number)) != self._told:
            await self._ledger.heights(head=now[0], finalized=now[1])
            self._told = now
            metrics.of_chain(self.chain.id).seen(now[0], cursor=self.tip.number)

    def _heights(self, number: int) -> tuple[int, int]:
        """Head and finalized as the ledger at this block is told them.

        Once live, what it has not passed yet never counts as final, so that `load` can tell; and a node that makes a
        height up makes nothing final: a block of ours has to be named by its hash, or the depth is counted from it.
        """
        head = max(self._heads.head, number)
        if not self._live:
            return head, self._heads.finalized
        by_depth = number - self.chain.finality_depth if self._heads.final is None else 0
        return head, max(0, min(max(self._final, by_depth), number - 1))

    async def _look_for_final(self, before: int) -> None:
        """Believe the block that the node names final when it is ours, below a height."""
        named = self._heads.final
        if named is None or named == self._final_looked or named.number >= before:
            return
        self._final_looked = named
        if await self._ledger.hash_at(named.number) == named.hash:
            self._final = max(self._final, named.number)

    def _stand(self) -> None:
        """Tell the nodes' judge where we stand, and by which confirmed block it may compare them."""
        tip, recent = self.tip, self._recent
        if tip is None:
            return
        while recent and recent[-1].number >= tip.number:
            recent.pop()
        recent.append(tip)
        oldest = recent[0]
        confirmed = oldest.number <= tip.number - self.chain.confirmations
        self._rpc.stands_at(tip.number, (oldest.number, oldest.hash) if confirmed else None)


async def follow(follower: Follower, heads: Heads, stop: asyncio.Event) -> None:
    """Follow until told to stop. A failing node is asked again, visibly; everything else is the caller's."""
    pause = Backoff(*RETRY_S)
    await follower.load()
    while not stop.is_set():
        head: Header | None = None
        try:
            head = await heads.next()
            if head is None:
                return
            await follower.advance(head)
            await heads.refresh()
            pause.reset()
        except RpcError as error:
            again_in_s = pause.next_s()
            # Once is ordinary: the head was announced by one node, and the next one asked has not got it yet.
            tell = logger.info if pause.tries == 1 else logger.warning
            tell("rpc_failed", chain=follower.chain.id, error=str(error), tries=pause.tries, again_in_s=again_in_s)
            await rest(stop, again_in_s)
            heads.again(head if pause.tries <= SAME_HEAD_TRIES else None)
