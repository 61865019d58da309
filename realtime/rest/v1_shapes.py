"""What the routes of the first front end answer; its own words for things, in its own units."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, WithJsonSchema

from handlers.resources import AddressText, Resource, Time

T = TypeVar("T")

Units = Annotated[str, Field(pattern=r"^[0-9]+$", description="Dollars as an integer of six decimals.")]
Number = Annotated[Decimal, WithJsonSchema({"type": "number"})]


class Enveloped(Resource, Generic[T]):
    """An answer in its envelope."""

    success: Literal[True]
    data: T


class Stats(Resource):
    """A bucket and what was done with it."""

    bucket_id: str
    bucket_name: str
    transaction_count: int
    total_spent: Units
    total_deposited: Units
    last_activity: Time | None
    budget_utilization: Number
    is_over_budget: bool


class Use(Stats):
    """A bucket, its limit and what it holds; `utilizationRate` in percent."""

    monthly_limit: Units
    monthly_spent: Units
    balance: Units
    utilization_rate: Number
    chain_name: str


class ComparedUse(Use):
    """A bucket beside those of its name on other chains."""

    chain_display_name: str


class UsageSummary(Resource):
    """How many buckets there are of each kind."""

    total_buckets: int
    active_buckets: int
    over_budget_buckets: int
    total_transactions: int


class Of(Resource):
    """Whose figures these are; `chainName` where they are of one chain."""

    wallet_address: AddressText | None = None
    chain_name: str | None = None


class BucketUsage(Of):
    """Every bucket with its use."""

    buckets: list[Use]
    summary: UsageSummary


class Insights(Of):
    """What stands out among a user's buckets; `budgetAdherenceRate` in percent."""

    user_id: AddressText
    total_balance: Units
    total_spent: Units
    active_buckets: int
    most_used_bucket: Stats | None
    highest_spending_bucket: Stats | None
    most_funded_bucket: Stats | None
    budget_adherence_rate: Number
    abandoned_buckets: list[Stats]


class MostUsed(Of):
    """The bucket with the most transactions."""

    most_used_bucket: Stats | None
    rank: Literal[1]


class HighestSpending(Of):
    """The bucket that the most was spent from."""

    highest_spending_bucket: Stats | None
    rank: Literal[1]


class MostFunded(Of):
    """The bucket that the most was put into."""

    most_funded_bucket: Stats | None
    rank: Literal[1]


class BucketTouched(Resource):
    """How often a bucket was touched."""

    bucket_id: str
    bucket_name: str
    transaction_count: int
    last_activity: Time
    first_activity: Time


class ActivitySummary(Resource):
    """Totals of an activity."""

    total_transactions: int
    active_buckets: int
    most_active_count: int


class Activity(Of):
    """Buckets that were touched, the busiest first; `period` is a month or `all-time`."""

    bucket_activity: list[BucketTouched]
    period: str
    summary: ActivitySummary


class Efficiency(Resource):
    """How much of its limit a bucket uses, in percent."""

    bucket_id: str
    bucket_name: str
    monthly_limit: Units
    monthly_spent: Units
    current_balance: Units
    utilization_rate: Number
    efficiency: Number
    is_over_budget: bool
    remaining_budget: Units
    status: Literal["healthy", "warning", "over_budget"]


class EfficiencySummary(Resource):
    """How many buckets there are of each status."""

    total_buckets: int
    healthy_buckets: int
    warning_buckets: int
    over_budget_buckets: int


class BudgetEfficiency(Resource):
    """Every active bucket, the fullest first."""

    bucket_efficiency: list[Efficiency]
    overall_efficiency: Number
    summary: EfficiencySummary


class MonthSpent(Resource):
    """A month's spending in units of six decimals; `budgetAdherenceRate` is a part of 1."""

    month: str
    total_spent: int
    transaction_count: int
    budget_adherence_rate: Number


class SeasonalPatterns(Resource):
    """Spending by month, oldest first."""

    monthly_spending: list[MonthSpent]
    average_monthly_spending: int
    spending_trend: Literal["increasing", "decreasing", "stable"]


class Abandoned(Stats):
    """A bucket with money that nothing touches; null where nothing ever did."""

    days_since_last_activity: int | None


class AbandonedBuckets(Resource):
    """Buckets that nothing has touched for 30 days, and what lies in them."""

    abandoned_buckets: list[Abandoned]
    count: int
    potential_savings: Units


class Point(Resource):
    """Spending of one period in units of six decimals."""

    period: str
    total_spent: int
    timestamp: Time


class BucketSeries(Resource):
    """Spending of one bucket."""

    bucket_id: str
    bucket_name: str
    data: list[Point]


class DateRange(Resource):
    """The time that a series covers."""

    since: Annotated[Time, Field(alias="from")]
    to: Time


class SeriesSummary(Resource):
    """Totals of a series."""

    total_spent_across_all_buckets: int
    average_spent_per_period: int
    active_buckets: int
    period_range: str


class TimeSeries(Of):
    """Spending of every active bucket by period, zeros filled in."""

    period: Literal["daily", "monthly", "yearly"]
    buckets: list[BucketSeries]
    total_periods: int
    date_range: DateRange
    summary: SeriesSummary


class ChainInsights(Resource):
    """What stands out on one chain."""

    chain_name: str
    chain_display_name: str
    insights: Insights


class CrossChainSummary(Resource):
    """What stands out over all chains."""

    total_balance: Units
    total_spent: Units
    total_active_buckets: int
    average_budget_adherence: Number
    active_chains: int
    chains_data: list[ChainInsights]


class CrossChainInsights(Of):
    """What stands out, chain by chain, and over all of them."""

    cross_chain_summary: CrossChainSummary


class NamedBuckets(Resource):
    """Buckets of one name on several chains."""

    bucket_name: str
    chains: list[ComparedUse]
    total_spent: Units
    total_transactions: int
    average_utilization: Number


class ChainBuckets(Resource):
    """The buckets of one chain."""

    chain_name: str
    chain_display_name: str
    buckets: list[Use]


class CrossChainCount(Resource):
    """Totals of a comparison."""

    unique_bucket_names: int
    total_chains_with_data: int
    total_buckets_across_chains: int


class CrossChainBuckets(Of):
    """Buckets of the same name on several chains side by side."""

    cross_chain_buckets: list[NamedBuckets]
    chain_data: list[ChainBuckets]
    summary: CrossChainCount
