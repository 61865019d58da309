"""What Chainlink's feeds answer: rounds, at a block or by their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from config import abi
from store.chain import calls_at, calls_now, header_from
from store.records import Address, BlockRef
from store.rpc import Rpc

PHASE_BITS = 64
"""A round's id has its aggregator's own number in the lower bits and the proxy's phase above them."""

_WORD = 64
_MOST_ROUNDS = 2**32
"""A number of rounds that no aggregator reaches: what says so is none."""


@dataclass(frozen=True, slots=True)
class Round:
    """One answer of a feed, in its own decimals; `updated_at` in seconds since 1970."""

    id: int
    answer: int
    updated_at: int
    answered_in: int

    @property
    def time(self) -> datetime:
        """When it was answered."""
        return datetime.fromtimestamp(self.updated_at, UTC)


async def rounds_at(rpc: Rpc, block: BlockRef, feeds: Sequence[Address]) -> list[Round | None]:
    """Each feed's newest round at the end of a block; None where the contract is none or reverts."""
    return [_round(answer) for answer in await calls_at(rpc, block, [(feed, abi.LATEST_ROUND_DATA) for feed in feeds])]


async def rounds_by_id(rpc: Rpc, feed: Address, ids: Sequence[int]) -> list[Round | None]:
    """Rounds that are still kept, read from the newest state: no archive is asked for. None for one there is not."""
    return [_round(answer) for answer in await calls_now(rpc, [(feed, abi.GET_ROUND_DATA + _word(id_)) for id_ in ids])]


async def newest_round(rpc: Rpc, feed: Address) -> tuple[Round | None, int]:
    """The newest round, and a time (s since 1970) by which nothing newer had been answered."""
    method = "eth_getBlockByNumber"
    answer = await rpc.call(method, "latest", False)
    if answer is None:
        raise rpc.fault("null", "no block latest", method=method)
    with rpc.reading(method):
        header = header_from(answer)
    (found,) = await rounds_at(rpc, header.ref, [feed])
    return found, int(header.time.timestamp())


async def phases(rpc: Rpc, feed: Address, newest: Round) -> list[tuple[int, int]]:
    """(phase, number of rounds) of a feed, oldest first; an aggregator without a proxy is phase 0."""
    current, count = newest.id >> PHASE_BITS, newest.id % 2**PHASE_BITS
    past = range(1, current)
    answers = await calls_now(rpc, [(feed, abi.PHASE_AGGREGATORS + _word(phase)) for phase in past])
    known = [
        (p, "0x" + a[-40:]) for p, a in zip(past, answers, strict=True) if a and len(a) == 2 + _WORD and int(a, 16)
    ]
    lasts = await calls_now(rpc, [(aggregator, abi.LATEST_ROUND) for _, aggregator in known])
    counts = [int(last, 16) if last and len(last) == 2 + _WORD else 0 for last in lasts]
    found = [(phase, last) for (phase, _), last in zip(known, counts, strict=True) if 0 < last < _MOST_ROUNDS]
    return [*found, (current, count)] if count < _MOST_ROUNDS else found


def _word(value: int) -> str:
    return f"{value:064x}"


def _round(answer: str | None) -> Round | None:
    if answer is None or len(answer) != 2 + 5 * _WORD:
        return None
    words = [int(answer[start : start + _WORD], 16) for start in range(2, len(answer), _WORD)]
    value = words[1] - 2**256 if words[1] >= 2**255 else words[1]
    # A round that was never answered says 0; so far from now a time is none either.
    return Round(words[0], value, words[3], words[4]) if 0 < words[3] < _MOST_ROUNDS else None
