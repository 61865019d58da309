"""A month that closes under budget: one unlock on every device, one buzz of each phone, and taken back with its cause.

The worker's clock is real and the chain's stands in the month before: nobody waits for a month to end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from config.embedded import fcm
from config.embedded.chain import Anvil
from config.embedded.fcm import FakeFcm
from store.postgres import connect
from tests.flows.stack import Client, Stack, assert_exactly_once, stack, value_of
from tests.waiting import until
from watchers.devnet.listener import Listener
from watchers.devnet.people import USDC, Person
from watchers.devnet.person import person

SHOP = person(94).address
FOOD, TRANSPORT = (f"00000000-0000-4000-8000-00000000000{i}" for i in (1, 2))
GROCERIES, TICKETS = "supermarket groceries and food", "train and bus tickets"
PHONES = ("token-of-alices-phone", "token-of-alices-tablet")
UNLOCKED, REVOKED, SAVER = "achievement_unlocked", "achievement_revoked", "BUDGET_SAVER"
THIS_MONTH = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture
def last_month(tmp_path: Path) -> Iterator[Anvil]:
    """A chain whose clock stands in the middle of the month before this one, whatever day it is today."""
    begins = THIS_MONTH - timedelta(days=15)
    with Anvil(tmp_path / "past", block_time=None, options=("--timestamp", f"{begins.timestamp():.0f}")) as chain:
        yield chain


def of_the_month(device: Listener, name: str) -> list[dict[str, Any]]:
    """Events of a name about the month, as a device was told."""
    told = [each.payload for each in device.events(name)]
    return [each for each in told if each["achievement"]["code"] == SAVER]


@dataclass
class Scene:
    """Alice at home: two devices on two servers, two phones."""

    made: Stack
    phones: FakeFcm
    alice: Person
    client: Client
    url: str
    devices: tuple[Listener, Listener]

    async def call(self, method: str, path: str, body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.client.token}"}
        async with self.made.session.request(method, self.url + path, json=body, headers=headers) as response:
            assert response.status < 300, await response.text()
            return await response.json()

    async def set_budget(self, body: dict[str, str]) -> None:
        """Set through the API, and then as if it had been set before the month ended: nobody waits for that here."""
        await self.call("PUT", "/v1/budgets", body)
        conn = await connect(self.made.urls["database_url"])
        try:
            moved = await conn.execute("UPDATE budget_history SET since = $1", THIS_MONTH - timedelta(days=20))
        finally:
            await conn.close()
        assert moved == "UPDATE 1"

    async def told(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """What was told of the month by one name, once it is `count` events; the same on both devices."""
        for device in self.devices:
            enough = partial(lambda one: len(of_the_month(one, name)) >= count, device)
            await device.until(enough, what=f"{count} times {name}", timeout_s=30)
        await self.settled()
        first, second = (of_the_month(device, name) for device in self.devices)
        assert first == second
        assert len(first) == count
        return first

    async def settled(self) -> dict[str, Any]:
        """Wait until both devices show what a fresh snapshot says, and return that."""
        return [await self.client.settled(device) for device in self.devices][-1]

    def inbox(self, about: str) -> list[dict[str, Any]]:
        """Notifications of one event; the same on both devices."""
        first, second = (
            [each.payload for each in one.events("notification") if each.payload["notification"]["eventId"] == about]
            for one in self.devices
        )
        assert first == second
        return first

    def pushes(self) -> list[tuple[str, str]]:
        """What reached the phones about the month, loud or not: token, event."""
        events = {each["id"] for each in of_the_month(self.devices[0], UNLOCKED)}
        sent = [(push["token"], push["data"].get("event_id", "")) for push in self.phones.got]
        return [(token, event) for token, event in sent if event in events]


@asynccontextmanager
async def scene(tmp_path: Path, chain: Anvil, urls: dict[str, str]) -> AsyncIterator[Scene]:
    async with fcm.serving(tmp_path / "fcm") as phones, stack(tmp_path, chain, **urls) as made:
        pushing = {"fcm_url": phones.url, "fcm_credentials": str(phones.credentials), "push_hold_s": "0"}
        made.start("jobs", "quick", **pushing)
        made.start("jobs", "slow", **pushing)
        await made.watch()
        (url, _), (other, _) = await made.serve(), await made.serve()
        alice = await made.devnet.user(1)
        client = await made.sign_in(alice, url)
        async with client.listen(url) as first, client.listen(other) as second:
            found = Scene(made, phones, alice, client, url, (first, second))
            for token in PHONES:
                await found.call("POST", "/v1/devices", {"token": token, "platform": "android"})
            await made.devnet.open_bucket(alice, GROCERIES, amount=500 * USDC)
            await found.settled()
            yield found
            for device in found.devices:
                assert_exactly_once(device)


@pytest.fixture
def urls(database_url: str, redis_url: str, clickhouse_url: str) -> dict[str, str]:
    return {"database_url": database_url, "redis_url": redis_url, "clickhouse_url": clickhouse_url}


async def test_month_under_budget_is_told_once_everywhere_and_its_reorg_takes_it_back(
    tmp_path: Path, last_month: Anvil, urls: dict[str, str]
) -> None:
    async with scene(tmp_path, last_month, urls) as at:
        await at.set_budget({"scope": "total", "monthlyBudget": "100"})
        tx = await at.made.devnet.spend(at.alice, GROCERIES, 81 * USDC, SHOP)
        (unlocked,) = await at.told(UNLOCKED)
        (notice,) = at.inbox(unlocked["id"])
        await until(lambda: len(at.pushes()) >= len(PHONES), 30, what="a push on each phone")
        assert sorted(at.pushes()) == sorted((token, unlocked["id"]) for token in PHONES)

        raw = await at.made.devnet.rpc_call("eth_getRawTransactionByHash", tx)
        await at.made.devnet.reorg(1)
        await at.made.devnet.mine(1)
        (revoked,) = await at.told(REVOKED)
        assert set(revoked["corrects"]) == {unlocked["id"], notice["id"]}
        (reverted,) = (each.payload["id"] for each in at.devices[0].events("transaction_reverted"))
        assert revoked["causes"] == [reverted]
        assert SAVER not in [each["code"] for each in (await at.settled())["achievements"]]

        await at.made.devnet.rpc_call("eth_sendRawTransaction", raw)
        first, again = await at.told(UNLOCKED, 2)
        assert (first["id"], again["achievement"]["code"]) == (unlocked["id"], SAVER)
        assert again["id"] != first["id"]
        assert len(at.inbox(again["id"])) == 1
        assert SAVER in [each["code"] for each in (await at.settled())["achievements"]]
        # The phones show it still: nothing is left to be sent, and nothing was.
        state = "SELECT string_agg(state::text, ' ') FROM pushes WHERE subject = 'achievement:BUDGET_SAVER'"
        assert await value_of(at.made.urls["database_url"], state) == "sent"
        assert sorted(at.pushes()) == sorted((token, unlocked["id"]) for token in PHONES)


async def test_late_category_takes_the_month_over_its_budget(
    tmp_path: Path, last_month: Anvil, urls: dict[str, str]
) -> None:
    async with scene(tmp_path, last_month, urls) as at:
        await at.made.devnet.open_bucket(at.alice, TICKETS, amount=500 * USDC)
        await at.set_budget({"scope": "category", "categoryId": FOOD, "monthlyBudget": "100"})
        await at.made.devnet.spend(at.alice, GROCERIES, 60 * USDC, SHOP)
        (unlocked,) = await at.told(UNLOCKED)
        await at.made.devnet.spend(at.alice, TICKETS, 50 * USDC, SHOP)
        await at.settled()
        device = at.devices[0]
        spends = [each.payload["transaction"] for each in device.events("new_transaction")]
        tickets = [each for each in spends if each["type"] == "spend"][1]
        await until(lambda: len(at.pushes()) >= len(PHONES), 30, what="a push on each phone")

        await at.call("PUT", f"/v1/transactions/{tickets['id']}/category", {"categoryId": FOOD})
        (revoked,) = await at.told(REVOKED)
        assert revoked["corrects"][0] == unlocked["id"]
        categorized = [one.payload for one in device.events("transaction_categorized")]
        (by_hand,) = (one for one in categorized if one["source"] == "manual")
        assert (by_hand["transactionId"], by_hand["category"]["id"]) == (tickets["id"], FOOD)
        assert revoked["causes"] == [by_hand["id"]]
        await at.call("PUT", f"/v1/transactions/{tickets['id']}/category", {"categoryId": TRANSPORT})
        assert len(await at.told(UNLOCKED, 2)) == 2
