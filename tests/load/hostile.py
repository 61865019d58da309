"""`make prove-hostile`: hostile sockets beside honest clients of one web process, against the same without them.

Rounds alternate between quiet and attacked, so that whatever else the machine does falls on both. Attackers run in a
process of their own; the honest clients' latency is from PUBLISH to the client's read.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from time import monotonic
from typing import Any

import aiohttp
import orjson

from store.records import Address
from tests.load.deliver import commit, favour, machine, rss_kib
from tests.load.product import Product, Urls, engines, product
from tests.waiting import until

TIMES = 2.0
"""Most that the honest p99 may grow by."""
MEMORY_MIB = 50
LOG_BYTES = 1_000_000
BATCH = 50
"""Most events in one transaction, as a busy block has."""
HOSTILE_USERS = 10
SETTLE_S = 20.0
TIMING = {"ping_interval_s": "2", "ping_timeout_s": "2", "socket_connect_timeout_s": "3"}
"""Short, so that pongs and silence matter within the run."""


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    packets: int = 100_000
    attackers: int = 50
    honest: int = 100
    rounds: int = 3
    per_second: float = 1_000
    """Packets of all attackers (1/s)."""
    events_per_second: float = 1_000
    quiet_s: float = 12
    seed: int = 1


@dataclass
class Honest:
    """A raw client that reads, answers pings and notes when each event came."""

    ws: aiohttp.ClientWebSocketResponse
    user: Address
    start: int = -1
    seqs: list[int] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    closed: bool = False

    async def read(self, published: dict[tuple[Address, int], float]) -> None:
        async for message in self.ws:
            if message.data == "2":
                await self.ws.send_str("3")
            elif message.data.startswith('42["new_transaction"'):
                now, seq = monotonic(), orjson.loads(message.data[2:])[1]["seq"]
                self.seqs.append(seq)
                self.latencies.append(now - published[self.user, seq])
            elif message.data.startswith('42["snapshot"'):
                self.start = orjson.loads(message.data[2:])[1]["seq"]
        self.closed = True


@dataclass(frozen=True)
class Outcome:
    """Figures of a run."""

    plan: Plan
    sent: dict[str, int]
    connections: int
    broken_off: int
    survived: dict[str, int]
    quiet_ms: float
    attacked_ms: float
    grown_mib: float
    log_bytes: int
    events: int
    missed: int
    alive: bool
    honest_cut: int

    @property
    def broken(self) -> list[str]:
        """Invariants that do not hold; the latency is not among them."""
        found = {
            "the server crashed": not self.alive,
            "honest clients were cut": self.honest_cut,
            "honest clients missed events": self.missed,
            "hostile sockets stayed open": self.survived,
            f"memory grew by more than {MEMORY_MIB} MiB": self.grown_mib > MEMORY_MIB,
            "the log is 1 MB or more": self.log_bytes >= LOG_BYTES,
            "attackers were broken off before they sent anything": self.broken_off > self.connections / 100,
            "too few packets were sent": sum(self.sent.values()) < self.plan.packets,
        }
        return [what for what, is_broken in found.items() if is_broken]

    @property
    def is_slow(self) -> bool:
        return self.attacked_ms > TIMES * self.quiet_ms

    def lines(self) -> str:
        packets = sum(self.sent.values())
        return (
            f"{packets:,} packets on {self.connections:,} sockets of {self.plan.attackers} attackers "
            f"({self.plan.per_second:,.0f}/s): {', '.join(f'{k} {n:,}' for k, n in sorted(self.sent.items()))}\n"
            f"{self.plan.honest} honest clients, {self.events:,} events: missed {self.missed}, cut {self.honest_cut}, "
            f"{self.plan.events_per_second:,.0f}/s in blocks of up to {BATCH}, "
            f"p99 {self.quiet_ms:.2f} ms quiet, {self.attacked_ms:.2f} ms attacked "
            f"({self.attacked_ms / self.quiet_ms:.2f} times)\n"
            f"memory +{self.grown_mib:.1f} MiB, log {self.log_bytes:,} bytes, hostile sockets left open: "
            f"{self.survived or 0}"
        )


async def prove(plan: Plan, urls: Urls, folder: Path) -> Outcome:
    """Run the plan on one web process."""
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(product(folder, urls, servers=1, **TIMING))
        favour(made.pid(0))
        favour(None)  # else the honest clients wait for their own time slice, and that is in every latency
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        run = _Run(made, plan, list((await made.sign_in(HOSTILE_USERS)).values()))
        await run.let_in(session, await made.sign_in(plan.honest))
        try:
            return await run.rounds()
        finally:
            await run.end()


class _Run:
    """Honest clients that listen all the time, a writer, and in every second round the attackers."""

    def __init__(self, made: Product, plan: Plan, hostile_tokens: Sequence[str]) -> None:
        self._made, self._plan, self._tokens = made, plan, hostile_tokens
        self._server = made.processes[0]
        self._published: dict[tuple[Address, int], float] = {}
        self._honest: list[Honest] = []
        self._readers: list[asyncio.Task[None]] = []
        self._chance = random.Random(plan.seed)
        self._batch = min(BATCH, plan.honest)
        self._peak_kib = 0
        self._sent: Counter[str] = Counter()
        self._survived: Counter[str] = Counter()
        self._connections = self._broken_off = 0

    async def let_in(self, session: aiohttp.ClientSession, users: dict[Address, str]) -> None:
        for user, token in users.items():
            ws = await session.ws_connect(f"{self._made.urls[0]}/socket.io/?EIO=4&transport=websocket")
            await ws.send_str("40" + orjson.dumps({"token": token}).decode())
            honest = Honest(ws, user)
            self._honest.append(honest)
            self._readers.append(asyncio.create_task(honest.read(self._published)))
        await until(lambda: all(each.start >= 0 for each in self._honest), what="honest clients are in")

    async def rounds(self) -> Outcome:
        quiet: list[float] = []
        attacked: list[float] = []
        await self._listened(self._write_for(self._plan.quiet_s / 4))  # warm
        before_kib = self._peak_kib = rss_kib(self._made.pid(0))
        for number in range(self._plan.rounds):
            quiet += await self._listened(self._write_for(self._plan.quiet_s))
            attacked += await self._listened(self._attacked(number))
        missed = sum(
            len(set(range(1, self._made.told[each.user] + 1)) ^ set(each.seqs)) + (each.seqs != sorted(set(each.seqs)))
            for each in self._honest
        )
        return Outcome(
            plan=self._plan,
            sent=dict(self._sent),
            connections=self._connections,
            broken_off=self._broken_off,
            survived=dict(self._survived),
            quiet_ms=_p99_ms(quiet),
            attacked_ms=_p99_ms(attacked),
            grown_mib=(self._peak_kib - before_kib) / 1024,
            log_bytes=len(self._server.output.encode()),
            events=len(self._published),
            missed=missed,
            alive=self._server.running,
            honest_cut=sum(each.closed for each in self._honest),
        )

    async def _listened(self, work: Any) -> list[float]:
        """Do the work, wait for its events, and return their latencies (s)."""
        starts = [len(each.latencies) for each in self._honest]
        await work
        await until(self._all_came, SETTLE_S, what="every event at every honest client")
        return [x for each, start in zip(self._honest, starts, strict=True) for x in each.latencies[start:]]

    def _all_came(self) -> bool:
        return all(each.closed or len(each.seqs) >= self._made.told[each.user] for each in self._honest)

    async def _write_for(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        while loop.time() < ends:
            await self._write()

    async def _attacked(self, number: int) -> None:
        attackers = await self._attack(number)
        reading = asyncio.create_task(_figures(attackers))
        try:
            while not reading.done():
                await self._write()
                self._peak_kib = max(self._peak_kib, rss_kib(self._made.pid(0)))
        finally:
            if attackers.returncode is None:
                attackers.kill()
        figures = await reading
        self._sent.update(figures["sent"])
        self._survived.update(figures["survived"])
        self._connections += figures["connections"]
        self._broken_off += figures["broken_off"]

    async def _write(self) -> None:
        """One transaction, at the planned pace."""
        loop = asyncio.get_running_loop()
        next_at = loop.time() + self._batch / self._plan.events_per_second
        users = self._chance.sample([each.user for each in self._honest], k=self._batch)
        frames = await self._made.commit(users)
        now = monotonic()
        self._published |= {(user, self._made.told[user]): now for user in users}
        await self._made.publisher.publish([(each.user, each.text) for each in frames])
        await asyncio.sleep(max(0.0, next_at - loop.time()))

    async def _attack(self, number: int) -> Process:
        host, port = self._made.urls[0].removeprefix("http://").split(":")
        what = {
            "host": host,
            "port": int(port),
            "packets": -(-self._plan.packets // self._plan.rounds),
            "per_second": self._plan.per_second,
            "attackers": self._plan.attackers,
            "tokens": self._tokens,
            "seed": self._plan.seed * 100 + number,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.load.attackers", stdin=PIPE, stdout=PIPE
        )
        assert process.stdin is not None
        process.stdin.write(orjson.dumps(what))
        process.stdin.close()
        return process

    async def end(self) -> None:
        for each in self._honest:
            await each.ws.close()
        await asyncio.gather(*self._readers)


async def _figures(attackers: Process) -> dict[str, Any]:
    assert attackers.stdout is not None
    text = await attackers.stdout.read()
    assert await attackers.wait() == 0, "the attackers failed"
    figures: dict[str, Any] = orjson.loads(text)
    return figures


def _p99_ms(latencies: Sequence[float]) -> float:
    return quantiles(latencies, n=100)[98] * 1e3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=Plan.packets)
    parser.add_argument("--per-second", type=float, default=Plan.per_second)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    args = parser.parse_args()
    plan = Plan(packets=args.packets, per_second=args.per_second, seed=args.seed)
    print(f"machine: {machine()}\ncommit: {commit()}\nload average: {os.getloadavg()[0]:.1f}, seed: {plan.seed}")
    with engines() as urls, tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(prove(plan, urls, Path(folder)))
    print(outcome.lines())
    broken = outcome.broken + (["honest p99 more than doubled"] if outcome.is_slow else [])
    print("holds" if not broken else "BROKEN: " + "; ".join(broken))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
