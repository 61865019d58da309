"""Marking as read: one event for all devices, in order, with the count that a fresh look gives."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import orjson
import pytest

from handlers import notifications
from handlers.deps import Deps
from handlers.errors import NotFound
from handlers.events import BY_NAME
from handlers.rules.inbox import notice_body
from store import log
from store import notifications as stored
from store.notifications import Notice
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.factories import TIME
from tests.handlers.ledger import Kept, make_deps, sign_in
from tests.store.test_notifications import ANN, BOB, make_notice, record


@pytest.fixture
async def deps(pool: Pool, make_settings: MakeSettings) -> Deps:
    await sign_in(pool, ANN, BOB)
    return make_deps(pool, make_settings())


async def told(deps: Deps) -> list[tuple[str, int]]:
    """Events of Ann's log with the count they tell; each checked against the catalogue."""
    found = []
    for entry in await log.after(deps.pool, ANN, 0, limit=1000, max_bytes=2**30):
        payload = orjson.loads(entry.payload)
        BY_NAME[entry.event].model_validate(payload)
        found.append((entry.event, payload["unreadCount"]))
    return found


async def fill(deps: Deps, count: int) -> list[Notice]:
    notices = [make_notice(f"e{n}", created_at=TIME + timedelta(seconds=n)) for n in range(count)]
    await record(deps.pool, *notices)
    return notices


async def test_a_read_is_told_once_and_published(deps: Deps) -> None:
    notices = await fill(deps, 3)
    assert await notifications.mark_read(deps, ANN, ids=[notices[0].id, notices[0].id]) == 2
    assert await notifications.mark_read(deps, ANN, ids=[notices[0].id]) == 2
    assert await told(deps) == [("unread_count", 2)]
    assert isinstance(deps.publisher, Kept)
    assert [user for user, _ in deps.publisher.frames] == [ANN]


async def test_up_to_reads_every_older_one(deps: Deps) -> None:
    notices = await fill(deps, 4)
    assert await notifications.mark_read(deps, ANN, up_to=notices[2].id) == 1
    assert await notifications.mark_read(deps, ANN, up_to=notices[3].id) == 0
    assert await told(deps) == [("unread_count", 1), ("unread_count", 0)]


async def test_an_id_of_another_user_marks_nothing(deps: Deps) -> None:
    notices = await fill(deps, 1)
    theirs = make_notice("e0", user=BOB)
    await record(deps.pool, theirs)
    for call in (
        notifications.mark_read(deps, ANN, ids=[notices[0].id, theirs.id]),
        notifications.mark_read(deps, ANN, up_to=uuid4()),
    ):
        with pytest.raises(NotFound):
            await call
    assert await told(deps) == []
    assert await stored.unread(deps.pool, [ANN, BOB]) == {ANN: 1, BOB: 1}


async def test_a_notification_that_was_taken_back_may_be_named_and_changes_nothing(deps: Deps) -> None:
    [notice] = await fill(deps, 1)
    async with deps.pool.acquire() as conn, conn.transaction():
        await stored.correct(conn, ANN, [notice.event_id], at=TIME)
    assert await notifications.mark_read(deps, ANN, ids=[notice.id]) == 0
    assert await told(deps) == []


async def test_devices_that_read_at_once_are_told_falling_counts_in_order(deps: Deps) -> None:
    notices = await fill(deps, 12)
    await asyncio.gather(*(notifications.mark_read(deps, ANN, ids=[notice.id]) for notice in notices))
    assert await told(deps) == [("unread_count", left) for left in reversed(range(12))]


async def test_pages_of_the_inbox_end(deps: Deps) -> None:
    notices = await fill(deps, 5)
    first = await notifications.inbox(deps, ANN, below=None, limit=3)
    second = await notifications.inbox(deps, ANN, below=first.next, limit=3)
    assert [UUID(str(each["id"])) for each in [*first.resources, *second.resources]] == [
        notice.id for notice in reversed(notices)
    ]
    assert second.next is None


async def test_every_kind_and_channel_is_listed_with_what_was_said(deps: Deps) -> None:
    said = await notifications.prefer(deps, ANN, {("spending_alert", "push"): False})
    assert said == await notifications.preferences(deps, ANN)
    assert [each["kind"] for each in said] == list(notifications.KINDS)
    assert said[0] == {"kind": "spending_alert", "inbox": True, "push": False, "email": False}


def test_the_event_of_a_notice_is_as_the_catalogue_says() -> None:
    head = {"id": "0" * 32, "seq": 1, "ts": "2026-11-24T10:00:00.000Z", "v": 1}
    BY_NAME["notification"].model_validate({**head, **notice_body(make_notice(), 3)})
