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
BLOOM_BITS = 2048
EMPTY_LOGS = Failed(1.5, "empty_logs")
"""A node that answers like that lags behind its own head: the second time within seconds it is put aside."""


@dataclass(frozen=True, slots=True)
class Interest:
    """What is asked of a chain's nodes, block by block."""

    filters: tuple[LogFilter, ...]
    masks: tuple[int, ...]
    """Bits of a header's bloom that are all set when the block may hold such a log; one mask for each kind."""

    def may_be_in(self, bloom: int | None) -> bool:
        """Whether a block with this bloom may hold a log of ours."""
        return bloom is not None and any(bloom & mask == mask for mask in self.masks)


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
    masks = [_bits(topic) for topic in ours]
    masks += [_bits(topic) | _bits(emitter) for topics, emitters in said for topic in topics for emitter in emitters]
    return Interest(tuple(filters), tuple(masks))


def _of_tables(said: Sequence[tuple[tuple[str, ...], tuple[str, ...]]]) -> list[LogFilter]:
    """One filter for whatever the chain table's tokens, vaults and locks say: each filter is a call per block.

    A token that emits a vault's topic passes too; decoding knows better.
    """
    if not said:
        return []
    topics = dict.fromkeys(topic for topics, _ in said for topic in topics)
    return [LogFilter(tuple(topics), tuple(emitter for _, emitters in said for emitter in emitters))]


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
    source = rpc.asked
    for i, (header, logs) in enumerate(zip(headers, found, strict=True)):
        if not logs and interest.may_be_in(header.bloom):
            found[i] = await _second_look(rpc, chain_id, header, interest, source=source)
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


async def _second_look(rpc: Rpc, chain_id: int, header: Header, interest: Interest, *, source: int) -> tuple[Log, ...]:
    """No logs, though the bloom says that there may be: a lagging node answers like that. Ask once more, then believe.

    Another node is asked if there is one, else this one's receipts.
    """
    logs: tuple[Log, ...] | None = None
    if rpc.nodes == 1 and rpc.offers("eth_getBlockReceipts"):
        try:
            logs = await logs_by_receipts(rpc, header.hash, interest.filters)
        except RpcError as error:
            if not error.unknown_method:
                raise
    if logs is None:
        with rpc.elsewhere(source):
            (logs,) = await logs_of(rpc, [header.hash], interest.filters)
    if logs:
        rpc.observe(source, EMPTY_LOGS)
    outcome = "repaired" if logs else "believed"
    metrics.EMPTY_LOGS.labels(str(chain_id), outcome).inc()
    logger.info("empty_logs", outcome=outcome, chain=chain_id, number=header.number, hash=header.hash, logs=len(logs))
    return logs


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
