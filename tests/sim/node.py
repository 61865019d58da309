"""The node of a run: the scripted one of tests/watchers, which answers late, badly or with something older, by seed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.sim.chain import held_at
from tests.watchers.node import FakeBlock, Fault, ScriptedNode
from tests.watchers.said import USDC, topic

FAULTS: tuple[Fault, ...] = ("drop", "http", "throttled", "jsonrpc", "not_json", "wrong_id", "null", "hang")
NAMES: Mapping[Fault, str] = {
    "drop": "RPC connection dropped",
    "http": "RPC status 500",
    "throttled": "RPC status 429",
    "jsonrpc": "RPC refusal",
    "not_json": "RPC answer no JSON",
    "wrong_id": "RPC answer of another id",
    "null": "RPC null",
    "hang": "RPC timeout",
    "empty": "RPC empty answer",
}
HANG_S = 30.0
"""Longer than any RPC timeout of a run (s, virtual)."""


@dataclass
class Mood:
    """How badly a node answers: chances per request."""

    fail: float = 0.0
    stale: float = 0.0
    lie: float = 0.0
    latency_s: float = 0.02


@dataclass
class SimNode(ScriptedNode):
    """A node with a mood. Nodes of one chain share blocks, orphans and the hashes they lied about."""

    mood: Mood = field(default_factory=Mood)
    draw: random.Random = field(default_factory=random.Random)
    faults: Counter[str] = field(default_factory=Counter)
    lied: set[str] = field(default_factory=set)
    """Blocks of which a node said that they have no logs: each once, since a second time is believed."""
    _lying: bool = False
    _lied_now: set[str] = field(default_factory=set)

    async def _http(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(self.draw.uniform(0, self.mood.latency_s))
        return await super()._http(request)

    def _next_fault(self, methods: Sequence[str]) -> Fault | None:
        fault = super()._next_fault(methods)
        if fault is None and self.draw.random() < self.mood.fail:
            fault = self.draw.choice(FAULTS)
        if fault is not None:
            self.faults[NAMES[fault]] += 1
        self._lying = self.draw.random() < self.mood.lie
        self._lied_now.clear()
        return fault

    def _block_by_number(self, which: str, full: bool) -> Any:
        seen = self._seen()
        if which == "latest" and self.draw.random() < self.mood.stale:
            self.faults["stale head"] += 1
            return seen[-min(len(seen), self.draw.randint(1, 4))].header()
        return super()._block_by_number(which, full)

    def _logs(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        logs = super()._logs(asked)
        hash_ = asked.get("blockHash")
        if hash_ is None or not logs:
            return logs
        # All filters of one request get the same answer, as from a node that does not have the block's logs yet.
        if self._lying and (hash_ not in self.lied or hash_ in self._lied_now):
            if hash_ not in self.lied:
                self.faults["empty logs against the bloom"] += 1
            self.lied.add(hash_)
            self._lied_now.add(hash_)
            return []
        return logs

    def _call(self, call: Mapping[str, str], block: Any) -> str:
        super()._call(call, block)  # refuses blocks it does not have
        blocks: Sequence[FakeBlock] = self._seen()
        if isinstance(block, dict):
            found = self._by_hash(block["blockHash"])
            assert found is not None
            blocks = self._branch(found)
        return topic(held_at(blocks, "0x" + call["data"][-40:])) if call["to"] == USDC else "0x"

    def _branch(self, tip: FakeBlock) -> list[FakeBlock]:
        """The blocks up to one that may not be canonical."""
        branch: list[FakeBlock] = []
        known = {block.hash: block for block in self.blocks} | self.orphans
        found: FakeBlock | None = tip
        while found is not None:
            branch.append(found)
            found = known.get(found.parent)
        return branch[::-1]
