from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handlers.deps import Deps
from store.postgres import Pool
from tests.realtime import rows
from tests.realtime.served import Client
from tests.realtime.wiring import CHAIN

SAVINGS = "00000000-0000-4000-8000-000000000008"
NOBODYS = "00000000-0000-4000-8000-000000000099"
SOON = (datetime.now(UTC) + timedelta(days=40)).date().isoformat()


async def make(client: Client, **changes: Any) -> Any:
    got = await client.post("/v1/goals", {"name": "Bike", "targetAmount": "200", **changes})
    assert got.status == 201, got.body
    return got


async def patch(client: Client, goal_id: str, json: Any, **headers: str) -> Any:
    return await client.call("PATCH", f"/v1/goals/{goal_id}", json=json, headers=headers)


async def told(client: Client, event: str) -> list[Any]:
    return [each["payload"] for each in (await client.get("/v1/events")).json["data"] if each["event"] == event]


async def test_goal_is_made_read_edited_told_and_deleted(me: Client) -> None:
    assert (await me.get("/v1/goals")).json["data"] == []
    got = await make(me, targetDate=SOON, categoryId=SAVINGS, currentAmount="20.50")
    goal = got.json
    assert got.headers["Location"] == f"/v1/goals/{goal['goalId']}"
    assert (goal["progress"], goal["currentAmount"], goal["targetAmount"]) == ("0.1025", "20.50", "200.00")
    assert (goal["category"], goal["yieldEarned"], goal["apy"]) == ({"id": SAVINGS, "name": "Savings"}, "0.00", None)
    assert (goal["onTrack"], goal["link"], goal["isCompleted"]) == (True, None, False)
    read = await me.get(f"/v1/goals/{goal['goalId'].upper().replace('0X', '0x')}")
    assert (read.json, read.headers["ETag"]) == (goal, got.headers["ETag"])
    assert (await me.get("/v1/goals")).json["data"] == [goal]
    assert (await me.get("/v1/snapshot")).json["goals"] == [goal]
    edited = (await patch(me, goal["goalId"], {"currentAmount": "110", "targetDate": None, "categoryId": None})).json
    assert (edited["targetDate"], edited["category"], edited["milestones"]) == (None, None, [25, 50])
    assert [each["milestone"] for each in await told(me, "goal_milestone")] == [25, 50]
    assert (await me.call("DELETE", f"/v1/goals/{goal['goalId']}")).status == 204
    assert (await told(me, "goal_update"))[-1]["goal"]["isActive"] is False
    assert (await me.get("/v1/goals")).json["data"] == []
    for method in ("GET", "DELETE"):
        assert (await me.call(method, f"/v1/goals/{goal['goalId']}")).status == 404


async def test_change_is_made_only_to_the_goal_that_was_read(me: Client) -> None:
    got = await make(me)
    tag, goal_id = got.headers["ETag"], got.json["goalId"]
    first = await patch(me, goal_id, {"name": "Boat"}, **{"If-Match": tag})
    assert (first.status, first.json["name"]) == (200, "Boat")
    assert first.headers["ETag"] != tag
    assert (await patch(me, goal_id, {"name": "Car"}, **{"If-Match": tag})).status == 412
    assert (await patch(me, goal_id, {"name": "Boat"}, **{"If-Match": first.headers["ETag"]})).status == 200
    assert len(await told(me, "goal_update")) == 2  # one made, one changed; the last changed nothing


async def test_call_sent_again_makes_one_goal(me: Client) -> None:
    body = {"name": "Bike", "targetAmount": "200"}
    first, second = [await me.post("/v1/goals", body, headers={"Idempotency-Key": "k1"}) for _ in range(2)]
    assert (first.status, first.body) == (201, second.body)
    other = await me.post("/v1/goals", {**body, "name": "Boat"}, headers={"Idempotency-Key": "k1"})
    assert other.status == 422
    assert len((await me.get("/v1/goals")).json["data"]) == 1


async def test_call_that_died_after_its_commit_finds_its_goal(me: Client, pool: Pool) -> None:
    body = {"name": "Bike", "targetAmount": "200"}
    first = await me.post("/v1/goals", body, headers={"Idempotency-Key": "k2"})
    await pool.execute("DELETE FROM idempotency_keys")
    again = await me.post("/v1/goals", body, headers={"Idempotency-Key": "k2"})
    assert (again.status, again.json["goalId"]) == (201, first.json["goalId"])
    assert len(await told(me, "goal_update")) == 1


async def test_goal_of_a_bucket_has_what_the_bucket_holds(me: Client, pool: Pool) -> None:
    bucket = await rows.bucket(pool, me.address, b"bike", holds=50_000_000)
    goal = (await make(me, link={"kind": "bucket", "id": bucket.bucket_id})).json
    assert goal["link"] == {"kind": "bucket", "chainId": CHAIN.id, "id": bucket.bucket_id}
    assert (goal["currentAmount"], goal["milestones"]) == ("50.00", [25])
    twice = await me.post(
        "/v1/goals", {"name": "x", "targetAmount": "1", "link": {"kind": "bucket", "id": bucket.bucket_id}}
    )
    assert twice.status == 409
    assert (await patch(me, goal["goalId"], {"currentAmount": "1"})).status == 400
    by_hand = (await patch(me, goal["goalId"], {"link": None, "currentAmount": "1"})).json
    assert (by_hand["link"], by_hand["currentAmount"], by_hand["milestones"]) == (None, "1.00", [25])


async def test_simulated_spend_says_what_it_does_to_the_goal_of_its_bucket(me: Client, pool: Pool) -> None:
    bucket = await rows.bucket(pool, me.address, b"bike", holds=50_000_000)
    goal = (await make(me, link={"kind": "bucket", "id": bucket.bucket_id}, targetDate=SOON)).json
    await make(me, name="Other")
    ask = {"chainId": CHAIN.id, "bucket": "bike", "token": CHAIN.tokens[0].address, "amount": "30000000"}
    (impact,) = (await me.post("/v1/budgets/simulate", ask)).json["goals"]
    assert impact == {
        "goalId": goal["goalId"],
        "name": "Bike",
        "progressBefore": "0.25",
        "progressAfter": "0.1",
        "onTrackBefore": True,
        "onTrackAfter": True,
    }
    unpriced = (await me.post("/v1/budgets/simulate", {**ask, "token": "0x" + "e" * 40})).json
    assert (unpriced["goals"][0]["progressAfter"], unpriced["goals"][0]["onTrackAfter"]) == (None, None)
    assert (await me.get(f"/v1/goals/{goal['goalId']}")).json == goal


async def test_goal_of_an_identifier_is_called_by_its_own_id(me: Client) -> None:
    goal = (await make(me, link={"kind": "v2", "chainId": CHAIN.id})).json
    assert goal["link"] == {"kind": "v2", "chainId": CHAIN.id, "id": goal["goalId"]}
    other = "0x" + "AB" * 32
    given = (await make(me, link={"kind": "v2", "chainId": CHAIN.id, "id": other})).json
    assert given["link"]["id"] == other.lower()


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"targetAmount": "0"}, "/targetAmount"),
        ({"targetAmount": "0.00"}, "/targetAmount"),
        ({"targetAmount": "-5"}, "/targetAmount"),
        ({"targetAmount": "1.005"}, "/targetAmount"),
        ({"targetAmount": 5}, "/targetAmount"),
        ({"targetAmount": "1" * 16}, "/targetAmount"),
        ({"targetAmount": "NaN"}, "/targetAmount"),
        ({"currentAmount": "-1"}, "/currentAmount"),
        ({"name": ""}, "/name"),
        ({"name": "\u202e\u0000 \u200b"}, "/name"),
        ({"name": "x" * 101}, "/name"),
        ({"targetDate": "2020-01-01"}, "/targetDate"),
        ({"targetDate": "9999-12-31"}, "/targetDate"),
        ({"targetDate": "2027-02-30"}, "/targetDate"),
        ({"targetDate": 1893456000}, "/targetDate"),
        ({"categoryId": NOBODYS}, "/categoryId"),
        ({"categoryId": "x"}, "/categoryId"),
        ({"link": {"kind": "bucket", "id": "1:2:3:4"}}, "/link"),
        ({"link": {"kind": "bucket"}}, "/link"),
        ({"link": {"kind": "v2"}}, "/link"),
        ({"link": {"kind": "v2", "chainId": 7}}, "/link"),
        ({"link": {"kind": "v2", "chainId": CHAIN.id, "id": "0x12"}}, "/link"),
        ({"link": {"kind": "lock", "id": "nothing"}}, "/link"),
        ({"link": {"kind": "pot", "id": "x"}}, "/link/kind"),
        ({"link": {"kind": "v2", "chainId": CHAIN.id}, "currentAmount": "1"}, ""),
        ({"progress": "1"}, "/progress"),
    ],
)
async def test_what_is_no_goal_is_refused_by_name(me: Client, change: Any, pointer: str) -> None:
    got = await me.post("/v1/goals", {"name": "Bike", "targetAmount": "200", **change})
    assert (got.status, [each["pointer"] for each in got.json["errors"]]) == (400, [pointer])
    assert (await me.get("/v1/goals")).json["data"] == []


async def test_hostile_name_is_kept_as_plain_text(me: Client) -> None:
    goal = (await make(me, name=" \u202eBi\u0000ke\n <b>\u200b ")).json
    assert goal["name"] == "Bike <b>"


async def test_someone_elses_goal_does_not_exist(me: Client, anyone: Client, pool: Pool) -> None:
    goal_id = (await make(me)).json["goalId"]
    stranger = await anyone.signed_in()
    for method, body in (("GET", None), ("PATCH", {"name": "Mine"}), ("DELETE", None)):
        assert (await stranger.call(method, f"/v1/goals/{goal_id}", json=body)).status == 404
    bucket = await rows.bucket(pool, me.address, b"bike", holds=1)
    link = {"kind": "bucket", "id": bucket.bucket_id}
    theirs = await stranger.post("/v1/goals", {"name": "x", "targetAmount": "1", "link": link})
    nobodys = await stranger.post(
        "/v1/goals", {"name": "x", "targetAmount": "1", "link": {**link, "id": link["id"] + "0"}}
    )
    assert (
        (theirs.status, theirs.json["detail"])
        == (nobodys.status, nobodys.json["detail"])
        == (400, theirs.json["detail"])
    )
    for hostile in ("0x" + "0" * 64, "x' OR 1=1", "%00", "..%2Fme"):
        assert (await me.get(f"/v1/goals/{hostile}")).status == 404


async def test_goals_are_paged_in_the_order_they_were_made(me: Client, deps: Deps) -> None:
    made = []
    for name in "edcba":
        made.append((await make(me, name=name)).json["goalId"])
        deps.now.pass_(1)  # type: ignore[attr-defined]  # the clock of tests/realtime/wiring.py
    seen, cursor = [], ""
    while True:
        got = (await me.get(f"/v1/goals?limit=2{cursor}")).json
        seen += [goal["goalId"] for goal in got["data"]]
        if not got["hasMore"]:
            break
        cursor = f"&cursor={got['nextCursor']}"
    assert seen == made
    assert (await me.get("/v1/goals?cursor=x")).status == 400


async def test_goals_of_one_user_are_bounded(me: Client, pool: Pool) -> None:
    goal_id = (await make(me)).json["goalId"]
    await pool.execute(
        "INSERT INTO savings_goals (user_address, goal_id, goal_name, target_amount, started_on, told_on) "
        "SELECT user_address, '0x' || lpad(to_hex(i), 64, '0'), 'x', 1, started_on, told_on "
        "FROM savings_goals, generate_series(1, 99) AS i"
    )
    assert (await me.post("/v1/goals", {"name": "x", "targetAmount": "1"})).status == 409
    await me.call("DELETE", f"/v1/goals/{goal_id}")
    await make(me)


async def test_savings_sum_goals_and_say_what_is_worth_knowing(me: Client, pool: Pool, deps: Deps) -> None:
    empty = (await me.get("/v1/savings")).json
    assert (empty["totalBalance"], empty["averageAPY"], empty["goalsProgress"]) == ("0.00", None, [])
    assert empty["insights"][0]["actions"] == ["create_goal"]
    bucket = await rows.bucket(pool, me.address, b"bike", holds=50_000_001)
    await make(me, link={"kind": "bucket", "id": bucket.bucket_id}, targetDate=datetime.now(UTC).date().isoformat())
    deps.now.pass_(1)  # type: ignore[attr-defined]  # the clock of tests/realtime/wiring.py
    await make(me, name="Done", currentAmount="200")
    got = (await me.get("/v1/savings")).json
    assert (got["totalBalance"], got["totalYield"], got["completedGoals"]) == ("250.000001", "0.00", 1)
    assert [goal["name"] for goal in got["goalsProgress"]] == ["Bike", "Done"]
    assert [(each["kind"], each["priority"]) for each in got["insights"]] == [("savings", 90), ("savings", 50)]
    assert got["insights"][0]["figures"]["missing"] == "149.999999"
