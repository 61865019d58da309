"""One user whose turn fails costs only that user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from config import metrics
from handlers.one_by_one import one_by_one
from store import log
from store.log import Counter
from store.postgres import Pool, Tx
from store.records import Address, Draft, Frame
from tests.conftest import MakeSettings
from tests.factories import make_address
from tests.handlers.ledger import Kept, make_deps, sign_in

NAME = "try"


def failed() -> float:
    return float(metrics.TURNS_FAILED.labels(NAME)._value.get())


async def test_failed_turn_leaves_its_user_as_before_and_others_told(pool: Pool, make_settings: MakeSettings) -> None:
    users = [make_address(f"turn {i}") for i in range(3)]
    for user in users:
        await sign_in(pool, user)
    kept, before = Kept(), failed()
    deps = make_deps(pool, make_settings(), publisher=kept)

    async def turn(tx: Tx, counters: Mapping[Address, Counter]) -> list[Frame]:
        (user,) = counters
        frames = await log.append(tx, counters, [Draft(user, "cause", "insight", 1, {})], at=deps.now())
        if user == users[1]:
            raise ZeroDivisionError
        return frames

    assert await one_by_one(deps, [(user, turn) for user in users], name=NAME) == 2
    assert [user for user, _ in kept.frames] == [users[0], users[2]]
    assert [len(await log.after(pool, user, 0, limit=9, max_bytes=999)) for user in users] == [1, 0, 1]
    assert failed() == before + 1


async def test_engine_that_is_away_ends_the_work(pool: Pool, make_settings: MakeSettings) -> None:
    user = make_address("turn")
    await sign_in(pool, user)
    before = failed()

    async def turn(*_: Any) -> list[Frame]:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await one_by_one(make_deps(pool, make_settings()), [(user, turn)], name=NAME)
    assert failed() == before
