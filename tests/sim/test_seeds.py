"""Whole histories by seed: whatever broke, everybody ends with what the chain says, told once and in order."""

from __future__ import annotations

import gc

import pytest

from tests.sim.engines import Engines
from tests.sim.world import run

SEEDS = range(20)
KEPT: dict[int, str] = {
    423: "an alert of several edges was taken back once for each of them",
    58: "null for a balance opened a user's own address at 0 for good",
}
"""Seeds that found a fault, and which."""


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a process that is killed closes nothing
@pytest.mark.parametrize("seed", sorted({*SEEDS, *KEPT}))
def test_every_client_ends_as_the_chain_is(seed: int, sim_engines: Engines) -> None:
    report = run(seed, sim_engines)
    gc.collect()
    assert report.failures == [], "\n".join([*report.trace[-80:], *report.failures])
