"""Inbox, preferences and devices over REST, and `mark_read` on a socket."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from handlers.deps import Deps
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.factories import TIME
from tests.realtime.served import Client
from tests.realtime.test_rest_history import pages
from tests.realtime.wiring import busy, wire
from tests.store.test_notifications import make_notice, record

SEAL_KEY = "test:" + base64.b64encode(b"k" * 32).decode()
DEVICE = {"token": "token-of-a-phone", "platform": "android", "locale": "de-AT", "appVersion": "2.1.0"}


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings) -> Deps:
    return wire(pool, busy(make_settings, seal_keys=(SEAL_KEY,)))


async def fill(pool: Pool, client: Client, count: int) -> list[str]:
    """Ids, newest first."""
    notices = [make_notice(f"e{n}", user=client.address, created_at=TIME + timedelta(seconds=n)) for n in range(count)]
    await record(pool, *notices)
    return [str(notice.id) for notice in reversed(notices)]


async def test_inbox_pages_newest_first_and_shows_what_was_read(me: Client, pool: Pool) -> None:
    ids = await fill(pool, me, 5)
    got = await me.post("/v1/notifications/read", {"notificationIds": [ids[1]]})
    assert (got.status, got.json) == (200, {"unreadCount": 4})
    found = await pages(me, "/v1/notifications?limit=2")
    assert [each["id"] for each in found] == ids
    assert [each["readAt"] is not None for each in found] == [False, True, False, False, False]
    assert found[0] == {
        "id": ids[0],
        "kind": "spending_alert",
        "title": "Food",
        "body": "80 % of Food is spent.",
        "severity": "warning",
        "eventId": "e4",
        "transactionId": "1:0xabc:0",
        "createdAt": "2026-11-24T10:00:04.000Z",
        "readAt": None,
    }


async def test_up_to_reads_all_older_ones(me: Client, pool: Pool) -> None:
    ids = await fill(pool, me, 4)
    assert (await me.post("/v1/notifications/read", {"upTo": ids[1]})).json == {"unreadCount": 1}


async def test_what_was_read_is_named_in_one_way(me: Client) -> None:
    id_ = str(uuid4())
    wrong: tuple[dict[str, Any], ...] = (
        {},
        {"notificationIds": []},
        {"notificationIds": ["x"]},
        {"notificationIds": [id_], "upTo": id_},
    )
    for body in wrong:
        assert (await me.post("/v1/notifications/read", body)).status == 400


async def test_other_people_s_notifications_do_not_exist(anyone: Client, me: Client, pool: Pool) -> None:
    other = await anyone.signed_in()
    ids = await fill(pool, other, 1)
    assert (await me.get("/v1/notifications")).json["data"] == []
    assert (await me.post("/v1/notifications/read", {"notificationIds": ids})).status == 404


async def test_preferences_change_where_they_are_named(me: Client) -> None:
    before = (await me.get("/v1/notification-preferences")).json["data"]
    got = await me.call(
        "PUT",
        "/v1/notification-preferences",
        json={"data": [{"kind": "goal_milestone", "push": False, "email": True}]},
    )
    changed = {each["kind"]: each for each in got.json["data"]}
    assert changed.pop("goal_milestone") == {
        "kind": "goal_milestone",
        "inbox": True,
        "push": False,
        "email": True,
    }
    assert changed == {each["kind"]: each for each in before if each["kind"] != "goal_milestone"}
    assert (await me.get("/v1/notification-preferences")).json == got.json
    refused = await me.call("PUT", "/v1/notification-preferences", json={"data": [{"kind": "spam", "push": True}]})
    assert refused.status == 400


async def test_device_is_registered_brought_up_to_date_and_removed_without_its_token(me: Client, pool: Pool) -> None:
    first = await me.post("/v1/devices", DEVICE)
    again = await me.post("/v1/devices", {**DEVICE, "appVersion": "2.2.0"})
    assert (first.status, first.json["id"]) == (200, again.json["id"])
    listed = await me.get("/v1/devices")
    assert [each["appVersion"] for each in listed.json["data"]] == ["2.2.0"]
    assert DEVICE["token"].encode() not in first.body + listed.body
    assert DEVICE["token"].encode() not in (await pool.fetchval("SELECT token FROM devices"))
    assert (await me.call("DELETE", f"/v1/devices/{first.json['id']}")).status == 204
    assert (await me.call("DELETE", f"/v1/devices/{first.json['id']}")).status == 404


async def test_token_of_another_user_moves_and_leaves_them_nothing_to_find(anyone: Client, me: Client) -> None:
    theirs = (await me.post("/v1/devices", DEVICE)).json["id"]
    other = await anyone.signed_in()
    mine = (await other.post("/v1/devices", DEVICE)).json["id"]
    assert mine != theirs
    assert (await me.get("/v1/devices")).json["data"] == []
    assert (await me.call("DELETE", f"/v1/devices/{mine}")).status == 404
    assert (await me.call("DELETE", "/v1/devices/nonsense")).status == 404
    assert len((await other.get("/v1/devices")).json["data"]) == 1


async def test_malformed_devices_are_refused(me: Client) -> None:
    changes = [{"platform": "fridge"}, {"token": ""}, {"token": "a b"}, {"token": "ü"}, {"locale": "../"}]
    for change in [*changes, {"appVersion": "\n"}]:
        assert (await me.post("/v1/devices", {**DEVICE, **change})).status == 400
