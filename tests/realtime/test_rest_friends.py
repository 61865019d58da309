from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import orjson
import pytest

from handlers.deps import Deps
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.factories import make_address
from tests.realtime.served import Client, Got, serving
from tests.realtime.wiring import FakeClock, busy, wire

NOBODY = make_address("nobody")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings, clock: FakeClock) -> Deps:
    return wire(pool, busy(make_settings, friend_requests_per_day=5), clock=clock)


@pytest.fixture
async def you(anyone: Client) -> Client:
    return await named(await anyone.signed_in(), "You")


async def named(client: Client, name: str) -> Client:
    got = await client.call("PATCH", "/v1/me", json={"displayName": name})
    assert got.status == 200, got.body
    return client


async def ask(client: Client, address: str) -> Got:
    return await client.post("/v1/friends/requests", {"address": address})


async def listed(client: Client, status: str = "friends") -> list[dict[str, Any]]:
    got = await client.get(f"/v1/friends?status={status}")
    assert got.status == 200, got.body
    data: list[dict[str, Any]] = got.json["data"]
    return data


async def inbox(client: Client) -> list[tuple[str, str]]:
    data = (await client.get("/v1/notifications")).json["data"]
    return [(each["kind"], each["body"]) for each in data]


async def befriend(me: Client, you: Client) -> tuple[str, str]:
    """Make friends by an invitation of `me`; the id of each for the other."""
    token = (await me.post("/v1/friends/invitations", {})).json["token"]
    got = await you.post(f"/v1/friends/invitations/{token}/accept")
    assert got.status == 200, got.body
    return (await listed(me))[0]["id"], got.json["id"]


async def test_phones_are_told_of_a_request_and_of_its_acceptance(me: Client, you: Client, pool: Pool) -> None:
    await ask(me, you.address)
    [received] = await listed(you, "received")
    await you.post(f"/v1/friends/{received['id']}/accept")
    pushes = await pool.fetch(
        "SELECT p.user_address, p.kind, l.event FROM pushes AS p "
        "JOIN user_log AS l ON l.user_address = p.user_address AND l.event_id = p.event_id ORDER BY p.kind DESC"
    )
    assert [tuple(row) for row in pushes] == [
        (you.address, "friend_request", "notification"),
        (me.address, "friend_accepted", "notification"),
    ]


async def test_a_request_is_asked_told_and_accepted(me: Client, you: Client) -> None:
    await named(me, "Me")
    asked = await ask(me, you.address.upper().replace("0X", "0x"))
    assert (asked.status, asked.json["status"], asked.json["displayName"]) == (202, "requested", None)
    [received] = await listed(you, "received")
    assert (received["displayName"], received["address"]) == ("Me", None)
    assert await inbox(you) == [("friend_request", "Me wants to be friends.")]
    got = await you.post(f"/v1/friends/{received['id']}/accept")
    assert (got.status, got.json["status"]) == (200, "friends")
    assert (await you.post(f"/v1/friends/{received['id']}/accept")).json == got.json
    assert await inbox(me) == [("friend_accepted", "You and You are friends now.")]
    [mine], [yours] = await listed(me), await listed(you)
    assert (mine["displayName"], mine["address"]) == ("You", you.address)
    assert (yours["displayName"], yours["address"]) == ("Me", None)
    assert mine["id"] != yours["id"]
    assert await listed(me, "requested") == await listed(you, "received") == []
    assert [each["event"] for each in (await me.get("/v1/events")).json["data"]] == ["notification"]


async def test_the_answer_does_not_tell_who_an_address_is(me: Client, you: Client, anyone: Client, pool: Pool) -> None:
    blocker, linked, decliner = [await named(await anyone.signed_in(), "x") for _ in range(3)]
    await ask(blocker, me.address)
    [row] = await listed(me, "received")
    await me.post(f"/v1/friends/{row['id']}/decline")
    mine, theirs = await befriend(linked, me)
    assert (await blocker.post(f"/v1/friends/{(await listed(blocker, 'requested'))[0]['id']}/block")).status == 200
    answers = {}
    for address in (NOBODY, you.address, blocker.address, linked.address, decliner.address):
        got = await ask(me, address)
        again = await ask(me, address)
        assert again.json == got.json
        answers[address] = (got.status, got.json | {"id": "", "since": "", "address": ""}, sorted(got.headers))
        if address == decliner.address:
            [received] = await listed(decliner, "received")
            await decliner.post(f"/v1/friends/{received['id']}/decline")
            assert (await ask(me, address)).json == got.json
    assert len({orjson.dumps([status, body]) for status, body, _ in answers.values()}) == 1
    assert len(await listed(me, "requested")) == 5
    assert await listed(decliner, "received") == await listed(blocker, "received") == []
    assert [each["address"] for each in await listed(me)] == [None]
    assert await pool.fetchval("SELECT count(*) FROM user_counters WHERE user_address = $1", NOBODY) == 0
    assert mine != theirs


async def test_asking_who_asked_makes_friends_at_once(me: Client, you: Client) -> None:
    await ask(me, you.address)
    assert (await ask(you, me.address)).json["status"] == "friends"
    assert [each["address"] for each in await listed(me)] == [you.address]
    assert await listed(me, "requested") == await listed(you, "requested") == []


async def test_two_who_ask_each_other_at_once_are_friends(me: Client, you: Client) -> None:
    await asyncio.gather(ask(me, you.address), ask(you, me.address))
    assert [len(await listed(each)) for each in (me, you)] == [1, 1]


async def test_a_withdrawn_request_is_gone_and_told_once_a_day(me: Client, you: Client, clock: FakeClock) -> None:
    for _ in range(3):
        clock.pass_(60)
        row = (await ask(me, you.address)).json
        assert (await me.call("DELETE", f"/v1/friends/{row['id']}")).status == 204
        assert await listed(you, "received") == await listed(me, "requested") == []
    assert len(await inbox(you)) == 1


async def test_requests_of_a_day_are_limited_whoever_is_asked(me: Client) -> None:
    for number in range(5):
        row = (await ask(me, make_address(number))).json
        await me.call("DELETE", f"/v1/friends/{row['id']}")
    got = await ask(me, make_address("one more"))
    assert (got.status, got.json["code"]) == (429, "rate_limited")
    assert 0 < int(got.headers["Retry-After"]) <= 86_400
    assert (await ask(me, make_address(3))).status == 202


async def test_removed_and_blocked_see_nothing_at_once(me: Client, you: Client) -> None:
    mine, yours = await befriend(me, you)
    assert (await me.call("DELETE", f"/v1/friends/{mine}")).status == 204
    assert await listed(me) == await listed(you) == []
    for method, path in (("DELETE", ""), ("POST", "/accept"), ("POST", "/decline"), ("DELETE", "/block")):
        assert (await you.call(method, f"/v1/friends/{yours}{path}")).status == 404
    mine, yours = await befriend(me, you)
    blocked = await me.post(f"/v1/friends/{mine}/block")
    assert (blocked.status, blocked.json["displayName"], blocked.json["address"]) == (200, "You", None)
    assert await listed(me) == await listed(you) == []
    await named(you, "Another name")
    assert (await me.get("/v1/friends/blocked")).json["data"] == [blocked.json]
    await ask(you, me.address)
    assert await listed(me, "received") == []
    token = (await me.post("/v1/friends/invitations", {"uses": 5})).json["token"]
    assert (await you.post(f"/v1/friends/invitations/{token}/accept")).status == 404
    assert (await me.call("DELETE", f"/v1/friends/{mine}/block")).status == 204
    assert await listed(me) == await listed(you) == []
    await ask(you, me.address)
    assert [each["displayName"] for each in await listed(me, "received")] == ["Another name"]


async def test_an_invitation_ends_by_use_by_time_and_by_its_maker(
    me: Client, you: Client, anyone: Client, clock: FakeClock, pool: Pool
) -> None:
    made = await me.post("/v1/friends/invitations", {"uses": 1, "expiresInHours": 1})
    assert made.status == 201
    token = made.json["token"]
    assert token not in repr(await pool.fetch("SELECT * FROM friend_invitations"))
    assert (await me.post(f"/v1/friends/invitations/{token}/accept")).status == 409
    others = [await anyone.signed_in() for _ in range(4)]
    results = await asyncio.gather(*(each.post(f"/v1/friends/invitations/{token}/accept") for each in others))
    assert sorted(got.status for got in results) == [200, 404, 404, 404]
    made = await me.post("/v1/friends/invitations", {"uses": 3})
    assert len((await me.get("/v1/friends/invitations")).json["data"]) == 1
    path = f"/v1/friends/invitations/{made.json['id']}"
    assert [(await c.call("DELETE", path)).status for c in (you, me, me)] == [404, 204, 404]
    assert (await you.post(f"/v1/friends/invitations/{made.json['token']}/accept")).status == 404
    made = await me.post("/v1/friends/invitations", {"expiresInHours": 1})
    await pool.execute("UPDATE friend_invitations SET expires_at = $1", clock.now)
    assert (await you.post(f"/v1/friends/invitations/{made.json['token']}/accept")).status == 404
    assert (await me.get("/v1/friends/invitations")).json["data"] == []


HOSTILE = (str(uuid4()), "0", "%00", "..%2F", "null", "%F0%9F%98%80", "x" * 2000, "'; DROP TABLE users;--", "requests")


async def test_hostile_ids_and_tokens_are_not_found(me: Client, you: Client) -> None:
    mine, _ = await befriend(me, you)
    for text in (*HOSTILE, mine):
        got = [
            await you.post(f"/v1/friends/{text}/accept"),
            await you.post(f"/v1/friends/{text}/decline"),
            await you.post(f"/v1/friends/{text}/block"),
            await you.call("DELETE", f"/v1/friends/{text}"),
            await you.call("DELETE", f"/v1/friends/{text}/block"),
            await you.call("DELETE", f"/v1/friends/invitations/{text}"),
            await you.post(f"/v1/friends/invitations/{text}/accept"),
        ]
        assert {each.status for each in got} <= {404, 405}, text
    assert len(await listed(me)) == 1
    for cursor in ("x", "AAAA", "%00"):
        assert (await me.get(f"/v1/friends?cursor={cursor}")).status == 400
    assert (await ask(me, me.address)).status == 400
    assert (await ask(me, "0x12")).status == 400


async def test_friends_page(me: Client, anyone: Client) -> None:
    for _ in range(5):
        await befriend(me, await anyone.signed_in())
    found, path = [], "/v1/friends?limit=2"
    while path:
        got = await me.get(path)
        found += [each["id"] for each in got.json["data"]]
        path = f"/v1/friends?limit=2&cursor={got.json['nextCursor']}" if got.json["hasMore"] else ""
    assert len(set(found)) == len(found) == 5


async def test_what_was_done_is_in_the_audit_log_without_addresses(me: Client, you: Client) -> None:
    mine, _ = await befriend(me, you)
    await me.post(f"/v1/friends/{mine}/block")
    await me.call("DELETE", f"/v1/friends/{mine}/block")
    data = (await me.get("/v1/me/audit")).json["data"]
    assert [each["action"] for each in data][:3] == ["friend_unblocked", "friend_blocked", "friend_invited"]
    assert you.address not in orjson.dumps(data).decode()


async def test_a_token_stays_out_of_the_logs(me: Client, you: Client, capfd: pytest.CaptureFixture[str]) -> None:
    token = (await me.post("/v1/friends/invitations", {})).json["token"]
    await you.post(f"/v1/friends/invitations/{token}/accept")
    said = capfd.readouterr()
    assert token not in said.out + said.err


async def test_nobody_who_has_not_signed_in_reads_anything(deps: Deps) -> None:
    async with serving(deps) as anyone:
        for path in ("/v1/friends", "/v1/friends/blocked", "/v1/friends/invitations"):
            assert (await anyone.get(path)).status == 401
