"""Achievements in the transactions that move their causes, on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from config.settings import Settings
from handlers import achievements, categorizing
from store import achievements as rows
from store import notifications
from store.postgres import Pool
from store.records import Address
from tests.handlers.ledger import Bench, bench, set_budget, sign_in
from tests.handlers.scripted import ALICE, BOB, SHOP, Script, created, deposit, fund, make_chain, spend, transfer
from watchers.devnet import view as client

FOOD, TRANSPORT = (f"00000000-0000-4000-8000-00000000000{i}" for i in (1, 2))
USD = 10**6
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


@dataclass
class World:
    """Alice's ledger, a clock that the test moves, and what her phone would know."""

    bench: Bench
    script: Script = field(default_factory=Script)

    @property
    def pool(self) -> Pool:
        return self.bench.deps.pool

    def at(self, moment: datetime) -> None:
        self.bench.deps = self.bench.ledger._deps = replace(self.bench.deps, now=lambda: moment)

    async def block(self, *events: Any) -> None:
        await self.bench.apply(self.script.block(*([event] for event in events)))

    async def pay(self, amount: int, **options: Any) -> str:
        """Spend dollars from `home`; returns the transaction's id."""
        block = self.script.block([spend(ALICE, "home", amount * USD, **options)])
        await self.bench.apply(block)
        return f"31337:{block.events[0].tx_hash}:0"

    async def look(self, user: Address = ALICE) -> int:
        return await achievements.evaluate(self.bench.deps, [user])

    async def codes(self, user: Address = ALICE) -> list[str]:
        return [row.code for row in (await rows.held(self.pool, [user]))[user]]

    async def told(self, seq: int = 0) -> list[tuple[str, dict[str, Any]]]:
        return await self.bench.told(ALICE, seq)

    async def seq(self) -> int:
        return int((await self.bench.snapshot(ALICE))["seq"])


@pytest.fixture
async def world(pool: Pool, make_settings: Callable[..., Settings]) -> AsyncIterator[World]:
    async with bench(pool, make_settings(), make_chain()) as made:
        await sign_in(pool, ALICE)
        found = World(made)
        found.at(found.script.time + timedelta(minutes=1))
        await found.block(created(ALICE, "home"), deposit(ALICE, 5000 * USD), fund(ALICE, "home", 4000 * USD))
        yield found


def by_name(told: list[tuple[str, dict[str, Any]]], name: str) -> list[dict[str, Any]]:
    return [payload for event, payload in told if event == name]


async def test_month_that_closes_under_budget_unlocks_once_with_inbox_and_push(world: World) -> None:
    await set_budget(world.bench.deps, ALICE, None, Decimal(100))
    await world.pay(60)
    assert await world.look() == 0  # the first cheap payment proves nothing
    world.at(DECEMBER - timedelta(seconds=1))
    await world.look()
    assert await world.codes() == ["NO_SPEND_WEEK"]
    world.at(DECEMBER + timedelta(seconds=1))
    before = await world.bench.snapshot(ALICE)
    assert await achievements.close_days(world.bench.deps, limit=10) == 1
    assert await achievements.close_days(world.bench.deps, limit=10) == 0
    assert await world.look() == 0
    told = await world.told(before["seq"])
    (unlocked,) = by_name(told, "achievement_unlocked")
    assert [unlocked["achievement"][key] for key in ("code", "tier")] == ["BUDGET_SAVER", "silver"]
    (notice,) = by_name(told, "notification")
    assert notice["notification"]["eventId"] == unlocked["id"]
    assert notice["notification"]["title"] == "Budget saver"
    fresh = await world.bench.snapshot(ALICE)
    assert [each["code"] for each in fresh["achievements"]] == ["BUDGET_SAVER", "NO_SPEND_WEEK"]
    assert client.differences(client.apply_all(before, told), fresh) == []
    pushes = await world.pool.fetch(
        "SELECT subject, kind, state FROM pushes WHERE kind = 'achievement_unlocked' ORDER BY subject"
    )
    assert [tuple(row) for row in pushes] == [
        ("achievement:BUDGET_SAVER", "achievement_unlocked", "due"),
        ("achievement:NO_SPEND_WEEK", "achievement_unlocked", "due"),
    ]


async def test_reorg_that_takes_the_month_over_budget_revokes_and_its_way_back_unlocks_without_a_second_buzz(
    world: World,
) -> None:
    await set_budget(world.bench.deps, ALICE, None, Decimal(100))
    await world.pay(60)
    world.at(DECEMBER + timedelta(seconds=1))
    await world.look()
    assert "BUDGET_SAVER" in await world.codes()
    (first,) = [
        each
        for each in by_name(await world.told(), "achievement_unlocked")
        if each["achievement"]["code"] == "BUDGET_SAVER"
    ]
    before = await world.bench.snapshot(ALICE)
    taken = world.script.back(1, fork="dear")
    await world.bench.revert()
    await world.pay(600)
    await world.look()
    assert "BUDGET_SAVER" not in await world.codes()
    told = await world.told(before["seq"])
    (revoked,) = [
        each for each in by_name(told, "achievement_revoked") if each["achievement"]["code"] == "BUDGET_SAVER"
    ]
    inbox = by_name(await world.told(), "notification")
    about = next(each["id"] for each in inbox if each["notification"]["eventId"] == first["id"])
    assert set(revoked["corrects"]) == {first["id"], about}
    assert len(revoked["causes"]) == 1
    fresh = await world.bench.snapshot(ALICE)
    assert client.differences(client.apply_all(before, told), fresh) == []
    assert fresh["unreadCount"] == (await notifications.unread(world.pool, [ALICE]))[ALICE]
    await world.pool.execute("UPDATE pushes SET state = 'sent' WHERE subject = 'achievement:BUDGET_SAVER'")
    world.script.back(1, fork="cheap again")
    await world.bench.revert()
    await world.bench.apply(world.script.put_back(taken[0]))
    await world.look()
    again = [
        each
        for each in by_name(await world.told(fresh["seq"]), "achievement_unlocked")
        if each["achievement"]["code"] == "BUDGET_SAVER"
    ]
    assert len(again) == 1
    assert again[0]["id"] != first["id"]
    assert await world.pool.fetchval("SELECT count(*) FROM pushes WHERE subject = 'achievement:BUDGET_SAVER'") == 1
    state = await world.pool.fetchval("SELECT state FROM pushes WHERE subject = 'achievement:BUDGET_SAVER'")
    assert state == "sent"


async def test_late_category_takes_a_month_over_its_category_budget(world: World) -> None:
    await set_budget(world.bench.deps, ALICE, FOOD, Decimal(100))
    first, second = await world.pay(60), await world.pay(50)
    await categorizing.choose(world.bench.deps, ALICE, first, FOOD, apply_to_similar=False)
    world.at(DECEMBER + timedelta(seconds=1))
    await world.look()
    assert "BUDGET_SAVER" in await world.codes()
    seq = await world.seq()
    await categorizing.choose(world.bench.deps, ALICE, second, FOOD, apply_to_similar=False)
    await world.look()
    assert "BUDGET_SAVER" not in await world.codes()
    told = await world.told(seq)
    (categorized,) = by_name(told, "transaction_categorized")
    (revoked,) = by_name(told, "achievement_revoked")
    assert revoked["causes"] == [categorized["id"]]
    await categorizing.choose(world.bench.deps, ALICE, second, TRANSPORT, apply_to_similar=False)
    await world.look()
    assert "BUDGET_SAVER" in await world.codes()


async def test_transfer_that_is_categorized_late_counts(world: World) -> None:
    await set_budget(world.bench.deps, ALICE, None, Decimal(100))
    await world.pay(60)
    block = world.script.block([transfer(ALICE, SHOP, 50 * USD)])
    await world.bench.apply(block)
    world.at(DECEMBER + timedelta(seconds=1))
    await world.look()
    assert "BUDGET_SAVER" in await world.codes()
    paid = f"31337:{block.events[0].tx_hash}:0"
    await categorizing.choose(world.bench.deps, ALICE, paid, FOOD, apply_to_similar=False)
    await world.look()
    assert "BUDGET_SAVER" not in await world.codes()


async def test_month_is_judged_by_the_budget_that_stood_when_it_closed(world: World) -> None:
    await set_budget(world.bench.deps, ALICE, None, Decimal(50))
    await world.pay(60)
    world.at(DECEMBER + timedelta(seconds=1))
    await set_budget(world.bench.deps, ALICE, None, Decimal(1000))
    await world.look()
    assert "BUDGET_SAVER" not in await world.codes()


async def test_month_without_a_budget_or_a_price_or_a_payment_unlocks_nothing(world: World) -> None:
    world.at(DECEMBER + timedelta(seconds=1))
    await world.look()
    assert "BUDGET_SAVER" not in await world.codes()
    world.at(DECEMBER - timedelta(days=3))
    await set_budget(world.bench.deps, ALICE, None, Decimal(100))
    world.at(DECEMBER + timedelta(seconds=1))
    await world.look()
    assert "BUDGET_SAVER" not in await world.codes()
    await world.pay(10)
    await world.pool.execute("UPDATE transactions SET usd = NULL WHERE type = 'spend'")
    await world.look()
    assert "BUDGET_SAVER" not in await world.codes()


async def test_what_the_user_did_by_hand_stays_done(world: World) -> None:
    await world.pool.execute(
        "INSERT INTO friends (user_address, other, state, changed_at) VALUES ($1, $2, 'friends', now())", ALICE, BOB
    )
    await world.look()
    assert await world.codes() == ["FIRST_FRIEND"]
    assert by_name(await world.told(), "notification") == []  # bronze disturbs nobody
    await world.pool.execute("UPDATE friends SET state = 'gone'")
    assert await world.look() == 0
    assert await world.codes() == ["FIRST_FRIEND"]


async def test_blocks_reverts_and_changes_ask_for_a_look(world: World) -> None:
    async def asked() -> list[Any]:
        found = await world.pool.fetch("SELECT args FROM outbox WHERE job = 'evaluate' ORDER BY created_at")
        await world.pool.execute("DELETE FROM outbox WHERE job = 'evaluate'")
        return [row["args"] for row in found]

    (block,) = await asked()
    assert await rows.concerned(world.pool, 31337, block["hash"], cause=f"{block['hash']}:0") == [ALICE]
    await world.bench.revert()
    assert await asked() == [block]
    await world.bench.apply(world.script.block([deposit(BOB, USD)]))
    assert await asked() == []  # Bob never signed in
    await set_budget(world.bench.deps, ALICE, None, Decimal(1))
    assert await asked() == [{"user": ALICE}]


async def test_look_that_fails_is_made_again_soon(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await set_budget(world.bench.deps, ALICE, None, Decimal(100))
    await world.pay(60)
    world.at(DECEMBER + timedelta(seconds=1))

    async def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(rows, "unlock", fail)
        assert await world.look() == 0
    assert await achievements.close_days(world.bench.deps, limit=10) == 0
    world.at(DECEMBER + timedelta(minutes=6))
    assert await achievements.close_days(world.bench.deps, limit=10) == 1
    assert "BUDGET_SAVER" in await world.codes()
