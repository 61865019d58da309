"""Friends over REST: the lists, requests by address, invitations by link, blocking, and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from handlers import comparisons, friends, invitations
from handlers.commands import AnyCaseAddress
from handlers.errors import Conflict, NotFound, RateLimited
from handlers.friends import Status
from handlers.resources import AddressText, Money, Resource, Time
from realtime.rest import shapes
from realtime.rest.api import Body, Path, Query, endpoint
from realtime.rest.call import Answer, Call
from realtime.rest.invitations import Invitations, Inviting, NewInvitation
from realtime.rest.paging import DEFAULT_LIMIT, CursorText, Limit, cursor_of, page, place_of
from store.friends import Place

FriendId = Annotated[str, Path("Id of a friend or request, as a list gives it.")]


class Friend(Resource):
    """A friend, who asked to be one (`received`), or whom the user asked (`requested`).

    `address` is null unless the user typed it. A request says nothing of who the address is.
    """

    id: str
    status: Literal["friends", "received", "requested"]
    display_name: str | None
    avatar_url: str | None
    address: AddressText | None
    since: Time


class Friends(shapes.Listed):
    """Friends or requests, newest first."""

    data: list[Friend]


class Blocked(Resource):
    """Someone who is blocked; the name is the one they had then."""

    id: str
    display_name: str | None
    address: AddressText | None
    since: Time


class BlockedList(shapes.Listed):
    """Whom the user has blocked, newest first."""

    data: list[Blocked]


class Asking(Resource):
    """Whom to ask."""

    address: AnyCaseAddress


@endpoint("GET", "/v1/friends", tag="friends", answers=Friends, tagged=True)
async def list_friends(
    call: Call,
    *,
    status: Annotated[Status, Query("Friends, or requests: those received or those made.")] = "friends",
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Answer:
    """List friends, or requests to become one."""
    kind = f"friends.{status}"
    found = await friends.listed(call.deps, call.me.user, status, below=_place(call, kind, cursor), limit=limit)
    return _page(call, kind, found)


@endpoint("GET", "/v1/friends/blocked", tag="friends", answers=BlockedList, tagged=True)
async def list_blocked(call: Call, *, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Answer:
    """List whom the user has blocked."""
    kind = "friends.blocked"
    found = await friends.blocked(call.deps, call.me.user, below=_place(call, kind, cursor), limit=limit)
    return _page(call, kind, found)


@endpoint(
    "POST",
    "/v1/friends/requests",
    tag="friends",
    answers=Friend,
    scope="write",
    writes=True,
    once=True,
    status=202,
    problems=(Conflict, RateLimited),
)
async def ask(call: Call, *, body: Annotated[Asking, Body()]) -> Answer:
    """Ask an address to be friends.

    The answer does not depend on who that is: an address without an account, one that ignores the request and one
    that has blocked the user look the same. If they had asked the user, both are friends at once.
    """
    return Answer(body=await friends.request(call.deps, call.me.user, body.address, caller=call.caller))


@endpoint(
    "POST",
    "/v1/friends/invitations",
    tag="friends",
    answers=NewInvitation,
    scope="write",
    writes=True,
    status=201,
    problems=(Conflict,),
)
async def invite(call: Call, *, body: Annotated[Inviting, Body()]) -> Answer:
    """Make an invitation; whoever has its token can become a friend, until it is used up, expires or is revoked."""
    lives = timedelta(hours=body.expires_in_hours)
    made = await invitations.invite(call.deps, call.me.user, uses=body.uses, lives=lives, caller=call.caller)
    return Answer(body=made)


@endpoint("GET", "/v1/friends/invitations", tag="friends", answers=Invitations, tagged=True)
async def list_invitations(call: Call, *, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Answer:
    """List invitations that stand."""
    kind = "friends.invitations"
    found = await invitations.invitations(call.deps, call.me.user, below=_place(call, kind, cursor), limit=limit)
    return _page(call, kind, found)


@endpoint("DELETE", "/v1/friends/invitations/{id}", tag="friends", scope="write", writes=True, problems=(NotFound,))
async def revoke(call: Call, *, id: Annotated[str, Path("Id of an invitation.")]) -> None:  # noqa: A002 - the path's own name
    """Revoke an invitation; who became a friend by it stays one."""
    await invitations.revoke(call.deps, call.me.user, _id(id), caller=call.caller)


@endpoint(
    "POST",
    "/v1/friends/invitations/{token}/accept",
    tag="friends",
    answers=Friend,
    scope="friends.token",
    writes=True,
    problems=(NotFound, Conflict),
)
async def follow(call: Call, *, token: Annotated[str, Path("Token of an invitation.")]) -> Mapping[str, object]:
    """Become friends with who made an invitation.

    A token that was never made, is used up, expired or revoked, or whose maker has blocked the user, is not found.
    """
    return await invitations.follow(call.deps, call.me.user, token, caller=call.caller)


@endpoint(
    "POST",
    "/v1/friends/{id}/accept",
    tag="friends",
    answers=Friend,
    scope="write",
    writes=True,
    problems=(NotFound, Conflict),
)
async def accept(call: Call, *, id: FriendId) -> Mapping[str, object]:  # noqa: A002 - the path's own name
    """Accept a request that was received."""
    return await friends.accept(call.deps, call.me.user, _id(id), caller=call.caller)


@endpoint("POST", "/v1/friends/{id}/decline", tag="friends", scope="write", writes=True, problems=(NotFound,))
async def decline(call: Call, *, id: FriendId) -> None:  # noqa: A002 - the path's own name
    """Decline a request that was received; who asked is not told, and can't ask again."""
    await friends.decline(call.deps, call.me.user, _id(id), caller=call.caller)


@endpoint("DELETE", "/v1/friends/{id}", tag="friends", scope="write", writes=True, problems=(NotFound,))
async def remove(call: Call, *, id: FriendId) -> None:  # noqa: A002 - the path's own name
    """Remove a friend, or withdraw a request; the other is not told, and sees nothing of the user any more."""
    await friends.remove(call.deps, call.me.user, _id(id), caller=call.caller)


@endpoint(
    "POST", "/v1/friends/{id}/block", tag="friends", answers=Blocked, scope="write", writes=True, problems=(NotFound,)
)
async def block(call: Call, *, id: FriendId) -> Mapping[str, object]:  # noqa: A002 - the path's own name
    """Block a friend, who asked, or an address that was asked; they are not told."""
    return await friends.block(call.deps, call.me.user, _id(id), caller=call.caller)


@endpoint("DELETE", "/v1/friends/{id}/block", tag="friends", scope="write", writes=True, problems=(NotFound,))
async def unblock(call: Call, *, id: FriendId) -> None:  # noqa: A002 - the path's own name
    """Unblock someone: they may ask again; a friendship does not come back by itself."""
    await friends.unblock(call.deps, call.me.user, _id(id), caller=call.caller)


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("You have nothing of this id.") from None


def _place(call: Call, kind: str, cursor: str | None) -> Place | None:
    if cursor is None:
        return None
    at, id_ = place_of(call.deps.settings, kind, cursor)
    return Place(datetime.fromisoformat(at), UUID(id_))


def _page(call: Call, kind: str, found: friends.Page) -> Answer:
    place = found.next
    following = place and cursor_of(call.deps.settings, kind, place.at.isoformat(), str(place.id))
    return page(call, found.resources, following)


class DollarBand(Resource):
    """Dollars a month: from, and below what; the highest band has no end."""

    from_: Money = Field(alias="from")
    below: Money | None


class Comparison(Resource):
    """One category, in the month it says: the user's band, and that of the one in the middle of a cohort of friends.

    With a reason and a band, the band is of the last month that was released; with a reason alone there is none.
    """

    category_id: str
    month: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}$")] | None
    my_band: DollarBand | None
    unpriced: int = Field(description="Amounts of the user's own without a price; they are in no band.")
    cohort_band: DollarBand | None
    cohort_size: int | None = Field(description="People whom the band is about, the user not among them.")
    withheld: Literal["too_few", "no_consent", "cohort_changed", "no_data"] | None


class Comparisons(Resource):
    """Comparisons, in the order of the categories."""

    data: list[Comparison]


@endpoint(
    "GET", "/v1/friends/comparisons", tag="friends", answers=Comparisons, writes=True, tagged=True, problems=(NotFound,)
)
async def compare(
    call: Call, *, category: Annotated[str | None, Query("Only this category.")] = None
) -> Mapping[str, object]:
    """Compare the user's spending with that of friends, by category, in the last month that has ended everywhere.

    Only with friends who consent (`compareConsent`), for a user who does, and of five or more; in bands, the same for
    everybody. A month is answered once and stays so, and no two answers are about cohorts that differ by a few people.
    """
    wanted = None if category is None else str(_id(category))
    return {"data": await comparisons.compare(call.deps, call.me.user, wanted)}


ROUTES = (
    compare,
    list_friends,
    list_blocked,
    ask,
    invite,
    list_invitations,
    revoke,
    follow,
    accept,
    decline,
    remove,
    block,
    unblock,
)
