"""`make prove-cuts` in small: clients cut while events flow on two real web processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.load.cuts import KINDS, Plan, faults_of, prove
from tests.load.product import Urls

SMALL = Plan(clients=4, cuts=12, events=600, seed=3)


@pytest.mark.parametrize("kind", KINDS)
async def test_cut_clients_miss_nothing(kind: str, tmp_path: Path, database_url: str, redis_url: str) -> None:
    outcome = await prove(kind, SMALL, Urls(database_url, redis_url), tmp_path)
    assert (outcome.lost, outcome.doubled, outcome.disordered) == (0, 0, 0), outcome.line()
    assert outcome.reconnects >= SMALL.cuts
    # One of twelve that falls between a connect and its first offset is no fault: a snapshot tells it.
    assert outcome.snapshots <= outcome.reconnects - outcome.recovered, outcome.line()
    assert outcome.recovered >= outcome.reconnects - 1, outcome.line()
    assert outcome.moves > 0


def test_faults_are_counted() -> None:
    def event(seq: int, name: str = "new_transaction", of: str = "") -> tuple[str, dict[str, object]]:
        return name, {"seq": seq, "id": of or f"id {seq}"}

    start = event(4, "snapshot")
    assert faults_of([start, event(5), event(6)]) == (0, 0, 0)
    assert faults_of([start, event(5), event(9, "session"), event(6)]) == (0, 0, 0)
    assert faults_of([start, event(5), event(7)]) == (1, 0, 0)
    assert faults_of([start, event(5), event(5)]) == (0, 1, 0)
    assert faults_of([start, event(5), event(6, of="id 5")]) == (0, 1, 0)
    assert faults_of([start, event(6), event(5)]) == (1, 0, 1)
    assert faults_of([start, event(5), event(9, "snapshot"), event(10)]) == (0, 0, 0)
    assert faults_of([start, event(5), event(4, "snapshot")]) == (0, 0, 1)
