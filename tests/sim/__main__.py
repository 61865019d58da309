"""`python -m tests.sim --seeds 2000`: run many seeds in two processes, stop at the first that fails, count the faults.

`--mutations` breaks each invariant on purpose and shows which seed noticed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from tests.sim.engines import own_engines
from tests.sim.mutations import MUTATIONS, caught_by
from tests.sim.world import Report, run

PROCESSES = 2
TRACE_LINES = 120
PROGRESS_EVERY = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 when a seed failed or a mutation was not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--verbose", action="store_true", help="print the whole trace of every seed")
    parser.add_argument("--mutations", action="store_true", help="break each invariant and show which seed noticed")
    parser.add_argument("--slice", type=int, default=None, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)  # libraries tell of connections that were cut on purpose
    if asked.mutations:
        return _mutations()
    seeds = range(asked.first, asked.first + asked.seeds)
    if asked.slice is not None:
        return _play(seeds[asked.slice :: PROCESSES])
    return asyncio.run(_all(seeds, verbose=asked.verbose))


def _play(seeds: Sequence[int]) -> int:
    """Play seeds in this process, one JSON line each."""
    with tempfile.TemporaryDirectory() as folder, own_engines(Path(folder)) as engines:
        for seed in seeds:
            report = run(seed, engines)
            sys.stdout.write(orjson.dumps(vars(report)).decode() + "\n")
            sys.stdout.flush()
            if report.failures:
                return 1
    return 0


async def _all(seeds: range, *, verbose: bool) -> int:
    began, done = time.monotonic(), 0
    faults: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    reports: asyncio.Queue[Report | None] = asyncio.Queue()
    children = [asyncio.create_task(_child(seeds, i, reports)) for i in range(PROCESSES)]
    failed: Report | None = None
    left = PROCESSES
    while left and failed is None:
        report = await reports.get()
        if report is None:
            left -= 1
            continue
        done += 1
        faults.update(report.faults)
        counts.update(report.counts)
        if verbose or report.failures:
            _tell(report, lines=None if verbose else TRACE_LINES)
        failed = report if report.failures else None
        if done % PROGRESS_EVERY == 0 or done == len(seeds):
            print(f"{done} of {len(seeds)} seeds, {done / (time.monotonic() - began):.2f}/s", flush=True)
    for child in children:
        child.cancel()
    ended = await asyncio.gather(*children, return_exceptions=True)
    _table("injected", faults)
    _table("seen", counts)
    if failed is not None:
        print(f"\nseed {failed.seed} failed; again: python -m tests.sim --first {failed.seed} --seeds 1 --verbose")
        return 1
    for error in ended:
        if isinstance(error, Exception):
            print(error)
    if done < len(seeds):
        print(f"\nonly {done} of {len(seeds)} seeds were played")
        return 1
    print(f"\n{done} seeds: nothing lost, nothing doubled, every figure equal")
    return 0


async def _child(seeds: range, part: int, reports: asyncio.Queue[Report | None]) -> None:
    arguments = ["--first", str(seeds.start), "--seeds", str(len(seeds)), "--slice", str(part)]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.sim", *arguments, stdout=asyncio.subprocess.PIPE, limit=2**26
    )
    assert child.stdout is not None
    try:
        async for line in child.stdout:
            found: dict[str, Any] = orjson.loads(line)
            found |= {name: Counter(found[name]) for name in ("faults", "counts")}
            await reports.put(Report(**found))
        if await child.wait() not in (0, 1):
            raise RuntimeError(f"a process of the simulation ended with {child.returncode}")
    finally:
        await reports.put(None)
        if child.returncode is None:
            child.terminate()
            await child.wait()


def _tell(report: Report, *, lines: int | None) -> None:
    trace = report.trace if lines is None else report.trace[-lines:]
    print(f"\n-- seed {report.seed}: {report.virtual_s:.0f} s of virtual time --")
    print("\n".join(trace))
    print("\n".join(report.failures) or "well")


def _table(title: str, counts: Counter[str]) -> None:
    print(f"\n{title:42} count")
    for name, count in sorted(counts.items()):
        print(f"{name:40} {count:7}")


def _mutations() -> int:
    missed = 0
    with tempfile.TemporaryDirectory() as folder, own_engines(Path(folder)) as engines:
        for mutation in MUTATIONS:
            seed, failure = caught_by(mutation, engines)
            missed += seed is None
            found = "NOT NOTICED" if seed is None else f"seed {seed}: {failure}"
            print(f"{mutation.invariant}. {mutation.name:44} {found[:150]}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
