"""How far a chain is: committed, confirmed, finalized. A transaction's status follows from these alone."""

from __future__ import annotations

from dataclasses import dataclass

from config.chains import Chain
from handlers.rules import wire
from store.records import Cursor


@dataclass(frozen=True, slots=True)
class ChainHeights:
    """Block numbers; `lag_blocks` is how far the chain's nodes are ahead of what is committed here."""

    head: int
    confirmed: int
    finalized: int
    lag_blocks: int

    @property
    def levels(self) -> wire.Heights:
        """What a transaction's status is read from."""
        return wire.Heights(self.head, self.confirmed, self.finalized)


def heights(cursor: Cursor, chain: Chain) -> ChainHeights:
    """Heights of a chain whose ledger stands at `cursor`: each at most the one before, none below 0.

    Final is what the node's `finalized` tag covers, or what is deeper than the chain's finality depth; confirmed is
    what has the chain's number of blocks on top, counted from the chain's own head.
    """
    tip = max(cursor.head, cursor.number)
    finalized = min(cursor.number, max(cursor.finalized, tip - chain.finality_depth, 0))
    confirmed = max(finalized, min(cursor.number, tip - chain.confirmations))
    return ChainHeights(cursor.number, confirmed, finalized, tip - cursor.number)
