"""A spend that crosses 80 % of its category's budget: event, category, alert, inbox, and one buzz of the phone.

The reorg of its block takes all of it back; when the transaction is included again the phone does not buzz twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from config.embedded import fcm
from config.embedded.chain import Anvil
from tests.flows.stack import Client, Stack, assert_exactly_once, stack
from tests.waiting import until
from watchers.devnet.listener import Listener
from watchers.devnet.people import USDC
from watchers.devnet.person import person

SHOP = person(94).address
FOOD = "00000000-0000-4000-8000-000000000001"
PHONE = "token-of-alices-phone"


async def call(made: Stack, client: Client, url: str, method: str, path: str, body: Any) -> Any:
    headers = {"Authorization": f"Bearer {client.token}"}
    async with made.session.request(method, url + path, json=body, headers=headers) as response:
        assert response.status < 300, await response.text()
        return await response.json()


def names(listener: Listener, since: int) -> list[str]:
    return [one.name for one in listener.durable if one.payload["seq"] > since]


async def test_spend_reaches_the_phone_once_and_its_reorg_takes_it_back(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str, clickhouse_url: str
) -> None:
    async with (
        fcm.serving(tmp_path / "fcm") as phones,
        stack(tmp_path, anvil, database_url=database_url, redis_url=redis_url, clickhouse_url=clickhouse_url) as made,
    ):
        pushing = {"fcm_url": phones.url, "fcm_credentials": str(phones.credentials), "push_hold_s": "0"}
        await made.watch()
        url, _ = await made.serve()
        made.start("jobs", "quick", **pushing)
        made.start("jobs", "slow", **pushing)
        alice = await made.devnet.user(1)
        client = await made.sign_in(alice, url)
        async with client.listen(url) as listener:
            await made.devnet.open_bucket(alice, "supermarket groceries and food", amount=500 * USDC)
            await client.settled(listener)
            await call(made, client, url, "POST", "/v1/devices", {"token": PHONE, "platform": "android"})
            budget = {"scope": "category", "categoryId": FOOD, "monthlyBudget": "100"}
            await call(made, client, url, "PUT", "/v1/budgets", budget)
            await client.settled(listener)
            since = listener.durable[-1].payload["seq"]

            tx = await made.devnet.spend(alice, "supermarket groceries and food", 81 * USDC, SHOP)
            expected = ["new_transaction", "transaction_categorized", "budget_alert", "notification"]
            await listener.until(lambda: names(listener, since) == expected or None, what="the alert", timeout_s=60)
            spend, categorized, alert, inbox = (one.payload for one in listener.durable if one.payload["seq"] > since)
            assert categorized["category"]["id"] == FOOD
            assert categorized["source"] == "model"
            assert (alert["threshold"], alert["causes"]) == (80, [categorized["id"]])
            assert inbox["notification"]["eventId"] == alert["id"]
            await until(lambda: phones.got, 30, what="a push")
            (push,) = phones.got
            assert (push["token"], push["data"]["event_id"]) == (PHONE, alert["id"])
            assert push["data"]["type"] == "spending_alert"

            raw = await made.devnet.rpc_call("eth_getRawTransactionByHash", tx)
            since = inbox["seq"]
            await made.devnet.reorg(1)
            await made.devnet.mine(1)
            await client.settled(listener)
            assert names(listener, since) == ["transaction_reverted", "unread_count"]
            (reverted, count) = (one.payload for one in listener.durable if one.payload["seq"] > since)
            assert set(reverted["corrects"]) == {spend["id"], categorized["id"], alert["id"], inbox["id"]}
            assert count["unreadCount"] == 0

            since = count["seq"]
            await made.devnet.rpc_call("eth_sendRawTransaction", raw)
            expected = ["new_transaction", "budget_alert", "notification"]
            await listener.until(lambda: names(listener, since) == expected or None, what="the spend again")
            await client.settled(listener)
            again = next(one.payload for one in listener.durable if one.payload["seq"] == since + 1)
            assert again["transaction"]["id"] == spend["transaction"]["id"]
            assert again["transaction"]["category"]["id"] == FOOD
            assert phones.buzzes(PHONE) == [push["android"]["collapse_key"]]
        assert_exactly_once(listener)
