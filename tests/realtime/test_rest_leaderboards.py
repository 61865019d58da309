"""A leaderboard over REST: who sees it, what it shows, its pages, and that Redis may be gone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from config.embedded.valkey import Valkey
from handlers import standings
from handlers.deps import Deps
from store.leaderboards import Leaderboards
from store.postgres import Pool
from store.redis import open_redis
from tests.conftest import MakeSettings
from tests.factories import make_address
from tests.realtime.served import Client
from tests.realtime.wiring import FakeClock, busy, wire


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings, private_valkey: Valkey) -> Deps:
    return wire(pool, busy(make_settings, redis_url=private_valkey.url), clock=FakeClock())


@pytest.fixture
async def you(anyone: Client) -> Client:
    return await anyone.signed_in()


async def open_challenge(deps: Deps, *, visibility: str = "public", measure: str = "budget_kept") -> UUID:
    now = deps.now()
    id_: UUID = await deps.pool.fetchval(
        """INSERT INTO challenges (name, measure, visibility, starts_at, ends_at)
           VALUES ('Frugal', $1, $2, $3, $4) RETURNING id""",
        measure,
        visibility,
        now - timedelta(days=1),
        now + timedelta(days=29),
    )
    return id_


async def enter(deps: Deps, challenge: UUID, address: str, score: int, name: str | None = None) -> UUID:
    """Someone who takes part; one without an account gets one."""
    await deps.pool.execute("INSERT INTO users (address) VALUES ($1) ON CONFLICT DO NOTHING", address)
    await deps.pool.execute("UPDATE users SET display_name = $2 WHERE address = $1", address, name)
    id_: UUID = await deps.pool.fetchval(
        """INSERT INTO challenge_participants (challenge_id, user_address, score) VALUES ($1, $2, $3)
           RETURNING participant_id""",
        challenge,
        address,
        score,
    )
    return id_


async def build(deps: Deps, challenge: UUID) -> None:
    redis = open_redis(deps.settings.redis_url)
    await standings.rebuild(deps, Leaderboards(redis), challenge)
    await redis.aclose()


async def crowd(deps: Deps, challenge: UUID, *scores: int) -> list[str]:
    """People of these scores; returns what they are called."""
    for number, score in enumerate(scores):
        await enter(deps, challenge, make_address("crowd", number), score, f"P{number}")
    return [f"P{number}" for number in range(len(scores))]


def path(challenge: UUID | str, **query: object) -> str:
    return (
        f"/v1/challenges/{challenge}/leaderboard" + "?" * bool(query) + "&".join(f"{k}={v}" for k, v in query.items())
    )


async def pages(me: Client, challenge: UUID, limit: int, **query: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    url = path(challenge, limit=limit, **query)
    for _ in range(50):
        got = await me.get(url)
        assert got.status == 200, got.body
        assert got.json["data"], "a page of nothing"
        found += got.json["data"]
        if not got.json["hasMore"]:
            return found
        assert len(got.json["data"]) == limit
        url = got.headers["Link"].partition(">")[0].lstrip("<").replace(me.base, "")
    raise AssertionError("pages without an end")


@pytest.mark.parametrize("live", [True, False])
async def test_places_best_first_with_ties_names_and_whose_is_mine(deps: Deps, me: Client, live: bool) -> None:
    challenge = await open_challenge(deps)
    await crowd(deps, challenge, 9000, 2500)
    await enter(deps, challenge, me.address, 9000, "Me")
    await enter(deps, challenge, make_address("shy"), 100)
    if live:
        await build(deps, challenge)
    data = (await me.get(path(challenge))).json["data"]
    assert sorted(data[:2], key=lambda each: each["displayName"]) == [
        {"rank": 1, "displayName": "Me", "avatarUrl": None, "progress": "0.9", "isMe": True},
        {"rank": 1, "displayName": "P0", "avatarUrl": None, "progress": "0.9", "isMe": False},
    ]
    assert [(each["rank"], each["displayName"], each["progress"]) for each in data[2:]] == [
        (3, "P1", "0.25"),
        (4, "Someone", "0.01"),
    ]


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_one_after_the_other_are_the_whole_list(deps: Deps, me: Client, live: bool, limit: int) -> None:
    challenge = await open_challenge(deps)
    names = await crowd(deps, challenge, 500, 400, 400, 400, 300, 0, 0)
    await enter(deps, challenge, me.address, 300, "Me")
    if live:
        await build(deps, challenge)
    found = await pages(me, challenge, limit)
    assert sorted(each["displayName"] for each in found) == sorted([*names, "Me"])
    assert [each["rank"] for each in found] == [1, 2, 2, 2, 5, 5, 7, 7]
    around = (await me.get(path(challenge, around="me", limit=limit))).json["data"]
    assert any(each["isMe"] for each in around)
    assert len(around) == limit
    rest = await pages(me, challenge, limit, around="me")
    assert rest == found[found.index(rest[0]) :]


async def test_a_cursor_goes_on_while_people_move_and_says_nothing_of_them(deps: Deps, me: Client) -> None:
    challenge = await open_challenge(deps)
    await crowd(deps, challenge, 500, 400, 400, 300)
    await enter(deps, challenge, me.address, 100, "Me")
    await build(deps, challenge)
    first = (await me.get(path(challenge, limit=2))).json
    last = first["data"][-1]["displayName"]
    await deps.pool.execute(
        """UPDATE challenge_participants AS p SET score = 9999, score_change = 2 FROM users AS u
           WHERE u.address = p.user_address AND u.display_name = $1""",
        last,
    )
    await build(deps, challenge)
    second = (await me.get(path(challenge, limit=9, cursor=first["nextCursor"]))).json
    assert [each["rank"] for each in second["data"]] == [3, 4, 5]
    assert last not in [each["displayName"] for each in second["data"]]
    for wrong in (first["nextCursor"][:-2], "AAAA", ""):
        assert (await me.get(path(challenge, cursor=wrong))).status == 400
    other = await open_challenge(deps)
    assert (await me.get(path(other, cursor=first["nextCursor"]))).status == 400
    assert "400" not in first["nextCursor"]


async def test_answer_holds_no_address_and_no_id_of_anyone(deps: Deps, me: Client) -> None:
    challenge = await open_challenge(deps)
    ids = [await enter(deps, challenge, make_address("x", number), number, "X") for number in range(3)]
    body = (await me.get(path(challenge, limit=2))).body
    assert b"0x" not in body
    assert not [id_ for id_ in ids if str(id_).encode() in body or id_.hex.encode() in body]


async def test_a_private_challenge_is_there_for_those_who_take_part_alone(deps: Deps, me: Client, you: Client) -> None:
    challenge = await open_challenge(deps, visibility="private")
    await enter(deps, challenge, me.address, 5)
    await build(deps, challenge)
    assert (await me.get(path(challenge))).status == 200
    refused = await you.get(path(challenge))
    assert refused.status == 404
    for other in (uuid4(), "x", f"{challenge}x"):
        strange = await you.get(path(other))
        assert {**strange.json, "requestId": ""} == {**refused.json, "requestId": ""}
    await deps.pool.execute("UPDATE challenge_participants SET left_at = now()")
    assert (await me.get(path(challenge))).status == 404


async def test_around_me_needs_a_part_in_it(deps: Deps, me: Client) -> None:
    challenge = await open_challenge(deps)
    assert (await me.get(path(challenge, around="me"))).status == 404
    assert (await me.get(path(challenge))).json["data"] == []
    assert (await me.get(path(challenge, around="you"))).status == 400


@pytest.mark.parametrize("blocker", ["me", "you"])
async def test_whoever_blocks_or_is_blocked_is_someone_at_once(
    deps: Deps, me: Client, you: Client, blocker: str
) -> None:
    challenge = await open_challenge(deps)
    await enter(deps, challenge, me.address, 5, "Me")
    await enter(deps, challenge, you.address, 7, "You")
    await build(deps, challenge)
    assert [each["displayName"] for each in (await me.get(path(challenge))).json["data"]] == ["You", "Me"]
    both = (me.address, you.address) if blocker == "me" else (you.address, me.address)
    await deps.pool.execute(
        "INSERT INTO friends (user_address, other, state, changed_at) VALUES ($1, $2, 'blocked', now())", *both
    )
    assert [each["displayName"] for each in (await me.get(path(challenge))).json["data"]] == ["Someone", "Me"]


async def test_the_final_result_stays_whatever_scores_say_later(deps: Deps, me: Client) -> None:
    challenge = await open_challenge(deps)
    await crowd(deps, challenge, 500, 400, 400, 10)
    await enter(deps, challenge, me.address, 300, "Me")
    await deps.pool.execute(
        """UPDATE challenge_participants AS p SET final_score = score, final_rank = 1 + (
               SELECT count(*) FROM challenge_participants AS o WHERE o.score > p.score)"""
    )
    await deps.pool.execute("UPDATE challenges SET settled_at = now()")
    await deps.pool.execute("UPDATE challenge_participants SET score = 0, score_change = 9")
    await build(deps, challenge)
    found = await pages(me, challenge, 2)
    assert [each["rank"] for each in found] == [1, 2, 2, 4, 5]
    assert found[3] == {"rank": 4, "displayName": "Me", "avatarUrl": None, "progress": "0.03", "isMe": True}
    assert (await me.get(path(challenge, around="me", limit=3))).json["data"] == found[2:5]
    assert (await me.get(path(challenge, around="me", limit=1))).json["data"] == found[3:4]


async def test_the_same_list_has_the_same_tag_and_a_moved_one_another(deps: Deps, me: Client) -> None:
    challenge = await open_challenge(deps)
    await crowd(deps, challenge, 500, 400, 300)
    await build(deps, challenge)
    tag = (await me.get(path(challenge, limit=2))).headers["ETag"]
    assert (await me.get(path(challenge, limit=2), headers={"If-None-Match": tag})).status == 304
    await deps.pool.execute("UPDATE challenge_participants SET score = score + 1, score_change = 2")
    await build(deps, challenge)
    assert (await me.get(path(challenge, limit=2), headers={"If-None-Match": tag})).status == 200


async def test_without_redis_the_list_is_the_same(deps: Deps, me: Client, private_valkey: Valkey) -> None:
    challenge = await open_challenge(deps)
    await crowd(deps, challenge, 500, 400, 400)
    await enter(deps, challenge, me.address, 300, "Me")
    await build(deps, challenge)
    paths = (path(challenge), f"/v1/challenges/{challenge}", "/v1/challenges")
    live = [(await me.get(each)).json for each in paths]
    assert live[1]["myRank"] == 4
    private_valkey.kill()
    assert [(await me.get(each)).json for each in paths] == live


@pytest.mark.parametrize("live", [True, False])
async def test_a_running_challenge_says_the_caller_s_own_rank(deps: Deps, me: Client, live: bool) -> None:
    challenge, foreign = await open_challenge(deps), await open_challenge(deps)
    await crowd(deps, challenge, 9000, 2500)
    await enter(deps, challenge, me.address, 2500, "Me")
    if live:
        await build(deps, challenge)
    shown = (await me.get(f"/v1/challenges/{challenge}")).json
    assert (shown["myRank"], shown["myProgress"]) == (2, "0.25")
    assert [each["myRank"] for each in (await me.get("/v1/challenges")).json["data"]] == [2]
    assert (await me.get(f"/v1/challenges/{foreign}")).json["myRank"] is None
    await deps.pool.execute("UPDATE challenges SET starts_at = starts_at + interval '10 days'")
    assert (await me.get(f"/v1/challenges/{challenge}")).json["myRank"] is None
