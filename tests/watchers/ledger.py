"""A ledger in memory: remembers what it was told, and refuses what a real one would."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from config.chains import Chain
from handlers.chain_events import ChainEvent, DecodedBlock
from handlers.rules.holdings import NOTHING_READ, Values
from handlers.rules.prices import needed
from store.prices import PriceRow
from store.records import BlockRef, Cursor
from watchers.decode import learn
from watchers.yields import NOTHING_WANTED, Wanted

Openings = Mapping[str, Mapping[str, int]]


@dataclass
class FakeLedger:
    """`history` is every step in order: +number or -number."""

    chain: Chain
    blocks: list[DecodedBlock] = field(default_factory=list)
    history: list[int] = field(default_factory=list)
    openings: dict[int, Openings] = field(default_factory=dict)
    prices: dict[tuple[int, str], PriceRow] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    wanted: Wanted = NOTHING_WANTED
    values: dict[int, Values] = field(default_factory=dict)
    told: tuple[int, int] = (0, 0)
    """Head and finalized as told last."""
    on_apply: Callable[[DecodedBlock], None] | None = None
    """Called after each block."""
    fails: list[Exception] = field(default_factory=list)
    """Raised by the next steps, one each."""

    @property
    def tip(self) -> BlockRef | None:
        return BlockRef(self.blocks[-1].number, self.blocks[-1].hash) if self.blocks else None

    @property
    def hashes(self) -> list[str]:
        return [block.hash for block in self.blocks]

    @property
    def events(self) -> list[ChainEvent]:
        return [event for block in self.blocks for event in block.events]

    async def cursor(self) -> Cursor | None:
        if not self.blocks:
            return None
        tip = self.blocks[-1]
        return Cursor(tip.chain_id, tip.number, tip.hash, tip.time, *self.told)

    async def wallets(self) -> Mapping[str, str | None]:
        known: dict[str, str | None] = dict.fromkeys(self.chain.wallets)
        for event in self.events:
            learn(known, event)
        return known

    async def to_open(self, block: DecodedBlock) -> Sequence[str]:
        return tuple(self.waiting)

    async def to_price(self, block: DecodedBlock) -> frozenset[str]:
        wanted = needed(self.chain, block, {})
        return wanted.tokens(wanted.users)

    async def to_value(self, block: DecodedBlock, *, opening: bool) -> Wanted:
        return self.wanted

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
        self._maybe_fail()
        tip = self.tip
        assert tip is None or block.number > tip.number, "a block that is not ahead"
        if tip is not None and block.number == tip.number + 1:
            assert block.parent_hash == tip.hash, f"block {block.number} does not follow its parent"
        assert head >= block.number
        self.blocks.append(block)
        self.history.append(block.number)
        self.prices.update({(block.number, row.token): row for row in read})
        self.told = (head, max(finalized, self.told[1]))
        if values is not NOTHING_READ:
            self.values[block.number] = values
        if openings:
            self.openings[block.number] = openings
            self.waiting = [user for user in self.waiting if user not in openings]
        if self.on_apply is not None:
            self.on_apply(block)

    async def revert(self) -> BlockRef:
        self._maybe_fail()
        block = self.blocks.pop()
        self.history.append(-block.number)
        return BlockRef(block.number - 1, block.parent_hash)

    async def hash_at(self, number: int) -> str | None:
        return next((block.hash for block in self.blocks if block.number == number), None)

    async def heights(self, *, head: int, finalized: int) -> None:
        self.told = (head, max(finalized, self.told[1]))

    def _maybe_fail(self) -> None:
        if self.fails:
            raise self.fails.pop(0)
