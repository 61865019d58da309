"""The summary over REST: accounts, the month's flow, and what is worth a word, on one page."""

from __future__ import annotations

import orjson
from pydantic import Field

from handlers import summary
from handlers.resources import Goal, Insight, Money, Ratio, Resource, Time
from realtime.rest.analytics import AsOfBlock
from realtime.rest.api import endpoint, tag_of
from realtime.rest.call import Answer, Call
from realtime.rest.portfolio import Investment


class MonthlyFlow(Resource):
    """The open month so far, in the user's time zone: income is yield, a deposit was the user's before."""

    income: Money
    expenses: Money
    net_flow: Money
    deposits: Money
    unpriced: int
    period_start: Time
    period_end: Time


class TopCategory(Resource):
    """What was spent on a category this month; `share` of everything that was."""

    category_id: str | None
    name: str | None
    spent: Money
    share: Ratio | None
    unpriced: int


class SpendingAccount(Resource):
    """What there is to spend, and what was spent this month. Utilization of the total budget, else of all others."""

    total_balance: Money
    monthly_spent: Money
    budget_utilization: Ratio | None
    top_categories: list[TopCategory]
    unpriced: int


class SavingsAccount(Resource):
    """Every goal, what is in them, and what they earned. What lies in buckets is also in the spending account."""

    total_balance: Money
    total_yield: Money
    goals_progress: list[Goal]
    completed_goals: int
    average_apy: Ratio | None = Field(alias="averageAPY")
    unpriced: int


class Accounts(Resource):
    """The kinds of accounts."""

    spending: SpendingAccount
    investment: Investment
    savings: SavingsAccount


class Summary(Resource):
    """Everything on one page; nothing counts twice in the net worth.

    `unpriced` counts the amounts that are in no total, since nobody knows their price.
    """

    total_net_worth: Money
    monthly_flow: MonthlyFlow
    accounts: Accounts
    insights: list[Insight]
    unpriced: int
    time_zone: str
    as_of_block: AsOfBlock


@endpoint("GET", "/v1/summary", tag="accounts", answers=Summary, tagged=True)
async def read(call: Call) -> Answer:
    """Read accounts, the month's flow and insights at once.

    The tag is of all but `asOfBlock`, which moves on with every block.
    """
    told = await summary.read(call.web.figures, call.me.user)
    tag = tag_of(orjson.dumps({name: value for name, value in told.items() if name != "asOfBlock"}))
    return Answer(body=told, headers={"ETag": f'"{tag}"'})


ROUTES = (read,)
