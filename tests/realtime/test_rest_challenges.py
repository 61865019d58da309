"""Challenges as their creator, a participant, somebody invited, a stranger and one who is blocked find them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from handlers.deps import Deps
from handlers.rules.periods import iso
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.realtime.served import Client, Got
from tests.realtime.test_rest_friends import HOSTILE, befriend, inbox, named
from tests.realtime.wiring import FakeClock, busy, wire

DAY_S = 86_400


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings, clock: FakeClock) -> Deps:
    return wire(pool, busy(make_settings, challenges_per_user=3, challenge_participants=4), clock=clock)


@pytest.fixture
async def you(anyone: Client) -> Client:
    return await named(await anyone.signed_in(), "You")


def wanted(clock: FakeClock, *, days: float = 1, length: float = 7, **changed: Any) -> dict[str, Any]:
    start = clock.now + timedelta(days=days)
    body = {"name": "No coffee", "measure": "no_spend_days"}
    return {**body, "startsAt": iso(start), "endsAt": iso(start + timedelta(days=length)), **changed}


async def made(client: Client, clock: FakeClock, **changed: Any) -> dict[str, Any]:
    got = await client.post("/v1/challenges", wanted(clock, **changed))
    assert got.status == 201, got.body
    body: dict[str, Any] = got.json
    assert got.headers["Location"] == f"/v1/challenges/{body['id']}"
    return body


async def listed(client: Client, which: str = "mine") -> list[str]:
    got = await client.get(f"/v1/challenges?list={which}")
    assert got.status == 200, got.body
    return [each["id"] for each in got.json["data"]]


async def join(client: Client, id_: str) -> Got:
    return await client.post(f"/v1/challenges/{id_}/join")


async def told(client: Client) -> list[dict[str, Any]]:
    """Challenges of every `challenge_update` of a user, oldest first."""
    return [
        each["payload"]["challenge"]
        for each in (await client.get("/v1/events")).json["data"]
        if each["event"] == "challenge_update"
    ]


async def test_who_makes_a_challenge_takes_part_and_is_told_on_every_device(me: Client, clock: FakeClock) -> None:
    one = await made(me, clock, description=" A\u202e week\n without ")
    assert one["description"] == "A week without"
    assert (one["state"], one["joined"], one["isCreator"], one["participantCount"]) == ("upcoming", True, True, 1)
    assert (one["myProgress"], one["myRank"], one["winners"]) == ("0", None, [])
    assert (await me.get(f"/v1/challenges/{one['id']}")).json == one
    assert await told(me) == [one]
    clock.pass_(1)
    other = await made(me, clock, join=False)
    assert (other["joined"], other["participantCount"], other["myProgress"]) == (False, 0, None)
    assert await listed(me) == [other["id"], one["id"]]


async def test_the_same_key_makes_one_challenge(me: Client, clock: FakeClock) -> None:
    body, key = wanted(clock), {"Idempotency-Key": "one"}
    first, again = [await me.post("/v1/challenges", body, headers=key) for _ in range(2)]
    assert first.json == again.json
    assert len(await listed(me)) == 1
    assert (await me.post("/v1/challenges", wanted(clock, name="x"), headers=key)).status == 422


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"name": "\u202e \u200b"}, "/name"),
        ({"name": "x" * 101}, "/name"),
        ({"description": "x" * 501}, "/description"),
        ({"measure": "spend_most"}, "/measure"),
        ({"target": "100"}, ""),
        ({"measure": "savings_progress"}, ""),
        ({"measure": "savings_progress", "target": "0"}, "/target"),
        ({"measure": "savings_progress", "target": "-1"}, "/target"),
        ({"startsAt": "2020-01-01T00:00:00Z"}, "/startsAt"),
        ({"startsAt": "2026-01-01"}, "/startsAt"),
        ({"days": 400}, "/startsAt"),
        ({"length": 0.5}, "/endsAt"),
        ({"length": 367}, "/endsAt"),
        ({"visibility": "secret"}, "/visibility"),
        ({"creator": "0x"}, "/creator"),
    ],
)
async def test_what_can_not_be_a_challenge_is_refused_by_name(
    me: Client, clock: FakeClock, changed: dict[str, Any], pointer: str
) -> None:
    got = await me.post("/v1/challenges", wanted(clock, **changed))
    assert (got.status, got.json["code"]) == (400, "invalid_request"), got.body
    assert pointer in {each["pointer"] for each in got.json["errors"]}
    assert await listed(me) == []


async def test_a_private_challenge_is_not_there_for_a_stranger(me: Client, you: Client, clock: FakeClock) -> None:
    id_ = (await made(me, clock))["id"]
    for other in (id_, str(uuid4()), *HOSTILE):
        got = [
            await you.get(f"/v1/challenges/{other}"),
            await join(you, other),
            await you.post(f"/v1/challenges/{other}/leave"),
            await you.post(f"/v1/challenges/{other}/cancel"),
            await you.post(f"/v1/challenges/{other}/decline"),
            await you.post(f"/v1/challenges/{other}/links", {}),
            await you.get(f"/v1/challenges/{other}/links"),
            await you.call("PATCH", f"/v1/challenges/{other}", json={"name": "Mine"}),
            await you.call("DELETE", f"/v1/challenges/{other}/links/{uuid4()}"),
            await you.post(f"/v1/challenges/{other}/invite", {"friendIds": [str(uuid4())]}),
        ]
        assert {each.status for each in got} <= {404, 405}, other
        if other == id_:
            problems = {each.json["detail"] for each in got}
        elif other != "..%2F":
            assert got[0].status in (404, 405)
    assert problems == {"There is no such challenge."}
    assert await listed(you) == await listed(you, "open") == await listed(you, "invited") == []


async def test_a_public_challenge_is_found_joined_and_left(
    me: Client, you: Client, clock: FakeClock, pool: Pool
) -> None:
    id_ = (await made(me, clock, visibility="public"))["id"]
    assert await listed(you, "open") == [id_]
    seen = (await you.get(f"/v1/challenges/{id_}")).json
    assert (seen["joined"], seen["isCreator"], seen["participantCount"]) == (False, False, 1)
    one = (await join(you, id_)).json
    assert (one["joined"], one["participantCount"]) == (True, 2)
    assert (await join(you, id_)).json == one
    assert await told(you) == [one]
    assert (await listed(you), await listed(you, "open")) == ([id_], [])
    assert [(await you.post(f"/v1/challenges/{id_}/leave")).status for _ in range(2)] == [204, 204]
    assert [each["joined"] for each in await told(you)] == [True, False]
    assert (await me.get(f"/v1/challenges/{id_}")).json["participantCount"] == 1
    assert (await join(you, id_)).json["joined"]
    rows = await pool.fetch("SELECT joined_at, left_at, score_change FROM challenge_participants ORDER BY score_change")
    assert [(row["left_at"], row["score_change"]) for row in rows] == [(None, 1), (None, 3)]
    asked = await pool.fetch("SELECT args FROM outbox WHERE job = 'measure_challenges'")
    assert [row["args"]["challengeId"] for row in asked] == [id_, id_]


async def test_a_friend_is_invited_told_and_may_join_as_long_as_both_are_friends(
    me: Client, you: Client, clock: FakeClock, pool: Pool
) -> None:
    await named(me, "Me")
    mine, _ = await befriend(me, you)
    id_ = (await made(me, clock))["id"]
    path = f"/v1/challenges/{id_}/invite"
    assert (await me.post(path, {"friendIds": [mine, str(uuid4())]})).status == 404
    assert await listed(you, "invited") == []
    assert [(await me.post(path, {"friendIds": [mine, mine]})).status for _ in range(2)] == [204, 204]
    assert await inbox(you) == [("challenge_invited", "Me invites you to “No coffee”.")]
    assert await listed(you, "invited") == [id_]
    shown = (await you.get(f"/v1/challenges/{id_}")).json
    assert (await told(you), shown["joined"]) == ([shown], False)
    pushes = await pool.fetch("SELECT user_address, facts FROM pushes WHERE kind = 'challenge_invited'")
    assert [tuple(row) for row in pushes] == [
        (you.address, {"name": "Me", "challenge": "No coffee", "challenge_id": id_})
    ]
    # removed, and a friend again: the invitation was for a friend
    assert (await me.call("DELETE", f"/v1/friends/{mine}")).status == 204
    assert await listed(you, "invited") == []
    assert [(await you.get(f"/v1/challenges/{id_}")).status, (await join(you, id_)).status] == [404, 404]
    await befriend(me, you)
    assert (await join(you, id_)).json["joined"]
    assert (await listed(you), await listed(you, "invited")) == ([id_], [])
    # who takes part stays in it, whoever is friends
    assert (await me.post(f"/v1/friends/{mine}/block")).status == 200
    assert (await you.get(f"/v1/challenges/{id_}")).status == 200
    # twice is once, though it is not there for them any more
    assert [(await you.post(f"/v1/challenges/{id_}/leave")).status for _ in range(2)] == [204, 204]
    assert [(await you.get(f"/v1/challenges/{id_}")).status, (await join(you, id_)).status] == [404, 404]


async def test_who_is_blocked_finds_nothing_of_the_others_challenges(me: Client, you: Client, clock: FakeClock) -> None:
    mine, _ = await befriend(me, you)
    private, public = [(await made(me, clock, visibility=each))["id"] for each in ("private", "public")]
    assert (await me.post(f"/v1/challenges/{private}/invite", {"friendIds": [mine]})).status == 204
    token = (await me.post(f"/v1/challenges/{private}/links", {"uses": 5})).json["token"]
    assert (await me.post(f"/v1/friends/{mine}/block")).status == 200
    for id_ in (private, public):
        assert [(await you.get(f"/v1/challenges/{id_}")).status, (await join(you, id_)).status] == [404, 404]
    assert await listed(you, "open") == await listed(you, "invited") == []
    assert (await you.post(f"/v1/challenges/links/{token}/join")).status == 404
    theirs = (await made(you, clock, visibility="public"))["id"]
    assert (await me.get(f"/v1/challenges/{theirs}")).status == 404
    assert await listed(me, "open") == []


async def test_an_invitation_that_was_declined_is_none_any_more(me: Client, you: Client, clock: FakeClock) -> None:
    mine, _ = await befriend(me, you)
    id_ = (await made(me, clock))["id"]
    for _ in range(2):
        assert (await me.post(f"/v1/challenges/{id_}/invite", {"friendIds": [mine]})).status == 204
        assert [(await you.post(f"/v1/challenges/{id_}/decline")).status for _ in range(2)] in ([204, 404], [404, 404])
    assert await listed(you, "invited") == []
    assert len(await inbox(you)) == 1


async def test_a_link_is_used_so_often_until_it_ends_and_its_token_is_nowhere(
    me: Client, you: Client, anyone: Client, clock: FakeClock, pool: Pool
) -> None:
    id_ = (await made(me, clock))["id"]
    link = (await me.post(f"/v1/challenges/{id_}/links", {"uses": 1})).json
    path = f"/v1/challenges/links/{link['token']}/join"
    assert link["token"] not in repr(await pool.fetch("SELECT * FROM challenge_links"))
    assert (await me.post(path)).json["joined"]  # who is in it uses nothing
    others = [await anyone.signed_in() for _ in range(3)]
    got = await asyncio.gather(*(each.post(path) for each in others))
    assert sorted(each.status for each in got) == [200, 404, 404]
    assert (await me.get(f"/v1/challenges/{id_}/links")).json["data"] == []
    link = (await me.post(f"/v1/challenges/{id_}/links", {"expiresInHours": 1})).json
    assert [each["id"] for each in (await me.get(f"/v1/challenges/{id_}/links")).json["data"]] == [link["id"]]
    assert (await me.call("DELETE", f"/v1/challenges/{id_}/links/{link['id']}")).status == 204
    assert (await me.call("DELETE", f"/v1/challenges/{id_}/links/{link['id']}")).status == 404
    assert (await you.post(f"/v1/challenges/links/{link['token']}/join")).status == 404
    link = (await me.post(f"/v1/challenges/{id_}/links", {"expiresInHours": 1})).json
    await pool.execute("UPDATE challenge_links SET expires_at = $1", clock.now)
    assert (await you.post(f"/v1/challenges/links/{link['token']}/join")).status == 404
    assert (await anyone.post(f"/v1/challenges/links/{link['token']}/join")).status == 401


async def test_limits_hold_for_users_and_for_challenges(
    me: Client, you: Client, anyone: Client, clock: FakeClock
) -> None:
    ids = [(await made(me, clock, visibility="public"))["id"] for _ in range(3)]
    got = await me.post("/v1/challenges", wanted(clock))
    assert (got.status, got.json["code"]) == (409, "conflict")
    theirs = (await made(you, clock, visibility="public"))["id"]
    assert (await join(me, theirs)).status == 409
    others = [await anyone.signed_in() for _ in range(5)]
    answers = await asyncio.gather(*(join(each, ids[0]) for each in others))
    assert sorted(each.status for each in answers) == [200, 200, 200, 409, 409]
    assert (await me.get(f"/v1/challenges/{ids[0]}")).json["participantCount"] == 4
    assert (await me.post(f"/v1/challenges/{ids[1]}/leave")).status == 204
    assert (await join(me, theirs)).status == 200


async def test_without_a_budget_nobody_joins_a_challenge_that_measures_it(
    me: Client, you: Client, clock: FakeClock
) -> None:
    got = await me.post("/v1/challenges", wanted(clock, measure="budget_kept"))
    assert (got.status, "monthly budget" in got.json["detail"]) == (409, True)
    assert await listed(me) == []
    id_ = (await made(me, clock, measure="budget_kept", visibility="public", join=False))["id"]
    assert (await join(you, id_)).status == 409
    budget = {"scope": "total", "monthlyBudget": "300"}
    assert (await you.call("PUT", "/v1/budgets", json=budget)).status == 200
    assert (await join(you, id_)).json["myProgress"] == "1"


async def test_who_leaves_and_joins_again_is_measured_as_before(
    me: Client, you: Client, clock: FakeClock, pool: Pool
) -> None:
    id_ = (await made(me, clock, measure="budget_kept", visibility="public", join=False))["id"]
    frozen = "SELECT joined_at, time_zone, monthly_budget, participant_id FROM challenge_participants"
    await you.call("PUT", "/v1/budgets", json={"scope": "total", "monthlyBudget": "300"})
    await join(you, id_)
    before = await pool.fetch(frozen)
    assert (await you.post(f"/v1/challenges/{id_}/leave")).status == 204
    clock.pass_(60)
    await you.call("PUT", "/v1/budgets", json={"scope": "total", "monthlyBudget": "90000"})
    await you.call("PATCH", "/v1/me", json={"timeZone": "Asia/Tokyo"})
    assert (await join(you, id_)).status == 200
    assert await pool.fetch(frozen) == before


async def test_only_before_it_begins_it_is_changed_and_called_off_and_only_by_who_made_it(
    me: Client, you: Client, clock: FakeClock
) -> None:
    one = await made(me, clock, visibility="public")
    path = f"/v1/challenges/{one['id']}"
    await join(you, one["id"])
    tag = (await me.get(path)).headers["ETag"]
    changed = await me.call("PATCH", path, json={"name": "No tea"}, headers={"If-Match": tag})
    assert (changed.status, changed.json["name"]) == (200, "No tea")
    assert (await me.call("PATCH", path, json={"name": "x"}, headers={"If-Match": tag})).status == 412
    assert (await me.get(path, headers={"If-None-Match": changed.headers["ETag"]})).status == 304
    assert (await you.call("PATCH", path, json={"name": "Mine"})).status == 404
    assert (await you.post(f"{path}/cancel")).status == 404
    off = await me.post(f"{path}/cancel")
    assert (off.status, off.json["state"]) == (200, "cancelled")
    assert (await me.post(f"{path}/cancel")).json == off.json
    assert (await join(you, one["id"])).status == 200  # is in it, and nothing happens
    assert (await you.get(path)).json["state"] == "cancelled"
    running = await made(me, clock)
    clock.pass_(600)
    begun = await made(me, clock, days=0)
    assert (await me.post(f"/v1/challenges/{begun['id']}/cancel")).status == 409
    assert (await me.call("PATCH", f"/v1/challenges/{begun['id']}", json={"name": "x"})).status == 409
    assert (await me.get(f"/v1/challenges/{running['id']}")).json["state"] == "upcoming"


async def test_lists_are_paged_and_cursors_are_of_one_list(me: Client, clock: FakeClock) -> None:
    ids = []
    for _ in range(3):
        clock.pass_(1)
        ids.append((await made(me, clock, visibility="public"))["id"])
    found, path = [], "/v1/challenges?list=mine&limit=1"
    cursor = ""
    while True:
        got = (await me.get(path + cursor)).json
        found += [each["id"] for each in got["data"]]
        if not got["hasMore"]:
            break
        cursor = f"&cursor={got['nextCursor']}"
    assert found == ids[::-1]
    assert (await me.get(f"/v1/challenges?list=open{cursor}")).status == 400
