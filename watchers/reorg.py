"""Where our chain and the node's part: the walk back to the last block both have."""

from __future__ import annotations

from typing import Protocol

from store.chain import headers_at
from store.records import BlockRef
from store.rpc import Rpc

WALK = 16
"""Headers asked for at once on the way back: nearly every reorg is shallower."""


class ReorgTooDeep(Exception):
    """The node's chain left ours further back than finality: nothing is written until it comes back or a person looks.

    Either the node is on another chain than the one that was followed, or finality_depth is too small for it.
    """


class Kept(Protocol):
    """What we have stored of a chain."""

    async def hash_at(self, number: int) -> str | None:
        """Our canonical hash at that height; None when it is not kept."""
        ...


async def common_ancestor(rpc: Rpc, kept: Kept, tip: BlockRef, *, depth: int) -> BlockRef | None:
    """The newest block that is ours and the node's: the tip itself when nothing happened.

    None when the node has no block of the tip's height: then it lags behind us, which is no reorg. Raises ReorgTooDeep
    when more than `depth` blocks would have to go.
    """
    (theirs,) = await headers_at(rpc, [tip.number])
    if theirs is None or theirs.hash == tip.hash:
        return tip if theirs else None
    floor = max(0, tip.number - depth)
    for newest in range(tip.number - 1, floor - 1, -WALK):
        numbers = range(newest, max(newest - WALK, floor - 1), -1)
        for number, header in zip(numbers, await headers_at(rpc, numbers), strict=True):
            ours = await kept.hash_at(number)
            if ours is None:
                raise ReorgTooDeep(f"block {tip.number} {tip.hash} is not the node's, nor is any older one we keep")
            if header is None:
                raise rpc.fault("null", f"no block {number}, below one it has", method="eth_getBlockByNumber")
            if header.hash == ours:
                return header.ref
    raise ReorgTooDeep(f"block {tip.number} {tip.hash} and the {depth} before it are not the node's")
