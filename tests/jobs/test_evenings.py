"""The day's yield at each user's evening: once a day, from the ledger to the phone, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from config.embedded import fcm as fake
from config.embedded.fcm import FakeFcm
from handlers import earnings, snapshot
from handlers.deps import Deps
from handlers.events import BY_NAME
from jobs import push, schedule
from jobs.job import Tools
from jobs.outbound import fcm
from store import devices, log, notifications
from store.clickhouse import Analytics
from store.devices import Registration
from store.postgres import Pool
from store.sealed import KeyRing
from tests.conftest import MakeSettings
from tests.exact import exact
from tests.factories import make_address
from tests.handlers.ledger import Kept, sign_in
from tests.realtime import rows
from tests.realtime.rows import VAULT
from tests.realtime.wiring import CHAIN

DAY = date(2026, 11, 10)


@dataclass
class Clock:
    now: datetime = datetime(2026, 11, 10, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Stage:
    """One invested user with a phone, and the worker's view of the world."""

    tools: Tools
    phones: FakeFcm
    clock: Clock
    user: str
    number: int = 0

    @property
    def pool(self) -> Pool:
        return self.tools.deps.pool

    async def zone(self, name: str, user: str = "") -> None:
        await self.pool.execute("UPDATE users SET time_zone = $2 WHERE address = $1", user or self.user, name)

    async def hold(self, at: datetime, percent: int = 100, **changes: Any) -> None:
        self.number += 1
        given = {"user": self.user, **changes}
        await rows.hold(self.pool, given.pop("user"), at=at, number=self.number, percent=percent, **given)

    async def value(self, at: datetime, percent: int) -> None:
        self.number += 1
        await rows.value(self.pool, VAULT, percent, at=at, number=self.number)

    async def at(self, moment: datetime) -> int:
        """Move the clock there and run what is due; how many days were looked at."""
        self.clock.now = moment.astimezone(UTC)
        return await schedule.tell_evenings(self.tools)

    async def told(self, user: str = "") -> list[tuple[str, dict[str, Any]]]:
        entries = await log.after(self.pool, user or self.user, 0, limit=1000, max_bytes=2**30)
        made = [(entry.event, exact(entry.payload)) for entry in entries]
        for event, payload in made:
            BY_NAME[event].model_validate(payload)
        return made

    async def bodies(self, user: str = "") -> list[str]:
        return [each.body for each in await notifications.listed(self.pool, user or self.user, limit=50)][::-1]

    async def days(self) -> list[tuple[str, Decimal, int]]:
        found = await self.pool.fetch("SELECT day, yield_usd, unpriced FROM daily_yields ORDER BY day, user_address")
        return [(row["day"].isoformat(), row["yield_usd"], row["unpriced"]) for row in found]


@pytest.fixture
async def stage(pool: Pool, make_settings: MakeSettings, tmp_path: Path) -> AsyncIterator[Stage]:
    user, clock = make_address(str(tmp_path)), Clock()
    await sign_in(pool, user)
    analytics = Analytics("http://127.0.0.1:9/unused")
    settings = make_settings(seal_keys=("test:" + base64.b64encode(b"k" * 32).decode(),))
    device = Registration(token="phone", platform="android", locale="en", app_version="1")
    async with pool.acquire() as conn, conn.transaction():
        await devices.register(conn, KeyRing.of(settings), user, device, at=clock.now)
    async with fake.serving(tmp_path / "fcm") as phones, fcm.opened(phones.credentials, url=phones.url) as provider:
        deps = Deps(settings, {CHAIN.id: CHAIN}, pool, Kept(), clock)
        yield Stage(Tools(deps, analytics, push=provider), phones, clock, user)
    await analytics.close()


def local(zone: str, day: date, hour: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=ZoneInfo(zone))


def evening(hour: int = 20, minute: int = 0, *, day: int = 10) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


async def test_day_s_yield_reaches_inbox_log_and_phone_once(stage: Stage) -> None:
    await stage.hold(evening(day=3))
    await stage.value(evening(0), 101)
    await stage.value(evening(19), 102)
    assert await stage.at(evening(19, 59)) == 0
    assert await stage.at(evening()) == 1
    (update, told), (added, notice) = await stage.told()
    assert (update, added) == ("yield_update", "notification")
    assert [each["positionId"] for each in told["positions"]] == [f"{CHAIN.id}:{VAULT}"]
    shown = notice["notification"]
    assert (shown["kind"], shown["title"], shown["body"]) == (
        "yield_update",
        "Portfolio Update",
        "Your investments earned $1.00 today!",
    )
    assert (shown["eventId"], notice["unreadCount"]) == (told["id"], 1)
    frames: Any = stage.tools.deps.publisher
    assert [user for user, _ in frames.frames] == [stage.user] * 2
    for minutes in (0, 1, 30, 239):
        assert await stage.at(evening() + timedelta(minutes=minutes)) == 0
    assert await stage.days() == [("2026-11-10", Decimal(1), 0)]
    stage.clock.now = evening() + timedelta(seconds=11)
    await push.run(stage.tools)
    [message] = stage.phones.got
    assert message["notification"] == {"title": "📈 Portfolio Update", "body": "Your investments earned $1.00 today!"}
    assert message["data"] == {
        "type": "yield_update",
        "daily_yield": "1.00",
        "total_yield": told["totalYield"],
        "event_id": told["id"],
        "seq": "1",
    }
    await push.run(stage.tools)
    assert len(stage.phones.asked) == 1


async def test_update_of_the_evening_changes_nothing_that_a_snapshot_shows(stage: Stage) -> None:
    await stage.hold(evening(day=3), percent=103)
    await stage.value(evening(19), 105)
    await stage.at(evening())
    (_, told), _ = await stage.told()
    shown = exact((await snapshot.read(stage.tools.deps, stage.user)).body)
    assert told["positions"] == shown["positions"]
    assert (told["totalYield"], told["unpriced"]) == ("3.00", 0)


async def test_bad_day_has_its_own_text_and_a_day_of_nothing_none(stage: Stage) -> None:
    await stage.hold(evening(day=3))
    await stage.value(evening(12), 98)
    await stage.at(evening())
    await stage.at(evening(day=11))  # nothing moved
    assert await stage.bodies() == ["Your investments lost $2.00 today."]
    assert await stage.days() == [("2026-11-10", Decimal(-2), 0), ("2026-11-11", Decimal(0), 0)]
    assert [event for event, _ in await stage.told()] == ["yield_update", "notification"]
    stage.clock.now = evening() + timedelta(seconds=11)
    await push.run(stage.tools)
    assert [each["notification"]["body"] for each in stage.phones.got] == ["Your investments lost $2.00 today."]


async def test_less_than_half_a_cent_is_nothing(stage: Stage) -> None:
    await stage.hold(evening(day=3), shares=400_000)
    await stage.value(evening(12), 101)  # 0.004
    await stage.at(evening())
    assert await stage.told() == []
    assert await stage.days() == [("2026-11-10", Decimal("0.004"), 0)]


async def test_what_was_paid_in_and_taken_out_today_is_no_yield(stage: Stage) -> None:
    await stage.hold(evening(day=3))
    # 1,000 more at 101 %, then all but 100 of it out again at 102 %.
    paid = {"shares": 1_100_000_000, "principal": 1_110_000_000, "value": 1_111_000_000}
    await stage.hold(evening(10), percent=101, **paid)
    left = {"shares": 100_000_000, "principal": 100_909_091, "value": 102_000_000, "realized": 10_909_091}
    await stage.hold(evening(15), percent=102, **left)
    await stage.at(evening())
    assert await stage.bodies() == ["Your investments earned $12.00 today!"]  # 1,100 × 1 % + 100 × 1 %


async def test_position_closed_today_counts_and_one_closed_last_week_has_no_evenings(stage: Stage) -> None:
    await stage.hold(evening(day=3))
    await stage.hold(evening(9), shares=0, principal=0, value=0, realized=3_000_000)
    await stage.at(evening())
    assert await stage.bodies() == ["Your investments earned $3.00 today!"]
    assert await stage.at(evening(day=17)) == 0


async def test_gain_without_a_price_is_counted_and_alone_says_nothing(stage: Stage) -> None:
    await stage.hold(evening(day=3), asset="0x" + "dd" * 20, symbol="DARK")
    await stage.value(evening(12), 110)
    await stage.at(evening())
    assert await stage.told() == []
    assert await stage.days() == [("2026-11-10", Decimal(0), 1)]


@pytest.mark.parametrize(
    ("zone", "begins", "comes"),
    [
        # UTC+14: its evening of the 10th comes first of all; UTC-11: 25 hours later, when it is the 11th elsewhere.
        ("Pacific/Kiritimati", datetime(2026, 11, 9, 10, tzinfo=UTC), datetime(2026, 11, 10, 6, tzinfo=UTC)),
        ("Pacific/Pago_Pago", datetime(2026, 11, 10, 11, tzinfo=UTC), datetime(2026, 11, 11, 7, tzinfo=UTC)),
        ("Asia/Kathmandu", datetime(2026, 11, 9, 18, 15, tzinfo=UTC), datetime(2026, 11, 10, 14, 15, tzinfo=UTC)),
    ],
)
async def test_days_are_those_of_the_user_s_zone(stage: Stage, zone: str, begins: datetime, comes: datetime) -> None:
    await stage.zone(zone)
    await stage.hold(begins - timedelta(days=3))
    await stage.value(begins, 104)
    await stage.value(begins + timedelta(seconds=1), 105)
    assert await stage.at(comes - timedelta(seconds=1)) == 0
    assert await stage.at(comes) == 1
    assert await stage.days() == [("2026-11-10", Decimal(1), 0)]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/New_York", date(2026, 11, 1), 25),
        ("America/New_York", date(2026, 3, 8), 23),
        ("Africa/Cairo", date(2026, 4, 24), 23),  # the clock leaps over midnight
        ("America/Havana", date(2026, 11, 1), 25),  # shows the hour after midnight twice
    ],
)
async def test_day_on_which_the_clock_is_set_is_told_once_and_whole(
    stage: Stage, zone: str, day: date, hours: int
) -> None:
    await stage.zone(zone)
    begins = local(zone, day).astimezone(UTC)
    ends = local(zone, day + timedelta(days=1)).astimezone(UTC)
    assert (ends - begins) == timedelta(hours=hours)
    await stage.hold(begins - timedelta(days=3))
    await stage.value(begins - timedelta(minutes=1), 103)
    await stage.value(begins + timedelta(minutes=1), 104)
    moments = [begins + timedelta(minutes=minutes) for minutes in range(-60, hours * 60 + 60, 10)]
    looked = [moment.astimezone(ZoneInfo(zone)) for moment in moments if await stage.at(moment)]
    assert [(each.date(), each.hour) for each in looked] == [(day - timedelta(days=1), 23), (day, 20)]
    assert (await stage.days())[1][:2] == (day.isoformat(), Decimal(1))


async def test_after_downtime_today_is_told_and_yesterday_is_not(stage: Stage) -> None:
    await stage.hold(evening(day=3))
    await stage.value(evening(12, day=9), 101)
    await stage.value(evening(12, day=11), 103)
    assert await stage.at(evening(19, 59, day=9)) == 0
    # Away through the evening of the 9th: on the 10th at noon nothing is late any more.
    assert await stage.at(evening(0, 30)) == 0
    assert await stage.at(evening(12)) == 0
    # Away from then to the last minute of the 11th.
    assert await stage.at(evening(23, 59, day=11)) == 1
    assert await stage.bodies() == ["Your investments earned $2.00 today!"]
    assert [day for day, *_ in await stage.days()] == ["2026-11-11"]


async def test_two_workers_at_once_tell_it_once(stage: Stage) -> None:
    await stage.hold(evening(day=3))
    await stage.value(evening(12), 101)
    stage.clock.now = evening()
    await asyncio.gather(*(schedule.tell_evenings(stage.tools) for _ in range(4)))
    assert [event for event, _ in await stage.told()] == ["yield_update", "notification"]
    assert await stage.pool.fetchval("SELECT count(*) FROM pushes") == 1


async def test_zone_that_changes_after_the_evening_tells_no_day_twice(stage: Stage) -> None:
    await stage.hold(evening(day=3))
    await stage.value(evening(12), 101)
    await stage.at(evening())
    await stage.zone("America/New_York")  # it is 15:00 there
    assert await stage.at(evening(23)) == 0
    assert await stage.at(local("America/New_York", DAY, 20)) == 0
    assert len(await stage.bodies()) == 1


async def test_hour_is_a_setting(stage: Stage) -> None:
    await stage.hold(evening(day=3))
    deps = stage.tools.deps
    early = replace(deps, settings=deps.settings.model_copy(update={"yield_evening_hour": 6}))
    stage.tools = replace(stage.tools, deps=early)
    assert await stage.at(evening(5, 59)) == 0
    assert await stage.at(evening(6)) == 1


async def test_user_who_keeps_it_out_of_the_inbox_has_the_push_alone(stage: Stage) -> None:
    await notifications.set_preferences(stage.pool, stage.user, {("yield_update", "inbox"): False})
    await stage.hold(evening(day=3))
    await stage.value(evening(12), 101)
    await stage.at(evening())
    assert [event for event, _ in await stage.told()] == ["yield_update"]
    assert await stage.bodies() == []
    stage.clock.now = evening() + timedelta(seconds=11)
    await push.run(stage.tools)
    assert len(stage.phones.got) == 1


async def test_who_never_signed_in_or_invested_has_no_evening(stage: Stage) -> None:
    stranger, saver = make_address("stranger"), make_address("saver")
    await stage.pool.execute("INSERT INTO users (address) VALUES ($1)", stranger)
    await stage.pool.execute("INSERT INTO user_counters (user_address) VALUES ($1)", stranger)
    await stage.hold(evening(day=3), user=stranger)
    await sign_in(stage.pool, saver)
    assert await stage.at(evening()) == 0


async def test_chain_that_left_the_table_is_left_out(stage: Stage) -> None:
    await stage.hold(evening(day=3))
    await stage.hold(evening(day=3), chain_id=77)
    await stage.value(evening(12), 101)
    await stage.at(evening())
    assert await stage.days() == [("2026-11-10", Decimal(1), 0)]


async def test_many_users_take_batches_and_each_has_their_own_figures(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "EVENINGS_AT_ONCE", 3)
    users = [make_address(f"user {n}") for n in range(7)]
    await sign_in(stage.pool, *users)
    for n, user in enumerate(users):
        await stage.hold(evening(day=3), user=user, shares=100_000_000 * n or 1)
    await stage.value(evening(12), 101)
    assert await stage.at(evening()) == 7
    assert sorted([await stage.bodies(user) for user in users]) == sorted(
        [[], *([f"Your investments earned ${n}.00 today!"] for n in range(1, 7))]
    )


async def test_failure_in_between_leaves_the_day_to_be_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.hold(evening(day=3))
    await stage.value(evening(12), 101)

    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the process dies here")

    with monkeypatch.context() as patched:
        patched.setattr("store.pushes.record", fail)
        assert await stage.at(evening()) == 0
    assert (await stage.told(), await stage.days()) == ([], [])
    assert await stage.at(evening(20, 1)) == 1
    assert await stage.bodies() == ["Your investments earned $1.00 today!"]


async def test_user_whose_day_can_not_be_computed_silences_nobody_else(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, other = make_address("broken"), make_address("other")
    for user in (broken, other):
        await sign_in(stage.pool, user)
        await stage.hold(evening(day=3), user=user)
    await stage.hold(evening(day=3))
    await stage.value(evening(12), 101)
    days = earnings._days

    async def fail(conn: Any, deps: Any, due: Any, *rest: Any) -> Any:
        if any(each.user == broken for each in due):
            raise ZeroDivisionError
        return await days(conn, deps, due, *rest)

    monkeypatch.setattr(earnings, "_days", fail)
    assert await stage.at(evening()) == 2
    assert [len(await stage.bodies(user)) for user in (stage.user, other, broken)] == [1, 1, 0]
    monkeypatch.undo()
    assert await stage.at(evening(20, 1)) == 1
    assert len(await stage.bodies(broken)) == 1
