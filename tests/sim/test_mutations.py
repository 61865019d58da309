"""Each invariant broken on purpose: some seed among a few must notice."""

from __future__ import annotations

import gc

import pytest

from tests.sim.engines import Engines
from tests.sim.mutations import MUTATIONS, Mutation, caught_by

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # a process that is killed closes nothing
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_invariant_is_noticed(mutation: Mutation, sim_engines: Engines) -> None:
    seed, _ = caught_by(mutation, sim_engines)
    gc.collect()
    assert seed is not None


def test_every_invariant_of_the_design_is_broken_once() -> None:
    assert {mutation.invariant for mutation in MUTATIONS} == set(range(1, 9))
