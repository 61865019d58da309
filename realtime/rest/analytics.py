"""Analytics over REST: spending by period in the user's own time zone, and what is to be expected."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from handlers import analytics
from handlers.analytics import Told
from handlers.resources import Money, Ratio, Resource, Time
from handlers.rules.trends import Timeframe
from realtime.rest.api import Query, endpoint
from realtime.rest.call import Answer, Call
from realtime.rest.filtering import Moment

CATEGORIES_MAX = 100
"""Categories that one question may name: more than anyone keeps."""
DAYS_MAX = 90
"""Days that may be forecast: beyond a season there is nothing to say."""
NONE = "none"
"""Stands for what has no category."""

AsOfBlock = Annotated[
    dict[str, int], Field(description="By chain id: the block up to which everything of the user's is in the answer.")
]


def _separate(given: object) -> object:
    """Ids are repeated, or separated by commas as the plan's clients do; an empty one names nothing."""
    if not isinstance(given, list):
        return given
    return [part for each in given for part in str(each).split(",") if part]


def _category(text: str) -> str:
    return "" if text == NONE else str(UUID(text))


CategoryId = Annotated[str, AfterValidator(_category), WithJsonSchema({"type": "string"})]


class Trend(Resource):
    """What was spent on a category in a period; what has no price is counted, and is in no sum."""

    period: Time = Field(description="Beginning of the period: a local midnight, or a full hour of UTC.")
    category_id: str | None = Field(description="Null: without a category.")
    total_spent: Money
    transaction_count: int = Field(description="Spends, those without a price too.")
    avg_transaction: Money | None = Field(description="Of those with a price, to six places; null when none has one.")
    unpriced: int


class Trends(Resource):
    """Spending by period, newest first; a period without spending is left out."""

    data: list[Trend]
    timeframe: Timeframe
    time_zone: str
    since: Time = Field(alias="from")
    until: Time = Field(alias="to")
    as_of_block: AsOfBlock


class Prediction(Resource):
    """A day to come: what is expected, and between which bounds four of five such days lay before."""

    date: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", description="A day of the user's calendar.")]
    amount: Money
    low: Money
    high: Money


class Basis(Resource):
    """What a forecast stands on."""

    history_days: int
    tests: int = Field(description="Past days from which it was made and compared with what came.")
    reason: str
    unpriced: int = Field(description="Amounts without a price in the history; they are in no figure.")


class CategoryForecast(Resource):
    """A category's part of the days that were asked for."""

    category_id: str | None = Field(description="Null: without a category, or with `isRest` all smaller ones.")
    is_rest: bool
    method: Literal["weekday", "damped", "month_day", "mean"] = Field(description="What knew it best before.")
    amount: Money


class Recommendation(Resource):
    """What the forecast means for a month's budget; `figures` are dollars, `change` a ratio."""

    kind: Literal["over_budget", "rising", "room"]
    category_id: str | None = Field(description="Null: the total budget, or what has no category.")
    figures: dict[str, Money | Ratio]
    reasoning: str


class Forecast(Resource):
    """Spending to be expected from tomorrow on, judged on the user's own past."""

    predictions: list[Prediction]
    confidence: Ratio = Field(description="0 to 1: 1 less the share of weekly spending that back-tests missed.")
    basis: Basis
    by_category: list[CategoryForecast]
    recommendations: list[Recommendation]
    time_zone: str
    as_of_block: AsOfBlock


@endpoint("GET", "/v1/analytics/trends", tag="analytics", answers=Trends, tagged=True)
async def trends(
    call: Call,
    *,
    timeframe: Annotated[Timeframe, Query("Length of a period, in the user's time zone; weeks begin on Monday.")],
    category_ids: Annotated[
        list[CategoryId] | None,
        Query("Category ids, repeated or separated by commas; `none` for what has none.", name="categoryIds"),
        BeforeValidator(_separate),
        Field(max_length=CATEGORIES_MAX),
    ] = None,
    since: Annotated[
        Moment | None, Query("Earliest block time, inclusive. Default: as many periods as a screen shows.", name="from")
    ] = None,
    until: Annotated[
        Moment | None, Query("Latest block time, exclusive. Default: the end of the current period.", name="to")
    ] = None,
) -> Answer:
    """Read what was spent by period and category, newest first.

    Spends only: an outgoing transfer with a category counts for its budget, not here. The first and the last period
    hold what of them lies in the range.
    """
    told = await analytics.trends(
        call.web.figures,
        call.me.user,
        timeframe=timeframe,
        categories=category_ids or None,
        since=since,
        until=until,
    )
    return _answer(told)


@endpoint("GET", "/v1/analytics/forecast", tag="analytics", answers=Forecast, tagged=True)
async def forecast(
    call: Call, *, days: Annotated[int, Query("Days after today that are forecast."), Field(ge=1, le=DAYS_MAX)] = 30
) -> Answer:
    """Read what is probably going to be spent, by day, and what that means for the month's budgets.

    With too little history the confidence is 0 and `basis.reason` says so.
    """
    return _answer(await analytics.forecast(call.web.figures, call.me.user, days=days))


def _answer(told: Told) -> Answer:
    return Answer(body=told.body, headers={"ETag": f'"{told.tag}"'})


ROUTES = (trends, forecast)
