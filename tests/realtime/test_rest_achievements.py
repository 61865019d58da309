from __future__ import annotations

import pytest

from handlers import achievements
from handlers.deps import Deps
from handlers.rules.achievements import RULES
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.realtime.rows import spend, write
from tests.realtime.served import Client
from tests.realtime.wiring import busy, wire


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings) -> Deps:
    return wire(pool, busy(make_settings))


async def test_every_achievement_is_listed_with_progress_of_the_user_alone(
    me: Client, anyone: Client, pool: Pool, deps: Deps
) -> None:
    other = await anyone.signed_in()
    await write(pool, *(spend(me.address, number) for number in range(40)))
    await write(pool, *(spend(other.address, number) for number in range(100)))
    await achievements.evaluate(deps, [me.address, other.address])
    mine = await me.get("/v1/achievements")
    assert [each["code"] for each in mine.json["data"]] == [rule.code for rule in RULES]
    assert (mine.json["hasMore"], mine.json["nextCursor"]) == (False, None)
    regular = next(each for each in mine.json["data"] if each["code"] == "SPENDER_100")
    assert (regular["isUnlocked"], regular["unlockedAt"], regular["progress"]) == (
        False,
        None,
        {"current": "40", "target": "100", "unit": "times", "moreThan": False},
    )
    investor = next(each for each in mine.json["data"] if each["code"] == "INVESTOR_1K")
    assert investor["progress"] == {"current": "0.00", "target": "1000.00", "unit": "usd", "moreThan": True}
    theirs = await other.get("/v1/achievements")
    regular = next(each for each in theirs.json["data"] if each["code"] == "SPENDER_100")
    assert regular["isUnlocked"] is True
    assert "SPENDER_100" in [each["code"] for each in (await other.get("/v1/snapshot")).json["achievements"]]
    assert "SPENDER_100" not in [each["code"] for each in (await me.get("/v1/snapshot")).json["achievements"]]
    again = await other.get("/v1/achievements", headers={"If-None-Match": theirs.headers["ETag"]})
    assert again.status == 304


async def test_nobody_reads_achievements_without_a_token(anyone: Client) -> None:
    assert (await anyone.get("/v1/achievements")).status == 401
