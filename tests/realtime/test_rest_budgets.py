from __future__ import annotations

from typing import Any

import pytest

from store.postgres import Pool
from tests.realtime import rows
from tests.realtime.served import Client
from tests.realtime.wiring import CHAIN

FOOD = "00000000-0000-4000-8000-000000000001"
NOBODYS = "00000000-0000-4000-8000-000000000099"


async def put(client: Client, json: Any, path: str = "/v1/budgets") -> Any:
    return await client.call("PUT", path, json=json)


async def told(client: Client) -> list[tuple[str, Any]]:
    return [(each["event"], each["payload"]) for each in (await client.get("/v1/events")).json["data"]]


async def test_budget_is_set_shown_told_and_removed(me: Client) -> None:
    assert (await me.get("/v1/budgets")).json == {"data": []}
    got = await put(me, {"scope": "category", "categoryId": FOOD, "monthlyBudget": "100.50"})
    (budget,) = got.json["data"]
    assert (budget["name"], budget["budget"], budget["spent"], budget["status"]) == (
        "Food & Dining",
        "100.50",
        "0.00",
        "healthy",
    )
    assert (await me.get("/v1/snapshot")).json["budgets"] == [budget]
    (_, updated), (_, moved) = events = await told(me)
    assert [event for event, _ in events] == ["category_updated", "budget_update"]
    assert (updated["category"]["monthlyBudget"], moved["budgets"]) == ("100.50", [budget])
    (status,) = (await me.get("/v1/budgets/status")).json["data"]
    assert (status["budgetAmount"], status["spentAmount"], status["utilization"]) == ("100.50", "0.00", "0")
    assert 1 <= status["daysRemaining"] <= 31
    assert (await put(me, {"scope": "category", "categoryId": FOOD, "monthlyBudget": None})).json == {"data": []}


async def test_zero_is_a_budget_and_none_is_not(me: Client) -> None:
    (budget,) = (await put(me, {"scope": "total", "monthlyBudget": "0"})).json["data"]
    assert (budget["scope"], budget["budget"], budget["utilization"]) == ("total", "0.00", None)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"scope": "category", "monthlyBudget": "1"}, 400),
        ({"scope": "total", "categoryId": FOOD, "monthlyBudget": "1"}, 400),
        ({"scope": "total", "monthlyBudget": "-1"}, 400),
        ({"scope": "total", "monthlyBudget": "1.005"}, 400),
        ({"scope": "total", "monthlyBudget": 1}, 400),
        ({"scope": "category", "categoryId": NOBODYS, "monthlyBudget": "1"}, 404),
    ],
)
async def test_what_is_no_budget_is_refused(me: Client, body: Any, status: int) -> None:
    assert (await put(me, body)).status == status
    assert (await me.get("/v1/budgets")).json == {"data": []}


async def test_category_chosen_by_hand_shows_in_history_and_its_filter(me: Client, pool: Pool) -> None:
    paid, other = rows.spend(me.address, 10), rows.spend(me.address, 11)
    await rows.write(pool, paid, other)
    got = await put(me, {"categoryId": FOOD}, f"/v1/transactions/{paid.id}/category")
    assert got.json["category"] == {
        "id": FOOD,
        "name": "Food & Dining",
        "iconUrl": "/icons/food.svg",
        "colorHex": "#FF6B6B",
        "confidence": "1.00",
        "source": "manual",
        "isManualOverride": True,
    }
    assert (await told(me))[-1][0] == "transaction_categorized"
    listed = (await me.get(f"/v1/transactions?category={FOOD}")).json["data"]
    assert [row["id"] for row in listed] == [paid.id]


async def test_someone_elses_transaction_has_no_category_to_set(me: Client, anyone: Client, pool: Pool) -> None:
    paid = rows.spend(me.address, 10)
    await rows.write(pool, paid)
    stranger = await anyone.signed_in()
    assert (await put(stranger, {"categoryId": FOOD}, f"/v1/transactions/{paid.id}/category")).status == 404


async def test_simulated_spend_says_what_stands_against_it_and_writes_nothing(me: Client, pool: Pool) -> None:
    bucket = await rows.bucket(pool, me.address, b"food", holds=100)
    token = CHAIN.tokens[0].address
    before = (await me.get("/v1/snapshot")).json
    ask = {"chainId": CHAIN.id, "bucket": bucket.name, "token": token, "amount": "60"}
    got = (await me.post("/v1/budgets/simulate", ask)).json
    assert (got["balanceBefore"]["raw"], got["balanceAfter"]["raw"]) == ("100", "40")
    too_much = (await me.post("/v1/budgets/simulate", {**ask, "amount": "101"})).json
    assert "over_balance" in too_much["reasons"]
    assert not too_much["fits"]
    assert (await me.get("/v1/snapshot")).json == before
    missing = await me.post("/v1/budgets/simulate", {**ask, "bucket": "nothing"})
    assert missing.status == 404
