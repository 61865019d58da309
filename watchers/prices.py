"""What feeds say at a block, read before the block is applied, for the tokens that it needs.

Near the head the newest round is read in the state of that very block. Further behind, nodes may have dropped that
state, and a call per block would be the slowest part of catching up: there the feed's own rounds are searched by time
(watchers/rounds.py). A node that fails is an error and the block is tried again; a feed that fails is no price.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import Literal, TypeAlias

import structlog

from config import metrics
from config.chains import Chain, Feed
from handlers.chain_events import DecodedBlock
from handlers.rules.prices import EXACT
from store.prices import PriceRow
from store.records import Address, BlockRef
from store.rounds import Round, rounds_at
from store.rpc import Rpc
from watchers.balances import STATE_DEPTH
from watchers.rounds import History

logger = structlog.get_logger(__name__)

Refusal: TypeAlias = Literal["silent", "not_positive", "not_of_its_round", "stale"]


class Feeds:
    """A chain's feeds. Not for concurrent use: one block at a time."""

    def __init__(self, chain: Chain, rpc: Rpc, *, every_blocks: int) -> None:
        """Every `every_blocks` blocks all feeds are read, so that balances have a fresh price while nobody trades."""
        self._chain = chain
        self._rpc = rpc
        self._every_blocks = every_blocks
        self._due = 0
        self._histories: dict[Address, History] = {}
        self._refused: dict[Address, Refusal | None] = {}

    def forget(self) -> None:
        """Search anew: the chain took blocks back, and rounds with them."""
        self._histories.clear()
        self._due = 0

    async def read(self, block: DecodedBlock, needed: Collection[Address], *, head: int) -> tuple[PriceRow, ...]:
        """Prices at a block of the needed tokens that have a feed, and from time to time of all. Raises RpcError."""
        feeds = self._chain.feeds
        is_near = head - block.number <= STATE_DEPTH
        is_due = is_near and bool(feeds) and block.number >= self._due
        tokens = [token for token in feeds if is_due or token in needed]
        if not tokens:
            return ()
        if is_near:
            ref = BlockRef(block.number, block.hash)
            rounds = await rounds_at(self._rpc, ref, [feeds[token].feed for token in tokens])
        else:
            time = int(block.time.timestamp())
            rounds = [await self._history(feeds[token].feed).at(time) for token in tokens]
        if is_due:
            self._due = block.number + self._every_blocks
        return tuple(self._row(token, each, block) for token, each in zip(tokens, rounds, strict=True))

    def _history(self, feed: Address) -> History:
        return self._histories.setdefault(feed, History(self._rpc, feed))

    def _row(self, token: Address, each: Round | None, block: DecodedBlock) -> PriceRow:
        feed = self._chain.feeds[token]
        price = judged(each, feed, at=int(block.time.timestamp()))
        refusal = price if isinstance(price, str) else None
        if refusal is not None:
            metrics.PRICES_REFUSED.labels(str(self._chain.id), refusal).inc()
        if refusal != self._refused.get(token):
            self._refused[token] = refusal
            tell = logger.warning if refusal else logger.info
            tell("feed_changed", chain=self._chain.id, number=block.number, feed=feed.feed, refused=refusal)
        return PriceRow(token, None if isinstance(price, str) else price, each.time if each else None)


def judged(each: Round | None, feed: Feed, *, at: int) -> Decimal | Refusal:
    """Dollars per whole token, exact, or why the round says none at a time (s since 1970)."""
    if each is None:
        return "silent"
    if each.answer <= 0:
        return "not_positive"
    if each.answered_in < each.id:
        return "not_of_its_round"
    if at - each.updated_at > feed.heartbeat_s:
        return "stale"
    return EXACT.scaleb(Decimal(each.answer), -feed.decimals)
