"""The invariants of the design, each broken on purpose: a simulation that does not notice is worth nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from unittest import mock

from tests.sim.engines import Engines
from tests.sim.world import run

SEEDS = range(12)
"""Seeds tried on each mutation, until one notices."""


@dataclass(frozen=True)
class Mutation:
    """One way to break an invariant (its number in DESIGN section 2)."""

    invariant: int
    name: str
    broken: Callable[[], AbstractContextManager[object]]


MUTATIONS: list[Mutation] = []


def mutation(invariant: int, name: str) -> Callable[[Callable[[], Iterator[None]]], Callable[[], Iterator[None]]]:
    """List a generator that breaks an invariant while it is suspended."""

    def add(broken: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
        MUTATIONS.append(Mutation(invariant, name, contextmanager(broken)))
        return broken

    return add


def caught_by(mutation: Mutation, engines: Engines) -> tuple[int | None, str]:
    """The first seed that fails with the mutation, and its first failure."""
    with mutation.broken():
        for seed in SEEDS:
            report = run(seed, engines)
            if report.failures:
                return seed, report.failures[0]
    return None, ""


__all__ = ["MUTATIONS", "Mutation", "caught_by", "mock"]
