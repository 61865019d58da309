"""What is read from a chain: headers, logs, receipts, balances, typed and checked.

The only module besides the devnet's that knows how JSON-RPC writes these things. Hashes, addresses and data are
lower-case hex from here on; an answer that is not what was asked for is an RpcError, never an empty result.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from config import abi
from store.records import Address, BlockRef, Log, Receipt
from store.rpc import Call, Rpc, RpcError, quantity

FEW_RECEIPTS = 4
"""Up to so many transactions their receipts are asked for one by one; beyond it the whole block's cost less."""

WHOLE_BLOCKS = 4
"""Blocks whose receipts are asked for in one request: a busy block's have 4 MB."""

_HASH = re.compile(r"0x[0-9a-f]{64}")
_ADDRESS = re.compile(r"0x[0-9a-f]{40}")
_DATA = re.compile(r"0x(?:[0-9a-f]{2})*")
_BY_HASH_REFUSED = ("invalid", "unmarshal", "unsupported", "not supported", "parse")
_INVALID_PARAMS = -32602


@dataclass(frozen=True, slots=True)
class Header:
    """A block's header; `bloom` is the filter of its logs as a 2048-bit number, None where a node leaves it out."""

    number: int
    hash: str
    parent_hash: str
    time: datetime
    bloom: int | None = None

    @property
    def ref(self) -> BlockRef:
        """The block by number and hash."""
        return BlockRef(self.number, self.hash)


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Logs with one of these topics first; of these emitters, or of any when there are none."""

    topics: tuple[str, ...]
    addresses: tuple[Address, ...] = ()

    @property
    def params(self) -> dict[str, Any]:
        """The filter as eth_getLogs takes it, without the block."""
        return {"topics": [list(self.topics)]} | ({"address": list(self.addresses)} if self.addresses else {})

    def takes(self, log: Log) -> bool:
        """Whether the log passes."""
        wanted = bool(log.topics) and log.topics[0] in self.topics
        return wanted and (not self.addresses or log.address in self.addresses)


@dataclass(frozen=True, slots=True)
class PlacedLog:
    """A log and the block it is in."""

    block: BlockRef
    log: Log


# Headers ------------------------------------------------------------------------------------------------------------


async def heights(rpc: Rpc, *, finality_depth: int) -> tuple[Header, int]:
    """The newest header and the finalized number; by depth where the node has no `finalized` tag."""
    header, finalized = await ends(rpc)
    return header, max(0, header.number - finality_depth) if finalized is None else finalized.number


async def ends(rpc: Rpc) -> tuple[Header, BlockRef | None]:
    """The newest header and the newest finalized block, None where the node has no `finalized` tag."""
    method = "eth_getBlockByNumber"
    latest, finalized = await rpc.answers([(method, ("latest", False)), (method, ("finalized", False))])
    if isinstance(latest, RpcError):
        rpc.turn()
        raise latest
    header = _known_header(rpc, latest, "latest")
    if not isinstance(finalized, dict):
        return header, None
    final = _known_header(rpc, finalized, "finalized").ref
    return header, min(header.ref, final, key=lambda ref: ref.number)


async def headers_at(rpc: Rpc, numbers: Sequence[int]) -> list[Header | None]:
    """Canonical headers at these heights; None where the node has no block (yet)."""
    answers = await rpc.batch([("eth_getBlockByNumber", (hex(number), False)) for number in numbers])
    with rpc.reading("eth_getBlockByNumber"):
        found = [None if answer is None else header_from(answer) for answer in answers]
        if any(header is not None and header.number != n for header, n in zip(found, numbers, strict=True)):
            raise ValueError("another block than the one asked for")
    return found


async def header_at(rpc: Rpc, number: int) -> Header:
    """The canonical header at a height; an RpcError of kind null while the node has no such block."""
    (header,) = await headers_at(rpc, [number])
    if header is None:
        raise rpc.fault("null", f"no block {number}", method="eth_getBlockByNumber")
    return header


async def header_of(rpc: Rpc, block_hash: str) -> Header:
    """A header by hash; an RpcError of kind null while the node does not know it."""
    answer = await rpc.call("eth_getBlockByHash", block_hash, False)
    header = _known_header(rpc, answer, block_hash)
    if header.hash != block_hash:
        raise rpc.fault("malformed", "another block than the one asked for", method="eth_getBlockByHash")
    return header


def _known_header(rpc: Rpc, answer: Any, which: str) -> Header:
    if answer is None:
        raise rpc.fault("null", f"no block {which}", method="eth_getBlock")
    with rpc.reading("eth_getBlock"):
        return header_from(answer)


# Logs ---------------------------------------------------------------------------------------------------------------


async def logs_of(rpc: Rpc, blocks: Sequence[str], filters: Sequence[LogFilter]) -> list[tuple[Log, ...]]:
    """Each block's logs, by block hash, in log order: one request for all blocks."""
    method = "eth_getLogs"
    calls: list[Call] = [(method, ({"blockHash": block, **f.params},)) for block in blocks for f in filters]
    answers = await rpc.batch(calls, together=len(filters))
    found: list[tuple[Log, ...]] = []
    for i, block in enumerate(blocks):
        parts = answers[i * len(filters) : (i + 1) * len(filters)]
        if any(part is None for part in parts):
            raise rpc.fault("null", f"no logs of block {block}", method=method)
        with rpc.reading(method):
            placed = [_placed(raw) for part in parts for raw in part]
            if any(one.block.hash != block for one in placed):
                raise ValueError("logs of another block")
            found.append(tuple(sorted((one.log for one in placed), key=lambda log: log.log_index)))
    return found


async def logs_between(rpc: Rpc, first: int, last: int, filters: Sequence[LogFilter]) -> tuple[list[PlacedLog], Header]:
    """Logs of a range of finalized blocks in order, and the header of its last block.

    The header is part of the same request: a node that has not got that far must not pass for one without logs.
    """
    span = {"fromBlock": hex(first), "toBlock": hex(last)}
    calls: list[Call] = [("eth_getBlockByNumber", (hex(last), False))]
    calls += [("eth_getLogs", ({**span, **f.params},)) for f in filters]
    header, *answers = await rpc.batch(calls)
    if header is None or any(answer is None for answer in answers):
        raise rpc.fault("null", f"no block {last}", method="eth_getLogs")
    with rpc.reading("eth_getLogs"):
        placed = [_placed(raw) for answer in answers for raw in answer]
        if not all(first <= one.block.number <= last for one in placed):
            raise ValueError("logs of other blocks")
        return sorted(placed, key=lambda one: (one.block.number, one.log.log_index)), header_from(header)


async def logs_by_receipts(rpc: Rpc, block_hash: str, filters: Sequence[LogFilter]) -> tuple[Log, ...]:
    """The same as `logs_of` one block, read out of its receipts: a second opinion of the same node."""
    answer = await rpc.call("eth_getBlockReceipts", block_hash)
    if answer is None:
        raise rpc.fault("null", f"no receipts of block {block_hash}", method="eth_getBlockReceipts")
    with rpc.reading("eth_getBlockReceipts"):
        placed = [_placed(raw) for receipt in answer for raw in receipt["logs"]]
    return tuple(one.log for one in placed if any(f.takes(one.log) for f in filters))


# Receipts -----------------------------------------------------------------------------------------------------------


async def receipts_of(rpc: Rpc, wanted: Mapping[str, Collection[str]]) -> dict[str, Receipt]:
    """Receipts by transaction hash of what is wanted (block hash -> transaction hashes), in few requests.

    An RpcError of kind null when one is missing, or stands in another block by now.
    """
    offered = rpc.offers("eth_getBlockReceipts")
    whole = [block for block, txs in wanted.items() if offered and len(txs) > FEW_RECEIPTS]
    single = [tx for block, txs in wanted.items() if not offered or len(txs) <= FEW_RECEIPTS for tx in txs]
    try:
        answers = await rpc.batch([("eth_getTransactionReceipt", (tx,)) for tx in single])
        for start in range(0, len(whole), WHOLE_BLOCKS):
            part = whole[start : start + WHOLE_BLOCKS]
            answers += await rpc.batch([("eth_getBlockReceipts", (block,)) for block in part])
    except RpcError as error:
        if whole and error.unknown_method:
            return await receipts_of(rpc, wanted)  # the node is now known not to offer it
        raise
    return _wanted_receipts(rpc, answers, wanted)


def _wanted_receipts(rpc: Rpc, answers: Sequence[Any], wanted: Mapping[str, Collection[str]]) -> dict[str, Receipt]:
    block_of = {tx: block for block, txs in wanted.items() for tx in txs}
    with rpc.reading("eth_getTransactionReceipt"):
        raws = [raw for answer in answers for raw in (answer if isinstance(answer, list) else [answer]) if raw]
        placed = {_hash(raw["transactionHash"]): raw for raw in raws}
        here = {
            tx: _receipt(placed[tx])
            for tx, block in block_of.items()
            if tx in placed and _block_hash(placed[tx]) == block
        }
    if len(here) < len(block_of):
        missing = next(tx for tx in block_of if tx not in here)
        raise rpc.fault("null", f"no receipt of {missing} in its block", method="eth_getTransactionReceipt")
    return here


# State --------------------------------------------------------------------------------------------------------------


async def eth_call(
    rpc: Rpc,
    to: Address | None,
    data: str,
    *,
    block: str = "latest",
    sender: Address | None = None,
    gas: int | None = None,
) -> str:
    """What a contract answers (hex data); without `to`, what creating `data` would leave as code.

    `gas` bounds the work; without it the node's own limit does.
    """
    given = {"to": to, "from": sender, "gas": hex(gas) if gas is not None else None}
    answer = await rpc.call("eth_call", {"data": data} | {name: value for name, value in given.items() if value}, block)
    with rpc.reading("eth_call"):
        return _data(answer)


async def token_balances(
    rpc: Rpc, block: BlockRef, pairs: Sequence[tuple[Address, Address]]
) -> dict[tuple[Address, Address], int]:
    """BalanceOf for each (user, token) at the end of a block; a contract that is no token is left out."""
    answers = await calls_at(rpc, block, [(token, abi.BALANCE_OF + "0" * 24 + user[2:]) for user, token in pairs])
    found: dict[tuple[Address, Address], int] = {}
    for pair, answer in zip(pairs, answers, strict=True):
        if answer is not None and len(answer) == len("0x") + 64:
            with rpc.reading("eth_call"):
                found[pair] = quantity(answer)
    return found


async def calls_at(rpc: Rpc, block: BlockRef, calls: Sequence[tuple[Address, str]]) -> list[str | None]:
    """What each (contract, calldata) answers at the end of a block (hex data), in batches; None where it reverts."""
    answers = await rpc.answers(_eth_calls(calls, {"blockHash": block.hash}))
    if any(isinstance(answer, RpcError) and _refuses_hash(answer) for answer in answers):
        answers = await rpc.answers(_eth_calls(calls, hex(block.number)))
        if (await header_at(rpc, block.number)).hash != block.hash:
            raise rpc.fault("null", f"block {block.number} was replaced", method="eth_call")
    return [_called(rpc, answer) for answer in answers]


async def calls_now(rpc: Rpc, calls: Sequence[tuple[Address, str]]) -> list[str | None]:
    """The same at the node's newest block."""
    return [_called(rpc, answer) for answer in await rpc.answers(_eth_calls(calls, "latest"))]


def _eth_calls(calls: Sequence[tuple[Address, str]], block: str | Mapping[str, str]) -> list[Call]:
    return [("eth_call", ({"to": to, "data": data}, block)) for to, data in calls]


def _called(rpc: Rpc, answer: Any) -> str | None:
    if isinstance(answer, RpcError):
        if "revert" in answer.detail.lower():
            return None
        rpc.turn()
        raise answer
    if answer is None:
        # Taken for a contract's answer, it would stay wrong for good.
        raise rpc.fault("null", "no answer", method="eth_call")
    with rpc.reading("eth_call"):
        return _data(answer)


def _refuses_hash(error: RpcError) -> bool:
    """Whether a node takes no block hash where a block is named (EIP-1898)."""
    said = error.detail.lower()
    return error.code == _INVALID_PARAMS or any(word in said for word in _BY_HASH_REFUSED)


async def client_version(rpc: Rpc) -> str:
    """What software the node runs."""
    return str(await rpc.call("web3_clientVersion"))


# Taking answers apart: raises ValueError, LookupError, TypeError or AttributeError -----------------------------------


def header_from(raw: Any) -> Header:
    """A header as nodes write it; raises one of the errors above."""
    bloom = raw.get("logsBloom")
    return Header(
        number=quantity(raw["number"]),
        hash=_hash(raw["hash"]),
        parent_hash=_hash(raw["parentHash"]),
        time=datetime.fromtimestamp(quantity(raw["timestamp"]), UTC),
        bloom=quantity(bloom) if bloom is not None else None,
    )


def _placed(raw: Any) -> PlacedLog:
    if raw.get("removed"):
        raise ValueError("a log of a block that was replaced")
    log = Log(
        address=_address(raw["address"]),
        topics=tuple(_hash(topic) for topic in raw["topics"]),
        data=_data(raw["data"]),
        tx_hash=_hash(raw["transactionHash"]),
        log_index=quantity(raw["logIndex"]),
    )
    return PlacedLog(BlockRef(quantity(raw["blockNumber"]), _block_hash(raw)), log)


def _receipt(raw: Any) -> Receipt:
    logs = [_placed(log).log for log in raw["logs"]]
    operations = (
        (log.log_index, "0x" + log.topics[2][26:])
        for log in logs
        if log.address in abi.ENTRY_POINTS and len(log.topics) == 4 and log.topics[0] == abi.USER_OPERATION_EVENT
    )
    return Receipt(
        tx_hash=_hash(raw["transactionHash"]),
        sender=_address(raw["from"]),
        to=_address(raw["to"]) if raw.get("to") else None,
        type=quantity(raw.get("type") or "0x0"),
        first_log_index=min((log.log_index for log in logs), default=0),
        gas_used=quantity(raw["gasUsed"]),
        effective_gas_price=quantity(raw["effectiveGasPrice"]),
        l1_fee=quantity(raw.get("l1Fee") or "0x0"),
        user_operations=tuple(operations),
    )


def _block_hash(raw: Any) -> str:
    return _hash(raw["blockHash"])


def _hash(value: str) -> str:
    return _matching(_HASH, value, "a hash")


def _address(value: str) -> Address:
    return _matching(_ADDRESS, value, "an address")


def _data(value: str) -> str:
    return _matching(_DATA, value, "hex data")


def _matching(pattern: re.Pattern[str], value: str, what: str) -> str:
    text = value.lower()
    if not pattern.fullmatch(text):
        raise ValueError(f"{what} is not one")
    return text
