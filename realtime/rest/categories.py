"""Categories over REST: the list, own ones, preferences, and rules."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field, StrictBool, StrictInt, StringConstraints, WithJsonSchema

from handlers import budgets, categories
from handlers.categories import Base, DefaultCategory, RuleField
from handlers.errors import Conflict, Invalid, NotFound, PreconditionFailed
from handlers.resources import Category, Resource, Time
from handlers.rules.periods import iso
from handlers.rules.texts import plain
from realtime.rest import shapes
from realtime.rest.api import Body, Header, Path, Query, endpoint
from realtime.rest.call import Answer, Call
from realtime.rest.changes import Changes, given, is_not
from realtime.rest.paging import DEFAULT_LIMIT, CursorText, Limit, cursor_of, page, place_of
from store.categories import Place, RulePlace, RuleRow

NAME_MAX = 64
"""Characters of a name that is shown."""
DESCRIPTION_MAX = 300
DEFAULT_COLOR = "#9E9E9E"


def _name(text: str) -> str:
    shown = plain(text)
    if not 1 <= len(shown) <= NAME_MAX:
        raise ValueError(f"should have 1 to {NAME_MAX} characters to show")
    return shown


def _description(text: str) -> str:
    shown = plain(text)
    if len(shown) > DESCRIPTION_MAX:
        raise ValueError(f"should have at most {DESCRIPTION_MAX} characters")
    return shown


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise ValueError("should be an id, like 00000000-0000-4000-8000-000000000001") from None


def _path_uuid(text: str) -> str:
    """An id in a path as we write it; what can be none is nobody's."""
    try:
        return str(UUID(text))
    except ValueError:
        raise NotFound("There is nothing of yours with this id.") from None


Name = Annotated[str, Field(max_length=4 * NAME_MAX), AfterValidator(_name)]
Description = Annotated[str, Field(max_length=4 * DESCRIPTION_MAX), AfterValidator(_description)]
Colour = Annotated[str, StringConstraints(pattern=r"^#[0-9A-Fa-f]{6}$", to_upper=True), Field(examples=["#FF6B6B"])]
Id = Annotated[str, Field(max_length=64), AfterValidator(_uuid)]
SortOrder = Annotated[StrictInt, Field(ge=0, le=1_000_000, description="Place among its kind, lowest first.")]
Dollars = Annotated[
    str,
    Field(pattern=r"^[0-9]{1,15}(\.[0-9]{1,2})?$", description="US dollars; 0: nothing may be spent."),
    AfterValidator(Decimal),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,15}(\.[0-9]{1,2})?$"}),
]
CategoryId = Annotated[str, Path("Category id.")]


class NewCategory(Resource):
    """A category to make; `parentId` null: at the top."""

    name: Name
    description: Description = ""
    color_hex: Colour = DEFAULT_COLOR
    parent_id: Id | None = None
    sort_order: SortOrder = 0


class CategoryChanges(Changes):
    """What to change of an own category; what is left out stays."""

    name: Name = ""
    description: Description = ""
    color_hex: Colour = ""
    parent_id: Id | None = None
    sort_order: SortOrder = 0


class Preferences(Changes):
    """What to make of a category; what is left out stays, null takes it back. `monthlyBudget` null: no budget."""

    custom_name: Name | None = None
    custom_color_hex: Colour | None = None
    is_favorite: StrictBool = False
    monthly_budget: Dollars | None = None


class Categories(shapes.Listed):
    """Categories: the defaults first, then the user's own."""

    data: list[Category]


class NewRule(Resource):
    """A rule to make: a payee's address, a bucket's name, or a word of memos."""

    field: RuleField
    value: Annotated[str, Field(min_length=1, max_length=200)]
    category_id: Id


class Rule(Resource):
    """Transactions whose `field` is `value` get the category."""

    id: str
    field: RuleField
    value: str
    category_id: str
    created_at: Time


class Rules(shapes.Listed):
    """Rules, newest first."""

    data: list[Rule]


@endpoint("GET", "/v1/categories", tag="categories", answers=Categories, tagged=True)
async def list_categories(
    call: Call,
    *,
    inactive: Annotated[bool, Query("Whether own categories that were deleted are listed too.")] = False,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Answer:
    """List the defaults and the user's own categories, as the user sees them."""
    settings = call.deps.settings
    after = Place() if cursor is None else Place(*place_of(settings, "categories", cursor))
    found = await categories.listed(call.deps, call.me.user, inactive=inactive, after=after, limit=limit)
    following = None
    if found.next is not None:
        following = cursor_of(settings, "categories", found.next.own, found.next.sort_order, found.next.id)
    return page(call, found.resources, following)


@endpoint("GET", "/v1/categories/{id}", tag="categories", answers=Category, tagged=True, problems=(NotFound,))
async def category(call: Call, *, id: CategoryId) -> Mapping[str, object]:  # noqa: A002 - the path's own name
    """Read one category; a deleted one too, since transactions keep it."""
    return await categories.read(call.deps, call.me.user, _path_uuid(id))


@endpoint(
    "POST",
    "/v1/categories",
    tag="categories",
    answers=Category,
    scope="command.categories",
    writes=True,
    tagged=True,
    once=True,
    status=201,
    problems=(Conflict,),
)
async def create_category(call: Call, *, body: Annotated[NewCategory, Body()]) -> Answer:
    """Make a category of the user's own, at the top or under another one; three levels at most."""
    base = Base(body.name, body.description, body.color_hex, body.parent_id, body.sort_order)
    made = await categories.create(call.deps, call.me.user, base, cause=call.cause)
    return Answer(body=made, headers={"Location": f"/v1/categories/{made['id']}"})


@endpoint(
    "PATCH",
    "/v1/categories/{id}",
    tag="categories",
    answers=Category,
    scope="command.categories",
    writes=True,
    tagged=True,
    problems=(NotFound, Conflict, DefaultCategory, PreconditionFailed),
)
async def edit_category(
    call: Call,
    *,
    id: CategoryId,  # noqa: A002 - the path's own name
    body: Annotated[CategoryChanges, Body()],
    if_match: Annotated[str | None, Header("If-Match", "ETag of the category that the change is meant for.")] = None,
) -> Mapping[str, object]:
    """Change a category of the user's own; the defaults are changed by preferences."""
    return await categories.edit(call.deps, call.me.user, _path_uuid(id), given(body), unless=is_not(if_match))


@endpoint(
    "DELETE",
    "/v1/categories/{id}",
    tag="categories",
    scope="command.categories",
    writes=True,
    problems=(NotFound, Conflict, DefaultCategory),
)
async def delete_category(call: Call, *, id: CategoryId) -> None:  # noqa: A002 - the path's own name
    """Delete a category of the user's own.

    Transactions keep it; its rules and its budget end. One that has others under it is a conflict.
    """
    await categories.delete(call.deps, call.me.user, _path_uuid(id), budget_changed=budgets.budget_changed)


@endpoint(
    "PUT",
    "/v1/categories/{id}/preferences",
    tag="categories",
    answers=Category,
    scope="command.categories",
    writes=True,
    tagged=True,
    problems=(NotFound,),
)
async def put_preferences(
    call: Call,
    *,
    id: CategoryId,  # noqa: A002 - the path's own name
    body: Annotated[Preferences, Body()],
) -> Mapping[str, object]:
    """Give any category a name, a colour and a monthly budget of the user's own, or make it a favourite."""
    return await categories.prefer(
        call.deps, call.me.user, _path_uuid(id), given(body), budget_changed=budgets.budget_changed
    )


@endpoint("GET", "/v1/category-rules", tag="categories", answers=Rules, tagged=True, problems=(Invalid,))
async def list_rules(call: Call, *, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Answer:
    """List the user's rules, newest first."""
    settings, after = call.deps.settings, RulePlace()
    if cursor is not None:
        time, id_ = place_of(settings, "category-rules", cursor)
        after = RulePlace(datetime.fromisoformat(time), id_)
    found = await categories.rules(call.deps, call.me.user, after=after, limit=limit)
    following = None
    if found.next is not None:
        following = cursor_of(settings, "category-rules", found.next.created_at.isoformat(), found.next.id)
    return page(call, [_rule(row) for row in found.rows], following)


@endpoint(
    "POST",
    "/v1/category-rules",
    tag="categories",
    answers=Rule,
    scope="command.categories",
    writes=True,
    once=True,
    status=201,
    problems=(Conflict,),
)
async def create_rule(call: Call, *, body: Annotated[NewRule, Body()]) -> Mapping[str, object]:
    """Let transactions from now on get a category by payee, bucket, or a word of their memo.

    A second rule for the same value takes the place of the first.
    """
    return _rule(await categories.add_rule(call.deps, call.me.user, body.field, body.value, body.category_id))


@endpoint(
    "DELETE",
    "/v1/category-rules/{id}",
    tag="categories",
    scope="command.categories",
    writes=True,
    problems=(NotFound,),
)
async def delete_rule(call: Call, *, id: Annotated[str, Path("Rule id.")]) -> None:  # noqa: A002 - the path's own name
    """Delete a rule; transactions keep the category that it gave them."""
    await categories.delete_rule(call.deps, call.me.user, _path_uuid(id))


def _rule(row: RuleRow) -> Mapping[str, object]:
    return {
        "id": row.id,
        "field": row.field,
        "value": row.value,
        "categoryId": row.category_id,
        "createdAt": iso(row.created_at),
    }


ROUTES = (
    list_categories,
    category,
    create_category,
    edit_category,
    delete_category,
    put_preferences,
    list_rules,
    create_rule,
    delete_rule,
)
