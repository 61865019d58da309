"""Goals in the transactions that move their money, on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from config.settings import Settings
from handlers import goal_edits, goals
from handlers.errors import Conflict, Invalid, NotFound
from handlers.goal_edits import Base, Wanted
from handlers.rules.ids import bucket_id
from store import log, notifications
from store.postgres import Pool
from store.records import Address
from tests.handlers.ledger import Bench, bench, sign_in
from tests.handlers.scripted import ALICE, BOB, OTHER_TOKEN, WALLET, Script, created, deposit, fund, make_chain, spend
from watchers.devnet import view as client

USD = 1_000_000


@dataclass
class Clock:
    now: datetime = datetime(2026, 11, 10, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Saving:
    """Alice, her bucket "bike", and everything that her phone would know."""

    bench: Bench
    clock: Clock
    script: Script = field(default_factory=Script)

    async def block(self, *events: Any) -> None:
        await self.bench.apply(self.script.block(*([event] for event in events)))

    async def revert(self, depth: int = 1, fork: str = "b") -> list[Any]:
        taken = self.script.back(depth, fork=fork)
        await self.bench.revert(depth)
        return taken

    async def goal(self, user: Address = ALICE, **changes: Any) -> dict[str, Any]:
        base = Base("Bike", Decimal(200), Decimal(0), None, None, Wanted("bucket", None, bucket_of()))
        return dict(await goal_edits.create(self.bench.deps, user, replace(base, **changes)))

    async def edit(self, goal_id: str, **changes: Any) -> dict[str, Any]:
        return dict(await goal_edits.edit(self.bench.deps, ALICE, goal_id, changes, unless=lambda _: False))

    async def told(self, *events: str, user: Address = ALICE) -> list[dict[str, Any]]:
        return [payload for event, payload in await self.bench.told(user) if event in events]

    async def milestones(self) -> list[int]:
        return [payload["milestone"] for payload in await self.told("goal_milestone")]

    async def shown(self, user: Address = ALICE) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.bench.snapshot(user))["goals"]
        return found

    async def pushes(self) -> list[tuple[str, str]]:
        rows = await self.bench.deps.pool.fetch(
            "SELECT subject, state FROM pushes WHERE kind = 'goal_milestone' ORDER BY subject"
        )
        return [(row["subject"].rpartition(":")[2], row["state"]) for row in rows]


def bucket_of(user: Address = ALICE, name: str = "bike") -> str:
    return bucket_id(31337, WALLET, user, name.encode())


@pytest.fixture
async def saving(pool: Pool, make_settings: Callable[..., Settings]) -> AsyncIterator[Saving]:
    async with bench(pool, make_settings(), make_chain()) as made:
        clock = Clock()
        made.ledger._deps = made.deps = replace(made.deps, now=clock)
        await sign_in(pool, ALICE, BOB)
        world = Saving(made, clock)
        await world.block(created(ALICE, "bike"), deposit(ALICE, 1000 * USD))
        yield world


async def test_goal_follows_its_bucket_and_tells_once_what_it_reaches(saving: Saving) -> None:
    made = await saving.goal()
    assert (made["currentAmount"], made["onTrack"], made["progress"]) == ("0.00", None, "0")
    await saving.block(fund(ALICE, "bike", 60 * USD), created(ALICE, "boat"), fund(ALICE, "boat", 500 * USD))
    await saving.block(spend(ALICE, "bike", 50 * USD))
    await saving.block(fund(ALICE, "bike", 90 * USD))
    await saving.block(fund(ALICE, "bike", 100 * USD), spend(ALICE, "bike", 1))
    (goal,) = await saving.shown()
    assert (goal["currentAmount"], goal["milestones"]) == ("199.999999", [25, 50, 75])
    await saving.block(fund(ALICE, "bike", 1))
    await saving.block(spend(ALICE, "bike", 200 * USD))
    (goal,) = await saving.shown()
    assert (goal["currentAmount"], goal["isCompleted"], goal["progress"]) == ("0.00", True, "0")
    assert await saving.milestones() == [25, 50, 75, 100]
    assert await saving.pushes() == [("100", "due"), ("25", "due"), ("50", "due"), ("75", "due")]
    inbox = [each["notification"]["body"] for each in await saving.told("notification")]
    assert inbox[0] == "You're 30% towards your Bike!"
    assert await saving.told("goal_update", "goal_milestone", user=BOB) == []


async def test_goal_that_is_made_over_a_full_bucket_tells_at_once(saving: Saving) -> None:
    await saving.block(fund(ALICE, "bike", 120 * USD))
    made = await saving.goal()
    assert (made["progress"], made["milestones"]) == ("0.6", [25, 50])
    assert await saving.milestones() == [25, 50]
    assert await saving.pushes() == [("50", "due")]


async def test_reorg_corrects_what_its_blocks_told_and_the_phone_hears_it_once(saving: Saving) -> None:
    await saving.goal()
    await saving.block(fund(ALICE, "bike", 100 * USD))
    before = await saving.bench.snapshot(ALICE)
    caused = (await saving.told("goal_milestone", "notification", "goal_update"))[1:]
    told = {payload["id"] for payload in caused}
    seq = before["seq"]
    (block,) = await saving.revert()
    events = await saving.bench.told(ALICE, seq)
    (update,) = [payload for event, payload in events if event == "goal_update"]
    assert set(update["corrects"]) == told
    assert (update["goal"]["currentAmount"], update["goal"]["milestones"]) == ("0.00", [])
    assert [payload["unreadCount"] for event, payload in events if event == "unread_count"] == [0]
    assert client.differences(client.apply_all(before, events), await saving.bench.snapshot(ALICE)) == []
    assert await saving.pushes() == [("50", "dropped")]
    await saving.bench.apply(saving.script.put_back(block))
    assert await saving.milestones() == [25, 50, 25, 50]
    assert await saving.pushes() == [("50", "due")]
    rows = await notifications.listed(saving.bench.deps.pool, ALICE, below=notifications.TOP, limit=10)
    assert len(rows) == 1


async def test_phone_that_was_told_is_not_told_again_when_another_block_reaches_it(saving: Saving) -> None:
    await saving.goal()
    await saving.block(fund(ALICE, "bike", 50 * USD))
    await saving.bench.deps.pool.execute("UPDATE pushes SET state = 'sent'")
    await saving.revert()
    await saving.block(fund(ALICE, "bike", 50 * USD))
    assert await saving.pushes() == [("25", "sent")]
    row = await saving.bench.deps.pool.fetchrow("SELECT reverted_at FROM pushes WHERE kind = 'goal_milestone'")
    assert row is not None
    assert row["reverted_at"] is None


async def test_reorg_of_a_spend_takes_no_milestone_back(saving: Saving) -> None:
    await saving.goal()
    await saving.block(fund(ALICE, "bike", 200 * USD))
    await saving.block(spend(ALICE, "bike", 150 * USD))
    await saving.revert()
    (goal,) = await saving.shown()
    assert (goal["milestones"], goal["isCompleted"]) == ([25, 50, 75, 100], True)
    await saving.revert()
    (goal,) = await saving.shown()
    assert (goal["milestones"], goal["isCompleted"]) == ([], False)


async def test_reorg_under_an_edit_takes_back_what_the_edit_told(saving: Saving) -> None:
    made = await saving.goal(target=Decimal(10_000))
    await saving.block(fund(ALICE, "bike", 120 * USD))
    await saving.edit(made["goalId"], target=Decimal(200))
    (told,) = [payload for payload in await saving.told("goal_milestone") if payload["milestone"] == 50]
    await saving.revert()
    last = (await saving.told("goal_update"))[-1]
    assert told["id"] in last["corrects"]
    assert (last["goal"]["milestones"], last["goal"]["targetAmount"]) == ([], "200.00")


async def test_reorg_corrects_a_goal_that_was_deleted_meanwhile(saving: Saving) -> None:
    made = await saving.goal()
    await saving.block(fund(ALICE, "bike", 50 * USD))
    (milestone,) = await saving.told("goal_milestone")
    await goal_edits.delete(saving.bench.deps, ALICE, made["goalId"])
    before = await saving.bench.snapshot(ALICE)
    await saving.revert()
    last = (await saving.told("goal_update"))[-1]
    assert milestone["id"] in last["corrects"]
    assert not last["goal"]["isActive"]
    fresh = await saving.bench.snapshot(ALICE)
    assert client.differences(client.apply_all(before, await saving.bench.told(ALICE, before["seq"])), fresh) == []
    assert fresh["goals"] == []


async def test_other_link_keeps_what_was_told_whatever_its_chain_does(saving: Saving) -> None:
    made = await saving.goal()
    await saving.block(created(ALICE, "boat"))
    await saving.block(fund(ALICE, "bike", 50 * USD))
    await saving.edit(made["goalId"], link=Wanted("bucket", 31337, bucket_of(name="boat")))
    await saving.revert()
    (goal,) = await saving.shown()
    assert (goal["milestones"], goal["currentAmount"]) == ([25], "0.00")


async def test_amount_without_a_price_is_counted_beside_the_total(saving: Saving) -> None:
    await saving.goal()
    await saving.block(
        fund(ALICE, "bike", 10 * USD), deposit(ALICE, 9, token=OTHER_TOKEN), fund(ALICE, "bike", 9, token=OTHER_TOKEN)
    )
    (goal,) = await saving.shown()
    assert (goal["currentAmount"], goal["unpriced"]) == ("10.00", 1)


async def test_goal_by_hand_is_left_alone_by_the_chain(saving: Saving) -> None:
    made = await saving.goal(link=None, current=Decimal(10))
    await saving.block(fund(ALICE, "bike", 200 * USD))
    assert len(await saving.told("goal_update")) == 1
    after = await saving.edit(made["goalId"], current=Decimal("150.50"))
    assert (after["currentAmount"], after["milestones"]) == ("150.50", [25, 50, 75])
    with pytest.raises(Invalid):
        await saving.edit(made["goalId"], link=Wanted("bucket", None, bucket_of()), current=Decimal(1))


async def test_block_of_a_user_without_goals_asks_nothing_of_them(saving: Saving) -> None:
    from store import goals as rows

    loads, rows.SQL = rows.SQL, {}  # any statement of theirs would be missing
    try:
        await saving.block(fund(ALICE, "bike", 10 * USD))
    finally:
        rows.SQL = loads
    quarantined = await saving.bench.deps.pool.fetchval("SELECT count(*) FROM quarantined_logs")
    assert quarantined == 0


async def test_rebuild_corrects_what_was_believed_and_leaves_what_was_spent(saving: Saving) -> None:
    deps = saving.bench.deps
    await saving.goal()
    await saving.block(fund(ALICE, "bike", 200 * USD))
    before = await saving.bench.snapshot(ALICE)

    async def rebuild(raw: int) -> None:
        await deps.pool.execute("UPDATE balances SET amount = $1 WHERE scope = 'bucket'", raw)
        async with deps.pool.acquire() as conn, conn.transaction():
            counters = await log.lock(conn, [ALICE])
            drafts = await goals.after_rebuild(conn, saving.bench.chain, [ALICE, BOB], cause=str(raw), now=deps.now())
            await log.append(conn, counters, drafts, at=deps.now())

    await rebuild(120 * USD)
    events = await saving.bench.told(ALICE, before["seq"])
    assert [event for event, _ in events] == ["goal_update", "unread_count"]
    fresh = await saving.bench.snapshot(ALICE)
    assert (fresh["goals"][0]["milestones"], fresh["goals"][0]["isCompleted"]) == ([25, 50], False)
    assert len(events[0][1]["corrects"]) == 3  # two milestones, and the notification of the highest
    applied = client.apply_all(before, events)
    assert (applied["goals"], applied["unreadCount"]) == (fresh["goals"], fresh["unreadCount"])
    assert await saving.pushes() == [("100", "dropped")]
    await rebuild(120 * USD)
    assert len(await saving.bench.told(ALICE, fresh["seq"])) == 0
    await saving.block(spend(ALICE, "bike", 100 * USD))
    await rebuild(21 * USD)
    (goal,) = await saving.shown()
    assert (goal["currentAmount"], goal["milestones"]) == ("21.00", [25, 50])


async def test_day_that_ends_is_told_once_to_whom_it_concerns(saving: Saving) -> None:
    await saving.bench.deps.pool.execute("UPDATE users SET time_zone = 'Pacific/Auckland' WHERE address = $1", ALICE)
    made = await saving.goal(target_date=date(2026, 11, 14))  # it is the 11th there
    assert (made["daysRemaining"], made["onTrack"]) == (3, True)
    await saving.goal(user=BOB, link=None, name="By hand")
    assert await goals.begin_days(saving.bench.deps, limit=10) == 0
    before = await saving.bench.snapshot(ALICE)
    saving.clock.now += timedelta(days=1)
    assert await goals.begin_days(saving.bench.deps, limit=10) == 1
    assert await goals.begin_days(saving.bench.deps, limit=10) == 0
    told = await saving.bench.told(ALICE, before["seq"])
    assert [(event, payload["goal"]["daysRemaining"], payload["goal"]["onTrack"]) for event, payload in told] == [
        ("goal_update", 2, False)
    ]
    assert client.differences(client.apply_all(before, told), await saving.bench.snapshot(ALICE)) == []
    saving.clock.now += timedelta(days=30)
    assert await goals.begin_days(saving.bench.deps, limit=10) == 1
    (goal,) = await saving.shown()
    assert (goal["daysRemaining"], goal["onTrack"]) == (0, False)


async def test_goal_of_a_renamed_category_shows_the_name_in_every_view(saving: Saving) -> None:
    from handlers import budgets, categories

    savings = "00000000-0000-4000-8000-000000000008"
    made = await saving.goal(category_id=savings)
    assert made["category"] == {"id": savings, "name": "Savings"}
    before = await saving.bench.snapshot(ALICE)
    await categories.prefer(
        saving.bench.deps, ALICE, savings, {"custom_name": "Pot"}, budget_changed=budgets.budget_changed
    )
    fresh = await saving.bench.snapshot(ALICE)
    assert fresh["goals"][0]["category"]["name"] == "Pot"
    assert client.differences(client.apply_all(before, await saving.bench.told(ALICE, before["seq"])), fresh) == []


async def test_links_and_categories_have_to_be_the_users_own(saving: Saving) -> None:
    await saving.goal()
    with pytest.raises(Conflict):
        await saving.goal(name="Twice the same money")
    for wanted in (
        Wanted("bucket", None, bucket_of(BOB)),
        Wanted("bucket", 1, bucket_of()),
        Wanted("bucket", None, "9" * 40 + ":x"),
        Wanted("vault", None, "x"),
        Wanted("v2", 99, None),
    ):
        with pytest.raises(Invalid):
            await saving.goal(link=wanted)
    with pytest.raises(Invalid):
        await saving.goal(user=BOB)  # the bucket is Alice's
    with pytest.raises(Invalid):
        await saving.goal(link=None, category_id="00000000-0000-4000-8000-000000000099")
    with pytest.raises(Invalid):
        await saving.goal(link=None, target_date=date(2026, 11, 9))
    with pytest.raises(NotFound):
        await goal_edits.delete(saving.bench.deps, BOB, (await saving.shown())[0]["goalId"])
