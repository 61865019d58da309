"""Goals that a vault, a lock or an identifier of the planned contract keeps, on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest

from config.settings import Settings
from handlers import goal_edits, goals
from handlers.errors import Invalid
from handlers.goal_edits import Base, Wanted
from store import accounts
from store.postgres import Pool
from tests.handlers.ledger import Bench, bench, sign_in
from tests.handlers.scripted import (
    ALICE,
    BOB,
    LOCK,
    Script,
    deposit,
    divested,
    invested,
    listed_vault,
    locked,
    make_chain,
    operation,
)
from tests.handlers.test_yields import DOLLAR, VAULT_ID, follow, read
from watchers.devnet import view as client

LOCK_ID = f"31337:{LOCK}:7"


@pytest.fixture
async def world(pool: Pool, make_settings: Callable[..., Settings]) -> AsyncIterator[Bench]:
    chain = make_chain(vaults=(listed_vault(),), yield_locks=(LOCK,))
    async with bench(pool, make_settings(yield_interval_blocks=3, yield_step_usd="1"), chain) as made:
        await sign_in(pool, ALICE, BOB)
        await follow(pool, ALICE, BOB)
        yield made


async def make(world: Bench, link: Wanted, *, target: int = 200, user: str = ALICE) -> dict[str, Any]:
    base = Base("House", Decimal(target), Decimal(0), None, None, link)
    return dict(await goal_edits.create(world.deps, user, base))


async def only(world: Bench) -> dict[str, Any]:
    (goal,) = (await world.snapshot(ALICE))["goals"]
    return dict(goal)


async def milestones(world: Bench) -> list[int]:
    return [payload["milestone"] for event, payload in await world.told(ALICE) if event == "goal_milestone"]


async def same(world: Bench, before: dict[str, Any]) -> None:
    fresh = await world.snapshot(ALICE)
    told = await world.told(ALICE, before["seq"])
    assert client.differences(client.apply_all(before, told), fresh) == []


async def test_goal_of_a_vault_has_its_value_yield_and_apy(world: Bench) -> None:
    script = Script()
    await world.apply(script.block(invested(ALICE, 50 * DOLLAR, 50 * DOLLAR)), values=read(100))
    made = await make(world, Wanted("vault", None, VAULT_ID))
    assert (made["currentAmount"], made["yieldEarned"], made["milestones"]) == ("50.00", "0.00", [25])
    before = await world.snapshot(ALICE)
    await world.apply(script.block(invested(ALICE, 55 * DOLLAR, 50 * DOLLAR), after_s=30 * 86_400), values=read(110))
    goal, (position,) = await only(world), (await world.snapshot(ALICE))["positions"]
    assert (goal["currentAmount"], goal["yieldEarned"]) == ("110.00", "5.00")
    assert goal["apy"] == position["apy"]
    assert goal["apy"] is not None
    assert await milestones(world) == [25, 50]
    await same(world, before)
    await world.revert()
    assert ((await only(world))["currentAmount"], (await only(world))["milestones"]) == ("50.00", [25])
    await same(world, before)
    await world.revert()
    gone = await only(world)
    assert (gone["currentAmount"], gone["milestones"], gone["apy"]) == ("0.00", [], None)


async def test_price_alone_moves_a_goal_of_someone_the_block_does_not_name(world: Bench) -> None:
    script = Script()
    await world.apply(script.block(invested(ALICE, 45 * DOLLAR, 45 * DOLLAR)), values=read(100))
    await make(world, Wanted("vault", None, VAULT_ID))
    before = await world.snapshot(ALICE)
    for _ in range(4):
        await world.apply(script.block([deposit(BOB, 1)]), values=read(120, full=True))
    assert ((await only(world))["currentAmount"], await milestones(world)) == ("54.00", [25])
    events = [event for event, _ in await world.told(ALICE, before["seq"])]
    assert events == ["yield_update", "goal_update", "goal_milestone", "notification"]
    await same(world, before)
    await world.revert(depth=2)
    assert ((await only(world))["currentAmount"], (await only(world))["milestones"]) == ("45.00", [])
    await same(world, before)


async def test_goal_of_a_lock_follows_it_until_it_is_withdrawn(world: Bench) -> None:
    script = Script()
    await world.apply(script.block(locked(ALICE, 7, 100 * DOLLAR)), values=read(100, lock7=100 * DOLLAR))
    made = await make(world, Wanted("lock", 31337, LOCK_ID))
    assert (made["progress"], made["link"]["chainId"]) == ("0.5", 31337)
    with pytest.raises(Invalid):
        await make(world, Wanted("vault", None, LOCK_ID))
    with pytest.raises(Invalid):
        await make(world, Wanted("lock", None, LOCK_ID), user=BOB)


async def test_goal_closed_with_its_position_stays_completed(world: Bench) -> None:
    script = Script()
    await world.apply(script.block(invested(ALICE, 200 * DOLLAR, 200 * DOLLAR)), values=read(100))
    await make(world, Wanted("vault", None, VAULT_ID))
    await world.apply(script.block(divested(ALICE, 200 * DOLLAR, 200 * DOLLAR)), values=read(100))
    goal = await only(world)
    assert (goal["currentAmount"], goal["isCompleted"], goal["unpriced"]) == ("0.00", True, 0)


async def test_goal_of_an_identifier_has_what_its_savings_operations_left(world: Bench) -> None:
    script = Script()
    made = await make(world, Wanted("v2", 31337, None))
    mine, before = bytes.fromhex(made["goalId"][2:]), await world.snapshot(ALICE)

    def saved(kind: int, dollars: int, *, account: int = 2, identifier: bytes = mine, user: str = ALICE) -> Any:
        return [operation(user, kind, dollars * DOLLAR, account=account, identifier=identifier)]

    await world.apply(
        script.block(
            saved(0, 80),
            saved(1, 20),
            saved(2, 7),  # a transfer names no direction
            saved(0, 90, account=1),
            saved(0, 90, identifier=b"o" * 32),
            saved(0, 90, user=BOB),
        ),
        values=read(100),
    )
    assert ((await only(world))["currentAmount"], await milestones(world)) == ("60.00", [25])
    await world.apply(script.block(saved(0, 40)), values=read(100))
    assert await milestones(world) == [25, 50]
    await same(world, before)
    await world.revert()
    assert ((await only(world))["currentAmount"], (await only(world))["milestones"]) == ("60.00", [25])
    await same(world, before)


async def test_goal_whose_savings_came_out_with_their_yield_has_nothing_not_less(world: Bench) -> None:
    script = Script()
    made = await make(world, Wanted("v2", 31337, None))
    mine = bytes.fromhex(made["goalId"][2:])
    both = [operation(ALICE, kind, amount * DOLLAR, account=2, identifier=mine) for kind, amount in ((0, 80), (1, 81))]
    await world.apply(script.block(both), values=read(100))
    assert ((await only(world))["currentAmount"], (await only(world))["progress"]) == ("0.00", "0")


async def test_goal_makes_the_savings_account_exist_whatever_its_chain_takes_back(world: Bench) -> None:
    script = Script()

    async def kinds() -> list[str]:
        return [row.type for row in await accounts.accounts_of(world.deps.pool, ALICE)]

    await world.apply(script.block([operation(ALICE, 0, 1, account=2)]), values=read(100))
    assert await kinds() == ["savings"]
    await make(world, Wanted("v2", 31337, None))
    await world.revert()
    assert await kinds() == ["savings"]
    await goals.begin_days(world.deps, limit=1)
    assert await kinds() == ["savings"]
