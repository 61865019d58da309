"""Budgets over REST: what there are, how they stand, whether a spend would fit; and a category for a transaction."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, model_validator

from handlers import budgets, categories, categorizing, history
from handlers.errors import NotFound
from handlers.resources import BudgetState, Money, Ratio, Resource, Simulation, Transaction
from realtime.rest.api import Body, Path, endpoint
from realtime.rest.call import Call

Dollars = Annotated[str, Field(pattern=r"^[0-9]{1,18}(\.[0-9]{1,2})?$", description="US dollars; 0 is a budget too.")]
RawAmount = Annotated[str, Field(pattern=r"^[0-9]{1,78}$", description="Base units.")]


class Budgets(Resource):
    """Every budget of the open month: the total first, then by category name."""

    data: list[BudgetState]


class BudgetStatus(Resource):
    """How a budget stands, and where it is going at this pace."""

    scope: Literal["category", "total"]
    category_id: str | None
    name: str
    budget_amount: Money
    spent_amount: Money
    utilization: Ratio | None
    days_remaining: int
    projected_overrun: Money
    safe_to_spend_per_day: Money
    status: Literal["healthy", "warning", "over_budget"]
    unpriced: int


class BudgetStatuses(Resource):
    """How every budget stands."""

    data: list[BudgetStatus]


class BudgetChange(Resource):
    """A budget to set; null removes it."""

    scope: Literal["total", "category"]
    category_id: UUID | None = None
    monthly_budget: Dollars | None

    @model_validator(mode="after")
    def _category_of_its_scope(self) -> BudgetChange:
        if (self.category_id is None) != (self.scope == "total"):
            raise ValueError("a category budget names its categoryId, the total none")
        return self


class Spend(Resource):
    """A spend that is only thought of."""

    chain_id: Annotated[int, Field(ge=1, lt=2**63)]
    bucket: Annotated[str, Field(min_length=1, max_length=256, description="Id or exact name of a bucket.")]
    token: Annotated[str, Field(pattern=r"^0[xX][0-9a-fA-F]{40}$")]
    amount: RawAmount


class CategoryChoice(Resource):
    """The category that the user gives a transaction; final, and learned from."""

    category_id: UUID
    apply_to_similar: bool = Field(default=False, description="Also other payments to the same payee, then and now.")


@endpoint("GET", "/v1/budgets", tag="budgets", answers=Budgets, tagged=True)
async def listed(call: Call) -> Mapping[str, object]:
    """List the user's budgets of the open month, in the user's time zone."""
    return {"data": await budgets.listed(call.deps, call.me.user)}


@endpoint("PUT", "/v1/budgets", tag="budgets", answers=Budgets, scope="write", writes=True, problems=(NotFound,))
async def change(call: Call, *, body: Annotated[BudgetChange, Body()]) -> Mapping[str, object]:
    """Set or remove a budget; every device gets `budget_update`, and `category_updated` for a category."""
    amount = None if body.monthly_budget is None else Decimal(body.monthly_budget)
    if body.category_id is None:
        await budgets.set_total(call.deps, call.me.user, amount)
    else:
        change = {"monthly_budget": amount}
        await categories.prefer(
            call.deps, call.me.user, str(body.category_id), change, budget_changed=budgets.budget_changed
        )
    return {"data": await budgets.listed(call.deps, call.me.user)}


@endpoint("GET", "/v1/budgets/status", tag="budgets", answers=BudgetStatuses, tagged=True)
async def statuses(call: Call) -> Mapping[str, object]:
    """Say how every budget of the open month stands."""
    return {"data": await budgets.statuses(call.deps, call.me.user)}


@endpoint("POST", "/v1/budgets/simulate", tag="budgets", answers=Simulation, problems=(NotFound,))
async def simulate(call: Call, *, body: Annotated[Spend, Body()]) -> Mapping[str, object]:
    """Say whether a spend would fit: the bucket's limit and balance, the budgets' pace. Nothing is written."""
    return await budgets.simulate(
        call.deps,
        call.me.user,
        chain_id=body.chain_id,
        bucket=body.bucket,
        token=body.token.lower(),
        amount=int(body.amount),
    )


@endpoint(
    "PUT",
    "/v1/transactions/{id}/category",
    tag="categories",
    answers=Transaction,
    scope="write",
    writes=True,
    problems=(NotFound,),
)
async def choose(
    call: Call,
    *,
    id: Annotated[str, Path("Transaction id, `<chainId>:<txHash>:<n>`.")],  # noqa: A002 - the path's own name
    body: Annotated[CategoryChoice, Body()],
) -> Mapping[str, object]:
    """Give a transaction a category by hand; models never change it again."""
    await categorizing.choose(
        call.deps, call.me.user, id, str(body.category_id), apply_to_similar=body.apply_to_similar
    )
    return await history.transaction(call.deps, call.me.user, id)


ROUTES = (listed, change, statuses, simulate, choose)
