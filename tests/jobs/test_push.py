"""Push from the intent to the phone: the job between a real database and the official client on a fake provider."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.embedded import fcm as fake
from config.embedded.fcm import FakeFcm
from handlers.deps import Deps
from jobs import push
from jobs.job import Tools
from jobs.outbound import fcm
from store import acks, devices, log, notifications, pushes
from store.clickhouse import Analytics
from store.devices import Registration
from store.postgres import Pool
from store.records import Draft
from store.redis import open_redis
from store.sealed import KeyRing
from tests.conftest import MakeSettings
from tests.factories import make_address
from tests.handlers.ledger import Kept, sign_in
from tests.store.test_notifications import make_notice
from tests.store.test_pushes import make_intent

NOW = datetime(2026, 12, 24, 12, tzinfo=UTC)
ALERT = {"title": "Food at 80 %", "message": "You have spent $80.00 of $100.00.", "category": "Food", "amount": "80.00"}


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Stage:
    """One user with phones, a provider, and a clock that the test moves."""

    tools: Tools
    phones: FakeFcm
    clock: Clock
    user: str
    events: list[str] = field(default_factory=list)

    @property
    def pool(self) -> Pool:
        return self.tools.deps.pool

    async def phone(self, token: str = "phone", locale: str = "en") -> None:
        device = Registration(token=token, platform="android", locale=locale, app_version="1")
        ring = KeyRing.of(self.tools.deps.settings)
        async with self.pool.acquire() as conn, conn.transaction():
            await devices.register(conn, ring, self.user, device, at=NOW)

    async def record(self, event: str, **overrides: Any) -> None:
        """An effect as its transaction records it: the event in the log, then the push."""
        intent = make_intent(event, **{"user": self.user, "facts": ALERT, **overrides})
        async with self.pool.acquire() as conn, conn.transaction():
            counters = await log.lock(conn, [self.user])
            await log.append(conn, counters, [Draft(self.user, event, "budget_alert", 1, {})], at=self.clock.now)
            await pushes.record(conn, [intent], at=self.clock.now, hold_s=10)

    async def take_back(self, event: str) -> None:
        async with self.pool.acquire() as conn, conn.transaction():
            await pushes.take_back(conn, self.user, [event], at=self.clock.now)

    async def later(self, seconds: float) -> None:
        """Let time pass, then run what is due."""
        self.clock.now += timedelta(seconds=seconds)
        await push.run(self.tools)

    async def states(self) -> list[tuple[str, str | None]]:
        rows = await self.pool.fetch("SELECT state, reason FROM pushes ORDER BY created_at, seq")
        return [(row["state"], row["reason"]) for row in rows]


@pytest.fixture
async def stage(pool: Pool, make_settings: MakeSettings, tmp_path: Path, redis_url: str) -> AsyncIterator[Stage]:
    user, clock = make_address(str(tmp_path)), Clock()
    await sign_in(pool, user)
    redis, analytics = open_redis(redis_url), Analytics("http://127.0.0.1:9/unused")
    async with fake.serving(tmp_path / "fcm") as phones, fcm.opened(phones.credentials, url=phones.url) as provider:
        seal_key = "test:" + base64.b64encode(b"k" * 32).decode()
        settings = make_settings(seal_keys=(seal_key,))
        deps = Deps(settings, {}, pool, Kept(), clock)
        yield Stage(Tools(deps, analytics, redis=redis, push=provider), phones, clock, user)
    await analytics.close()
    await redis.aclose()


async def test_alert_reaches_the_phone_as_the_contract_has_it(stage: Stage) -> None:
    await stage.phone()
    async with stage.pool.acquire() as conn, conn.transaction():
        await notifications.record(conn, [make_notice(f"e{n}", user=stage.user) for n in range(3)])
    await stage.record("e1")
    await stage.later(9)
    assert stage.phones.got == []
    await stage.later(1)
    [message] = stage.phones.got
    assert message["notification"] == {"title": "💰 Food at 80 %", "body": "You have spent $80.00 of $100.00."}
    assert message["data"] == {
        "type": "spending_alert",
        "category": "Food",
        "amount": "80.00",
        "event_id": "e1",
        "seq": "1",
    }
    android, aps = message["android"], message["apns"]["payload"]["aps"]
    assert (android["notification"]["icon"], android["notification"]["color"]) == ("spending_alert", "#FF6B6B")
    assert (aps["badge"], aps["sound"]) == (3, "default")
    key = android["collapse_key"]
    assert android["notification"]["tag"] == message["apns"]["headers"]["apns-collapse-id"] == key
    assert message["webpush"]["headers"]["Topic"] == key
    assert android["ttl"] == "86390s"
    assert await stage.states() == [("sent", None)]
    await stage.later(3600)
    assert len(stage.phones.asked) == 1


async def test_every_phone_is_told_in_its_language_and_amounts_can_be_hidden(stage: Stage) -> None:
    await stage.phone("english", "en-GB")
    await stage.phone("german", "de_AT")
    await stage.phone("other", "xx")
    await stage.pool.execute("UPDATE users SET hide_amounts = true")
    await stage.record("e1")
    await stage.later(11)
    bodies = {message["token"]: message["notification"]["body"] for message in stage.phones.got}
    assert bodies == {
        "english": "Open Expendi to see the figures.",
        "german": "Öffne Expendi, um die Beträge zu sehen.",
        "other": "Open Expendi to see the figures.",
    }


async def test_push_that_a_device_has_shown_is_held_back(stage: Stage) -> None:
    await stage.phone()
    await stage.record("e1")
    await stage.record("e2", subject="other")
    assert stage.tools.redis is not None
    await acks.acked(stage.tools.redis, stage.user, "session", 1)
    await stage.later(11)
    assert await stage.states() == [("held", "shown"), ("sent", None)]
    assert [message["data"]["event_id"] for message in stage.phones.got] == ["e2"]


async def test_without_redis_it_is_sent_rather_than_lost(stage: Stage) -> None:
    await stage.phone()
    await stage.record("e1")
    stage.tools = Tools(stage.tools.deps, stage.tools.analytics, push=stage.tools.push)
    await stage.later(11)
    assert len(stage.phones.got) == 1


async def test_quiet_hours_put_it_off_until_they_are_over_in_the_user_s_zone(stage: Stage) -> None:
    await stage.phone()
    await stage.pool.execute(
        "UPDATE users SET time_zone = 'Asia/Tokyo', quiet_start = $1, quiet_end = $2", time(20), time(7)
    )
    await stage.record("e1")  # 21:00 in Tokyo
    await stage.later(11)
    assert await stage.states() == [("due", "quiet_hours")]
    await stage.later(10 * 3600 - 12)
    assert stage.phones.got == []
    await stage.later(2)
    assert len(stage.phones.got) == 1


async def test_what_the_user_does_not_want_has_no_device_or_is_too_old_is_dropped(stage: Stage) -> None:
    await stage.record("e1")
    await stage.later(11)
    await stage.phone()
    await notifications.set_preferences(stage.pool, stage.user, {("goal_milestone", "push"): False})
    await stage.record("e2", subject="s2", kind="goal_milestone", facts={"progress": 50, "goal_name": "Car"})
    await stage.record("e3", subject="s3", kind="yield_update", facts={"daily_yield": "0.001", "total_yield": "5"})
    await stage.later(11)
    await stage.record("e4", subject="s4")
    await stage.later(86_401)
    reasons = [reason for _, reason in await stage.states()]
    assert reasons == ["no_device", "unwanted", "nothing_to_say", "expired"]
    assert stage.phones.asked == []


async def test_unregistered_token_is_forgotten_and_the_others_get_it(stage: Stage) -> None:
    await stage.phone("gone")
    await stage.phone("here")
    stage.phones.plan("gone", fake.UNREGISTERED)
    await stage.record("e1")
    await stage.later(11)
    assert [message["token"] for message in stage.phones.got] == ["here"]
    assert await stage.pool.fetchval("SELECT count(*) FROM devices") == 1
    assert await stage.states() == [("sent", None)]


async def test_only_the_token_that_failed_is_tried_again_and_not_before_the_provider_wants_it(stage: Stage) -> None:
    for token in ("good", "quota", "down"):
        await stage.phone(token)
    stage.phones.plan("quota", fake.QUOTA)
    stage.phones.plan("down", fake.UNAVAILABLE, fake.UNAVAILABLE)
    await stage.record("e1")
    await stage.later(11)
    assert sorted(stage.phones.asked) == ["down", "good", "quota"]
    await stage.later(29)  # Retry-After is 30
    assert len(stage.phones.asked) == 3
    await stage.later(1)
    assert sorted(stage.phones.asked[3:]) == ["down", "quota"]
    await stage.later(10)
    assert sorted(message["token"] for message in stage.phones.got) == ["down", "good", "quota"]
    assert stage.phones.doubles() == 0
    assert (await stage.states())[0][0] == "sent"


async def test_unknown_outcome_is_sent_again_under_the_same_key_and_event(stage: Stage) -> None:
    await stage.phone()
    stage.phones.plan("phone", fake.LOST)
    await stage.record("e1")
    await stage.later(11)
    await stage.later(5)
    first, second = stage.phones.got
    assert first == {**second, "android": {**second["android"], "ttl": first["android"]["ttl"]}, **_headers(first)}
    assert len(stage.phones.buzzes("phone")) == stage.phones.doubles() == 1
    assert await stage.states() == [("sent", None)]


def _headers(message: dict[str, Any]) -> dict[str, Any]:
    return {"webpush": message["webpush"]}


async def test_worker_that_dies_after_sending_leaves_it_to_be_sent_again(stage: Stage) -> None:
    await stage.phone()
    await stage.record("e1")
    stage.clock.now += timedelta(seconds=11)
    [row] = await pushes.claim(stage.pool, now=stage.clock.now, lease_s=push.LEASE_S, limit=1)
    assert row.attempts == 1
    await stage.later(push.LEASE_S - 1)
    assert stage.phones.got == []
    await stage.later(1)
    assert len(stage.phones.got) == 1


async def test_taken_back_before_it_was_sent_is_dropped_and_included_again_told_once(stage: Stage) -> None:
    await stage.phone()
    await stage.record("e1")
    await stage.take_back("e1")
    await stage.later(11)
    assert stage.phones.asked == []
    await stage.record("e2")
    await stage.later(11)
    await stage.take_back("e2")
    await stage.record("e3")
    await stage.later(100)
    assert [message["data"]["event_id"] for message in stage.phones.got] == ["e2"]


async def test_taken_back_between_claim_and_sending_is_not_sent(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.phone()
    await stage.record("e1")
    audience = pushes.audience

    async def slow(*asked: Any) -> Any:
        await stage.take_back("e1")
        return await audience(*asked)

    monkeypatch.setattr(pushes, "audience", slow)
    await stage.later(11)
    assert stage.phones.asked == []
    assert await stage.states() == [("dropped", "reverted")]


async def test_push_of_a_spend_that_stays_taken_back_is_replaced_in_silence_under_its_key(stage: Stage) -> None:
    await stage.phone()
    await stage.record("e1")
    await stage.later(11)
    await stage.phone("bought later")
    await stage.take_back("e1")
    await stage.later(59)
    assert len(stage.phones.got) == 1
    stage.phones.plan("phone", fake.UNAVAILABLE)
    await stage.later(1)
    assert await stage.states() == [("replacing", "later")]
    await stage.later(5)
    assert await stage.states() == [("replaced", "reverted")]
    shown = stage.phones.shown("phone")
    assert [message["data"]["type"] for message in shown.values()] == ["retracted"]
    assert len(stage.phones.buzzes("phone")) == 1
    assert stage.phones.shown("bought later") == {}
    assert [message["android"]["priority"] for message in stage.phones.got] == ["high", "normal"]
    await stage.record("e2")
    await stage.later(11)
    assert [message["data"]["event_id"] for message in stage.phones.shown("phone").values()] == ["e2"]
    assert {message["android"]["priority"] for message in stage.phones.got[1:]} == {"normal"}
    assert len(stage.phones.buzzes("phone")) == 1


async def test_worker_that_died_while_its_push_was_taken_back_leaves_a_replacement(stage: Stage) -> None:
    await stage.phone()
    await stage.record("e1")
    stage.clock.now += timedelta(seconds=11)
    await pushes.claim(stage.pool, now=stage.clock.now, lease_s=push.LEASE_S, limit=1)
    await stage.take_back("e1")
    await stage.later(push.LEASE_S)
    assert [message["data"]["type"] for message in stage.phones.got] == ["retracted"]


async def test_two_workers_at_once_send_each_push_once(stage: Stage) -> None:
    await stage.phone()
    for n in range(60):
        await stage.record(f"e{n}", subject=f"s{n}")
    stage.clock.now += timedelta(seconds=11)
    await asyncio.gather(*(push.send_due(stage.tools) for _ in range(3)))
    assert len(stage.phones.got) == len(stage.phones.shown("phone")) == 60


async def test_what_a_run_has_no_time_for_is_due_again_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.phone()
    await stage.record("e1")
    monkeypatch.setattr(push, "BUDGET_S", 0)
    await stage.later(11)
    assert await stage.states() == [("due", "out_of_time")]
    monkeypatch.setattr(push, "BUDGET_S", 5)
    await stage.later(0)
    assert len(stage.phones.got) == 1


async def test_a_run_does_not_wait_for_the_one_before(stage: Stage) -> None:
    async with stage.tools.pushing:
        assert await push.run(stage.tools) == 0


async def test_without_a_provider_nothing_piles_up(stage: Stage) -> None:
    await stage.phone()
    await stage.record("e1")
    stage.tools = Tools(stage.tools.deps, stage.tools.analytics)
    await stage.later(11)
    assert await stage.states() == [("dropped", "no_provider")]


async def test_old_pushes_are_forgotten(stage: Stage) -> None:
    await stage.record("e1")
    stage.clock.now += push.KEPT + timedelta(seconds=1)
    assert await push.prune(stage.tools) == 1
