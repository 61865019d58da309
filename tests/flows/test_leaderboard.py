"""A block moves someone in a challenge: they and those beside them are told their own places, and nobody else anything.

The race of `make bench-leaderboard` in small: real writer, worker, web process and sockets, and a model that knows all.
"""

from __future__ import annotations

from pathlib import Path

from config.embedded.valkey import Valkey
from tests.load.leaderboard import Load, run
from tests.load.product import Urls


async def test_a_block_s_progress_reaches_those_concerned_and_nobody_else(
    tmp_path: Path, database_url: str, private_valkey: Valkey
) -> None:
    load = Load(participants=300, movers=6, moves=12, bystanders=5)
    race = await run(load, Urls(database_url, private_valkey.url), tmp_path, timed=False)
    assert len(race.watch.heard) >= load.moves
    assert {user for user, _, _ in race.watch.heard} <= {phone.user for phone in race.phones.values()}
