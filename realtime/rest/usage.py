"""How buckets are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from handlers import usage
from handlers.resources import Money, Ratio, Raw, Resource, Time
from realtime.rest.api import endpoint
from realtime.rest.call import Call
from realtime.rest.filtering import ChainId


class BucketUse(Resource):
    """One bucket: dollars ever spent and put in, the contract's own counters (raw), and what it holds."""

    bucket_id: str
    name: str
    chain_id: int
    active: bool
    transaction_count: int
    total_spent: Money
    total_funded: Money
    unpriced: Annotated[int, Field(description="Spends without a known price, not in `totalSpent`.")]
    funded_unpriced: Annotated[int, Field(description="What was put in without a known price, not in `totalFunded`.")]
    monthly_limit: Raw | None
    monthly_spent: Raw
    utilization: Ratio | None
    status: Literal["healthy", "warning", "over_budget"]
    balance: Money
    balance_unpriced: Annotated[int, Field(description="Tokens in it without a known price, not in `balance`.")]
    first_activity: Time | None
    last_activity: Time | None


class MonthUse(Resource):
    """A calendar month of the user's zone; `adherence` is the part of today's limits that held."""

    month: Annotated[str, Field(pattern=r"^\d{4}-\d{2}$")]
    total_spent: Money
    transaction_count: int
    adherence: Ratio
    unpriced: Annotated[int, Field(description="Spends without a known price, not in `totalSpent`.")]


class Seasonal(Resource):
    """Spending by month, oldest first, and where it goes: the last three months against the three before."""

    months: list[MonthUse]
    average_spent: Money
    trend: Literal["increasing", "decreasing", "stable"]


class ChainUse(Resource):
    """A chain beside the others."""

    chain_id: int
    name: str
    active_buckets: int
    transaction_count: int
    total_spent: Money
    total_balance: Money
    unpriced: int
    adherence: Ratio


class BucketsUse(Resource):
    """Every bucket, what stands out (bucket ids), the months, the chains; `asOfBlock` by chain id."""

    buckets: list[BucketUse]
    most_used: str | None
    highest_spending: str | None
    most_funded: str | None
    abandoned: Annotated[list[str], Field(description="Active, with money, untouched for 30 days.")]
    adherence: Annotated[Ratio, Field(description="Part of the active buckets with a limit that keep it.")]
    seasonal: Seasonal
    chains: list[ChainUse]
    as_of_block: dict[str, int]


@endpoint("GET", "/v1/analytics/buckets", tag="analytics", answers=BucketsUse, tagged=True)
async def bucket_use(call: Call, *, chain: ChainId = None) -> Mapping[str, object]:
    """Say how every bucket is used, which stand out, how spending goes by month, and how the chains compare."""
    return await usage.overview(call.deps, call.me.user, chain_id=chain)


ROUTES = (bucket_use,)
