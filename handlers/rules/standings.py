"""What is told and shown of a place in a challenge: rank and progress, never an address or an id of anyone. Pure."""

from __future__ import annotations

from uuid import UUID

from handlers.rules.friends import SOMEONE, avatar
from store.leaderboards import Due, Ranked
from store.log import best_effort_text
from store.standings import Shown


def update(challenge: UUID, due: Due, progress: str) -> bytes:
    """Text of the `leaderboard_update` that tells somebody their own place."""
    place = {"challengeId": str(challenge), "rank": due.rank, "previousRank": due.previous, "progress": progress}
    return best_effort_text("leaderboard_update", place)


def entry(place: Ranked, who: Shown, progress: str, *, cdn_url: str) -> dict[str, object]:
    """A line of a leaderboard."""
    return {
        "rank": place.rank,
        "displayName": who.display_name or SOMEONE,
        "avatarUrl": avatar(who.avatar_url, cdn_url),
        "progress": progress,
        "isMe": who.is_me,
    }
