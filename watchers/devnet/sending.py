"""How the simulated users' transactions reach the node: signed here, nonces counted here, whole batches for load."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from eth_utils.address import to_checksum_address

from store.records import Address
from watchers.devnet.contracts import Call, errors
from watchers.devnet.node import Branch, Node, NodeError
from watchers.devnet.person import Person

FEES = {"maxFeePerGas": 1000 * 10**9, "maxPriorityFeePerGas": 10**9}
"""Wei per gas; the maximum is above any base fee that load drives up."""

_LOAD_GAS_LIMIT = 10**12  # of a block, so that one takes thousands of transactions
_KEPT_RAW = 4096  # signed transactions that are remembered, so that a reorg can include them again
_HASH_LENGTH = 66


class Reverted(Exception):
    """A contract refused the transaction `tx`; the message names the call and the contract's error."""

    def __init__(self, message: str, *, tx: str) -> None:
        super().__init__(message)
        self.tx = tx


class SendingNode(Node):
    """A node that sends for persons. Where it mines at once, an action is mined when it returns, or raises Reverted."""

    def __init__(self, rpc: str) -> None:
        super().__init__(rpc)
        self._mines_at_once = False
        self._chain_id = 0
        self._nonces: dict[Address, int] = {}
        self._raw: dict[str, str] = {}

    async def open(self) -> None:
        """Connect, and learn how the node mines."""
        await super().open()
        self._mines_at_once = await self.automine()
        self._chain_id = await self.chain_id()

    async def send(self, sender: Person, call: Call) -> str:
        """Sign and send a call; return the transaction's hash. After a refusal the nonce is asked for again."""
        raw, tx = self._sign(sender, call, await self._next_nonce(sender.address))
        try:
            if not self._mines_at_once:
                await self.rpc_call("eth_sendRawTransaction", raw)
                return tx
            receipt = await self.rpc_call("eth_sendRawTransactionSync", raw)
        except NodeError:
            self._nonces.pop(sender.address, None)
            raise
        if receipt["status"] != "0x1":
            raise Reverted(f"{call.name} reverted: {await self._reason(sender.address, call)}", tx=tx)
        return tx

    async def load(self, calls: Iterable[tuple[Person, Call]]) -> list[str]:
        """Send many calls at once without waiting for blocks; return their hashes. Each sender's keep their order.

        The node signs for everyone here (thousands of transactions per second); set_automine(False) before and `mine`
        after it make one big block of them.
        """
        requests = []
        for sender, call in calls:
            nonce = await self._next_nonce(sender.address)
            requests.append(_request(sender.address, call) | {"nonce": hex(nonce)})
        await self.rpc_batch(
            [("anvil_autoImpersonateAccount", (True,)), ("evm_setBlockGasLimit", (hex(_LOAD_GAS_LIMIT),))]
        )
        return [str(tx) for tx in await self.rpc_batch([("eth_sendTransaction", (request,)) for request in requests])]

    async def resend(self, tx: str) -> str:
        """Send a transaction again that a reorg dropped: same bytes, same hash."""
        method = "eth_sendRawTransactionSync" if self._mines_at_once else "eth_sendRawTransaction"
        await self.rpc_call(method, self._raw[tx])
        self.forget_nonces()
        return tx

    def forget_nonces(self) -> None:
        """Ask the node for the next nonces: needed when somebody else sent, or replaced blocks, meanwhile."""
        self._nonces.clear()

    async def set_automine(self, on: bool) -> None:
        """Mine each transaction at once, or only what `mine` asks for."""
        await super().set_automine(on)
        self._mines_at_once = on

    async def reorg(self, depth: int, *, txs: Sequence[tuple[str | dict[str, Any], int]] = ()) -> int:
        """Replace blocks as Node.reorg does; a transaction of ours may be named by its hash."""
        known = [
            (self._raw.get(tx, tx) if isinstance(tx, str) and len(tx) == _HASH_LENGTH else tx, at) for tx, at in txs
        ]
        newest = await super().reorg(depth, txs=known)
        self.forget_nonces()
        return newest

    async def revert(self, snapshot: str) -> int:
        """Go back to a snapshot as Node.revert does."""
        newest = await super().revert(snapshot)
        self.forget_nonces()
        return newest

    async def restore(self, branch: Branch) -> int:
        """Bring blocks back as Node.restore does."""
        newest = await super().restore(branch)
        self.forget_nonces()
        return newest

    async def _next_nonce(self, address: Address) -> int:
        if address not in self._nonces:
            count = int(await self.rpc_call("eth_getTransactionCount", address, "pending"), 16)
            self._nonces.setdefault(address, count)
        nonce = self._nonces[address]
        self._nonces[address] = nonce + 1
        return nonce

    def _sign(self, sender: Person, call: Call, nonce: int) -> tuple[str, str]:
        fields: dict[str, Any] = {"to": to_checksum_address(call.to), "data": call.calldata, "value": call.value}
        fields |= {"gas": call.gas, "nonce": nonce, "chainId": self._chain_id, **FEES}
        signed = sender.account.sign_transaction(fields)
        raw, tx = "0x" + bytes(signed.raw_transaction).hex(), "0x" + bytes(signed.hash).hex()
        self._raw[tx] = raw
        if len(self._raw) > _KEPT_RAW:
            del self._raw[next(iter(self._raw))]
        return raw, tx

    async def _reason(self, sender: Address, call: Call) -> str:
        """Name the contract's error by running the call again on top of the chain."""
        try:
            await self.rpc_call("eth_call", _request(sender, call), "latest")
        except NodeError as error:
            return errors().get(str(error.data)[:10], str(error))
        return "the same call passes now; it ran out of gas or met another state"


def _request(sender: Address, call: Call) -> dict[str, str]:
    """A call as the node's JSON takes it."""
    request = {"from": sender, "to": call.to, "data": call.calldata, "value": hex(call.value), "gas": hex(call.gas)}
    return request | {name: hex(wei) for name, wei in FEES.items()}
