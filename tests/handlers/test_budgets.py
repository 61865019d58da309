from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from config.settings import Settings
from handlers import budgets, categorizing
from handlers.categorizing import Choice
from handlers.errors import NotFound
from store.postgres import Pool
from tests.handlers.ledger import Bench, bench, set_budget, sign_in
from tests.handlers.scripted import ALICE, BOB, SHOP, Script, created, deposit, fund, make_chain, spend, transfer

FOOD, TRANSPORT = (f"00000000-0000-4000-8000-00000000000{i}" for i in (1, 2))
USD = 10**6


@pytest.fixture
async def world(pool: Pool, make_settings: Callable[..., Settings]) -> AsyncIterator[Bench]:
    async with bench(pool, make_settings(), make_chain()) as made:
        await sign_in(pool, ALICE)
        yield made


def at(world: Bench, moment: datetime) -> None:
    world.deps = world.ledger._deps = replace(world.deps, now=lambda: moment)


async def opened(world: Bench, *, limit: int = 0) -> Script:
    script = Script()
    at(world, script.time + timedelta(minutes=1))
    await world.apply(
        script.block(
            [created(ALICE, "home", limit * USD)], [deposit(ALICE, 5000 * USD)], [fund(ALICE, "home", 4000 * USD)]
        )
    )
    return script


async def pay(world: Bench, script: Script, amount: int, **options: Any) -> str:
    """Spend dollars from `home`; returns the transaction's id."""
    block = script.block([spend(ALICE, "home", amount * USD, **options)])
    await world.apply(block)
    return f"31337:{block.events[0].tx_hash}:0"


def model(transaction_id: str, category: str = FOOD) -> Choice:
    return Choice(transaction_id, category, Decimal("0.83"), "model", "closest to: groceries")


def names(told: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [event for event, _ in told]


async def test_categorized_spend_moves_its_budget_and_crosses_an_edge_once(world: Bench) -> None:
    script = await opened(world)
    await set_budget(world.deps, ALICE, FOOD, Decimal(100))
    seq = (await world.snapshot(ALICE))["seq"]
    first = await pay(world, script, 81)
    assert await categorizing.assign(world.deps, ALICE, [model(first)]) == 1
    told = await world.told(ALICE, seq)
    assert names(told) == ["new_transaction", "transaction_categorized", "budget_alert", "notification"]
    _, categorized, alert, inbox = (payload for _, payload in told)
    (impact,) = categorized["budgetImpact"]
    assert (impact["spentBefore"], impact["spentAfter"], impact["status"]) == ("0.00", "81.00", "warning")
    assert (alert["type"], alert["threshold"], alert["severity"]) == ("threshold", 80, "warning")
    assert alert["causes"] == [categorized["id"]]
    assert alert["message"] == "You have spent 80 % of Food & Dining: $81.00 of $100.00."
    assert (inbox["notification"]["eventId"], inbox["unreadCount"]) == (alert["id"], 1)
    seq = (await world.snapshot(ALICE))["seq"]
    second = await pay(world, script, 1)
    await categorizing.assign(world.deps, ALICE, [model(second)])
    assert names(await world.told(ALICE, seq)) == ["new_transaction", "transaction_categorized"]


async def test_reorg_takes_the_alert_back_and_the_edge_may_alert_again(world: Bench) -> None:
    script = await opened(world)
    await set_budget(world.deps, ALICE, FOOD, Decimal(100))
    block = script.block([spend(ALICE, "home", 81 * USD)])
    await world.apply(block)
    key = f"31337:{block.events[0].tx_hash}:0"
    await categorizing.assign(world.deps, ALICE, [model(key)])
    before = await world.told(ALICE)
    await world.revert()
    reverted, count = (await world.told(ALICE))[len(before) :]
    effects = [payload["id"] for _, payload in before[-4:]]
    assert reverted[0] == "transaction_reverted"
    assert sorted(reverted[1]["corrects"]) == sorted(effects)
    assert [(i["scope"], i["spentAfter"]) for i in reverted[1]["budgetImpact"]] == [
        ("bucket", "0"),
        ("category", "0.00"),
    ]
    assert (count[0], count[1]["unreadCount"]) == ("unread_count", 0)
    await world.apply(block)
    again = (await world.told(ALICE))[len(before) + 2 :]
    assert names(again) == ["new_transaction", "budget_alert", "notification"]  # its category survived
    assert await world.deps.pool.fetchval("SELECT count(*) FROM pushes WHERE kind = 'spending_alert'") == 1
    assert again[0][1]["transaction"]["category"]["name"] == "Food & Dining"


async def test_reorg_also_corrects_a_budget_that_was_made_after_the_spend(world: Bench) -> None:
    script = await opened(world)
    first = await pay(world, script, 1)
    await categorizing.choose(world.deps, ALICE, first, FOOD, apply_to_similar=True)
    await pay(world, script, 40)  # by the rule
    for category in (FOOD, TRANSPORT, None):
        await set_budget(world.deps, ALICE, category, Decimal(100))
    await world.revert()
    event, payload = (await world.told(ALICE))[-1]
    impacts = {(i["scope"], i["categoryId"]): i for i in payload["budgetImpact"] if i["scope"] != "bucket"}
    assert event == "transaction_reverted"
    assert {key: (i["spentBefore"], i["spentAfter"]) for key, i in impacts.items()} == {
        ("category", FOOD): ("41.00", "1.00"),
        ("total", None): ("41.00", "1.00"),
    }
    assert [b["spent"] for b in (await world.snapshot(ALICE))["budgets"]] == ["1.00", "1.00", "0.00"]


async def test_alert_of_several_edges_is_taken_back_once(world: Bench) -> None:
    script = await opened(world)
    first = await pay(world, script, 85)
    await categorizing.choose(world.deps, ALICE, first, FOOD, apply_to_similar=True)
    await set_budget(world.deps, ALICE, FOOD, Decimal(100))
    await pay(world, script, 20)  # crosses 50, 80 and 100 % at once
    (alert,) = [payload for event, payload in await world.told(ALICE) if event == "budget_alert"]
    await world.revert()  # 85 is below the last one
    await world.revert()  # nothing is below all
    corrected = [key for _, payload in await world.told(ALICE) for key in payload.get("corrects", ())]
    assert (alert["type"], corrected.count(alert["id"])) == ("over_budget", 1)


async def test_edge_crossed_again_after_spending_fell_far_below_it_reaches_the_phone_again(world: Bench) -> None:
    script = await opened(world)
    await set_budget(world.deps, ALICE, FOOD, Decimal(100))
    await categorizing.choose(world.deps, ALICE, await pay(world, script, 81), FOOD, apply_to_similar=False)
    for budget in (200, 100):  # 41 %, then 83 %; the payee's category is known by now
        await set_budget(world.deps, ALICE, FOOD, Decimal(budget))
        await pay(world, script, 1)
    alerts = [payload["threshold"] for event, payload in await world.told(ALICE) if event == "budget_alert"]
    pushes = await world.deps.pool.fetch("SELECT state FROM pushes WHERE kind = 'spending_alert'")
    assert (alerts, [row["state"] for row in pushes]) == ([80, 80], ["due", "due"])


async def test_alert_that_holds_without_the_reverted_spend_is_not_taken_back(world: Bench) -> None:
    script = await opened(world)
    await set_budget(world.deps, ALICE, FOOD, Decimal(100))
    await categorizing.assign(world.deps, ALICE, [model(await pay(world, script, 85))])
    second = await pay(world, script, 5)
    await categorizing.assign(world.deps, ALICE, [model(second)])
    before = await world.told(ALICE)
    await world.revert()
    assert names((await world.told(ALICE))[len(before) :]) == ["transaction_reverted"]


async def test_users_choice_is_final_and_teaches_the_payee(world: Bench) -> None:
    script = await opened(world)
    first = await pay(world, script, 10)
    assert await categorizing.choose(world.deps, ALICE, first, TRANSPORT, apply_to_similar=False) == 1
    assert await categorizing.assign(world.deps, ALICE, [model(first)]) == 0
    await pay(world, script, 11)
    _, payload = (await world.told(ALICE))[-1]
    category = payload["transaction"]["category"]
    assert (category["id"], category["source"], category["confidence"]) == (TRANSPORT, "history", "0.95")


async def test_apply_to_similar_changes_the_past_and_makes_a_rule(world: Bench) -> None:
    script = await opened(world)
    old = [await pay(world, script, 10) for _ in range(3)]
    other = await pay(world, script, 10, recipient=BOB)
    await categorizing.choose(world.deps, ALICE, old[0], FOOD, apply_to_similar=True)
    await pay(world, script, 1)
    last = (await world.told(ALICE))[-1][1]["transaction"]["category"]
    assert (last["id"], last["source"]) == (FOOD, "rule")
    rows = await world.deps.pool.fetch("SELECT transaction_id, source FROM transaction_categories")
    assert {row["transaction_id"] for row in rows} >= set(old)
    assert other not in {row["transaction_id"] for row in rows}


async def test_moving_a_spend_away_takes_its_alert_back(world: Bench) -> None:
    script = await opened(world)
    await set_budget(world.deps, ALICE, FOOD, Decimal(100))
    key = await pay(world, script, 120)
    await categorizing.assign(world.deps, ALICE, [model(key)])
    alert = (await world.told(ALICE))[-2][1]
    assert alert["type"] == "over_budget"
    await categorizing.choose(world.deps, ALICE, key, TRANSPORT, apply_to_similar=False)
    moved, count = (await world.told(ALICE))[-2:]
    assert moved[1]["corrects"] == [alert["id"]]
    assert [(i["spentBefore"], i["spentAfter"]) for i in moved[1]["budgetImpact"]] == [("120.00", "0.00")]
    assert (count[0], count[1]["unreadCount"]) == ("unread_count", 0)


async def test_bucket_limit_alerts_on_the_chains_own_clock(world: Bench) -> None:
    script = await opened(world, limit=100)
    await pay(world, script, 79)
    assert [p["threshold"] for e, p in await world.told(ALICE) if e == "budget_alert"] == [50]
    await pay(world, script, 30)
    event, alert = (await world.told(ALICE))[-2]
    assert (event, alert["type"], alert["scope"], alert["bucket"]["name"]) == (
        "budget_alert",
        "over_budget",
        "bucket",
        "home",
    )
    assert alert["message"] == "You have spent $109.00 of home, more than its budget of $100.00."


async def test_outgoing_transfer_counts_once_the_user_gave_it_a_category(world: Bench) -> None:
    script = await opened(world)
    await set_budget(world.deps, ALICE, FOOD, Decimal(100))
    block = script.block([transfer(ALICE, SHOP, 30 * USD)])
    await world.apply(block)
    key = f"31337:{block.events[0].tx_hash}:0"
    assert (await budgets.listed(world.deps, ALICE))[0]["spent"] == "0.00"
    await categorizing.choose(world.deps, ALICE, key, FOOD, apply_to_similar=False)
    assert (await budgets.listed(world.deps, ALICE))[0]["spent"] == "30.00"


async def test_month_begins_once_for_each_user_in_their_zone(world: Bench, pool: Pool) -> None:
    await opened(world)
    await pool.execute("UPDATE users SET time_zone = 'Pacific/Kiritimati' WHERE address = $1", ALICE)
    at(world, datetime.fromisoformat("2026-11-30T09:59:00+00:00"))
    await set_budget(world.deps, ALICE, None, Decimal(500))
    assert await budgets.begin_months(world.deps, limit=10) == 0
    at(world, datetime.fromisoformat("2026-11-30T10:00:00+00:00"))  # midnight, fourteen hours ahead
    assert await budgets.begin_months(world.deps, limit=10) == 1
    assert await budgets.begin_months(world.deps, limit=10) == 0
    _, payload = (await world.told(ALICE))[-1]
    assert payload["budgets"][0]["periodStart"] == "2026-11-30T10:00:00.000Z"


async def test_unknown_category_or_someone_elses_transaction_is_not_found(world: Bench, pool: Pool) -> None:
    script = await opened(world)
    key = await pay(world, script, 1)
    await sign_in(pool, BOB)
    with pytest.raises(NotFound):
        await categorizing.choose(world.deps, BOB, key, FOOD, apply_to_similar=False)
    with pytest.raises(NotFound):
        await categorizing.choose(world.deps, ALICE, key, FOOD.replace("1", "9"), apply_to_similar=False)
    with pytest.raises(NotFound):
        await set_budget(world.deps, ALICE, FOOD.replace("1", "9"), Decimal(1))
