"""The devnet's contracts in Python: their compiled artifacts, encoded calls on them, and putting them on a chain."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eth_abi.abi import encode
from eth_utils.abi import collapse_if_tuple, function_abi_to_4byte_selector
from eth_utils.crypto import keccak

from store.records import Address
from watchers.devnet.node import Node

ARTIFACTS = Path(__file__).with_name("artifacts")
CREATE_GAS = 8_000_000
"""Gas limit of a deployment: twice what the largest contract, the factory with the wallet inside, takes."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where the devnet's contracts are on one chain; `first_block` is the block that holds the first of them."""

    wallet: Address
    factory: Address
    usdc: Address
    vault: Address
    lock: Address
    chain_id: int
    first_block: int

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Every contract of it."""
        return (self.wallet, self.factory, self.usdc, self.vault, self.lock)


@dataclass(frozen=True, slots=True)
class Call:
    """What a transaction does: calldata to a contract, with wei and a gas limit. `name` is for error messages."""

    to: Address
    calldata: str
    value: int = 0
    gas: int = 400_000
    name: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One compiled contract: its ABI and creation bytecode (hex)."""

    name: str
    abi: tuple[Mapping[str, Any], ...]
    bytecode: str

    def call(self, to: Address, function: str, *args: Any, value: int = 0, gas: int = 400_000) -> Call:
        """Encode a call of a function, by its name; a `string` argument may be given as raw bytes."""
        entry = next((e for e in self.abi if e["type"] == "function" and e["name"] == function), None)
        if entry is None:
            raise LookupError(f"{self.name} has no function {function}")
        selector = function_abi_to_4byte_selector(entry)  # type: ignore[arg-type]  # a Mapping is as good as its TypedDict
        calldata = "0x" + selector.hex() + _encoded(entry["inputs"], args)
        return Call(to=to, calldata=calldata, value=value, gas=gas, name=f"{self.name}.{function}")

    def creation(self, *args: Any) -> str:
        """Bytecode with encoded constructor arguments (hex)."""
        inputs: Sequence[Mapping[str, Any]] = next((e["inputs"] for e in self.abi if e["type"] == "constructor"), ())
        return self.bytecode + _encoded(inputs, args)

    def topic(self, event: str) -> str:
        """topic0 of an event, by its name."""
        return "0x" + keccak(text=self.signatures("event")[event]).hex()

    def signatures(self, kind: str) -> dict[str, str]:
        """Signatures, as `Paused(address)`, of all entries of a kind (event, function, error), by name."""
        entries = (entry for entry in self.abi if entry["type"] == kind)
        return {e["name"]: f"{e['name']}({','.join(map(collapse_if_tuple, e['inputs']))})" for e in entries}


@cache
def artifact(name: str) -> Artifact:
    """The committed artifact of a contract, by its name; `compile.js` makes them."""
    path = ARTIFACTS / f"{name}.json"
    if not path.is_file():
        raise LookupError(f"there is no contract {name} in {ARTIFACTS}")
    parts = json.loads(path.read_text(encoding="utf-8"))
    return Artifact(name, tuple(parts["abi"]), parts["bytecode"])


@cache
def errors() -> Mapping[str, str]:
    """Names of all errors that our contracts revert with, by 4-byte selector (`0x…`)."""
    contracts = [artifact(path.stem) for path in sorted(ARTIFACTS.glob("*.json"))]
    signatures = [s for contract in contracts for s in contract.signatures("error").values()]
    return {"0x" + keccak(text=signature)[:4].hex(): signature.partition("(")[0] for signature in signatures}


async def deploy(rpc: str, *, first_block: int | None = None) -> Deployment:
    """Put the contracts on the chain behind `rpc`, from anvil's first account."""
    async with Node(rpc) as node:
        return await deploy_all(node, first_block=first_block)


async def deploy_all(node: Node, *, first_block: int | None = None) -> Deployment:
    """Put the contracts on the node's chain; `first_block` overrides the block they are found in."""
    owner = (await node.rpc_call("eth_accounts"))[0]
    nonce = int(await node.rpc_call("eth_getTransactionCount", owner, "pending"), 16)
    # They go out together, so that a chain with slow blocks needs one block for them; the vault has to know its token.
    creations = [creation("BudgetWallet", owner), creation("WalletFactory"), creation("MockUSDC")]
    creations += [creation("MockVault", created_address(owner, nonce + 2)), creation("MockYieldLock")]
    placed = await create_contracts(node, owner, creations)
    (wallet, first), (factory, _), (usdc, _), (vault, _), (lock, _) = placed
    return Deployment(
        wallet=wallet,
        factory=factory,
        usdc=usdc,
        vault=vault,
        lock=lock,
        chain_id=await node.chain_id(),
        first_block=first if first_block is None else first_block,
    )


def created_address(sender: Address, nonce: int) -> Address:
    """Where the contract will be that an account creates with a nonce: Keccak-256 of the two in RLP."""
    digits = nonce.to_bytes((nonce.bit_length() + 7) // 8)
    second = digits if 0 < nonce < 0x80 else bytes([0x80 + len(digits)]) + digits
    listed = b"\x94" + bytes.fromhex(sender[2:]) + second
    return "0x" + keccak(bytes([0xC0 + len(listed)]) + listed)[12:].hex()


def creation(name: str, *args: Any) -> str:
    """Creation code of a contract with its constructor's arguments."""
    return artifact(name).creation(*args)


async def create_contracts(node: Node, sender: Address, creations: Sequence[str]) -> list[tuple[Address, int]]:
    """Create contracts from an account that the node can sign for; return (address, block number) of each."""
    nonce = int(await node.rpc_call("eth_getTransactionCount", sender, "pending"), 16)
    common = {"from": sender, "gas": hex(CREATE_GAS)}
    requests = [{**common, "data": code, "nonce": hex(nonce + i)} for i, code in enumerate(creations)]
    hashes = await node.rpc_batch([("eth_sendTransaction", (request,)) for request in requests])
    if not await node.automine():
        await node.mine()
    receipts = [await node.receipt(tx) for tx in hashes]
    for receipt in receipts:
        if receipt["status"] != "0x1":
            raise RuntimeError(f"creating a contract failed in transaction {receipt['transactionHash']}")
    return [(str(r["contractAddress"]).lower(), int(r["blockNumber"], 16)) for r in receipts]


def _encoded(inputs: Sequence[Mapping[str, Any]], args: Sequence[Any]) -> str:
    """ABI-encode as hex. `string` goes as `bytes`, which has the same form: names need not be UTF-8 on a chain."""
    types = [collapse_if_tuple(entry).replace("string", "bytes") for entry in inputs]  # type: ignore[arg-type]  # as above
    return encode(types, [_plain(entry, arg) for entry, arg in zip(inputs, args, strict=True)]).hex()


def _plain(entry: Mapping[str, Any], value: Any) -> Any:
    """Turn text into the bytes that the ABI asks for, through lists and structs."""
    kind = str(entry["type"])
    if kind.endswith("[]"):
        return [_plain({**entry, "type": kind.removesuffix("[]")}, one) for one in value]
    if kind == "tuple":
        return tuple(_plain(part, one) for part, one in zip(entry["components"], value, strict=True))
    if kind == "string" and isinstance(value, str):
        return value.encode()
    if kind.startswith("bytes") and isinstance(value, str):
        return bytes.fromhex(value.removeprefix("0x"))
    return value
