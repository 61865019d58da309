"""From headers to blocks: their logs by block hash, the receipts of those logs, several blocks in flight, in order.

What comes back is complete or an RpcError. Whose logs count is not decided here: wallets become known block by block,
and fetching runs ahead of that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import structlog
from eth_utils.crypto import keccak

from config import abi, metrics
from config.chains import Chain
from store.chain import Header, LogFilter, headers_at, logs_by_receipts, logs_of, receipts_of
from store.nodes import Failed
from store.records import ZERO_ADDRESS, Block, Log, Receipt
from store.rpc import Rpc, RpcError

logger = structlog.get_logger(__name__)

CHUNK = 16
"""Blocks asked for in one batch while catching up."""
CHUNKS_IN_FLIGHT = 4
"""Batches that run ahead of the block being applied: hides the node's round trip; bounds memory to 64 blocks."""
OPINIONS = 2
"""Other nodes that must have no logs of a block either before its bloom is taken to be wrong."""
BLOOM_BITS = 2048
EMPTY_LOGS = Failed(1.5, "empty_logs")
"""A node that answers like that lags behind its own head: the second time within seconds it is put aside."""


@dataclass(frozen=True, slots=True)
class Interest:
    """What is asked of a chain's nodes, block by block."""

    filters: tuple[LogFilter, ...]
    masks: tuple[tuple[int, ...], ...]
    """Per filter: bits of a header's bloom that are all set when the block may hold such a log, for each kind of it."""

    def may_be_in(self, bloom: int | None) -> bool:
        """Whether a block with this bloom may hold a log of ours."""
        return any(_may_be_in(bloom, masks) for masks in self.masks)

    def lacks(self, logs: Sequence[Log], bloom: int | None, *, torn: bool) -> bool:
        """Whether logs are missing that the bloom says may be there.

        Filters that were answered together are missing together: a node has a block's logs or not. `torn`: they were
        not, and each is looked at by itself.
        """
        if not torn:
            return not logs and self.may_be_in(bloom)
        without = (not any(f.takes(log) for log in logs) for f in self.filters)
        return any(none and _may_be_in(bloom, masks) for none, masks in zip(without, self.masks, strict=True))


def interest_in(chain: Chain) -> Interest:
    """Events of wallets and factories from anyone, and transfers of the listed tokens."""
    ours = (*abi.FACTORY_TOPICS, *abi.WALLET_TOPICS) if chain.factories or chain.wallets else ()
    notices = abi.NOTICE_TOPICS if ours else ()
    tokens = tuple(token.address for token in chain.tokens if token.address != ZERO_ADDRESS)
    vaults = tuple(vault.address for vault in chain.vaults)
    said = [((abi.TRANSFER,), tokens), (abi.VAULT_TOPICS, vaults), (abi.LOCK_TOPICS, chain.yield_locks)]
    filters = [LogFilter((*ours, *notices))] if ours else []
    filters += _of_tables([(topics, emitters) for topics, emitters in said if emitters])
    # Notices are left out of the masks: half the contracts of a chain emit them, and they move no money.
    of_tables = [_bits(topic) | _bits(emitter) for topics, emitters in said for topic in topics for emitter in emitters]
    masks = [tuple(_bits(topic) for topic in ours)] if ours else []
    masks += [tuple(of_tables)] if of_tables else []
    return Interest(tuple(filters), tuple(masks))


def _of_tables(said: Sequence[tuple[tuple[str, ...], tuple[str, ...]]]) -> list[LogFilter]:
    """One filter for whatever the chain table's tokens, vaults and locks say: each filter is a call per block.

    A token that emits a vault's topic passes too; decoding knows better.
    """
    if not said:
        return []
    topics = dict.fromkeys(topic for topics, _ in said for topic in topics)
    return [LogFilter(tuple(topics), tuple(emitter for _, emitters in said for emitter in emitters))]


def _may_be_in(bloom: int | None, masks: Sequence[int]) -> bool:
    return bloom is not None and any(bloom & mask == mask for mask in masks)


@cache
def _bits(item: str) -> int:
    """The three bits that an address or topic sets in a bloom."""
    digest = keccak(hexstr=item)
    mask = 0
    for i in (0, 2, 4):
        mask |= 1 << (int.from_bytes(digest[i : i + 2]) % BLOOM_BITS)
    return mask


async def fetch(rpc: Rpc, chain_id: int, headers: Sequence[Header], interest: Interest) -> list[Block]:
    """The blocks of these headers, in order."""
    if not interest.filters:
        return [block_of(chain_id, header) for header in headers]
    found = await logs_of(rpc, [header.hash for header in headers], interest.filters)
    torn = rpc.torn
    suspects = [
        i
        for i, (header, logs) in enumerate(zip(headers, found, strict=True))
        if interest.lacks(logs, header.bloom, torn=torn)
    ]
    if suspects:
        await _look_again(rpc, chain_id, headers, found, interest, suspects=suspects)
    return await with_receipts(rpc, chain_id, list(zip(headers, found, strict=True)))


async def with_receipts(rpc: Rpc, chain_id: int, found: Sequence[tuple[Header, Sequence[Log]]]) -> list[Block]:
    """Blocks of these headers and logs, with the receipts of the logs' transactions."""
    kept = [(header, tuple(log for log in logs if may_be_ours(log))) for header, logs in found]
    wanted = {header.hash: {log.tx_hash for log in logs} for header, logs in kept if logs}
    receipts = await receipts_of(rpc, wanted) if wanted else {}
    if any(log.log_index < receipts[log.tx_hash].first_log_index for _, logs in kept for log in logs):
        raise rpc.fault("malformed", "a log stands before its transaction's first", method="eth_getLogs")
    return [
        block_of(chain_id, header, logs, {log.tx_hash: receipts[log.tx_hash] for log in logs}) for header, logs in kept
    ]


def may_be_ours(log: Log) -> bool:
    """Whether anything of ours has such topics: an NFT's transfer has one more than a token's."""
    return log.topics[0] != abi.TRANSFER or len(log.topics) == 3


async def _look_again(
    rpc: Rpc,
    chain_id: int,
    headers: Sequence[Header],
    found: list[tuple[Log, ...]],
    interest: Interest,
    *,
    suspects: Sequence[int],
) -> None:
    """No logs, though the blooms say that there may be: a lagging node answers like that. Ask again, then believe.

    Others are asked where there are any, two if there are two, else this node's receipts. What they have is added.
    """
    source = rpc.asked
    asked = {source}
    for _ in range(min(OPINIONS, max(1, rpc.nodes - 1))):
        with rpc.elsewhere(asked):
            more = await _another_opinion(rpc, [headers[i] for i in suspects], interest)
            asked.add(rpc.asked)
        left = []
        for i, logs in zip(suspects, more, strict=True):
            missed = {*logs} - {*found[i]}
            if not missed:
                left.append(i)
                continue
            found[i] = tuple(sorted({*found[i], *missed}, key=lambda log: log.log_index))
            rpc.observe(source, EMPTY_LOGS)
            _tell(chain_id, headers[i], "repaired", logs=len(missed))
        suspects = left
        if not suspects:
            return
    for i in suspects:
        _tell(chain_id, headers[i], "believed", logs=len(found[i]))


async def _another_opinion(rpc: Rpc, headers: Sequence[Header], interest: Interest) -> list[tuple[Log, ...]]:
    if rpc.nodes == 1 and rpc.offers("eth_getBlockReceipts"):
        try:
            return [await logs_by_receipts(rpc, header.hash, interest.filters) for header in headers]
        except RpcError as error:
            if not error.unknown_method:
                raise
    return await logs_of(rpc, [header.hash for header in headers], interest.filters)


def _tell(chain_id: int, header: Header, outcome: str, *, logs: int) -> None:
    metrics.EMPTY_LOGS.labels(str(chain_id), outcome).inc()
    logger.info("empty_logs", outcome=outcome, chain=chain_id, number=header.number, hash=header.hash, logs=logs)


def block_of(
    chain_id: int, header: Header, logs: tuple[Log, ...] = (), receipts: Mapping[str, Receipt] = MappingProxyType({})
) -> Block:
    """A block of a header, its logs and their receipts."""
    return Block(chain_id, header.number, header.hash, header.parent_hash, header.time, logs, receipts)


async def fetch_range(
    rpc: Rpc, chain_id: int, first: int, last: int, interest: Interest
) -> AsyncGenerator[Block, None]:
    """Canonical blocks `first` to `last` in order, fetched ahead; close it to drop what is in flight."""
    running: deque[asyncio.Task[list[Block]]] = deque()
    starts = iter(range(first, last + 1, CHUNK))
    try:
        while True:
            while len(running) < CHUNKS_IN_FLIGHT and (start := next(starts, None)) is not None:
                numbers = range(start, min(start + CHUNK, last + 1))
                running.append(asyncio.create_task(_chunk(rpc, chain_id, numbers, interest)))
            if not running:
                return
            for block in await running[0]:
                yield block
            running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _chunk(rpc: Rpc, chain_id: int, numbers: Sequence[int], interest: Interest) -> list[Block]:
    headers = await headers_at(rpc, numbers)
    known = [header for header in headers if header is not None]
    if len(known) < len(headers):
        raise rpc.fault("null", f"no block {numbers[headers.index(None)]}", method="eth_getBlockByNumber")
    return await fetch(rpc, chain_id, known, interest)
