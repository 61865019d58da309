from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from config.settings import Settings
from handlers import accounts
from handlers import chain_events as ce
from handlers.errors import NotFound
from store.postgres import Pool
from tests.handlers.ledger import Bench, bench, sign_in
from tests.handlers.scripted import (
    ALICE,
    BOB,
    LOCK,
    Script,
    at,
    created,
    deposit,
    kept,
    listed_vault,
    locked,
    make_chain,
    operation,
    spend,
    transfer,
    unlocked,
)


@pytest.fixture
async def world(pool: Pool, make_settings: Callable[..., Settings]) -> AsyncIterator[Bench]:
    chain = make_chain(vaults=(listed_vault(),), yield_locks=(LOCK,))
    async with bench(pool, make_settings(), chain) as made:
        await sign_in(pool, ALICE)
        yield made


async def types(world: Bench, user: str = ALICE) -> list[str]:
    found = await accounts.listed(world.deps, user, after=None, limit=100)
    return [str(one["accountType"]) for one in found.data]


def enabled(event: type[ce.InvestmentAccountEnabled] | type[ce.SavingsAccountEnabled]) -> Any:
    return event(**at(), user=ALICE)


@pytest.mark.parametrize(
    ("events", "opened"),
    [
        ([created(ALICE, "food")], ["spending"]),
        ([transfer(BOB, ALICE, 5)], ["spending"]),
        ([ce.UserInitialized(**at(), user=ALICE)], ["spending"]),
        ([enabled(ce.InvestmentAccountEnabled)], ["investment"]),
        ([enabled(ce.SavingsAccountEnabled)], ["savings"]),
        ([operation(ALICE, 0, 5, account=2)], ["savings"]),
        ([operation(ALICE, 0, 5, account=1), kept(ALICE, 1)], ["investment"]),
        (locked(ALICE, 1, 5)[1:], ["investment"]),
        (unlocked(ALICE, 1, 5), ["investment"]),
        ([created(ALICE, "food"), enabled(ce.SavingsAccountEnabled)], ["savings", "spending"]),
    ],
)
async def test_first_cause_opens_an_account_and_its_reorg_takes_it_back(
    world: Bench, events: list[ce.ChainEvent], opened: list[str]
) -> None:
    await world.apply(Script().block(events))
    assert await types(world) == opened
    await world.revert()
    assert await types(world) == []


async def test_every_row_belongs_to_an_account_of_its_commit(world: Bench, pool: Pool) -> None:
    script = Script()
    spender = spend(ALICE, "food", 1, spender=BOB)
    await sign_in(pool, BOB)
    await world.apply(script.block([deposit(ALICE, 5)], [spender], [operation(ALICE, 1, 1, account=2)]))
    orphans = await pool.fetchval(
        "SELECT count(*) FROM transactions AS t WHERE NOT EXISTS (SELECT FROM user_accounts AS a WHERE a.opened_block"
        " IS NOT NULL AND a.user_address = t.user_address AND a.chain_id = t.chain_id"
        " AND a.account_type = t.account_type)"
    )
    assert (orphans, await types(world, BOB)) == (0, ["spending"])


async def test_later_cause_leaves_an_account_as_it_is(world: Bench) -> None:
    script = Script()
    await world.apply(script.block([created(ALICE, "food")]), script.block([created(ALICE, "rent")]))
    await world.revert()
    assert await types(world) == ["spending"]


async def test_renamed_account_goes_with_its_cause_and_comes_again_with_its_name(world: Bench) -> None:
    script = Script()
    block = script.block([created(ALICE, "food")])
    await world.apply(block)
    account = f"eip155:31337:{ALICE}:spending"
    await accounts.change(world.deps, ALICE, account, {"name": "Every day", "active": False}, unless=lambda _: False)
    await world.revert()
    with pytest.raises(NotFound):
        await accounts.read(world.deps, ALICE, account)
    await world.apply(block)
    again = await accounts.read(world.deps, ALICE, account)
    assert (again["accountName"], again["isActive"]) == ("Every day", False)


async def test_account_is_opened_once_when_a_block_is_applied_log_by_log(world: Bench, pool: Pool) -> None:
    script = Script()
    bad = ce.BucketCreated(**at(), user=ALICE, name=b"x", monthly_limit=10**80)  # more digits than the column has
    await world.apply(script.block([created(ALICE, "food")], [bad], [created(ALICE, "rent")]))
    assert await types(world) == ["spending"]
    await world.revert()
    assert await types(world) == []
