"""Challenges as models: what OpenAPI, the event catalogue and the tests hold them to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from handlers.resources import Money, Ratio, Resource, Time


class Winner(Resource):
    """One of the first places of a settled challenge. Equal scores share a rank."""

    rank: int = Field(ge=1)
    display_name: str
    avatar_url: str | None
    progress: Ratio


class Challenge(Resource):
    """A challenge as one user sees it: others by the names they show, and by nothing else.

    Progress is a part of the target, of the window's budget, or of the window's days. `winners` are those of a
    settled challenge, and so is `myRank`, which REST tells of a running one, too.
    """

    id: str
    name: str
    description: str
    measure: Literal["savings_progress", "budget_kept", "no_spend_days"]
    visibility: Literal["private", "public"]
    starts_at: Time
    ends_at: Time
    state: Literal["upcoming", "running", "ended", "settled", "cancelled"]
    target: Money | None = Field(description="Dollars to set aside; null for other measures.")
    participant_count: int
    is_creator: bool
    joined: bool
    my_progress: Ratio | None
    my_amount: Money | None = Field(description="Dollars set aside, or spent; null where days are counted.")
    my_unpriced: int = Field(description="Amounts of the user's own without a price; they count nothing.")
    my_rank: int | None
    winners: list[Winner]
