"""Invitations by link as routes show them: to be friends, or to take part in a challenge."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictInt

from handlers.resources import Resource, Time
from realtime.rest import shapes

USES_MAX = 100
DAYS_MAX = 30
"""Bounds of an invitation: a link that is passed on must end by itself."""


class Inviting(Resource):
    """How often an invitation may be used, and for how long."""

    uses: Annotated[StrictInt, Field(ge=1, le=USES_MAX)] = 1
    expires_in_hours: Annotated[StrictInt, Field(ge=1, le=24 * DAYS_MAX)] = 24 * 7


class Invitation(Resource):
    """An invitation that stands."""

    id: str
    uses_left: int
    expires_at: Time
    created_at: Time


class NewInvitation(Invitation):
    """An invitation with its token, which is told this once."""

    token: str


class Invitations(shapes.Listed):
    """Invitations that stand, newest first."""

    data: list[Invitation]
