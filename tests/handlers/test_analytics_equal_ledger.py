"""Whatever happened on the way, what ClickHouse answers is what plain Python makes of the PostgreSQL ledger.

Random histories with forks, blocks that come back, changed categories, persisters killed at any step, rows that arrive
twice, and answers that were kept in Redis before.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.chains import Token
from config.settings import Settings
from handlers import analytics as figures_of
from handlers import persistence, summary
from handlers.chain_events import DecodedBlock
from handlers.deps import Figures
from handlers.rules.trends import Timeframe
from store.answers import Answers
from store.clickhouse import Analytics
from store.postgres import Pool
from store.records import Address
from store.redis import open_redis
from tests.handlers.ledger import bench, sign_in
from tests.handlers.scripted import OTHER_TOKEN, START, USDC, Script, address, make_chain
from tests.handlers.test_apply_equals_refetch import CATEGORIES, DAY_S, WALLETS, World, follow, names, users, wallets
from tests.handlers.test_persistence import STEPS, Killed, claims, kill_at, work

EXAMPLES = itertools.count(1)
FINE = "0x" + "d1" * 20
"""A token of a dollar with 18 decimals."""
ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Apia")
FRAMES: tuple[Timeframe, ...] = ("hour", "day", "week", "month", "year")

amounts = st.one_of(st.integers(0, 10**9), st.integers(0, 10**25))
paid = st.tuples(
    st.just("spend"), users, wallets, names, st.sampled_from((USDC, FINE, OTHER_TOKEN)), amounts, users, users
)
put = st.tuples(st.just("deposit"), users, wallets, st.sampled_from((USDC, FINE, OTHER_TOKEN)), amounts, st.booleans())
sent = st.tuples(st.just("pay"), users, users, amounts)
blocks = st.tuples(
    st.just("block"),
    st.lists(st.lists(st.one_of(paid, paid, put, sent), min_size=1, max_size=3), min_size=1, max_size=3),
    st.sampled_from((2, 3600, DAY_S, 9 * DAY_S)),
)
steps = st.one_of(
    blocks,
    blocks,
    st.tuples(st.just("fork"), st.integers(1, 3)),
    st.tuples(st.just("return"), st.integers(1, 2)),
    st.tuples(st.just("choose"), st.integers(0, 1), st.integers(0, 2), st.sampled_from(CATEGORIES), st.booleans()),
    st.tuples(st.just("choose"), st.integers(0, 1), st.integers(0, 2), st.sampled_from(CATEGORIES), st.booleans()),
    st.tuples(st.just("persist")),
    st.tuples(st.just("kill"), st.sampled_from(STEPS), st.sampled_from(("before", "after"))),
    st.tuples(st.just("double")),
    st.tuples(st.just("ask")),
)


@pytest.fixture
def configured(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
async def answers(redis_url: str) -> AsyncIterator[Answers]:
    client = open_redis(redis_url)
    yield Answers(client)
    await client.aclose()


@dataclass
class Reader:
    """Asks for every figure of every user."""

    figures: Figures
    world: World

    @property
    def until(self) -> datetime:
        return self.world.script.time + timedelta(seconds=1)

    async def trends(self, user: Address, timeframe: Timeframe) -> dict[str, Any]:
        since = max(START - timedelta(days=1), self.until - timedelta(days=30 if timeframe == "hour" else 700))
        told = await figures_of.trends(self.figures, user, timeframe=timeframe, since=since, until=self.until)
        answer: dict[str, Any] = orjson.loads(told.body)
        return answer

    async def everything(self) -> None:
        for user in self.world.people[:2]:
            for timeframe in FRAMES:
                await self.trends(user, timeframe)
            await summary.read(self.figures, user)


async def play(reader: Reader, pool: Pool, store: Analytics, history: Sequence[tuple[Any, ...]]) -> None:
    world, taken = reader.world, list[DecodedBlock]()
    for kind, *rest in history:
        match kind:
            case "block":
                transactions, after_s = rest
                made = [events for transaction in transactions if (events := world.events(transaction))]
                await world.bench.apply(world.script.block(*made, after_s=after_s))
                taken = []
            case "fork":
                world.forks += 1
                taken = world.script.back(rest[0], fork=str(world.forks))
                await world.bench.revert(len(taken))
            case "return":
                for _ in range(min(rest[0], len(taken))):
                    await world.bench.apply(world.script.put_back(taken.pop()))
            case "choose":
                await world.choose(*rest)
            case "persist":
                await work(pool, store)
            case "kill":
                await persist_until_killed(pool, store, *rest)
            case "double":
                await store.command(
                    "INSERT INTO transaction_events SELECT * FROM transaction_events WHERE chain_id = {id:UInt64}",
                    id=world.script.chain_id,
                )
            case "ask":
                await reader.everything()
        world.clock = max(world.clock, world.script.time + timedelta(seconds=1))


async def persist_until_killed(pool: Pool, store: Analytics, step: str, where: str) -> None:
    for claim in await claims(pool):
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, step, where)
            try:
                await persistence.persist(pool, store, claim)
            except Killed:
                return


def label(moment: datetime, timeframe: Timeframe, zone: ZoneInfo) -> str:
    """Which period an instant lies in, by the calendar on the wall."""
    day: date = moment.astimezone(zone).date()
    match timeframe:
        case "hour":
            return f"{moment.astimezone(UTC):%Y-%m-%d %H}"
        case "week":
            return "{}-{}".format(*day.isocalendar())
        case "month":
            return f"{day:%Y-%m}"
        case "year":
            return f"{day:%Y}"
    return day.isoformat()


async def ledger(pool: Pool, user: Address) -> list[Any]:
    return await pool.fetch(
        """SELECT block_time, type, direction, counterparty, usd, a.category_id::text AS category
           FROM transactions AS t LEFT JOIN transaction_categories AS a
               ON a.user_address = t.user_address AND a.transaction_id = t.id
           WHERE t.user_address = $1 AND canonical AND role = 'owner'""",
        user,
    )


def is_spending(row: Any, user: Address) -> bool:
    sent = row["type"] == "transfer" and row["direction"] == "out" and row["counterparty"] != user
    return bool(row["type"] == "spend" or (sent and row["category"]))


def plain(rows: Sequence[Any], key: Callable[[Any], Any]) -> dict[Any, tuple[Decimal, int, int]]:
    """Sum, count and unpriced of rows by key."""
    found: dict[Any, tuple[Decimal, int, int]] = {}
    with localcontext(prec=200):
        for row in rows:
            usd, count, unpriced = found.get(key(row), (Decimal(0), 0, 0))
            found[key(row)] = (usd + (row["usd"] or 0), count + 1, unpriced + (row["usd"] is None))
    return found


async def check(reader: Reader, pool: Pool) -> None:
    for user in reader.world.people[:2]:
        zone = ZoneInfo(await pool.fetchval("SELECT time_zone FROM users WHERE address = $1", user))
        rows = await ledger(pool, user)
        spent = [row for row in rows if is_spending(row, user)]
        for timeframe in FRAMES:
            answer = await reader.trends(user, timeframe)
            since = datetime.fromisoformat(answer["from"])
            expected = plain(
                [row for row in rows if row["type"] == "spend" and since <= row["block_time"] < reader.until],
                lambda row: (label(row["block_time"], timeframe, zone), row["category"]),  # noqa: B023 - used at once
            )
            told = {
                (label(datetime.fromisoformat(row["period"]), timeframe, zone), row["categoryId"]): (
                    Decimal(row["totalSpent"]),
                    row["transactionCount"],
                    row["unpriced"],
                )
                for row in answer["data"]
            }
            assert told == expected
            assert len(told) == len(answer["data"])
        await check_summary(reader, user, zone, rows, spent)


async def check_summary(
    reader: Reader, user: Address, zone: ZoneInfo, rows: Sequence[Any], spent: Sequence[Any]
) -> None:
    told: Any = await summary.read(reader.figures, user)
    month = label(reader.world.clock, "month", zone)

    def total(of: Sequence[Any]) -> tuple[Decimal, int]:
        usd, _, unpriced = plain([r for r in of if label(r["block_time"], "month", zone) == month], lambda _: 0).get(
            0, (Decimal(0), 0, 0)
        )
        return usd, unpriced

    flow = told["monthlyFlow"]
    (expenses, unpriced), (deposits, unvalued) = total(spent), total([r for r in rows if r["type"] == "deposit"])
    assert (Decimal(flow["expenses"]), Decimal(flow["deposits"])) == (expenses, deposits)
    assert flow["unpriced"] == unpriced + unvalued


@given(history=st.lists(steps, min_size=4, max_size=16), zone=st.sampled_from(ZONES))
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_every_figure_of_clickhouse_is_that_of_the_ledger(
    pool: Pool,
    configured: Settings,
    analytics: Analytics,
    answers: Answers,
    history: list[tuple[Any, ...]],
    zone: str,
) -> None:
    number = next(EXAMPLES)
    people = tuple(address((number << 24) + i + 1) for i in range(3))
    facts = {"tokens": (Token(USDC, "USDC", 6, "usd"), Token(FINE, "FINE", 18, "usd"))}
    chain = make_chain(2_000_000 + number, wallets=WALLETS, **facts)
    async with bench(pool, configured, chain) as made:
        await follow(pool, chain.id, people)
        await sign_in(pool, *people[:2])
        await pool.execute("UPDATE users SET time_zone = $1 WHERE address = $2", zone, people[0])
        world = World(made, Script(chain.id), people)
        world.views = {user: {} for user in people[:2]}
        made.ledger._deps = made.deps = replace(made.deps, now=lambda: world.clock)
        reader = Reader(Figures(made.deps, analytics, answers), world)
        await play(reader, pool, analytics, history)
        await work(pool, analytics)
        await check(reader, pool)
        as_of = (await reader.trends(people[0], "year"))["asOfBlock"]
        assert as_of.get(str(chain.id), 0) == world.script.number
