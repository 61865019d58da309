"""The leaderboard of a challenge over REST: from the first place on, or around the caller."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from handlers import challenges, standings
from handlers.errors import NotFound
from handlers.resources import Ratio, Resource
from handlers.standings import Span, View
from realtime.rest import shapes
from realtime.rest.api import Path, Query, endpoint
from realtime.rest.call import Answer, Call
from realtime.rest.paging import DEFAULT_LIMIT, CursorText, Limit, hidden_cursor_of, hidden_place_of, page
from store.leaderboards import Leaderboards, Place


class LeaderboardEntry(Resource):
    """A participant's place. Equal progress shares a rank, and the next one counts them all: 1, 1, 3."""

    rank: int = Field(ge=1)
    display_name: str
    avatar_url: str | None
    progress: Ratio
    is_me: bool


class Leaderboard(shapes.Listed):
    """Places, best first."""

    data: list[LeaderboardEntry]


@endpoint(
    "GET",
    "/v1/challenges/{id}/leaderboard",
    tag="challenges",
    answers=Leaderboard,
    tagged=True,
    problems=(NotFound,),
)
async def leaderboard(
    call: Call,
    *,
    id: Annotated[str, Path("Id of a challenge.")],  # noqa: A002 - the path's own name
    around: Annotated[
        Literal["me"] | None, Query("The page with the caller in its middle, where no cursor says another one.")
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Answer:
    """List who takes part in a challenge, best first, by their display names; once settled, the final result.

    The next page begins after the last place of this one, also when whoever had it has moved or left. Who moves up
    between two requests may be missed, who moves down may come twice; who stays is on exactly one page.
    """
    view = await _view(call, id)
    if around is not None and view.me is None:
        raise NotFound("You take no part in this challenge.")
    kind = f"leaderboard.{view.challenge.id}"
    after = _place(call, kind, cursor)
    span = Span(limit, after, around=around is not None and after is None)
    found = await standings.listed(call.deps, Leaderboards(call.web.redis), view, span)
    place = found.next
    return page(call, found.resources, place and hidden_cursor_of(call.deps.settings, kind, place.score, str(place.id)))


async def _view(call: Call, challenge: str) -> View:
    user = call.me.user
    try:
        row, part = await challenges.seen(call.deps.pool, user, UUID(challenge))
    except ValueError:
        raise challenges.unknown() from None
    return View(row, user, standings.place_of(row, part))


def _place(call: Call, kind: str, cursor: str | None) -> Place | None:
    if cursor is None:
        return None
    score, id_ = hidden_place_of(call.deps.settings, kind, cursor)
    return Place(score, UUID(id_))


ROUTES = (leaderboard,)
