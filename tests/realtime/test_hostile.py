"""`make prove-hostile` in small: one web process under attack goes on serving its honest clients."""

from __future__ import annotations

from pathlib import Path

from tests.load.attackers import BURSTS
from tests.load.hostile import Plan, prove
from tests.load.product import Urls

SMALL = Plan(packets=2_500, attackers=10, honest=12, pairs=1, per_second=1_500, events_per_second=200, quiet_s=0.5)

LOG_BYTES = 5_000


async def test_attackers_harm_only_themselves(tmp_path: Path, database_url: str, redis_url: str) -> None:
    outcome = await prove(SMALL, Urls(database_url, redis_url), tmp_path)
    assert not outcome.broken, outcome.lines()
    assert {*BURSTS, "polling", "silence"} <= set(outcome.sent)
    assert outcome.events > 100
    assert outcome.log_bytes < LOG_BYTES, "one line a minute and kind of bad packet"
