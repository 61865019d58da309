"""`make prove-hostile`: hostile sockets beside honest clients of one web process, against the same without them.

Quiet and attacked phases alternate, so that whatever else the machine does falls on both. The server has a core of its
own; attackers, engines and honest clients share the other one. Server, Redis and the honest side run before whatever
else wants their core, where the system lets them (root). A latency is from PUBLISH until the kernel has the event at
the client's socket: what the reader of this proof does late is not the server's.

How to read it: `p99` is the median over the phases of each phase's p99, and the ratio is that of the two medians; a
single disturbed phase moves neither. p99.9 and max show what a p99 hides: one long stop of the server in each phase.
`lag p99` is what 1 % of all moments had to wait for the server's loop, from its
own count of long turns. `CPU per packet` is what the server used above its quiet phases, connections included: it does
not depend on who else uses the machine, and is the figure to compare between commits. Without root, run it on an idle
machine.
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
from statistics import median, quantiles
from typing import Any

import aiohttp
import orjson

from store.records import Address
from tests.load.deliver import LOAD_CORE, SERVER_CORE, commit, cpu_s, favour, machine, rss_kib
from tests.load.listener import Listener, now_ns
from tests.load.product import Product, Urls, engines, product
from tests.waiting import until

TIMES = 2.0
"""Most that the honest p99 may grow by."""
MEMORY_MIB = 50
LOG_BYTES = 1_000_000
SETTLE_S = 20.0
TIMING = {"ping_interval_s": "3", "ping_timeout_s": "3", "socket_connect_timeout_s": "3"}
"""Short, so that pongs and silence matter within the run."""
TURNS = "expendi_loop_turn_seconds_bucket"
SHORT_S = 0.00025
"""Turns up to this are not counted by the server."""


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    packets: int = 100_000
    attackers: int = 50
    honest: int = 100
    pairs: int = 6
    """Quiet phases, each followed by an attacked one."""
    per_second: float = 1_700
    """Packets of all attackers (1/s)."""
    events_per_second: float = 1_000
    block: int = 20
    """Most events in one transaction; each size is as likely."""
    quiet_s: float = 8
    seed: int = 1
    pinned: bool = False
    """Whether the server gets a core of its own, and those who measure run first."""


@dataclass
class Phase:
    """What was measured while the machine was quiet, or under attack."""

    latencies_ms: list[float]
    seconds: float
    cpu_s: float
    turns: Counter[float]
    """Long turns of the server's loop, by the end of their bucket (s)."""

    @property
    def p50_ms(self) -> float:
        return quantiles(self.latencies_ms, n=100)[49]

    @property
    def p99_ms(self) -> float:
        return quantiles(self.latencies_ms, n=100)[98]

    @property
    def p999_ms(self) -> float:
        return quantiles(self.latencies_ms, n=1000)[998]

    @property
    def lag_p99_ms(self) -> float:
        """What one moment in a hundred has to wait for the end of the turn it falls into, at most."""
        steps = sorted({SHORT_S, *self.turns})
        beyond = [sum(count * max(0.0, took - step) for took, count in self.turns.items()) for step in steps]
        return 1e3 * next(step for step, s in zip(steps, beyond, strict=True) if s <= self.seconds / 100)

    @property
    def longest_ms(self) -> float:
        return 1e3 * max(self.turns, default=SHORT_S)


@dataclass(frozen=True)
class Outcome:
    """Figures of a run."""

    plan: Plan
    sent: dict[str, int]
    connections: int
    broken_off: int
    refused: int
    survived: dict[str, int]
    quiet: list[Phase]
    attacked: list[Phase]
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
            "attackers were kept out": self.broken_off + self.refused > self.connections / 100,
            "too few packets were sent": sum(self.sent.values()) < self.plan.packets,
        }
        return [what for what, is_broken in found.items() if is_broken]

    @property
    def ratio(self) -> float:
        """Honest p99 under attack to that without."""
        return median(phase.p99_ms for phase in self.attacked) / median(phase.p99_ms for phase in self.quiet)

    @property
    def cpu_us_per_packet(self) -> float:
        """What the server used above the quiet phases (us)."""
        idle = sum(phase.cpu_s for phase in self.quiet) / sum(phase.seconds for phase in self.quiet)
        above = sum(phase.cpu_s - idle * phase.seconds for phase in self.attacked)
        return above * 1e6 / sum(self.sent.values())

    def lines(self) -> str:
        plan, packets = self.plan, sum(self.sent.values())
        seconds = sum(phase.seconds for phase in self.attacked)
        return (
            f"load: {packets:,} packets on {self.connections:,} connections of {plan.attackers} attackers in "
            f"{seconds:.0f} s ({packets / seconds:,.0f} packets/s, {self.connections / seconds:,.0f} connections/s); "
            f"{plan.honest} honest clients, {plan.events_per_second:,.0f} events/s in blocks of 1 to {plan.block}; "
            f"{plan.pairs} pairs of phases{', server on a core of its own' if plan.pinned else ''}\n"
            f"sent: {', '.join(f'{kind} {count:,}' for kind, count in sorted(self.sent.items()))}; refused at the door "
            f"{self.refused}, broken off {self.broken_off}\n"
            f"{_told('quiet', self.quiet)}\n{_told('attacked', self.attacked)}\n"
            f"honest p99 {self.ratio:.2f} times, CPU {self.cpu_us_per_packet:.1f} us per packet; "
            f"{self.events:,} events: missed {self.missed}, cut {self.honest_cut}; "
            f"memory +{self.grown_mib:.1f} MiB, log {self.log_bytes:,} bytes, left open: {self.survived or 0}"
        )


def _told(name: str, phases: Sequence[Phase]) -> str:
    p50, p99, p999 = (median(getattr(phase, each) for phase in phases) for each in ("p50_ms", "p99_ms", "p999_ms"))
    worst, by_phase = max(max(phase.latencies_ms) for phase in phases), [f"{phase.p99_ms:.2f}" for phase in phases]
    lag, longest = median(phase.lag_p99_ms for phase in phases), max(phase.longest_ms for phase in phases)
    cpu = sum(phase.cpu_s for phase in phases) / sum(phase.seconds for phase in phases)
    return (
        f"{name:8} p50 {p50:.2f} p99 {p99:.2f} p99.9 {p999:.2f} max {worst:.2f} ms (p99s: {' '.join(by_phase)}), "
        f"loop: lag p99 <= {lag:.2f} ms, longest turn <= {longest:.0f} ms, busy {cpu:.0%}"
    )


async def prove(plan: Plan, urls: Urls, folder: Path) -> Outcome:
    """Run the plan on one web process."""
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(product(folder, urls, servers=1, **TIMING))
        if plan.pinned:
            _pin(made.pid(0), SERVER_CORE)
            _prefer(made.pid(0))
            _prefer(None)  # the writer and the honest clients: a pong that waits for attackers would cut a client
        session = await stack.enter_async_context(aiohttp.ClientSession())
        run = _Run(made, plan, list((await made.sign_in(plan.attackers)).values()), session)
        try:
            await run.let_in(await made.sign_in(plan.honest))
            return await run.rounds()
        finally:
            run.end()


def _pin(pid: int, cores: set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def _prefer(pid: int | None) -> None:
    """Run before everything else of the machine; without the right to that, before most of it."""
    try:
        os.sched_setscheduler(pid or 0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        favour(pid)


@dataclass
class _Attack:
    """A process of attackers that waits for its word."""

    process: Process
    what: dict[str, Any]

    async def run(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(orjson.dumps(self.what))
        self.process.stdin.close()
        text = await self.process.stdout.read()
        assert await self.process.wait() == 0, "the attackers failed"
        figures: dict[str, Any] = orjson.loads(text)
        return figures


@dataclass
class _Run:
    """Honest clients that listen all the time, a writer, and in every second phase the attackers."""

    made: Product
    plan: Plan
    tokens: list[str]
    session: aiohttp.ClientSession
    honest: list[Listener] = field(default_factory=list)
    published: dict[tuple[Address, int], int] = field(default_factory=dict)
    """When each event was published (ns)."""
    peak_kib: int = 0
    sums: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.plan.seed)
        self.pid = self.made.pid(0)

    async def let_in(self, users: dict[Address, str]) -> None:
        for number, (user, token) in enumerate(users.items()):
            listener = Listener(user)
            self.honest.append(listener)
            await listener.connect(self.made.urls[0], token, own_address=f"127.0.2.{number % 250 + 1}")
        await until(lambda: all(each.start >= 0 for each in self.honest), what="honest clients are in")

    async def rounds(self) -> Outcome:
        quiet: list[Phase] = []
        attacked: list[Phase] = []
        await self._quiet(self.plan.quiet_s / 4)  # warm
        before_kib = self.peak_kib = rss_kib(self.pid)
        for number in range(self.plan.pairs):
            attack = await self._ready(number)  # its start must not fall into either phase
            quiet.append(await self._quiet(self.plan.quiet_s))
            attacked.append(await self._attacked(attack))
        return Outcome(
            plan=self.plan,
            sent=dict(self.sent),
            connections=self.sums["connections"],
            broken_off=self.sums["broken_off"],
            refused=self.sums["refused"],
            survived=dict(self.survived),
            quiet=quiet,
            attacked=attacked,
            grown_mib=(self.peak_kib - before_kib) / 1024,
            log_bytes=len(self.made.processes[0].output.encode()),
            events=len(self.published),
            missed=sum(self._faults(each) for each in self.honest),
            alive=self.made.processes[0].running,
            honest_cut=sum(each.closed for each in self.honest),
        )

    def _faults(self, listener: Listener) -> int:
        seqs = [seq for seq, _ in listener.came]
        return len(set(range(1, self.made.told[listener.user] + 1)) ^ set(seqs)) + (seqs != sorted(set(seqs)))

    async def _quiet(self, seconds: float) -> Phase:
        before, cpu, began = await self._turns(), cpu_s(self.pid), now_ns()
        while now_ns() < began + seconds * 1e9:
            await self._write()
        return await self._phase(before, cpu, began, now_ns())

    async def _attacked(self, attack: _Attack) -> Phase:
        before, cpu = await self._turns(), cpu_s(self.pid)
        attacking = asyncio.create_task(attack.run())
        try:
            while not attacking.done():
                await self._write()
                self.peak_kib = max(self.peak_kib, rss_kib(self.pid))
        finally:
            if attack.process.returncode is None:
                attack.process.kill()
        figures = await attacking
        self.sent.update(figures["sent"])
        self.survived.update(figures["survived"])
        self.sums.update({name: figures[name] for name in ("connections", "broken_off", "refused")})
        return await self._phase(before, cpu, figures["began_ns"], figures["ended_ns"])

    async def _phase(self, before: Counter[float], cpu: float, began: int, ended: int) -> Phase:
        used_s = cpu_s(self.pid) - cpu
        await until(self._all_came, SETTLE_S, what="every event at every honest client")
        latencies = [
            (came - published) / 1e6
            for each in self.honest
            for seq, came in each.came
            if began <= (published := self.published[each.user, seq]) < ended
        ]
        turns = await self._turns()
        turns.subtract(before)
        return Phase(latencies, (ended - began) / 1e9, used_s, +turns)

    def _all_came(self) -> bool:
        return all(each.closed or len(each.came) >= self.made.told[each.user] for each in self.honest)

    async def _write(self) -> None:
        """One transaction, at the planned pace."""
        loop = asyncio.get_running_loop()
        size = self.chance.randint(1, min(self.plan.block, self.plan.honest))
        next_at = loop.time() + size / self.plan.events_per_second
        users = self.chance.sample([each.user for each in self.honest], k=size)
        frames = await self.made.commit(users)
        now = now_ns()
        self.published |= {(user, self.made.told[user]): now for user in users}
        await self.made.publisher.publish([(each.user, each.text) for each in frames])
        await asyncio.sleep(max(0.0, next_at - loop.time()))

    async def _turns(self) -> Counter[float]:
        """Long turns so far, by bucket."""
        async with self.session.get(self.made.urls[0] + "/metrics") as response:
            text = await response.text()
        found: Counter[float] = Counter()
        below = 0
        for line in text.splitlines():
            if line.startswith(TURNS):
                through = int(float(line.rpartition(" ")[2]))
                found[float(line.partition('le="')[2].partition('"')[0])] = through - below
                below = through
        return found

    async def _ready(self, number: int) -> _Attack:
        host, port = self.made.urls[0].removeprefix("http://").split(":")
        what = {
            "host": host,
            "port": int(port),
            "packets": -(-self.plan.packets // self.plan.pairs),
            "per_second": self.plan.per_second,
            "attackers": self.plan.attackers,
            "tokens": self.tokens,
            "seed": self.plan.seed * 100 + number,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.load.attackers", stdin=PIPE, stdout=PIPE
        )
        assert process.stdout is not None
        await process.stdout.readline()
        return _Attack(process, what)

    def end(self) -> None:
        for each in self.honest:
            each.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packets", type=int, default=Plan.packets)
    parser.add_argument("--per-second", type=float, default=Plan.per_second)
    parser.add_argument("--block", type=int, default=Plan.block)
    parser.add_argument("--pairs", type=int, default=Plan.pairs)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    args = parser.parse_args()
    pinned = (os.cpu_count() or 1) > 1
    plan = Plan(**vars(args), pinned=pinned)
    if pinned:
        os.sched_setaffinity(0, LOAD_CORE)
    print(f"machine: {machine()}\ncommit: {commit()}\nload average: {os.getloadavg()[0]:.1f}, seed: {plan.seed}")
    with engines(_prefer) as urls, tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(prove(plan, urls, Path(folder)))
    print(outcome.lines())
    broken = outcome.broken + ([f"honest p99 grew more than {TIMES:.0f} times"] if outcome.ratio > TIMES else [])
    print("holds" if not broken else "BROKEN: " + "; ".join(broken))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
