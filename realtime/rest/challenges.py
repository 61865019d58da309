"""Challenges over REST: made, found, joined and left; invitations to them, of friends and by links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StrictBool, model_validator

from handlers import challenge_invitations as invitations
from handlers import challenges, standings
from handlers.challenge_resources import Challenge
from handlers.challenges import Base, Which
from handlers.errors import Conflict, NotFound, PreconditionFailed
from handlers.resources import Resource
from handlers.rules.texts import plain
from realtime.rest import shapes
from realtime.rest.api import Body, Header, Path, Query, endpoint
from realtime.rest.call import Answer, Call
from realtime.rest.changes import Changes, given, is_not
from realtime.rest.filtering import Moment
from realtime.rest.goals import Name, Target
from realtime.rest.invitations import Invitations, Inviting, NewInvitation
from realtime.rest.paging import DEFAULT_LIMIT, CursorText, Limit, cursor_of, page, place_of
from store.challenges import Place
from store.leaderboards import Leaderboards

DESCRIPTION_MAX = 500
INVITED_AT_ONCE = 50
"""Friends invited by one call: all of them are locked."""


def _description(text: str) -> str:
    shown = plain(text)
    if len(shown) > DESCRIPTION_MAX:
        raise ValueError(f"should have at most {DESCRIPTION_MAX} characters to show")
    return shown


Description = Annotated[str, Field(max_length=4 * DESCRIPTION_MAX), AfterValidator(_description)]
ChallengeId = Annotated[str, Path("Challenge id.")]


class Challenges(shapes.Listed):
    """Challenges, newest first."""

    data: list[Challenge]


class NewChallenge(Resource):
    """A challenge to make. Without `startsAt` it begins at once; `target` (dollars) is for savings alone."""

    name: Name
    description: Description = ""
    measure: Literal["savings_progress", "budget_kept", "no_spend_days"]
    visibility: Literal["private", "public"] = "private"
    target: Target | None = None
    starts_at: Moment | None = None
    ends_at: Moment
    join: StrictBool = Field(default=True, description="Whether you take part.")

    @model_validator(mode="after")
    def _target_of_savings(self) -> NewChallenge:
        if (self.measure == "savings_progress") != (self.target is not None):
            raise ValueError("savings_progress has a target, the others have none")
        return self


class ChallengeChanges(Changes):
    """What to change; what is left out stays."""

    name: Name = ""
    description: Description = ""


class InvitedFriends(Resource):
    """Friends to invite, by the ids that `GET /v1/friends` gives them."""

    friend_ids: Annotated[list[str], Field(min_length=1, max_length=INVITED_AT_ONCE)]


@endpoint("GET", "/v1/challenges", tag="challenges", answers=Challenges, tagged=True)
async def list_challenges(
    call: Call,
    *,
    which: Annotated[
        Which, Query("Your own, those that friends invite you to, or public ones that can be joined.", name="list")
    ] = "mine",
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Answer:
    """List challenges, the newest first."""
    kind = f"challenges.{which}"
    found = await challenges.listed(call.deps, call.me.user, which, below=_place(call, kind, cursor), limit=limit)
    shown = await standings.with_ranks(call.deps, Leaderboards(call.web.redis), call.me.user, found.resources)
    return _page(call, kind, replace(found, resources=shown))


@endpoint(
    "POST",
    "/v1/challenges",
    tag="challenges",
    answers=Challenge,
    scope="command.challenges",
    writes=True,
    tagged=True,
    once=True,
    status=201,
    problems=(Conflict,),
)
async def create_challenge(call: Call, *, body: Annotated[NewChallenge, Body()]) -> Answer:
    """Make a challenge.

    A private one is there for you, for friends whom you invite and for whoever has a link of it; anybody may join a
    public one. For `budget_kept` you need a monthly budget to take part.
    """
    # Its validators have made it what Base says; its annotation is that of the JSON.
    target: Any = body.target
    base = Base(
        name=body.name,
        description=body.description,
        measure=body.measure,
        visibility=body.visibility,
        target=target,
        starts_at=body.starts_at,
        ends_at=body.ends_at,
        joins=body.join,
    )
    made = await challenges.create(call.deps, call.me.user, base, caller=call.caller, cause=call.cause)
    return Answer(body=made, headers={"Location": f"/v1/challenges/{made['id']}"})


@endpoint("GET", "/v1/challenges/{id}", tag="challenges", answers=Challenge, tagged=True, problems=(NotFound,))
async def challenge(call: Call, *, id: ChallengeId) -> Mapping[str, object]:  # noqa: A002 - the path's own name
    """Read a challenge: one of your own, one that you are invited to, or a public one."""
    shown = await challenges.read(call.deps, call.me.user, _id(id))
    return (await standings.with_ranks(call.deps, Leaderboards(call.web.redis), call.me.user, [shown]))[0]


@endpoint(
    "PATCH",
    "/v1/challenges/{id}",
    tag="challenges",
    answers=Challenge,
    scope="command.challenges",
    writes=True,
    tagged=True,
    problems=(NotFound, Conflict, PreconditionFailed),
)
async def edit_challenge(
    call: Call,
    *,
    id: ChallengeId,  # noqa: A002 - the path's own name
    body: Annotated[ChallengeChanges, Body()],
    if_match: Annotated[str | None, Header("If-Match", "ETag of the challenge that the change is meant for.")] = None,
) -> Mapping[str, object]:
    """Change the name or description of a challenge of your making that has not begun."""
    return await challenges.describe(
        call.deps, call.me.user, _id(id), given(body), caller=call.caller, unless=is_not(if_match)
    )


@endpoint(
    "POST",
    "/v1/challenges/{id}/cancel",
    tag="challenges",
    answers=Challenge,
    scope="command.challenges",
    writes=True,
    problems=(NotFound, Conflict),
)
async def cancel_challenge(call: Call, *, id: ChallengeId) -> Mapping[str, object]:  # noqa: A002 - the path's own name
    """Call off a challenge of your making before it begins; everyone who takes part is told."""
    return await challenges.cancel(call.deps, call.me.user, _id(id), caller=call.caller)


@endpoint(
    "POST",
    "/v1/challenges/{id}/join",
    tag="challenges",
    answers=Challenge,
    scope="command.challenges",
    writes=True,
    once=True,
    problems=(NotFound, Conflict),
)
async def join_challenge(call: Call, *, id: ChallengeId) -> Mapping[str, object]:  # noqa: A002 - the path's own name
    """Take part in a public challenge, or in a private one that a friend invites you to.

    What counts begins now. Your zone, budget and the buckets of your goals are taken as they are now; whoever left and
    joins again is who they were. Everyone who takes part sees your name, picture and progress.
    """
    return await challenges.join(call.deps, call.me.user, _id(id), caller=call.caller)


@endpoint(
    "POST",
    "/v1/challenges/{id}/leave",
    tag="challenges",
    scope="command.challenges",
    writes=True,
    problems=(NotFound, Conflict),
)
async def leave_challenge(call: Call, *, id: ChallengeId) -> None:  # noqa: A002 - the path's own name
    """Take part no longer; nobody is told."""
    await challenges.leave(call.deps, call.me.user, _id(id), caller=call.caller)


@endpoint(
    "POST",
    "/v1/challenges/{id}/invite",
    tag="challenges",
    scope="command.challenges",
    writes=True,
    problems=(NotFound, Conflict),
)
async def invite_to_challenge(call: Call, *, id: ChallengeId, body: Annotated[InvitedFriends, Body()]) -> None:  # noqa: A002 - the path's own name
    """Invite friends to a challenge of your making. The invitation holds as long as you are friends."""
    ids = [_id(each) for each in body.friend_ids]
    await invitations.invite(call.deps, call.me.user, _id(id), ids, caller=call.caller)


@endpoint(
    "POST",
    "/v1/challenges/{id}/decline",
    tag="challenges",
    scope="command.challenges",
    writes=True,
    problems=(NotFound,),
)
async def decline_challenge(call: Call, *, id: ChallengeId) -> None:  # noqa: A002 - the path's own name
    """Decline an invitation; who invited you is not told, and can't invite you to it again."""
    await invitations.decline(call.deps, call.me.user, _id(id), caller=call.caller)


@endpoint(
    "POST",
    "/v1/challenges/{id}/links",
    tag="challenges",
    answers=NewInvitation,
    scope="command.challenges",
    writes=True,
    status=201,
    problems=(NotFound, Conflict),
)
async def make_challenge_link(call: Call, *, id: ChallengeId, body: Annotated[Inviting, Body()]) -> Answer:  # noqa: A002 - the path's own name
    """Make a link to a challenge of your making: whoever has its token can take part, until it ends."""
    lives = timedelta(hours=body.expires_in_hours)
    made = await invitations.make_link(
        call.deps, call.me.user, _id(id), uses=body.uses, lives=lives, caller=call.caller
    )
    return Answer(body=made)


@endpoint("GET", "/v1/challenges/{id}/links", tag="challenges", answers=Invitations, tagged=True, problems=(NotFound,))
async def list_challenge_links(
    call: Call,
    *,
    id: ChallengeId,  # noqa: A002 - the path's own name
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Answer:
    """List the links of a challenge of your making that stand."""
    kind = f"challenges.links.{_id(id)}"
    found = await invitations.links(call.deps, call.me.user, _id(id), below=_place(call, kind, cursor), limit=limit)
    return _page(call, kind, found)


@endpoint(
    "DELETE",
    "/v1/challenges/{id}/links/{link}",
    tag="challenges",
    scope="command.challenges",
    writes=True,
    problems=(NotFound,),
)
async def revoke_challenge_link(call: Call, *, id: ChallengeId, link: Annotated[str, Path("Link id.")]) -> None:  # noqa: A002 - the path's own name
    """Revoke a link; who came by it stays."""
    await invitations.revoke_link(call.deps, call.me.user, _id(id), _id(link), caller=call.caller)


@endpoint(
    "POST",
    "/v1/challenges/links/{token}/join",
    tag="challenges",
    answers=Challenge,
    scope="challenges.token",
    writes=True,
    problems=(NotFound, Conflict),
)
async def join_by_link(call: Call, *, token: Annotated[str, Path("Token of a link.")]) -> Mapping[str, object]:
    """Take part by a link.

    A token that was never made, is used up, expired or revoked, or whose maker and you have blocked each other, is not
    found.
    """
    return await invitations.follow(call.deps, call.me.user, token, caller=call.caller)


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise challenges.unknown() from None


def _place(call: Call, kind: str, cursor: str | None) -> Place | None:
    if cursor is None:
        return None
    at, id_ = place_of(call.deps.settings, kind, cursor)
    return Place(datetime.fromisoformat(at), UUID(id_))


def _page(call: Call, kind: str, found: challenges.Page) -> Answer:
    place = found.next
    following = place and cursor_of(call.deps.settings, kind, place.at.isoformat(), str(place.id))
    return page(call, found.resources, following)


ROUTES = (
    list_challenges,
    create_challenge,
    challenge,
    edit_challenge,
    cancel_challenge,
    join_challenge,
    leave_challenge,
    invite_to_challenge,
    decline_challenge,
    make_challenge_link,
    list_challenge_links,
    revoke_challenge_link,
    join_by_link,
)
