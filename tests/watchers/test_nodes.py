"""`make prove-nodes` in small: every kind of fault, noticed, and nothing skipped or doubled."""

from __future__ import annotations

from tests.load.faults import KINDS, Plan
from tests.load.nodes import prove
from tests.load.product import Urls

SMALL = Plan(times=3, behind=200)


async def test_no_fault_of_one_node_skips_or_doubles_anything(database_url: str, redis_url: str) -> None:
    outcome = await prove(SMALL, Urls(database_url, redis_url))

    assert not outcome.broken, outcome.table
    assert [row.injected for row in outcome.rows[:-1]] == [3] * len(KINDS)
    assert outcome.caught_up == 200
    assert outcome.faults_met > 0
