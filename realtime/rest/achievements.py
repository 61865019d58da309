"""Achievements over REST: all of them, with how far the user is."""

from __future__ import annotations

from typing import Literal

from handlers import achievements
from handlers.resources import Resource, Tier, Time
from realtime.rest import shapes
from realtime.rest.api import endpoint
from realtime.rest.call import Call


class AchievementProgress(Resource):
    """How far an achievement is; `moreThan`: the target has to be exceeded. Amounts of unit usd are dollars."""

    current: str
    target: str
    unit: Literal["times", "days", "weeks", "months", "usd"]
    more_than: bool


class AchievementStanding(Resource):
    """An achievement of the table, locked or not."""

    code: str
    title: str
    description: str
    tier: Tier
    is_unlocked: bool
    unlocked_at: Time | None
    progress: AchievementProgress


class Achievements(shapes.Listed):
    """Every achievement of the table, in its order."""

    data: list[AchievementStanding]


@endpoint("GET", "/v1/achievements", tag="goals", answers=Achievements, tagged=True)
async def list_achievements(call: Call) -> dict[str, object]:
    """List all achievements: which are unlocked since when, and how far the others are."""
    data = await achievements.table(call.deps, call.me.user)
    return {"data": data, "hasMore": False, "nextCursor": None}


ROUTES = (list_achievements,)
