"""Three nodes of one scripted chain over real HTTP, each of which can be made to fail, lag or lie in one way."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any

from aiohttp import web

from tests.factories import make_address, make_hash
from tests.watchers.node import FakeBlock, Fault, ScriptedNode
from tests.watchers.said import SHOP, WALLET, Tx, spent, transferred

USERS = tuple(make_address("payer", i) for i in range(20))
CHAIN_ID = 4711
"""A chain of its own: other tests of the same process count theirs."""
FINAL_AFTER = 20
"""Blocks behind the head that the nodes name final."""
SPENDS_IN_FORK = 20
"""Blocks of a fork that have spends of their own."""
FOREIGN = 1_000_000
"""Blocks by which another chain is ahead."""
RANDOM_FAULTS: tuple[Fault, ...] = (
    "drop", "http", "throttled", "jsonrpc", "not_json", "wrong_id", "null", "empty", "too_large", "hang",
)  # fmt: skip


@dataclass(frozen=True)
class KeptBlock(FakeBlock):
    """A block that writes its logs and receipts once: the nodes share a core with the watcher."""

    def logs(self) -> list[dict[str, Any]]:
        return self._logs

    def receipts(self) -> list[dict[str, Any]]:
        return self._receipts

    @cached_property
    def _logs(self) -> list[dict[str, Any]]:
        return super().logs()

    @cached_property
    def _receipts(self) -> list[dict[str, Any]]:
        return super().receipts()


@dataclass
class Script:
    """The chain as it is, and the faults that the next requests meet."""

    draw: random.Random
    blocks: list[FakeBlock] = field(default_factory=lambda: [FakeBlock(0, make_hash("genesis"), "0x" + "0" * 64)])
    due: deque[Fault] = field(default_factory=deque)
    rate: float = 0.0
    """Chance that a request meets a fault that nobody ordered."""
    met: int = 0
    by_hash: dict[str, FakeBlock] = field(default_factory=dict)
    by_tx: dict[str, tuple[FakeBlock, int]] = field(default_factory=dict)
    _headers: dict[str, dict[str, Any]] = field(default_factory=dict)
    _salts: count[int] = field(default_factory=count)

    def mine(self) -> FakeBlock:
        """One block, with one or two spends of one or two people."""
        block = self.block(self.blocks[-1], "chain")
        self.blocks.append(block)
        return block

    def block(self, parent: FakeBlock, branch: str, *, empty: bool = False) -> FakeBlock:
        """A block on top of another, with spends of its own unless it is to be empty."""
        txs = () if empty else tuple(self._spend() for _ in range(self.draw.randint(1, 2)))
        block = KeptBlock(parent.number + 1, make_hash(parent.hash, branch, next(self._salts)), parent.hash, txs)
        self.by_hash[block.hash] = block
        self.by_tx.update({block.tx_hash(i): (block, i) for i in range(len(txs))})
        return block

    def _spend(self) -> Tx:
        salt = next(self._salts) + 1
        user = self.draw.choice(USERS)
        return Tx((transferred(WALLET, SHOP, salt), spent(user, salt)), sender=user, salt=str(salt))

    def header(self, block: FakeBlock) -> dict[str, Any]:
        """The block's header; its bloom costs a while, once."""
        found = self._headers.get(block.hash)
        if found is None:
            found = self._headers[block.hash] = block.header()
        return found


@dataclass
class Liar(ScriptedNode):
    """One node's view of the script."""

    chain_id: int = CHAIN_ID
    script: Script = field(default_factory=lambda: Script(random.Random(0)))
    asked_at: float = 0.0
    """When it got its last request (s of the loop's clock)."""
    frozen: int | None = None
    """How many blocks it has, while it gets no new ones."""
    foreign: bool = False
    """Whether it serves another chain."""
    fork: list[FakeBlock] = field(default_factory=list)
    """Its own blocks, instead of the chain's of these heights."""
    _calls: list[Mapping[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.blocks = self.script.blocks

    def part_at(self, number: int) -> None:
        """Go on with blocks of its own from this height on."""
        self.fork = [self.script.block(self.script.blocks[number - 1], f"fork {number}")]

    def heal(self) -> None:
        """Be a good node again."""
        self.lag, self.frozen, self.foreign, self.fork = 0, None, False, []

    async def _http(self, request: web.Request) -> web.StreamResponse:
        self.asked_at = asyncio.get_running_loop().time()
        self.on_call = self._note
        self._calls = []
        return await super()._http(request)

    def _note(self, method: str, params: Sequence[Any]) -> None:
        self._calls.append({"method": method, "params": params})

    def _next_fault(self, methods: Sequence[str]) -> Fault | None:
        calls, self._calls = self._calls, []
        script = self.script
        if script.due:
            fault = script.due[0]
        elif script.rate and script.draw.random() < script.rate:
            fault = script.draw.choice(RANDOM_FAULTS)
        else:
            return None
        if not self._fits(fault, calls):
            return None
        if script.due:
            script.due.popleft()
        script.met += 1
        return fault

    def _fits(self, fault: Fault, calls: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the fault can be told from a good answer to these calls."""
        if fault == "empty":
            hashes = [call["params"][0].get("blockHash") for call in calls if call["method"] == "eth_getLogs"]
            return bool(hashes) and all(hash_ in self.script.by_hash for hash_ in hashes)
        return fault != "too_large" or len(calls) > 1

    def _seen(self) -> list[FakeBlock]:
        blocks = self.script.blocks
        if not self.fork and self.frozen is None and not self.lag:
            return blocks
        if self.fork:
            while self.fork[-1].number < blocks[-1].number:
                # Spends in its first blocks only: to build them takes longer than to follow them.
                far = len(self.fork) > SPENDS_IN_FORK
                self.fork.append(self.script.block(self.fork[-1], "fork", empty=far))
            blocks = [*blocks[: self.fork[0].number], *self.fork]
        end = len(blocks) if self.frozen is None else self.frozen
        return blocks[: end - self.lag]

    def _by_hash(self, hash_: str) -> FakeBlock | None:
        block = self.script.by_hash.get(hash_)
        if block is None:
            return None
        seen = self._seen()
        return block if block.number < len(seen) and seen[block.number].hash == hash_ else None

    def _block_by_number(self, which: str, _full: bool) -> Any:
        seen = self._seen()
        if which in ("latest", "finalized"):
            behind = FINAL_AFTER if which == "finalized" else 0
            header = self.script.header(seen[max(0, len(seen) - 1 - behind)])
            if not self.foreign:
                return header
            number = int(header["number"], 16) + FOREIGN
            return {**header, "number": hex(number), "hash": make_hash("foreign", number)}
        number = int(which, 16)
        return self.script.header(seen[number]) if number < len(seen) else None

    def _receipt(self, tx: str) -> Any:
        block, i = self.script.by_tx.get(tx, (None, 0))
        return block.receipts()[i] if block is not None and self._by_hash(block.hash) is not None else None

    def _result(self, method: str, params: Sequence[Any]) -> Any:
        if method == "eth_chainId" and self.foreign:
            return hex(self.chain_id + 1)
        return super()._result(method, params)
