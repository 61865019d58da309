"""Contract wallets on a real chain for tests, and a scripted node that votes on signatures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession
from eth_abi.abi import encode
from eth_account import Account

from store.rpc import Rpc
from store.signatures import GAS, SENDER, WRAPPED, is_valid_signature
from tests.watchers.node import ScriptedNode
from watchers.devnet.contracts import Call, artifact, create_contracts, creation
from watchers.devnet.node import Node

MOODS = (
    *("Honest", "Refusing", "Reverting", "RevertingYes", "Looping", "Writing", "Silent", "Short", "Dirty", "Echoing"),
    *("Long", "Bombing", "Burning", "Heavy"),
)
BAD_MOODS = MOODS[1:-1]
DIGEST = bytes(range(32))
ALICE, BOB = Account.from_key("0x" + "a1" * 32), Account.from_key("0x" + "b0" * 32)
WALLET, FACTORY = artifact("MockSmartWallet"), artifact("MockWalletFactory")


def signed(who: Any, digest: bytes = DIGEST) -> bytes:
    return bytes(who.unsafe_sign_hash(digest).signature)


def wrap(inner: bytes, call: Call) -> bytes:
    """The signature as a wallet sends it that is not deployed yet."""
    return encode(("address", "bytes", "bytes"), (call.to, bytes.fromhex(call.calldata[2:]), inner)) + WRAPPED


@dataclass(frozen=True)
class Ground:
    """A chain with the factory on it, and a way to ask the validator there."""

    node: Node
    rpc: Rpc
    factory: str

    async def ask(self, account: str, signature: bytes, digest: bytes = DIGEST) -> bool:
        return await is_valid_signature(self.rpc, account, digest, signature)

    async def wallet(self, owner: Any, mood: str = "Honest") -> str:
        """A wallet that is deployed."""
        made = creation("MockSmartWallet", owner.address, MOODS.index(mood))
        [(address, _)] = await create_contracts(self.node, await self.funded(), [made])
        return address

    async def planned(self, owner: Any, mood: str = "Honest", *, by: str = "create") -> tuple[str, Call]:
        """A wallet that is not deployed, and the factory's call that would."""
        facts = (owner.address, MOODS.index(mood), b"\x05" * 32)
        asked = FACTORY.call(self.factory, "addressOf", *facts)
        answer = await self.node.rpc_call("eth_call", {"to": asked.to, "data": asked.calldata}, "latest")
        return "0x" + answer[-40:], FACTORY.call(self.factory, by, *facts)

    async def send(self, call: Call) -> None:
        sent = {"from": await self.funded(), "to": call.to, "data": call.calldata}
        receipt = await self.node.receipt(await self.node.rpc_call("eth_sendTransaction", sent))
        assert receipt["status"] == "0x1"

    async def funded(self) -> str:
        return str((await self.node.rpc_call("eth_accounts"))[0])

    async def code(self, address: str) -> str:
        return str(await self.node.rpc_call("eth_getCode", address, "latest"))


@asynccontextmanager
async def grounded(url: str) -> AsyncIterator[Ground]:
    """Ground on the anvil at `url`."""
    async with ClientSession() as session, Node(url) as node:
        owner = (await node.rpc_call("eth_accounts"))[0]
        [(factory, _)] = await create_contracts(node, owner, [creation("MockWalletFactory")])
        yield Ground(node, Rpc([url], 10, session), factory)


class Voter(ScriptedNode):
    """A node that gives every question the same answer."""

    answer = "0x01"

    def _call(self, call: Any, block: Any) -> str:
        assert (call["from"], call["gas"], block) == (SENDER, hex(GAS), "latest")
        assert "to" not in call
        return self.answer
