"""`make bench-deliver`: events delivered per second by one server process on one core, and what each costs.

Ours beside stock python-socketio with its AsyncRedisManager, interleaved in the same run. CPU per delivered event of
the server process is the figure to trust: wall-clock figures depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from config.embedded.valkey import Valkey
from tests.load.generator import Generator

SERVER_CORE, LOAD_CORE = {0}, {1}
NAMES = ("ours", "stock")
STEADY_RATE = 20_000
NICE = -12
"""As in the reference figures; needs root, and is left out without."""


@dataclass(frozen=True)
class Figures:
    """Of one contestant in one round."""

    name: str
    connect_us: float
    kib_per_client: float
    per_second: float
    cpu_us: float
    lost: int
    p50_ms: float
    p99_ms: float

    def line(self) -> str:
        latency = f"p50 {self.p50_ms:.2f} p99 {self.p99_ms:.2f} ms at {STEADY_RATE}/s" if self.p50_ms else ""
        return (
            f"{self.name:6} {self.per_second:9,.0f} events/s  CPU {self.cpu_us:6.2f} us/event  connect "
            f"{self.connect_us:4.0f} us  {self.kib_per_client:5.1f} KiB/client  lost {self.lost}  {latency}"
        )


def cpu_s(pid: int) -> float:
    """CPU time that a process's threads used so far."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def rss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def measured(name: str, valkey: Valkey, args: argparse.Namespace) -> Figures:
    command = [sys.executable, "-m", "tests.load.contestants", name, valkey.url]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        os.sched_setaffinity(server.pid, SERVER_CORE)
        favour(server.pid)
        return _run(name, server.pid, port, valkey.port, args)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(10)
        if server.stdout is not None:
            server.stdout.close()


def _run(name: str, pid: int, port: int, redis_port: int, args: argparse.Namespace) -> Figures:
    memory, cpu = rss_kib(pid), cpu_s(pid)
    generator = Generator(name, port=port, redis_port=redis_port, clients=args.clients)
    connect_us = (cpu_s(pid) - cpu) * 1e6 / args.clients
    kib = (rss_kib(pid) - memory) / args.clients
    generator.saturate(seconds=0.5, window=args.window)
    cpu = cpu_s(pid)
    full = generator.saturate(seconds=args.seconds, window=args.window)
    cpu = cpu_s(pid) - cpu
    p50 = p99 = 0.0
    if name == "ours":
        steady = generator.steady(seconds=args.seconds, rate=STEADY_RATE)
        cuts = quantiles(steady.latencies, n=100)
        p50, p99 = cuts[49] * 1e3, cuts[98] * 1e3
    lost = full.lost + generator.misplaced()
    generator.close()
    return Figures(name, connect_us, kib, full.events / full.seconds, cpu * 1e6 / full.events, lost, p50, p99)


def favour(pid: int | None) -> None:
    """Let a process run as soon as it may: the generator spins, and would add its time slice to every latency."""
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, pid or 0, NICE)


def machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {sys.version.split()[0]}"


def commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--window", type=int, default=2000)
    parser.add_argument("--only", choices=NAMES)
    args = parser.parse_args()
    print(f"machine: {machine()}\ncommit: {commit()}\nload average: {os.getloadavg()[0]:.1f}, {args.clients} clients")
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, LOAD_CORE)
    figures: list[Figures] = []
    with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder)) as valkey:
        favour(valkey.pid)
        for _ in range(args.rounds):
            for name in NAMES if args.only is None else (args.only,):
                figures.append(measured(name, valkey, args))
                print(figures[-1].line(), flush=True)
                time.sleep(0.2)
    best = {name: min((each.cpu_us for each in figures if each.name == name), default=0.0) for name in NAMES}
    if all(best.values()):
        fastest = max(each.per_second for each in figures if each.name == "ours")
        ratio = best["stock"] / best["ours"]
        print(f"delivered {fastest:,.0f} events/s on one core; CPU per event {ratio:.1f} times less than stock")


if __name__ == "__main__":
    main()
