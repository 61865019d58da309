"""Below everything in the devnet: JSON-RPC to an anvil node, and what only a test chain can do (mine, reorg, time)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import ClientSession, ClientTimeout, TCPConnector
from web3 import AsyncHTTPProvider, AsyncWeb3
from web3.types import RPCEndpoint, RPCResponse

TIMEOUT_S = 30.0
"""Time one call may take: a block of thousands of transactions needs seconds on a busy machine."""

BATCH = 200
"""Calls per JSON-RPC batch: anvil's throughput peaks there."""

RECEIPT_POLL_S = 0.05


class NodeError(Exception):
    """The node refused a call; the message names the method and its reason."""

    def __init__(self, method: str, error: Any) -> None:
        message = error.get("message", error) if isinstance(error, dict) else error
        super().__init__(f"{method}: {message}")
        self.data: object = error.get("data") if isinstance(error, dict) else None


@dataclass(frozen=True, slots=True)
class Branch:
    """Blocks in ascending order, as the node gave them, and their signed transactions by hash."""

    blocks: tuple[dict[str, Any], ...]
    raw: Mapping[str, str]


class Node:
    """An anvil node; `async with Node(rpc) as node`. Block numbers are ints, hashes and addresses lower-case hex."""

    def __init__(self, rpc: str) -> None:
        self.rpc = rpc
        self.provider = AsyncHTTPProvider(rpc, exception_retry_configuration=None)
        self.w3 = AsyncWeb3(self.provider)

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the session, with kept-alive connections: web3's own session opens one per call."""
        session = ClientSession(
            raise_for_status=True, timeout=ClientTimeout(total=TIMEOUT_S), connector=TCPConnector(limit=16)
        )
        await self.provider.cache_async_session(session)

    async def close(self) -> None:
        """Close the connections to the node."""
        await self.provider.disconnect()

    async def rpc_call(self, method: str, *params: Any) -> Any:
        """Call one method and return its result; raise NodeError when the node refuses."""
        return _result(method, await self.provider.make_request(RPCEndpoint(method), list(params)))

    async def rpc_batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Call many methods in batches; results come in order, though the node may run the calls at the same time."""
        results: list[Any] = []
        for start in range(0, len(calls), BATCH):
            part = calls[start : start + BATCH]
            answer = await self.provider.make_batch_request([(RPCEndpoint(m), list(p)) for m, p in part])
            if not isinstance(answer, list):
                raise NodeError("batch", answer.get("error"))
            results += [_result(method, one) for (method, _), one in zip(part, answer, strict=True)]
        return results

    # ---- reading

    async def chain_id(self) -> int:
        """Id of the chain that the node runs."""
        return int(await self.rpc_call("eth_chainId"), 16)

    async def block_number(self) -> int:
        """Number of the newest block."""
        return int(await self.rpc_call("eth_blockNumber"), 16)

    async def block(self, number: int | str = "latest") -> dict[str, Any]:
        """A block with the hashes of its transactions, by number or tag, as the node gives it."""
        found = await self.rpc_call("eth_getBlockByNumber", hex(number) if isinstance(number, int) else number, False)
        if found is None:
            raise NodeError("eth_getBlockByNumber", f"there is no block {number}")
        return dict(found)

    async def find_receipt(self, tx: str) -> dict[str, Any] | None:
        """The receipt of a transaction, or None while no block of the current chain holds it."""
        found = await self.rpc_call("eth_getTransactionReceipt", tx)
        return None if found is None else dict(found)

    async def receipt(self, tx: str, *, timeout_s: float = 20) -> dict[str, Any]:
        """Wait for a transaction's receipt; raise TimeoutError when no block took it in time."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while (found := await self.find_receipt(tx)) is None:
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"no block of the chain holds transaction {tx} after {timeout_s:g} s")
            await asyncio.sleep(RECEIPT_POLL_S)
        return found

    async def has_code(self, addresses: Sequence[str]) -> bool:
        """Whether every address holds a contract."""
        codes = await self.rpc_batch([("eth_getCode", (address, "latest")) for address in addresses])
        return all(code not in ("0x", None) for code in codes)

    # ---- what only a test chain can do

    async def automine(self) -> bool:
        """Whether the node mines a block as soon as it has a transaction."""
        return bool(await self.rpc_call("anvil_getAutomine"))

    async def set_automine(self, on: bool) -> None:
        """Mine each transaction at once, or only what `mine` asks for."""
        await self.rpc_call("evm_setAutomine", on)

    async def mine(self, blocks: int = 1, *, interval_s: int | None = None) -> int:
        """Mine so many blocks, `interval_s` of chain time apart if given; return the number of the newest."""
        interval = () if interval_s is None else (hex(interval_s),)
        await self.rpc_call("anvil_mine", hex(blocks), *interval)
        return await self.block_number()

    async def increase_time(self, seconds: int) -> int:
        """Let so much chain time pass and mine one block at the new time; return its number."""
        await self.rpc_call("evm_increaseTime", seconds)
        return await self.mine()

    async def reorg(self, depth: int, *, txs: Sequence[tuple[str | dict[str, Any], int]] = ()) -> int:
        """Replace the newest `depth` blocks by as many others; return the number of the newest (unchanged).

        The others hold only `txs`: (raw transaction or request, index of its new block counted from 0). What the old
        blocks held and `txs` does not is gone from the chain and from the pool.
        """
        await self.rpc_call("anvil_reorg", depth, [list(tx) for tx in txs])
        return await self.block_number()

    async def snapshot(self) -> str:
        """Remember the chain as it stands; return the id for `revert`, which may be used once."""
        return str(await self.rpc_call("evm_snapshot"))

    async def revert(self, snapshot: str) -> int:
        """Go back to a snapshot, whose block must still be on the chain: what came later is gone."""
        if not await self.rpc_call("evm_revert", snapshot):
            raise NodeError("evm_revert", f"there is no snapshot {snapshot}")
        return await self.block_number()

    async def branch(self, depth: int) -> Branch:
        """The newest `depth` blocks, remembered so that `restore` can bring them back after a reorg."""
        newest = await self.block_number()
        numbers = range(newest - depth + 1, newest + 1)
        blocks = [await self.block(number) for number in numbers]
        hashes = [tx for block in blocks for tx in block["transactions"]]
        raws = await self.rpc_batch([("eth_getRawTransactionByHash", (tx,)) for tx in hashes])
        return Branch(blocks=tuple(blocks), raw=dict(zip(hashes, raws, strict=True)))

    async def restore(self, branch: Branch) -> int:
        """Bring back blocks, hash for hash, that a reorg replaced; return the number of the newest of them.

        The chain goes back to their parent and they are mined again with the same times, fees and transactions. Raises
        RuntimeError when the hashes differ, which purses or cheats given inside the branch would cause.
        """
        first = int(branch.blocks[0]["number"], 16)
        await self.rpc_call("anvil_rollback", await self.block_number() - first + 1)
        automine = await self.automine()
        await self.rpc_call("evm_setAutomine", False)
        try:
            for block in branch.blocks:
                await self._mine_again(block, branch.raw)
        finally:
            await self.rpc_call("evm_setAutomine", automine)
        return await self.block_number()

    async def _mine_again(self, block: Mapping[str, Any], raw: Mapping[str, str]) -> None:
        await self.rpc_call("evm_setNextBlockTimestamp", int(block["timestamp"], 16))
        await self.rpc_call("anvil_setNextBlockBaseFeePerGas", block["baseFeePerGas"])
        for tx in block["transactions"]:  # one by one: their order is part of the hash
            await self.rpc_call("eth_sendRawTransaction", raw[tx])
        await self.mine()
        again = await self.block()
        if again["hash"] != block["hash"]:
            raise RuntimeError(f"block {block['number']} came back as {again['hash']}, not as {block['hash']}")


def _result(method: str, response: RPCResponse) -> Any:
    if "error" in response:
        raise NodeError(method, response["error"])
    return response.get("result")
