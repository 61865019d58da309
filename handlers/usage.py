"""How a user's buckets are used: what REST asks of it, in today's shapes and in those of the first front end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from config.chains import Chain
from handlers.deps import Deps
from handlers.errors import Invalid, NotFound
from handlers.rules import usage as rules
from handlers.rules.money import dollars, ratio_text
from handlers.rules.periods import iso
from handlers.rules.prices import Prices
from handlers.rules.usage import Usage
from store import cursors, prices, spending, usage
from store.history import BEGINNING, END
from store.postgres import frozen
from store.records import Address, BalanceKey, BucketRow
from store.usage import Period

MAX_PERIODS = 1100
"""Points of one time series: three years of days."""


@dataclass(frozen=True, slots=True)
class Used:
    """A user's buckets in one instant; `as_of` is the block that each chain's ledger stood at."""

    user: Address
    zone: str
    usages: Sequence[Usage]
    as_of: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Series:
    """Dollars spent by period (first days in `periods`) and bucket: (bucket id, first day) -> dollars."""

    used: Used
    period: Period
    since: datetime
    until: datetime
    periods: Sequence[date]
    spent: Mapping[tuple[str, date], Decimal]


@dataclass(frozen=True, slots=True)
class Months:
    """A user's spending by calendar month of their zone, oldest first, with the part of the limits that held."""

    months: Sequence[date]
    spent: Sequence[Decimal]
    transactions: Sequence[int]
    kept: Sequence[Decimal]
    unpriced: Sequence[int]
    """Spends without a known price, which are not in `spent`."""


async def read(
    deps: Deps,
    user: Address,
    *,
    chain_id: int | None = None,
    bucket: str | None = None,
    since: datetime = BEGINNING,
    until: datetime = END,
) -> Used:
    """Buckets of a registered user with their activity, within [since, until) where given. Raises NotFound.

    `bucket`: only the one of this id or name.
    """
    async with frozen(deps.pool) as tx:
        zone = await usage.zone(tx, user)
        if zone is None:
            raise NotFound(f"User with wallet address {user} not found.")
        rows = await spending.buckets_of(tx, chain_id, [user])
        held = await spending.balances_of(tx, chain_id, [user])
        found = await usage.by_bucket(tx, user, chain_id=chain_id, since=since, until=until)
        standing = await cursors.cursors(tx)
        newest = Prices(await prices.latest(tx))
    now = deps.now()
    wanted = [row for row in rows if row.chain_id in deps.chains and bucket in (None, row.bucket_id, row.name)]
    usages = [
        Usage(row, found.get(row.bucket_id), *_balance(deps.chains[row.chain_id], row, held, newest), now)
        for row in sorted(wanted, key=lambda row: row.bucket_id)
    ]
    shown = {chain: cursor.number for chain, cursor in standing.items() if chain_id in (None, chain)}
    return Used(user, zone, usages, shown)


async def series(
    deps: Deps,
    user: Address,
    period: Period,
    *,
    since: datetime | None,
    until: datetime | None,
    chain_id: int | None = None,
    bucket: str | None = None,
) -> Series:
    """Spending of each active bucket by period, from last year's first day on by default. Raises NotFound, Invalid."""
    used = await read(deps, user, chain_id=chain_id, bucket=bucket)
    zone = ZoneInfo(used.zone)
    last = until or deps.now()
    _check_year(last)
    first = since or datetime(last.year - 1, 1, 1, tzinfo=zone)
    _check_year(first)
    if first > last:
        raise Invalid("`from` lies after `to`.")
    days = _days(period, first, last, zone)
    found = await usage.spent_by_period(
        deps.pool, user, period, zone=used.zone, chain_id=chain_id, since=first, until=last
    )
    return Series(used, period, first, last, days, {(each.bucket_id, each.period): each.spent for each in found})


async def months(deps: Deps, used: Used, *, chain_id: int | None = None) -> Months:
    """Spending by month, from the first one with a spend to the one at hand."""
    found = await usage.spent_by_period(deps.pool, used.user, "month", zone=used.zone, chain_id=chain_id)
    if not found:
        return Months((), (), (), (), ())
    today = deps.now().astimezone(ZoneInfo(used.zone)).date()
    shown = rules.periods("month", min(each.period for each in found), today)
    limits = {
        each.bucket.bucket_id: _limit_usd(deps.chains[each.bucket.chain_id], each.bucket)
        for each in used.usages
        if each.bucket.active and each.bucket.monthly_limit
    }
    return Months(
        shown,
        [sum((each.spent for each in found if each.period == month), Decimal(0)) for month in shown],
        [sum(each.transactions for each in found if each.period == month) for month in shown],
        rules.kept_by_month(shown, found, limits),
        [sum(each.unpriced for each in found if each.period == month) for month in shown],
    )


async def overview(deps: Deps, user: Address, *, chain_id: int | None) -> dict[str, object]:
    """`/v1/analytics/buckets`: every bucket with its use, what stands out, the months, and the chains compared."""
    used = await read(deps, user, chain_id=chain_id)
    by_month = await months(deps, used, chain_id=chain_id)
    active = [each for each in used.usages if each.bucket.active]
    return {
        "buckets": [_resource(each) for each in used.usages],
        "mostUsed": _id(rules.most(used.usages, lambda each: each.transactions)),
        "highestSpending": _id(rules.most(used.usages, lambda each: each.spent)),
        "mostFunded": _id(rules.most(used.usages, lambda each: each.funded)),
        "abandoned": [each.bucket.bucket_id for each in active if each.is_abandoned],
        "adherence": _ratio(rules.adherence(used.usages)),
        "seasonal": {
            "months": [
                {
                    "month": rules.shown("month", month),
                    "totalSpent": dollars(spent),
                    "transactionCount": count,
                    "adherence": f"{kept.normalize():f}",
                    "unpriced": unpriced,
                }
                for month, spent, count, kept, unpriced in zip(
                    by_month.months,
                    by_month.spent,
                    by_month.transactions,
                    by_month.kept,
                    by_month.unpriced,
                    strict=True,
                )
            ],
            "averageSpent": dollars(rules.mean(by_month.spent)),
            "trend": rules.trend(by_month.spent),
        },
        "chains": [_chain(deps.chains[key], used) for key in sorted({each.bucket.chain_id for each in used.usages})],
        "asOfBlock": {str(chain): number for chain, number in sorted(used.as_of.items())},
    }


def _resource(each: Usage) -> dict[str, object]:
    row, done = each.bucket, each.activity
    return {
        "bucketId": row.bucket_id,
        "name": row.name,
        "chainId": row.chain_id,
        "active": row.active,
        "transactionCount": each.transactions,
        "totalSpent": dollars(each.spent),
        "totalFunded": dollars(each.funded),
        "unpriced": done.unpriced if done else 0,
        "fundedUnpriced": done.funded_unpriced if done else 0,
        "monthlyLimit": str(row.monthly_limit) if row.monthly_limit else None,
        "monthlySpent": str(each.spent_now),
        "utilization": ratio_text(each.spent_now, row.monthly_limit),
        "status": each.status,
        "balance": dollars(each.balance),
        "balanceUnpriced": each.unpriced,
        "firstActivity": iso(done.first) if done else None,
        "lastActivity": iso(done.last) if done else None,
    }


def _chain(chain: Chain, used: Used) -> dict[str, object]:
    own = [each for each in used.usages if each.bucket.chain_id == chain.id]
    return {
        "chainId": chain.id,
        "name": chain.name,
        "activeBuckets": sum(each.bucket.active for each in own),
        "transactionCount": sum(each.transactions for each in own),
        "totalSpent": dollars(sum((each.spent for each in own), Decimal(0))),
        "totalBalance": dollars(sum((each.balance for each in own), Decimal(0))),
        "unpriced": sum(each.unpriced + (each.activity.unpriced if each.activity else 0) for each in own),
        "adherence": _ratio(rules.adherence(own)),
    }


def _id(found: Usage | None) -> str | None:
    return found.bucket.bucket_id if found else None


def _ratio(percent: Decimal) -> str:
    return f"{percent.scaleb(-2).normalize():f}"


def _balance(chain: Chain, row: BucketRow, held: Mapping[BalanceKey, int], newest: Prices) -> tuple[Decimal, int]:
    """Dollars in a bucket, and how many tokens in it have no price."""
    total, unpriced = Decimal(0), 0
    for key, raw in held.items():
        if key.bucket_id != row.bucket_id or not raw:
            continue
        usd = newest.usd(chain, key.token, raw)
        total += usd or 0
        unpriced += usd is None
    return total, unpriced


def _limit_usd(chain: Chain, row: BucketRow) -> Decimal:
    """The contract's counter in dollars: it has the decimals of the chain's first usd token."""
    return Decimal(row.monthly_limit).scaleb(-counter_decimals(chain))


def counter_decimals(chain: Chain) -> int:
    """Decimals of a chain's limits and counters; those of a dollar token where it lists none."""
    return chain.usd_token.decimals if chain.usd_token else 6


def _days(period: Period, first: datetime, last: datetime, zone: ZoneInfo) -> list[date]:
    span = {"day": 1, "month": 28, "year": 365}[period]
    if (last - first).days // span > MAX_PERIODS:
        raise Invalid(f"A series has at most {MAX_PERIODS} points; ask for a shorter time or longer periods.")
    return rules.periods(period, first.astimezone(zone).date(), last.astimezone(zone).date())


def _check_year(moment: datetime) -> None:
    """Refuse the first and the last year there are: in some zone a period there begins or ends outside of them."""
    if not MINYEAR < moment.year < MAXYEAR:
        raise Invalid("`from` or `to` lies outside the calendar.")
