"""Achievements over REST: all of them, with how far the user is."""

from __future__ import annotations

from handlers import achievements
from handlers.resources import AchievementStanding
from realtime.rest import shapes
from realtime.rest.api import endpoint
from realtime.rest.call import Call


class Achievements(shapes.Listed):
    """Every achievement of the table, in its order."""

    data: list[AchievementStanding]


@endpoint("GET", "/v1/achievements", tag="goals", answers=Achievements, tagged=True)
async def list_achievements(call: Call) -> dict[str, object]:
    """List all achievements: which are unlocked since when, and how far the others are."""
    data = await achievements.table(call.deps, call.me.user)
    return {"data": data, "hasMore": False, "nextCursor": None}


ROUTES = (list_achievements,)
