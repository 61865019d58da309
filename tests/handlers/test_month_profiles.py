"""Profiles are learned once a month, for whoever has a budget, and every projection goes by them from then on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from config.settings import Settings
from handlers import budgets, month_profiles
from handlers.deps import Deps
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.factories import insert_transactions, make_address, make_hash, make_transaction
from tests.handlers.ledger import make_deps, sign_in
from tests.handlers.scripted import make_chain

USER, FRUGAL = make_address("tenant"), make_address("frugal")
NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
ZONE = "Pacific/Kiritimati"  # a day ahead of UTC but for ten hours


def deps_of(pool: Pool, settings: Settings) -> Deps:
    made = make_deps(pool, settings, make_chain())
    return Deps(made.settings, made.chains, pool, made.publisher, lambda: NOW)


def spend(day: datetime, usd: int | None, **changes: Any) -> Any:
    facts = {"block_time": day, "block_number": int(day.timestamp()), "block_hash": make_hash(day, usd)}
    usd_ = None if usd is None else Decimal(usd)
    return make_transaction(**{"user": USER, **facts, "tx_hash": make_hash(day), "usd": usd_, **changes})


async def history(pool: Pool) -> None:
    await sign_in(pool, USER, FRUGAL)
    await pool.execute("UPDATE users SET time_zone = $1, monthly_budget = 1200 WHERE address = $2", ZONE, USER)
    # 11:00 UTC of a month's last day is the first of the next month there.
    rents = [datetime(2026, month, 1, 11, tzinfo=UTC) - timedelta(days=1) for month in range(6, 12)]
    food = [datetime(2026, 6, 1, 1, tzinfo=UTC) + timedelta(days=back) for back in range(153)]
    rows = [*(spend(day, 900) for day in rents), *(spend(day, 10) for day in food)]
    rows += [spend(NOW, None), spend(NOW - timedelta(days=40), 7777, role="delegate")]
    rows += [spend(NOW - timedelta(days=41), 7777, canonical=False)]
    async with pool.acquire() as conn:
        await insert_transactions(conn, rows)


async def test_profile_is_learned_once_a_month_and_projections_go_by_it(
    pool: Pool, make_settings: MakeSettings
) -> None:
    await history(pool)
    deps = deps_of(pool, make_settings())
    (straight,) = await budgets.statuses(deps, USER)
    assert await month_profiles.learn(deps, limit=10) == 1  # who has no budget needs none
    assert await month_profiles.learn(deps, limit=10) == 0
    stored = await pool.fetchval("SELECT profiles FROM month_profiles WHERE user_address = $1", USER)
    months, fixed, _, _ = stored["total"]
    assert (months, fixed[0], set(fixed[28:])) == (5, 91_000, {1_000})
    (learned,) = await budgets.statuses(deps, USER)
    assert Decimal(str(straight["projectedOverrun"])) > 10_000  # the rent, thirty times
    assert Decimal(str(learned["projectedOverrun"])) < 100
    same = ("spentAmount", "utilization", "safeToSpendPerDay", "status", "unpriced")
    assert {key: straight[key] for key in same} == {key: learned[key] for key in same}


async def test_profile_is_of_the_month_that_has_begun_in_the_users_zone(
    pool: Pool, make_settings: MakeSettings
) -> None:
    await history(pool)
    deps = deps_of(pool, make_settings())
    before = Deps(deps.settings, deps.chains, pool, deps.publisher, lambda: datetime(2026, 10, 31, 9, 59, tzinfo=UTC))
    after = Deps(deps.settings, deps.chains, pool, deps.publisher, lambda: datetime(2026, 10, 31, 10, tzinfo=UTC))
    assert [await month_profiles.learn(each, limit=10) for each in (before, before, after, after)] == [1, 0, 1, 0]
    learned_for = await pool.fetchval("SELECT learned_for FROM month_profiles")
    assert learned_for.isoformat() == "2026-11-01"


async def test_newcomer_has_no_profile_and_straight_projections(pool: Pool, make_settings: MakeSettings) -> None:
    await sign_in(pool, USER)
    await pool.execute("UPDATE users SET monthly_budget = 100 WHERE address = $1", USER)
    async with pool.acquire() as conn:
        await insert_transactions(conn, [spend(NOW - timedelta(hours=1), 50)])
    deps = deps_of(pool, make_settings())
    before = await budgets.statuses(deps, USER)
    assert await month_profiles.learn(deps, limit=10) == 1
    assert await pool.fetchval("SELECT profiles FROM month_profiles") == {}
    assert await budgets.statuses(deps, USER) == before
