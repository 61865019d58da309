"""Answers in the shapes that the first front end reads: amounts as raw integers of six decimals, rates in percent.

Its amounts are strings of base units (of a dollar token with six decimals, whatever the token's own); the points of a
time series are numbers there, which stay exact for a browser up to nine billion dollars. Rates are JSON numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from config.chains import Chain
from handlers.rules import usage as rules
from handlers.rules.periods import iso
from handlers.rules.usage import Usage
from store.usage import Period

PLACES = 6
"""Decimals of every amount."""

PERIODS: Mapping[str, Period] = {"daily": "day", "monthly": "month", "yearly": "year"}

Shape = dict[str, Any]


def raw(usd: Decimal) -> int:
    """Dollars as an integer of six decimals, half to even beyond them."""
    return int(usd.scaleb(PLACES).to_integral_value(ROUND_HALF_EVEN))


def counter(value: int, decimals: int) -> str:
    """A contract's counter of so many decimals as one of six, rounded down."""
    shift = PLACES - decimals
    return str(value * 10**shift if shift >= 0 else value // 10**-shift)


def number(value: Decimal) -> orjson.Fragment:
    """A rate as a JSON number, digit for digit."""
    return orjson.Fragment(f"{value.normalize():f}")


def integer(value: int) -> int | orjson.Fragment:
    """A JSON integer of any size: the encoder's own end at 64 bits, amounts of a chain at 256."""
    return value if value.bit_length() < 64 else orjson.Fragment(str(value))


def short_name(chain: Chain) -> str:
    """A chain as paths name it: `base`, `base-sepolia`."""
    return chain.name.lower().replace(" ", "-")


def bucket_usage(usages: Sequence[Usage], chains: Mapping[int, Chain], decimals: Mapping[int, int]) -> Shape:
    """Every bucket with its use, and how many there are of each kind."""
    return {
        "buckets": [_used(each, chains, decimals) for each in usages],
        "summary": {
            "totalBuckets": len(usages),
            "activeBuckets": sum(each.transactions > 0 for each in usages),
            "overBudgetBuckets": sum(each.is_over for each in usages),
            "totalTransactions": sum(each.transactions for each in usages),
        },
    }


def _used(each: Usage, chains: Mapping[int, Chain], decimals: Mapping[int, int]) -> Shape:
    row = each.bucket
    return {
        **_stats(each),
        "monthlyLimit": counter(row.monthly_limit, decimals[row.chain_id]),
        "monthlySpent": counter(each.spent_now, decimals[row.chain_id]),
        "balance": str(raw(each.balance)),
        "utilizationRate": number(each.utilization),
        "chainName": short_name(chains[row.chain_id]),
    }


def _stats(each: Usage) -> Shape:
    return {
        "bucketId": each.bucket.bucket_id,
        "bucketName": each.bucket.name,
        "transactionCount": each.transactions,
        "totalSpent": str(raw(each.spent)),
        "totalDeposited": str(raw(each.funded)),
        "lastActivity": iso(each.activity.last) if each.activity else None,
        "budgetUtilization": number(each.utilization),
        "isOverBudget": each.is_over,
    }


def insights(user: str, usages: Sequence[Usage], *, chain_name: str) -> Shape:
    """What stands out among a user's buckets."""
    active = [each for each in usages if each.bucket.active]
    return {
        "userId": user,
        "totalBalance": str(raw(sum((each.balance for each in usages), Decimal(0)))),
        "totalSpent": str(raw(sum((each.spent for each in usages), Decimal(0)))),
        "activeBuckets": len(active),
        "mostUsedBucket": most_used(usages),
        "highestSpendingBucket": highest_spending(usages),
        "mostFundedBucket": most_funded(usages),
        "budgetAdherenceRate": number(rules.adherence(usages)),
        "abandonedBuckets": [_stats(each) for each in active if each.is_abandoned],
        "chainName": chain_name,
        "walletAddress": user,
    }


def most_used(usages: Iterable[Usage]) -> Shape | None:
    """The bucket with the most transactions."""
    return _found(rules.most(usages, lambda each: each.transactions))


def highest_spending(usages: Iterable[Usage]) -> Shape | None:
    """The bucket that the most was spent from."""
    return _found(rules.most(usages, lambda each: each.spent))


def most_funded(usages: Iterable[Usage]) -> Shape | None:
    """The bucket that the most was put into."""
    return _found(rules.most(usages, lambda each: each.funded))


def _found(usage: Usage | None) -> Shape | None:
    return None if usage is None else _stats(usage)


def activity(usages: Iterable[Usage], *, month: str | None) -> Shape:
    """How often each bucket was touched, the busiest first; buckets that were not are left out."""
    touched = sorted(
        ((each, each.activity) for each in usages if each.activity is not None),
        key=lambda pair: (-pair[0].transactions, pair[0].bucket.bucket_id),
    )
    return {
        "bucketActivity": [
            {
                "bucketId": each.bucket.bucket_id,
                "bucketName": each.bucket.name,
                "transactionCount": each.transactions,
                "lastActivity": iso(done.last),
                "firstActivity": iso(done.first),
            }
            for each, done in touched
        ],
        "period": month or "all-time",
        "summary": {
            "totalTransactions": sum(each.transactions for each, _ in touched),
            "activeBuckets": len(touched),
            "mostActiveCount": touched[0][0].transactions if touched else 0,
        },
    }


def efficiency(usages: Iterable[Usage], decimals: Mapping[int, int]) -> Shape:
    """How much of its limit each active bucket uses, the fullest first."""
    active = [each for each in usages if each.bucket.active]
    rated = sorted(active, key=lambda each: (-_efficiency(each), each.bucket.bucket_id))
    return {
        "bucketEfficiency": [_rated(each, decimals[each.bucket.chain_id]) for each in rated],
        "overallEfficiency": number(rules.mean([_efficiency(each) for each in active])),
        "summary": {
            "totalBuckets": len(active),
            "healthyBuckets": sum(each.status == "healthy" for each in active),
            "warningBuckets": sum(each.status == "warning" for each in active),
            "overBudgetBuckets": sum(each.status == "over_budget" for each in active),
        },
    }


def _efficiency(each: Usage) -> Decimal:
    return min(Decimal(100), each.utilization)


def _rated(each: Usage, decimals: int) -> Shape:
    row = each.bucket
    return {
        "bucketId": row.bucket_id,
        "bucketName": row.name,
        "monthlyLimit": counter(row.monthly_limit, decimals),
        "monthlySpent": counter(each.spent_now, decimals),
        "currentBalance": str(raw(each.balance)),
        "utilizationRate": number(each.utilization),
        "efficiency": number(_efficiency(each)),
        "isOverBudget": each.is_over,
        "remainingBudget": counter(max(0, row.monthly_limit - each.spent_now), decimals),
        "status": each.status,
    }


def seasonal(
    months: Sequence[date], spent: Sequence[Decimal], transactions: Sequence[int], kept: Sequence[Decimal]
) -> Shape:
    """Spending by month, its average and where it goes."""
    average = raw(sum(spent, Decimal(0)) / len(spent)) if spent else 0
    return {
        "monthlySpending": [
            {
                "month": rules.shown("month", month),
                "totalSpent": integer(raw(usd)),
                "transactionCount": count,
                "budgetAdherenceRate": number(part),
            }
            for month, usd, count, part in zip(months, spent, transactions, kept, strict=True)
        ],
        "averageMonthlySpending": integer(average),
        "spendingTrend": rules.trend(spent),
    }


def abandoned(usages: Iterable[Usage], now: datetime) -> Shape:
    """Active buckets with money that nothing has touched for 30 days, and how much lies in them."""
    found = [each for each in usages if each.bucket.active and each.is_abandoned]
    return {
        "abandonedBuckets": [
            {
                **_stats(each),
                "daysSinceLastActivity": (now - each.activity.last).days if each.activity else None,
            }
            for each in found
        ],
        "count": len(found),
        "potentialSavings": str(raw(sum((each.balance for each in found), Decimal(0)))),
    }


def time_series(
    usages: Iterable[Usage],
    name: str,
    periods: Sequence[date],
    spent: Mapping[tuple[str, date], Decimal],
    *,
    since: datetime,
    until: datetime,
    zone: ZoneInfo,
) -> Shape:
    """Spending of each active bucket by period, zeros filled in; `name` is the period's as it was asked for."""
    period = PERIODS[name]
    starts = [datetime(day.year, day.month, day.day, tzinfo=zone) for day in periods]
    active = [each for each in usages if each.bucket.active]
    amounts = [[raw(spent.get((each.bucket.bucket_id, day), Decimal(0))) for day in periods] for each in active]
    buckets = [
        {
            "bucketId": each.bucket.bucket_id,
            "bucketName": each.bucket.name,
            "data": [
                {"period": rules.shown(period, day), "totalSpent": integer(amount), "timestamp": iso(start)}
                for day, start, amount in zip(periods, starts, row, strict=True)
            ],
        }
        for each, row in zip(active, amounts, strict=True)
    ]
    total = sum(map(sum, amounts))
    return {
        "period": name,
        "buckets": buckets,
        "totalPeriods": len(periods) if buckets else 0,
        "dateRange": {"from": iso(since), "to": iso(until)},
        "summary": {
            "totalSpentAcrossAllBuckets": integer(total),
            "averageSpentPerPeriod": integer(total // len(periods)) if buckets else 0,
            "activeBuckets": len(buckets),
            "periodRange": f"{since.astimezone(zone).date()} to {until.astimezone(zone).date()}",
        },
    }


def cross_chain_insights(user: str, by_chain: Sequence[tuple[Chain, Sequence[Usage]]]) -> Shape:
    """What stands out, chain by chain, and over all of them."""
    every = [each for _, usages in by_chain for each in usages]
    rates = [rules.adherence(usages) for _, usages in by_chain]
    return {
        "walletAddress": user,
        "crossChainSummary": {
            "totalBalance": str(raw(sum((each.balance for each in every), Decimal(0)))),
            "totalSpent": str(raw(sum((each.spent for each in every), Decimal(0)))),
            "totalActiveBuckets": sum(each.bucket.active for each in every),
            "averageBudgetAdherence": number(rules.mean(rates)),
            "activeChains": len(by_chain),
            "chainsData": [
                {
                    "chainName": short_name(chain),
                    "chainDisplayName": chain.name,
                    "insights": insights(user, usages, chain_name=short_name(chain)),
                }
                for chain, usages in by_chain
            ],
        },
    }


def cross_chain_buckets(
    user: str, by_chain: Sequence[tuple[Chain, Sequence[Usage]]], decimals: Mapping[int, int]
) -> Shape:
    """Buckets of the same name on several chains side by side, those with the most spending first."""
    chains = {chain.id: chain for chain, _ in by_chain}
    named: dict[str, list[Usage]] = {}
    for _, usages in by_chain:
        for each in usages:
            named.setdefault(each.bucket.name.lower(), []).append(each)
    compared = sorted(named.items(), key=lambda item: (-sum(each.spent for each in item[1]), item[0]))
    return {
        "walletAddress": user,
        "crossChainBuckets": [
            {
                "bucketName": name,
                "chains": [
                    {**_used(each, chains, decimals), "chainDisplayName": chains[each.bucket.chain_id].name}
                    for each in usages
                ],
                "totalSpent": str(raw(sum((each.spent for each in usages), Decimal(0)))),
                "totalTransactions": sum(each.transactions for each in usages),
                "averageUtilization": number(rules.mean([each.utilization for each in usages])),
            }
            for name, usages in compared
        ],
        "chainData": [
            {
                "chainName": short_name(chain),
                "chainDisplayName": chain.name,
                "buckets": [_used(each, chains, decimals) for each in usages],
            }
            for chain, usages in by_chain
        ],
        "summary": {
            "uniqueBucketNames": len(named),
            "totalChainsWithData": len(by_chain),
            "totalBucketsAcrossChains": sum(len(usages) for _, usages in by_chain),
        },
    }
