"""A member's new name reaches everyone who shares a bucket with them, once, and nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from handlers import people
from handlers.budgets import told
from jobs.job import Tools
from jobs.sharing import TELL_MEMBERS
from store import outbox
from store.audit import Caller
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.handlers.ledger import Bench, bench, sign_in
from tests.handlers.scripted import ALICE, BOB, CAROL, Script, created, make_chain, spend
from tests.handlers.test_sharing import added, updates
from watchers.devnet.view import apply_all, differences

CALLER = Caller("203.0.113.7", "Phone/1.0")


@pytest.fixture
async def world(pool: Pool, make_settings: MakeSettings) -> AsyncIterator[Bench]:
    async with bench(pool, make_settings(), make_chain()) as made:
        await sign_in(pool, ALICE, BOB, CAROL)
        yield made


async def rename(world: Bench, user: str, name: str | None) -> None:
    await people.change(world.deps, user, {"display_name": name}, if_match=None, caller=CALLER, budgets_told=told)


async def work(world: Bench) -> int:
    tools: Any = Tools(world.deps, None)  # type: ignore[arg-type]  # analytics are not touched
    ran = 0
    for row in await world.deps.pool.fetch("SELECT id FROM outbox WHERE job = $1", TELL_MEMBERS.name):
        claim = await outbox.begin(world.deps.pool, row["id"])
        assert claim is not None
        await TELL_MEMBERS.run(tools, claim)
        await TELL_MEMBERS.run(tools, claim)  # a worker that died after its work does it again
        ran += 1
    return ran


async def test_members_are_told_a_new_name_once(world: Bench) -> None:
    script = Script()
    await world.apply(
        script.block([created(ALICE, "food"), created(ALICE, "own"), added(ALICE, BOB)]),
        script.block([spend(ALICE, "food", 5, spender=BOB)]),
    )
    seen = {user: await world.snapshot(user) for user in (ALICE, BOB, CAROL)}
    for user, name in ((ALICE, "Alice"), (BOB, "Bob"), (BOB, None), (ALICE, "Al")):
        await rename(world, user, name)
        assert await work(world) == 1
    await rename(world, CAROL, "Carol")  # shares nothing: nobody is asked to tell
    assert await work(world) == 0
    for user, count in ((ALICE, 4), (BOB, 4), (CAROL, 0)):
        new = await world.told(user, seen[user]["seq"])
        assert len(updates(new)) == len(new) == count
        assert differences(apply_all(seen[user], new), await world.snapshot(user)) == []
    (bucket,) = (await world.snapshot(BOB))["buckets"]
    assert [each["displayName"] for each in bucket["members"]] == ["Al", None]
