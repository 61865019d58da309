"""Whether a contract wallet stands behind a signature: ERC-1271 and ERC-6492 in one eth_call, nothing deployed.

What is called are other people's contracts. contracts/SignatureValidator.sol makes whatever they do an answer; what
fails here beyond that is the node, and an RpcError.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

from store import chain
from store.records import Address
from store.rpc import Rpc, RpcError

ARTIFACT: Final = Path(__file__).with_name("contracts") / "SignatureValidator.json"
"""What `watchers/devnet/compile.js` makes of the source beside it."""

MAX_SIGNATURE: Final = 8 * 1024
"""Longest signature that is asked about (bytes): a wrapped one of a passkey wallet has one to two thousand."""

GAS: Final = 16_000_000
"""Gas of the call: what the validator gives to its calls, 15 million, and its own. Below 2**24, the most that EIP-7825
lets a transaction have; a node with a lower limit of its own cuts it."""

SENDER: Final = "0x93a9c3ffde11ad6ce3259a104a6495c029d91a1f"
"""Nobody's address: the hash of a sentence. Without one nodes say zero, which some contracts take for a simulation and
approve everything."""

WRAPPED: Final = bytes.fromhex("6492" * 16)
"""How a signature ends that carries the call which creates its account (ERC-6492)."""

_TYPES = ("address", "bytes32", "bytes", "bool", "address", "bytes")
_ELSEWHERE = ("jsonrpc", "malformed")
_VERDICTS = {"0x00": False, "0x01": True}


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A signature for ERC-1271, and the call that creates its account or makes it ready, where it came with one."""

    signature: bytes
    wrapped: bool = False
    factory: Address = "0x" + "0" * 40
    preparation: bytes = b""


def unwrap(signature: bytes) -> Unwrapped | None:
    """Take an ERC-6492 signature apart, leave any other as it is; None for one that is wrapped badly."""
    if not signature.endswith(WRAPPED):
        return Unwrapped(signature)
    try:
        factory, preparation, inner = decode(("address", "bytes", "bytes"), signature[: -len(WRAPPED)])
    except (DecodingError, OverflowError):  # an offset that no index can hold overflows
        return None
    return Unwrapped(inner, True, factory, preparation)


async def is_valid_signature(rpc: Rpc, account: Address, digest: bytes, signature: bytes) -> bool:
    """Whether `account` signed the 32 bytes `digest`, by its contract, the one it would have, or its key.

    Raises RpcError or WrongChain when no node of the chain says so or not.
    """
    parts = unwrap(signature) if len(signature) <= MAX_SIGNATURE else None
    if parts is None:
        return False
    facts = (account, digest, parts.signature, parts.wrapped, parts.factory, parts.preparation)
    data = _creation_code() + encode(_TYPES, facts).hex()
    for others in reversed(range(rpc.nodes)):
        try:
            return await _verdict(rpc, data)
        except RpcError as error:
            if error.kind not in _ELSEWHERE or not others:
                raise
    return await _verdict(rpc, data)  # no node is left: this raises WrongChain


async def _verdict(rpc: Rpc, data: str) -> bool:
    answer = await chain.eth_call(rpc, None, data, sender=SENDER, gas=GAS)
    if answer not in _VERDICTS:
        raise rpc.fault("malformed", "the validator gave no verdict", method="eth_call")
    return _VERDICTS[answer]


@cache
def _creation_code() -> str:
    code: str = json.loads(ARTIFACT.read_text(encoding="utf-8"))["bytecode"]
    return code
