"""Savings goals over REST: what there are, how they stand, and their users' changes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StrictInt, WithJsonSchema, model_validator

from handlers import goal_edits, goals
from handlers.errors import Conflict, Invalid, NotFound, PreconditionFailed
from handlers.goal_edits import Base, Wanted
from handlers.resources import Goal, Insight, Resource
from handlers.rules.texts import plain
from realtime.rest import shapes
from realtime.rest.api import Body, Header, Path, endpoint
from realtime.rest.call import Answer, Call
from realtime.rest.categories import Id
from realtime.rest.changes import Changes, given, is_not
from realtime.rest.paging import DEFAULT_LIMIT, CursorText, Limit, cursor_of, page, place_of
from realtime.rest.summary import SavingsAccount

NAME_MAX = 100
"""Characters of a name that is shown."""

_GOAL_ID = re.compile(r"0x[0-9a-f]{64}")
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_DOLLARS = r"^[0-9]{1,15}(\.[0-9]{1,2})?$"


def _name(text: str) -> str:
    shown = plain(text)
    if not 1 <= len(shown) <= NAME_MAX:
        raise ValueError(f"should have 1 to {NAME_MAX} characters to show")
    return shown


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("should be a day of the calendar, like 2027-01-31") from None


def _target(amount: Decimal) -> Decimal:
    if amount == 0:
        raise ValueError("should be more than 0")
    return amount


Name = Annotated[str, Field(max_length=4 * NAME_MAX), AfterValidator(_name)]
Day = Annotated[
    str,
    Field(pattern=_DAY),
    AfterValidator(_day),
    WithJsonSchema({"type": "string", "format": "date", "pattern": _DAY}),
]
Dollars = Annotated[
    str,
    Field(pattern=_DOLLARS),
    AfterValidator(Decimal),
    WithJsonSchema({"type": "string", "pattern": _DOLLARS, "description": "US dollars."}),
]
Target = Annotated[Dollars, AfterValidator(_target)]
GoalId = Annotated[str, Path("Goal id.")]


class Savings(SavingsAccount):
    """The savings of a user: every goal, what is in them, and what they earned. `averageAPY` is weighted by value."""

    insights: list[Insight]


class WantedLink(Resource):
    """What is to keep a goal. `id` of a bucket or position; of v2 an identifier, left out: the goal's own id."""

    kind: Literal["bucket", "lock", "vault", "v2"]
    chain_id: Annotated[StrictInt, Field(ge=1, lt=2**63)] | None = None
    id: Annotated[str, Field(min_length=1, max_length=256)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> WantedLink:
        if self.kind == "v2" and self.chain_id is None:
            raise ValueError("a v2 link names its chainId")
        if self.kind == "v2" and self.id is not None and not _GOAL_ID.fullmatch(self.id.lower()):
            raise ValueError("a v2 link's id is 32 bytes in hex")
        if self.kind != "v2" and self.id is None:
            raise ValueError("this link names its id")
        return self

    def wanted(self) -> Wanted:
        """The link as handlers take it."""
        return Wanted(self.kind, self.chain_id, self.id.lower() if self.id is not None else None)


class NewGoal(Resource):
    """A goal to make. Without a link its amount is kept by hand, beginning with `currentAmount`."""

    name: Name
    target_amount: Target
    target_date: Day | None = None
    category_id: Id | None = None
    link: WantedLink | None = None
    current_amount: Dollars = "0"

    @model_validator(mode="after")
    def _kept_once(self) -> NewGoal:
        if self.link is not None and "current_amount" in self.model_fields_set:
            raise ValueError("a goal with a link gets its amount from there")
        return self


class GoalChanges(Changes):
    """What to change; what is left out stays, null takes it back. `currentAmount`: of a goal without a link."""

    name: Name = ""
    target_amount: Target = ""
    target_date: Day | None = None
    category_id: Id | None = None
    link: WantedLink | None = None
    current_amount: Dollars = ""


class Goals(shapes.Listed):
    """Goals in the order they were made."""

    data: list[Goal]


@endpoint("GET", "/v1/goals", tag="goals", answers=Goals, tagged=True, problems=(Invalid,))
async def list_goals(call: Call, *, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Answer:
    """List the user's goals, the oldest first."""
    settings, after = call.deps.settings, None
    if cursor is not None:
        time, id_ = place_of(settings, "goals", cursor)
        after = (datetime.fromisoformat(time), id_)
    found = await goals.page(call.deps, call.me.user, after=after, limit=limit)
    following = None
    if found.next is not None:
        following = cursor_of(settings, "goals", found.next[0].isoformat(), found.next[1])
    return page(call, found.resources, following)


@endpoint("GET", "/v1/goals/{id}", tag="goals", answers=Goal, tagged=True, problems=(NotFound,))
async def goal(call: Call, *, id: GoalId) -> Mapping[str, object]:  # noqa: A002 - the path's own name
    """Read one goal."""
    return await goals.read(call.deps, call.me.user, id.lower())


@endpoint(
    "POST",
    "/v1/goals",
    tag="goals",
    answers=Goal,
    scope="command.goals",
    writes=True,
    tagged=True,
    once=True,
    status=201,
    problems=(Conflict,),
)
async def create_goal(call: Call, *, body: Annotated[NewGoal, Body()]) -> Answer:
    """Make a savings goal; every device gets `goal_update`, and milestones that are reached already."""
    link = body.link.wanted() if body.link is not None else None
    current = Decimal(body.current_amount)
    # Validators have made the others what Base says; their annotations are those of the JSON.
    facts: Any = (body.name, body.target_amount, current, body.target_date, body.category_id, link)
    made = await goal_edits.create(call.deps, call.me.user, Base(*facts), cause=call.cause)
    return Answer(body=made, headers={"Location": f"/v1/goals/{made['goalId']}"})


@endpoint(
    "PATCH",
    "/v1/goals/{id}",
    tag="goals",
    answers=Goal,
    scope="command.goals",
    writes=True,
    tagged=True,
    problems=(NotFound, Conflict, PreconditionFailed),
)
async def edit_goal(
    call: Call,
    *,
    id: GoalId,  # noqa: A002 - the path's own name
    body: Annotated[GoalChanges, Body()],
    if_match: Annotated[str | None, Header("If-Match", "ETag of the goal that the change is meant for.")] = None,
) -> Mapping[str, object]:
    """Change a goal, or the amount of one that is kept by hand.

    Milestones that were told stay told. A new target, link or amount measures anew whether it is completed.
    """
    said = given(body)
    if said.get("link") is not None:
        said["link"] = said["link"].wanted()
    names = {"target_amount": "target", "current_amount": "current"}
    changes = {names.get(name, name): value for name, value in said.items()}
    return await goal_edits.edit(call.deps, call.me.user, id.lower(), changes, unless=is_not(if_match))


@endpoint("DELETE", "/v1/goals/{id}", tag="goals", scope="command.goals", writes=True, problems=(NotFound,))
async def delete_goal(call: Call, *, id: GoalId) -> None:  # noqa: A002 - the path's own name
    """Delete a goal; every device gets it as inactive. What it told stays in the log and the inbox."""
    await goal_edits.delete(call.deps, call.me.user, id.lower())


@endpoint("GET", "/v1/savings", tag="goals", answers=Savings, tagged=True)
async def savings(call: Call) -> Mapping[str, object]:
    """Say how the user's savings stand: every goal, totals, what they earn, and what is worth knowing."""
    return await goals.block(call.deps, call.me.user)


ROUTES = (list_goals, goal, create_goal, edit_goal, delete_goal, savings)
