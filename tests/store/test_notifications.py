"""The inbox in PostgreSQL: recorded once, counted right, taken back, read."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from store import notifications
from store.notifications import Notice, Position, Preferences, notification_id
from store.postgres import Pool
from tests.factories import TIME, make_address
from tests.handlers.ledger import sign_in

ANN, BOB = make_address("ann"), make_address("bob")


def make_notice(event: str = "e1", **overrides: Any) -> Notice:
    fields: dict[str, Any] = {
        "user": ANN,
        "event_id": event,
        "kind": "spending_alert",
        "title": "Food",
        "body": "80 % of Food is spent.",
        "severity": "warning",
        "transaction_id": "1:0xabc:0",
        "created_at": TIME,
        "facts": {"category": "food"},
        **overrides,
    }
    return Notice(**fields)


async def record(pool: Pool, *notices: Notice) -> None:
    async with pool.acquire() as conn, conn.transaction():
        await notifications.record(conn, notices)


async def test_notice_is_recorded_once_under_the_id_known_before(pool: Pool) -> None:
    notice = make_notice()
    await record(pool, notice, make_notice("e2", created_at=TIME + timedelta(seconds=1)))
    await record(pool, notice)
    found = await notifications.listed(pool, ANN, limit=10)
    assert [each.event_id for each in found] == ["e2", "e1"]
    assert found[1] == notice
    assert await pool.fetchval("SELECT id FROM notifications WHERE event_id = 'e1'") == notice.id


async def test_ids_differ_by_user_and_event() -> None:
    assert len({notification_id(user, event) for user in (ANN, BOB) for event in ("a", "b")}) == 4


async def test_unread_counts_each_user_and_neither_read_nor_corrected(pool: Pool) -> None:
    await record(pool, *(make_notice(f"e{n}") for n in range(4)), make_notice("e0", user=BOB))
    async with pool.acquire() as conn, conn.transaction():
        assert await notifications.read_ids(conn, ANN, [notification_id(ANN, "e0")], at=TIME)
        assert await notifications.correct(conn, ANN, ["e0", "e1", "unknown"], at=TIME) == 1
        assert await notifications.correct(conn, ANN, ["e1"], at=TIME) == 0
        assert await notifications.unread(conn, [ANN, BOB, make_address("eve")]) == {
            ANN: 2,
            BOB: 1,
            make_address("eve"): 0,
        }
    assert {each.event_id for each in await notifications.listed(pool, ANN, limit=10)} == {"e2", "e3"}


async def test_reading_names_what_changed_and_never_other_people_s(pool: Pool) -> None:
    await record(pool, make_notice(), make_notice("e1", user=BOB))
    ids = [notification_id(ANN, "e1"), notification_id(BOB, "e1")]
    async with pool.acquire() as conn, conn.transaction():
        assert await notifications.read_ids(conn, ANN, ids, at=TIME) == ids[:1]
        assert await notifications.read_ids(conn, ANN, ids, at=TIME) == []
        assert await notifications.known(conn, ANN, ids) == {ids[0]}
        assert await notifications.read_up_to(conn, ANN, ids[1], at=TIME) == []
        assert (await notifications.unread(conn, [BOB]))[BOB] == 1


async def test_read_up_to_takes_the_one_named_and_all_older_ones(pool: Pool) -> None:
    same = sorted((make_notice(f"s{n}") for n in range(3)), key=lambda each: each.id)
    newer = make_notice("newer", created_at=TIME + timedelta(milliseconds=1))
    older = make_notice("older", created_at=TIME - timedelta(milliseconds=1))
    await record(pool, *same, newer, older)
    async with pool.acquire() as conn, conn.transaction():
        read = await notifications.read_up_to(conn, ANN, same[1].id, at=TIME)
    assert set(read) == {older.id, same[0].id, same[1].id}


async def test_pages_meet_without_gap_or_overlap(pool: Pool) -> None:
    await record(pool, *(make_notice(f"e{n}", created_at=TIME + timedelta(seconds=n // 3)) for n in range(10)))
    seen: list[UUID] = []
    below: Position = notifications.TOP
    while page := await notifications.listed(pool, ANN, below=below, limit=3):
        seen += [each.id for each in page]
        below = page[-1].position
    assert len(seen) == len(set(seen)) == 10


async def test_preferences_have_defaults_and_keep_what_is_said(pool: Pool) -> None:
    await sign_in(pool, ANN)
    async with pool.acquire() as conn, conn.transaction():
        await notifications.set_preferences(conn, ANN, {("spending_alert", "push"): False})
        await notifications.set_preferences(conn, ANN, {("spending_alert", "email"): True, ("x", "push"): True})
        found = await notifications.allowed(conn, [ANN, BOB])
    ann, bob = found[ANN], found[BOB]
    assert not ann.allows("spending_alert", "push")
    assert ann.allows("spending_alert", "email")
    assert ann.allows("goal_milestone", "push")
    assert bob == Preferences()
    assert (bob.allows("goal_milestone", "inbox"), bob.allows("goal_milestone", "email")) == (True, False)


async def test_a_notice_that_was_read_comes_back_read(pool: Pool) -> None:
    await record(pool, make_notice())
    async with pool.acquire() as conn, conn.transaction():
        await notifications.read_ids(conn, ANN, [notification_id(ANN, "e1")], at=TIME)
    assert await notifications.listed(pool, ANN, limit=1) == [replace(make_notice(), read_at=TIME)]
