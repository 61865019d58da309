"""The routes that the first front end calls: `{success, data | error}`, amounts as raw integers of six decimals.

Their owner has to be signed in, as everywhere; `EXPENDI_V1_PUBLIC` opens them to anyone, as they once were.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal, TypeAlias
from zoneinfo import ZoneInfo

from pydantic import Field

from config.chains import Chain
from handlers import usage
from handlers.deps import Deps
from handlers.errors import Invalid, NotFound, Unauthenticated
from handlers.resources import Resource
from handlers.rules import v1
from handlers.rules.calendar import month_of
from handlers.rules.usage import Usage
from handlers.usage import Used
from realtime.rest.api import Endpoint, Path, Query, Run, endpoint
from realtime.rest.call import Call
from realtime.rest.filtering import Moment, Word
from realtime.rest.v1_shapes import (
    AbandonedBuckets,
    Activity,
    BucketUsage,
    BudgetEfficiency,
    CrossChainBuckets,
    CrossChainInsights,
    Enveloped,
    HighestSpending,
    Insights,
    MostFunded,
    MostUsed,
    SeasonalPatterns,
    TimeSeries,
)
from store.records import Address

OF_CHAIN = "/api/v2/analytics/chains/{chain}/users/{address}"
OF_CHAINS = "/api/v2/analytics/users/{address}"
OF_ALL = "/api/analytics/users/{address}"

_ADDRESS = re.compile(r"0x[0-9a-f]{40}")

# What the paths and queries name -----------------------------------------------------------------------------------

ChainName = Annotated[str, Path("Name of the chain as in the chain table, or its id.")]
AddressPath = Annotated[str, Path("Whose figures.")]
BucketName = Annotated[Word | None, Query("Only the bucket of this id or name.", "bucketId")]
Month = Annotated[
    str | None, Query("Only this month, `YYYY-MM`, in the user's zone."), Field(pattern=r"^20\d{2}-(0[1-9]|1[0-2])$")
]
PeriodName = Annotated[Literal["daily", "monthly", "yearly"], Query("Length of a period.")]
Since = Annotated[Moment | None, Query("Beginning; default: the first day of last year.", "from")]
Until = Annotated[Moment | None, Query("End, exclusive; default: now.", "to")]
Answered: TypeAlias = Mapping[str, object]


def _owner(call: Call, address: str) -> Address:
    """Whose figures are asked for; another's are as unknown as nobody's. Raises Unauthenticated, Invalid, NotFound."""
    user = Address(address.lower())
    if not _ADDRESS.fullmatch(user):
        raise Invalid("Invalid wallet address format.")
    if not call.deps.settings.v1_public:
        if call.identity is None:
            raise Unauthenticated("Send an access token as `Authorization: Bearer`.")
        if call.identity.user != user:
            raise NotFound(f"User with wallet address {user} not found.")
    return user


def _chain(deps: Deps, name: str) -> Chain:
    for chain in deps.chains.values():
        if name.lower() in (str(chain.id), chain.name.lower(), v1.short_name(chain)):
            return chain
    raise NotFound(f"Chain {name[:64]} not found; /v1/chains lists all.")


def _decimals(deps: Deps) -> dict[int, int]:
    return {chain.id: usage.counter_decimals(chain) for chain in deps.chains.values()}


def _enveloped(data: Mapping[str, object], user: Address | None = None, chain: Chain | None = None) -> Answered:
    whose = {"chainName": v1.short_name(chain), "walletAddress": user} if chain else {}
    return {"success": True, "data": {**data, **whose}}


def _main_chain(deps: Deps, usages: Sequence[Usage]) -> str:
    """The chain with the most active buckets, the first of the table where none has any."""
    counts = {key: sum(each.bucket.chain_id == key and each.bucket.active for each in usages) for key in deps.chains}
    return v1.short_name(deps.chains[max(counts, key=lambda key: counts[key])]) if counts else ""


def _by_chain(deps: Deps, used: Used) -> list[tuple[Chain, list[Usage]]]:
    found = [
        (chain, [each for each in used.usages if each.bucket.chain_id == chain.id]) for chain in deps.chains.values()
    ]
    return [(chain, usages) for chain, usages in found if usages]


# Routes: each figure of one chain and, where the front end asks for it so, of all -----------------------------------


async def _bucket_usage(call: Call, address: str, chain: Chain | None, bucket: str | None) -> Answered:
    user = _owner(call, address)
    used = await usage.read(call.deps, user, chain_id=chain.id if chain else None, bucket=bucket)
    return _enveloped(v1.bucket_usage(used.usages, call.deps.chains, _decimals(call.deps)), user, chain)


async def _insights(call: Call, address: str, chain: Chain | None) -> Answered:
    user = _owner(call, address)
    used = await usage.read(call.deps, user, chain_id=chain.id if chain else None)
    name = v1.short_name(chain) if chain else _main_chain(call.deps, used.usages)
    return _enveloped(v1.insights(user, used.usages, chain_name=name), user, chain)


async def _most_used(call: Call, address: str, chain: Chain | None) -> Answered:
    user = _owner(call, address)
    used = await usage.read(call.deps, user, chain_id=chain.id if chain else None)
    return _enveloped({"mostUsedBucket": v1.most_used(used.usages), "rank": 1}, user, chain)


async def _highest_spending(call: Call, address: str, chain: Chain | None) -> Answered:
    user = _owner(call, address)
    used = await usage.read(call.deps, user, chain_id=chain.id if chain else None)
    return _enveloped({"highestSpendingBucket": v1.highest_spending(used.usages), "rank": 1}, user, chain)


async def _activity(call: Call, address: str, chain: Chain | None, month: str | None) -> Answered:
    user = _owner(call, address)
    chain_id = chain.id if chain else None
    used = await usage.read(call.deps, user, chain_id=chain_id)
    if month is not None:
        zone = ZoneInfo(used.zone)
        span = month_of(datetime(int(month[:4]), int(month[5:]), 2, tzinfo=zone), zone)
        used = await usage.read(call.deps, user, chain_id=chain_id, since=span.start, until=span.end)
    return _enveloped(v1.activity(used.usages, month=month), user, chain)


async def _time_series(
    call: Call,
    address: str,
    chain: Chain | None,
    *,
    period: Literal["daily", "monthly", "yearly"],
    since: datetime | None,
    until: datetime | None,
    bucket: str | None,
) -> Answered:
    user = _owner(call, address)
    series = await usage.series(
        call.deps,
        user,
        v1.PERIODS[period],
        since=since,
        until=until,
        chain_id=chain.id if chain else None,
        bucket=bucket,
    )
    zone = ZoneInfo(series.used.zone)
    shown = v1.time_series(
        series.used.usages,
        period,
        series.periods,
        series.spent,
        since=series.since,
        until=series.until,
        zone=zone,
    )
    return _enveloped(shown, user, chain)


async def v1_chain_bucket_usage(
    call: Call, *, chain: ChainName, address: AddressPath, bucket: BucketName = None
) -> Answered:
    """Show every bucket of one chain with its use."""
    return await _bucket_usage(call, address, _chain(call.deps, chain), bucket)


async def v1_bucket_usage(call: Call, *, address: AddressPath, bucket: BucketName = None) -> Answered:
    """Show every bucket with its use."""
    return await _bucket_usage(call, address, None, bucket)


async def v1_chain_insights(call: Call, *, chain: ChainName, address: AddressPath) -> Answered:
    """Show what stands out on one chain."""
    return await _insights(call, address, _chain(call.deps, chain))


async def v1_insights(call: Call, *, address: AddressPath) -> Answered:
    """Show what stands out over all chains."""
    return await _insights(call, address, None)


async def v1_chain_most_used_bucket(call: Call, *, chain: ChainName, address: AddressPath) -> Answered:
    """Show the bucket of one chain with the most transactions."""
    return await _most_used(call, address, _chain(call.deps, chain))


async def v1_most_used_bucket(call: Call, *, address: AddressPath) -> Answered:
    """Show the bucket with the most transactions."""
    return await _most_used(call, address, None)


async def v1_chain_highest_spending_bucket(call: Call, *, chain: ChainName, address: AddressPath) -> Answered:
    """Show the bucket of one chain that the most was spent from."""
    return await _highest_spending(call, address, _chain(call.deps, chain))


async def v1_highest_spending_bucket(call: Call, *, address: AddressPath) -> Answered:
    """Show the bucket that the most was spent from."""
    return await _highest_spending(call, address, None)


async def v1_most_funded_bucket(call: Call, *, address: AddressPath) -> Answered:
    """Show the bucket that the most was put into."""
    used = await usage.read(call.deps, _owner(call, address))
    return _enveloped({"mostFundedBucket": v1.most_funded(used.usages), "rank": 1})


async def v1_chain_bucket_activity(
    call: Call, *, chain: ChainName, address: AddressPath, month: Month = None
) -> Answered:
    """Show how often each bucket of one chain was touched."""
    return await _activity(call, address, _chain(call.deps, chain), month)


async def v1_bucket_activity(call: Call, *, address: AddressPath, month: Month = None) -> Answered:
    """Show how often each bucket was touched."""
    return await _activity(call, address, None, month)


async def v1_budget_efficiency(call: Call, *, address: AddressPath) -> Answered:
    """Show how much of its limit each active bucket uses: a warning above 80 %, over budget above 100 %."""
    used = await usage.read(call.deps, _owner(call, address))
    return _enveloped(v1.efficiency(used.usages, _decimals(call.deps)))


async def v1_seasonal_patterns(call: Call, *, address: AddressPath) -> Answered:
    """Show spending by month and where it goes."""
    used = await usage.read(call.deps, _owner(call, address))
    found = await usage.months(call.deps, used)
    return _enveloped(v1.seasonal(found.months, found.spent, found.transactions, found.kept))


async def v1_abandoned_buckets(call: Call, *, address: AddressPath) -> Answered:
    """Show active buckets with money that nothing has touched for 30 days."""
    used = await usage.read(call.deps, _owner(call, address))
    return _enveloped(v1.abandoned(used.usages, call.deps.now()))


async def v1_chain_bucket_time_series(
    call: Call,
    *,
    chain: ChainName,
    address: AddressPath,
    period: PeriodName = "monthly",
    since: Since = None,
    until: Until = None,
    bucket: BucketName = None,
) -> Answered:
    """Show spending of each active bucket of one chain by period."""
    on = _chain(call.deps, chain)
    return await _time_series(call, address, on, period=period, since=since, until=until, bucket=bucket)


async def v1_bucket_time_series(
    call: Call,
    *,
    address: AddressPath,
    period: PeriodName = "monthly",
    since: Since = None,
    until: Until = None,
    bucket: BucketName = None,
) -> Answered:
    """Show spending of each active bucket by period."""
    return await _time_series(call, address, None, period=period, since=since, until=until, bucket=bucket)


async def v1_cross_chain_insights(call: Call, *, address: AddressPath) -> Answered:
    """Show what stands out, chain by chain, and over all of them."""
    user = _owner(call, address)
    return _enveloped(v1.cross_chain_insights(user, _by_chain(call.deps, await usage.read(call.deps, user))))


async def v1_cross_chain_buckets(call: Call, *, address: AddressPath) -> Answered:
    """Compare buckets of the same name on several chains."""
    user = _owner(call, address)
    by_chain = _by_chain(call.deps, await usage.read(call.deps, user))
    return _enveloped(v1.cross_chain_buckets(user, by_chain, _decimals(call.deps)))


def _routes(base: str, routes: Sequence[tuple[str, type[Resource], Run]]) -> tuple[Endpoint, ...]:
    return tuple(
        endpoint("GET", f"{base}/{name}", tag="v1", answers=answers, access="known", problems=(NotFound,))(run)
        for name, answers, run in routes
    )


ROUTES = (
    *_routes(
        OF_CHAIN,
        (
            ("bucket-activity", Enveloped[Activity], v1_chain_bucket_activity),
            ("bucket-usage", Enveloped[BucketUsage], v1_chain_bucket_usage),
            ("insights", Enveloped[Insights], v1_chain_insights),
            ("bucket-time-series", Enveloped[TimeSeries], v1_chain_bucket_time_series),
            ("most-used-bucket", Enveloped[MostUsed], v1_chain_most_used_bucket),
            ("highest-spending-bucket", Enveloped[HighestSpending], v1_chain_highest_spending_bucket),
        ),
    ),
    *_routes(
        OF_CHAINS,
        (
            ("cross-chain-insights", Enveloped[CrossChainInsights], v1_cross_chain_insights),
            ("cross-chain-buckets", Enveloped[CrossChainBuckets], v1_cross_chain_buckets),
        ),
    ),
    *_routes(
        OF_ALL,
        (
            ("insights", Enveloped[Insights], v1_insights),
            ("bucket-usage", Enveloped[BucketUsage], v1_bucket_usage),
            ("most-used-bucket", Enveloped[MostUsed], v1_most_used_bucket),
            ("highest-spending-bucket", Enveloped[HighestSpending], v1_highest_spending_bucket),
            ("most-funded-bucket", Enveloped[MostFunded], v1_most_funded_bucket),
            ("bucket-activity", Enveloped[Activity], v1_bucket_activity),
            ("budget-efficiency", Enveloped[BudgetEfficiency], v1_budget_efficiency),
            ("seasonal-patterns", Enveloped[SeasonalPatterns], v1_seasonal_patterns),
            ("abandoned-buckets", Enveloped[AbandonedBuckets], v1_abandoned_buckets),
            ("bucket-time-series", Enveloped[TimeSeries], v1_bucket_time_series),
        ),
    ),
)
