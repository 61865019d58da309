from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from handlers import categories
from handlers.categories import Base
from handlers.deps import Deps
from handlers.errors import Invalid, NotFound
from handlers.rules.ids import event_id
from store import log
from store.postgres import Pool, Tx
from store.records import Draft
from tests.conftest import MakeSettings
from tests.factories import make_address
from tests.realtime.rows import open_log
from tests.realtime.wiring import FakePublisher, wire

ME, YOU = make_address("me"), make_address("you")
FOOD = "00000000-0000-4000-8000-000000000001"
DOGS = Base("Dogs", "", "#000000", None, 0)


@pytest.fixture
async def deps(pool: Pool, make_settings: MakeSettings) -> Deps:
    await open_log(pool, ME, YOU)
    return wire(pool, make_settings())


async def told(tx: Tx, user: str, now: datetime) -> Draft:
    budget = await tx.fetchval("SELECT monthly_budget FROM user_categories WHERE user_address = $1", user)
    return Draft(user, event_id("budget_update", user, budget), "budget_update", 1, {"budgets": [str(budget)]})


async def events(deps: Deps, user: str = ME) -> list[tuple[int, str]]:
    return [(entry.seq, entry.event) for entry in await log.after(deps.pool, user, 0, limit=99, max_bytes=1 << 20)]


async def prefer(deps: Deps, changes: dict[str, Any], budget_changed: Any = told) -> Any:
    return await categories.prefer(deps, ME, FOOD, changes, budget_changed=budget_changed)


async def test_a_budget_is_told_with_its_category_in_one_transaction(deps: Deps) -> None:
    await prefer(deps, {"monthly_budget": 20})
    assert await events(deps) == [(1, "category_updated"), (2, "budget_update")]

    async def broken(*_: object) -> Draft:
        raise RuntimeError("the budget can't be told")

    with pytest.raises(RuntimeError):
        await prefer(deps, {"monthly_budget": 30}, broken)
    assert (await categories.read(deps, ME, FOOD))["monthlyBudget"] == "20.00"
    await prefer(deps, {"monthly_budget": 20, "is_favorite": True}, broken)  # the budget is as it was
    assert len(await events(deps)) == 3


async def test_what_is_told_was_committed_and_no_change_is_silent(deps: Deps) -> None:
    heard: list[list[tuple[int, str]]] = []

    class Listening(FakePublisher):
        async def publish(self, frames: Any, blocks: Any = ()) -> bool:
            heard.append([*(await events(deps)), (len(frames), "frames")])
            return True

    listening = Deps(deps.settings, deps.chains, deps.pool, Listening(), deps.now)
    await categories.create(listening, ME, DOGS)
    assert heard == [[(1, "category_updated"), (1, "frames")]]
    await prefer(listening, {"is_favorite": False})
    assert heard[1] == [(1, "category_updated"), (0, "frames")]


async def test_changes_at_once_are_all_told_in_order(deps: Deps) -> None:
    bases = [Base(f"c{n}", "", "#000000", None, n) for n in range(12)]
    await asyncio.gather(*(categories.create(deps, ME, base) for base in bases))
    assert await events(deps) == [(n, "category_updated") for n in range(1, 13)]


async def test_one_cause_makes_one_category_per_user(deps: Deps) -> None:
    first = await categories.create(deps, ME, DOGS, cause="k")
    assert await categories.create(deps, ME, DOGS, cause="k") == first
    other = await categories.create(deps, YOU, DOGS, cause="k")
    assert other["id"] != first["id"]
    await categories.delete(deps, ME, str(first["id"]), budget_changed=told)
    again = await categories.create(deps, ME, DOGS, cause="k")
    assert (again["isActive"], again["id"] != first["id"]) == (True, True)


async def test_a_rule_is_made_in_its_callers_transaction(deps: Deps) -> None:
    async def rules() -> int:
        return int(await deps.pool.fetchval("SELECT count(*) FROM category_rules"))

    async with deps.pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await log.lock(conn, [ME])
        row = await categories.make_rule(conn, ME, "bucket", "Groceries", FOOD, now=deps.now())
        assert (row.value, row.category_id) == ("groceries", FOOD)
        await transaction.rollback()
        assert await rules() == 0
        for category in (str(make_uuid(1)), str((await categories.create(deps, YOU, DOGS))["id"])):
            with pytest.raises(Invalid):
                await categories.make_rule(conn, ME, "bucket", "Groceries", category, now=deps.now())
    with pytest.raises(NotFound):
        await categories.delete_rule(deps, ME, make_uuid(2))


def make_uuid(n: int) -> str:
    return f"00000000-0000-4000-9000-{n:012d}"
