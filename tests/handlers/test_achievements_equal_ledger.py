"""Whatever happened on the way, what is held is what plain Python makes of the ledger, and it was told once.

Random histories with forks, blocks that come back, another chain, categories by hand, budgets, goals, other time zones
and days that pass; looks at any moment, twice, or killed before their commit; requests taken from the outbox in any
order.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from config.settings import Settings
from handlers import achievements, budgets, goal_edits, goals, people
from handlers.chain_events import DecodedBlock
from handlers.goal_edits import Base
from store import outbox, pushes
from store.audit import Caller
from store.postgres import Pool
from store.records import Address
from tests.handlers.ledger import Bench, bench, set_budget, sign_in
from tests.handlers.scripted import LOCK, START, USDC, WALLET, Script, address, deposit, listed_vault, make_chain
from tests.handlers.test_apply_equals_refetch import CATEGORIES, DAY_S, NAMES, WALLETS, World, follow
from watchers.devnet import view as client

EXAMPLES = itertools.count(1)
ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Apia")
USD = 10**6
BUCKETS = (*NAMES, b"fun", b"gifts")
BRONZE = {"SHARED_SPEND", "FIRST_INVESTMENT", "FIRST_GOAL", "SORTED_10", "FIRST_FRIEND", "MONTH_WITH_US"}
KEPT = {"FIRST_GOAL", "SORTED_10", "SORTED_100", "FIRST_FRIEND", "MONTH_WITH_US", "YEAR_WITH_US"}

whose = st.integers(0, 1)
amounts = st.sampled_from((0, 1, 3 * USD, 40 * USD, 600 * USD, 4000 * USD))
actions = st.one_of(
    st.tuples(st.just("create"), whose, st.just(WALLET), st.sampled_from(BUCKETS), st.just(0)),
    st.tuples(st.just("deposit"), whose, st.just(WALLET), st.just(USDC), amounts, st.booleans()),
    st.tuples(st.just("fund"), whose, st.just(WALLET), st.sampled_from(NAMES), st.just(USDC), amounts),
    st.tuples(st.just("spend"), whose, st.just(WALLET), st.sampled_from(NAMES), st.just(USDC), amounts,
              st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.just("pay"), whose, st.integers(0, 2), amounts),
    st.tuples(st.just("invest"), whose, amounts),
    st.tuples(st.just("divest"), whose, amounts),
    st.tuples(st.just("lock"), whose, st.integers(0, 1), amounts),
    st.tuples(st.just("unlock"), whose, st.integers(0, 1), st.just(0)),
    st.tuples(st.just("operate"), whose, st.integers(0, 1), st.integers(0, 1), amounts, st.just(0)),
)  # fmt: skip
blocks = st.tuples(
    st.just("block"),
    st.lists(st.lists(actions, min_size=1, max_size=3), min_size=1, max_size=3),
    st.sampled_from((2, 2, 3600, DAY_S, 7 * DAY_S, 7 * DAY_S, 31 * DAY_S)),
)
small = st.tuples(st.just("spend"), whose, st.just(WALLET), st.sampled_from(NAMES), st.just(USDC),
                  st.sampled_from((0, USD, 40 * USD)), st.just(0), st.integers(0, 2))  # fmt: skip
monthly = st.tuples(
    st.just("block"), st.lists(st.lists(small, min_size=1, max_size=2), min_size=1, max_size=2),
    st.sampled_from((14 * DAY_S, 30 * DAY_S)),
)  # fmt: skip
forks = st.tuples(st.just("fork"), st.sampled_from((1, 1, 2, 4, 9)))
habits = st.tuples(
    st.just("habit"), whose,
    st.sampled_from(("fund", "invest", "create", "pay", "save", "spend", "spread", "shift", "reach")),
    st.integers(3, 12),
)  # fmt: skip
jobs = st.tuples(st.just("jobs"), st.integers(0, 5), st.sampled_from(("once", "twice", "killed")))
steps = st.one_of(
    blocks,
    blocks,
    monthly,
    monthly,
    jobs,
    jobs,
    st.tuples(st.just("spree"), whose, st.sampled_from((45, 60, 100))),
    habits,
    habits,
    habits,
    forks,
    forks,
    st.tuples(st.just("return"), st.integers(1, 4)),
    st.tuples(st.just("settle")),
    st.tuples(st.just("abroad"), whose),
    st.tuples(st.just("home"), st.just(0)),
    st.tuples(st.just("choose"), whose, st.integers(0, 3), st.sampled_from(CATEGORIES[:2]), st.booleans()),
    st.tuples(st.just("choose"), whose, st.integers(0, 3), st.sampled_from(CATEGORIES[:2]), st.booleans()),
    st.tuples(st.just("budget"), whose, st.sampled_from((None, *CATEGORIES[:2])),
              st.sampled_from((None, 0, 30, 100, 5000))),
    st.tuples(st.just("budget"), whose, st.sampled_from((None, *CATEGORIES[:2])), st.sampled_from((100, 5000))),
    st.tuples(st.just("goal"), whose, st.sampled_from(("make", "make", "link", "by hand", "delete")),
              st.integers(0, 3), st.sampled_from((1, 80, 5000))),
    st.tuples(st.just("wait"), st.sampled_from((1, 8, 35))),
    st.tuples(st.just("move"), whose, st.sampled_from(ZONES)),
)  # fmt: skip
seen = st.sampled_from(("", "", "once", "once", "twice", "killed"))


class Killed(BaseException):
    """The process is gone: nothing of it catches that."""


@dataclass
class Abroad:
    """The users' other chain."""

    bench: Bench
    script: Script


@dataclass
class Life:
    """Two users, their two chains, and what they once had done by hand when somebody looked."""

    world: World
    abroad: Abroad
    pool: Pool
    ever: dict[Address, set[str]] = field(default_factory=dict)
    taken: list[DecodedBlock] = field(default_factory=list)

    @property
    def users(self) -> tuple[Address, ...]:
        return self.world.people[:2]

    async def look(self, users: Sequence[Address], how: str) -> None:
        await self._at(partial(achievements.evaluate, self.world.bench.deps, users), how)
        if how == "twice":
            assert await achievements.evaluate(self.world.bench.deps, users) == 0

    async def job(self, which: int, how: str) -> None:
        ids = [row["id"] for row in await self.pool.fetch("SELECT id FROM outbox WHERE job = 'evaluate' ORDER BY id")]
        if ids and (claim := await outbox.begin(self.pool, ids[which % len(ids)])):
            for _ in range(2 if how == "twice" else 1):
                await self._at(partial(achievements.run, self.world.bench.deps, claim), how)

    async def _at(self, work: Callable[[], Awaitable[object]], how: str) -> None:
        for user in self.users:
            self.ever[user] |= await kept_by_hand(self.pool, user, self.world.clock)
        if how != "killed":
            await work()
            return

        async def die(*_: Any, **__: Any) -> None:
            raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pushes, "record", die)
            with suppress(Killed):
                await work()

    async def begin(self) -> None:
        while await budgets.begin_months(self.world.bench.deps, limit=100):
            pass
        while await goals.begin_days(self.world.bench.deps, limit=100):
            pass

    async def settle(self) -> None:
        """Do what was asked for, and what the clock asks for."""
        while ids := await self.pool.fetch("SELECT id FROM outbox WHERE job = 'evaluate' ORDER BY id DESC"):
            for row in ids:
                claim = await outbox.begin(self.pool, row["id"])
                assert claim is not None
                await self._at(partial(achievements.run, self.world.bench.deps, claim), "once")
        for user in self.users:
            self.ever[user] |= await kept_by_hand(self.pool, user, self.world.clock)
        while await achievements.close_days(self.world.bench.deps, limit=1):
            pass


# History -----------------------------------------------------------------------------------------------------------


async def play(life: Life, history: Sequence[tuple[tuple[Any, ...], str]]) -> None:
    for (kind, *rest), looked in history:
        await step(life, kind, rest)
        world = life.world
        world.clock = max(world.clock, world.script.time + timedelta(seconds=1))
        await life.begin()
        for user in life.users:  # goals are made of what a user sees
            world.views[user] = await world.bench.snapshot(user)
        if looked:
            await life.look(life.users, looked)


async def step(life: Life, kind: str, rest: list[Any]) -> None:
    world = life.world
    match kind:
        case "block":
            transactions, after_s = rest
            await block(world, transactions, after_s)
            life.taken = []
        case "spree":
            who, count = rest
            await block(world, [[("spend", who, WALLET, b"food", USDC, 0, who, who)] * count], 2)
            life.taken = []
        case "habit":
            await habit(world, *rest)
            life.taken = []
        case "fork":
            world.forks += 1
            life.taken = world.script.back(rest[0], fork=str(world.forks))
            await world.bench.revert(len(life.taken))
        case "return":
            for _ in range(min(rest[0], len(life.taken))):
                await world.apply(world.script.put_back(life.taken.pop()))
        case "abroad":
            life.abroad.script.time = max(life.abroad.script.time, world.clock - timedelta(seconds=2))
            await life.abroad.bench.apply(life.abroad.script.block([deposit(life.users[rest[0]], 7 * USD)]))
        case "home":
            world.forks += 1
            gone = life.abroad.script.back(1, fork=str(world.forks))
            await life.abroad.bench.revert(len(gone))
        case "choose":
            await world.choose(*rest)
        case "budget":
            who, category, amount = rest
            await set_budget(world.bench.deps, life.users[who], category, None if amount is None else Decimal(amount))
        case "goal":
            await world.save(*rest)
        case "wait":
            world.clock += timedelta(days=rest[0])
            world.script.time = world.clock
        case "move":
            who, zone = rest
            await people.change(
                world.bench.deps, life.users[who], {"time_zone": zone}, if_match=None,
                caller=Caller("", ""), budgets_told=budgets.told,
            )  # fmt: skip
        case "settle":
            await life.settle()
        case "jobs":
            await life.job(*rest)


async def block(world: World, transactions: Sequence[Sequence[tuple[Any, ...]]], after_s: float) -> None:
    made = [events for transaction in transactions if (events := world.events(transaction))]
    await world.apply(world.script.block(*made, after_s=after_s))


async def habit(world: World, who: int, what: str, times: int) -> None:
    """The same again and again, or at once where that says more."""
    match what:
        case "create":
            await block(world, [[("create", who, WALLET, name, 0)] for name in BUCKETS[:times]], 2)
        case "spread":
            at_once = [("invest", who, 400 * USD), ("lock", who, 0, 400 * USD), ("operate", who, 0, 1, 400 * USD, 0)]
            await block(world, [[action] for action in at_once[:times]], 2)
        case "shift":  # from an account to the vault, in one block and from one to the other
            await block(world, [[("operate", who, 0, 0, 900 * USD, 0)]], 2)
            await block(world, [[("operate", who, 1, 0, 900 * USD, 0), ("invest", who, 850 * USD)]], 2)
        case "reach":
            for number in range(min(times, 6)):
                made = Base(f"goal {number}", Decimal(10), Decimal(10), None, None, None)
                await goal_edits.create(world.bench.deps, world.people[who], made)
        case "save":
            for _ in range(4):
                await block(world, [[("deposit", who, WALLET, USDC, 2900 * USD, False)]], 2)
        case "spend":
            for _ in range(times):
                await block(world, [[("spend", who, WALLET, b"food", USDC, 40 * USD, who, who)]], 30 * DAY_S)
        case "fund":
            await weekly(world, ("fund", who, WALLET, b"food", USDC, USD), times)
        case "invest":
            await weekly(world, ("invest", who, 1200 * USD), times)
        case "pay":
            await weekly(world, ("pay", who, 2, USD), times)


async def weekly(world: World, action: tuple[Any, ...], times: int) -> None:
    for _ in range(times):
        await block(world, [[action]], 7 * DAY_S)


# What plain Python makes of it --------------------------------------------------------------------------------------


async def kept_by_hand(pool: Pool, user: Address, now: datetime) -> set[str]:
    """What a user has done by hand, as of now."""
    row = await pool.fetchrow(
        """SELECT (SELECT count(*) FROM savings_goals WHERE user_address = $1) AS goals,
                  (SELECT count(*) FROM transaction_categories WHERE user_address = $1 AND is_manual_override) AS hand,
                  (SELECT time_zone FROM users WHERE address = $1) AS zone,
                  (SELECT opened_at FROM user_counters WHERE user_address = $1) AS opened_at""",
        user,
    )
    assert row is not None
    zone = ZoneInfo(row["zone"])
    days = (now.astimezone(zone).date() - row["opened_at"].astimezone(zone).date()).days
    done = {
        "FIRST_GOAL": row["goals"] >= 1,
        "SORTED_10": row["hand"] >= 10,
        "SORTED_100": row["hand"] >= 100,
        "MONTH_WITH_US": days >= 30,
        "YEAR_WITH_US": days >= 365,
    }
    return {code for code, is_met in done.items() if is_met}


async def verdict(pool: Pool, user: Address, now: datetime) -> set[str]:
    """Which achievements the rows earn."""
    zone = ZoneInfo(await pool.fetchval("SELECT time_zone FROM users WHERE address = $1", user))
    rows = await pool.fetch(
        """SELECT t.*, c.category_id::text AS category FROM transactions AS t
           LEFT JOIN transaction_categories AS c ON c.user_address = t.user_address AND c.transaction_id = t.id
           WHERE t.user_address = $1 AND canonical AND role = 'owner'""",
        user,
    )
    buckets = await pool.fetchval("SELECT count(*) FROM buckets WHERE user_address = $1", user)
    kept = await pool.fetch("SELECT link_kind, link_id, completed_at FROM savings_goals WHERE user_address = $1", user)
    envelopes = {goal["link_id"] for goal in kept if goal["link_kind"] == "bucket"}
    reached = sum(goal["completed_at"] is not None for goal in kept)
    spends = [row for row in rows if row["type"] == "spend"]
    put_in = [row for row in rows if row["type"] in ("vault_deposit", "yield_lock")
              or (row["type"] == "account_operation" and row["direction"] == "in"
                  and row["account_type"] == "investment")]  # fmt: skip
    aside = [row for row in rows if row["type"] in ("vault_deposit", "yield_lock")
             or (row["type"] == "account_operation" and row["direction"] == "in"
                 and row["account_type"] != "spending")
             or (row["type"] == "bucket_funding" and row["bucket_id"] in envelopes)]  # fmt: skip

    def days(some: Iterable[Any]) -> list[date]:
        return [row["block_time"].astimezone(zone).date() for row in some]

    most, places = await invested(pool, user)
    closed = months(rows, user, zone, now, await pool.fetch(
        "SELECT * FROM budget_history WHERE user_address = $1 ORDER BY since", user))  # fmt: skip
    fine = {month for month, (spent, budget) in closed.items() if spent <= budget}
    earned = {
        "SPENDER_100": len(spends) >= 100,
        "BUCKETS_5": buckets >= 5,
        "SHARED_SPEND": any(row["spender"] != user for row in spends),
        "DEPOSITED_10K": sum(row["usd"] or 0 for row in rows if row["type"] == "deposit") > 10_000,
        "TWO_CHAINS": len({row["chain_id"] for row in rows}) >= 2,
        "BUDGET_SAVER": bool(fine),
        "HALF_BUDGET": any(2 * closed[month][0] <= closed[month][1] for month in fine),
        "BUDGET_STREAK_3": in_a_row(fine, 3, next_month),
        "BUDGET_STREAK_12": in_a_row(fine, 12, next_month),
        "NO_SPEND_WEEK": went_without(set(days(spends)), now.astimezone(zone).date()),
        "SAVING_STREAK_4": in_a_row({monday(day) for day in days(aside)}, 4, next_week),
        "ACTIVE_STREAK_8": in_a_row({monday(day) for day in days(rows)}, 8, next_week),
        "GOAL_REACHED": reached >= 1,
        "GOALS_5": reached >= 5,
        "FIRST_INVESTMENT": bool(put_in),
        "INVESTOR_1K": most > 1000,
        "INVESTOR_10K": most > 10_000,
        "DIVERSIFIED": places >= 3,
        "TIME_LOCK": any(row["type"] == "yield_lock" for row in rows),
    }
    return {code for code, is_met in earned.items() if is_met}


def monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def next_week(day: date) -> date:
    return day + timedelta(days=7)


def next_month(day: date) -> date:
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1)


def in_a_row(found: set[date], times: int, following: Callable[[date], date]) -> bool:
    """Whether so many of these follow each other."""
    for first in found:
        day, count = first, 0
        while day in found:
            day, count = following(day), count + 1
        if count >= times:
            return True
    return False


def went_without(days: set[date], today: date) -> bool:
    """Whether some day with one of these is followed by seven whole days without, all over."""
    return any(
        day + timedelta(days=7) < today and not {day + timedelta(days=i) for i in range(1, 8)} & days for day in days
    )


def months(
    rows: Sequence[Any], user: Address, zone: ZoneInfo, now: datetime, history: Sequence[Any]
) -> dict[date, tuple[Decimal, Decimal]]:
    """What was spent and the budget of each month that is over, had a budget, a payment, and prices for all."""
    found: dict[date, list[Any]] = {}
    for row in rows:
        sent = row["type"] == "transfer" and row["direction"] == "out" and row["counterparty"] != user
        if row["type"] == "spend" or (sent and row["category"]):
            found.setdefault(row["block_time"].astimezone(zone).date().replace(day=1), []).append(row)
    closed = {}
    for first, paid in found.items():
        after = next_month(first)
        ended = datetime(after.year, after.month, 1, tzinfo=zone).astimezone(UTC)
        stood = [row for row in history if row["since"] < ended]
        if ended > now or not stood:
            continue
        total, by_category = stood[-1]["total"], stood[-1]["by_category"]
        budget = sum(map(Decimal, by_category.values()), Decimal(0)) if total is None else total
        counted = [row["usd"] for row in paid if total is not None or row["category"] in by_category]
        if counted and None not in counted:
            closed[first] = sum(counted, Decimal(0)), budget
    return closed


async def invested(pool: Pool, user: Address) -> tuple[Decimal, int]:
    """Most dollars of principal after any block, and most places at once: here all principal is in dollars."""
    points = await pool.fetch(
        """SELECT p.*, i.contract FROM position_points AS p
           JOIN investment_positions AS i USING (user_address, position_id)
           WHERE p.user_address = $1 ORDER BY p.block_time, p.chain_id, p.block_number""",
        user,
    )
    stand: dict[str, Any] = {}
    most, places = Decimal(0), 0
    for _, some in itertools.groupby(points, key=lambda row: (row["chain_id"], row["block_number"])):
        stand.update((row["position_id"], row) for row in some)
        most = max(most, Decimal(sum(row["principal"] or 0 for row in stand.values())) / USD)
        places = max(places, len({row["contract"] for row in stand.values() if row["shares"] or row["principal"]}))
    return most, places


# What must hold ----------------------------------------------------------------------------------------------------


async def check(life: Life, first: Mapping[Address, Mapping[str, Any]]) -> None:
    for user in life.users:
        rows = await life.pool.fetch(
            "SELECT code FROM achievements WHERE user_address = $1 AND revoked_at IS NULL", user
        )
        held = {row["code"] for row in rows}
        assert held - KEPT == await verdict(life.pool, user, life.world.clock)
        assert await kept_by_hand(life.pool, user, life.world.clock) <= held & KEPT <= life.ever[user]
        shown = await life.pool.fetch(
            """SELECT a.code FROM notifications AS n JOIN achievements AS a USING (user_address, event_id)
               WHERE n.user_address = $1 AND n.corrected_at IS NULL""",
            user,
        )
        assert sorted(row["code"] for row in shown) == sorted(held - BRONZE)
        told = await life.world.bench.told(user)
        assert check_told(told) == held
        since = [each for each in told if each[1]["seq"] > first[user]["seq"]]
        fresh = await life.world.bench.snapshot(user)
        if not any(event == "resync" for event, _ in since):
            assert client.differences(client.apply_all(first[user], since), fresh) == []
        assert {each["code"] for each in fresh["achievements"]} == held


def check_told(told: Sequence[tuple[str, Mapping[str, Any]]]) -> set[str]:
    """Told once while held, taken back as it was told; returns what the log says is held."""
    known: set[str] = set()
    held: dict[str, str] = {}
    inbox = {body["notification"]["eventId"]: body["id"] for event, body in told if event == "notification"}
    for event, payload in told:
        if event in ("achievement_unlocked", "achievement_revoked"):
            code = payload["achievement"]["code"]
            assert set(payload["causes"]) <= known
            if event == "achievement_unlocked":
                assert code not in held
                assert payload["id"] not in known
                assert (payload["id"] in inbox) == (code not in BRONZE)
                held[code] = payload["id"]
            else:
                gone = held.pop(code)
                assert set(payload["corrects"]) == {gone, inbox[gone]} if gone in inbox else {gone}
        known.add(payload["id"])
    assert len([body for event, body in told if event == "notification"]) == len(inbox)
    return set(held)


@pytest.fixture
def configured(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


# What a V2 account holds counts as invested; what moves from one place to another in a block is not invested twice.
@example(history=[(("block", [[("operate", 0, 0, 0, 4000 * USD, 0)]], 2), "")], zone="UTC")
@example(history=[(("habit", 0, "shift", 3), "once")], zone="UTC")
# Nothing but the request of what happened last: a reorg, a category by hand.
@example(history=[(("spree", 0, 100), ""), (("settle",), ""), (("fork", 1), "")], zone="UTC")
@example(history=[(("block", [[("spend", 0, WALLET, b"food", USDC, 40 * USD, 0, 0)]], 2), ""),
                  (("block", [[("pay", 0, 2, 600 * USD)]], 2), ""), (("wait", 35), ""), (("settle",), ""),
                  (("choose", 0, 0, CATEGORIES[0], False), "")], zone="UTC")  # fmt: skip
@given(history=st.lists(st.tuples(steps, seen), min_size=10, max_size=30), zone=st.sampled_from(ZONES))
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_what_is_held_is_what_the_ledger_earns(
    pool: Pool, configured: Settings, history: list[tuple[tuple[Any, ...], str]], zone: str
) -> None:
    number = next(EXAMPLES)
    users = tuple(address((number << 24) + i + 1) for i in range(3))
    facts: dict[str, Any] = {"wallets": WALLETS, "vaults": (listed_vault(),), "yield_locks": (LOCK,)}
    chain, other = make_chain(3_000_000 + number, **facts), make_chain(4_000_000 + number)
    async with bench(pool, configured, chain) as made, bench(pool, configured, other) as away:
        await follow(pool, chain.id, users)
        await sign_in(pool, *users[:2])
        await pool.execute("UPDATE users SET time_zone = $1 WHERE address = $2", zone, users[0])
        await pool.execute("UPDATE user_counters SET opened_at = $1", START)
        world = World(made, Script(chain.id), users)
        life = Life(world, Abroad(away, Script(other.id)), pool, {user: set() for user in users[:2]})
        chains = {chain.id: chain, other.id: other}
        for one in (made, away):
            one.ledger._deps = one.deps = replace(one.deps, chains=chains, now=lambda: world.clock)
        first = {user: await made.snapshot(user) for user in users[:2]}
        world.views = {user: dict(view) for user, view in first.items()}
        for user in users[:2]:
            await set_budget(made.deps, user, None, Decimal(100))
        await play(life, history)
        await life.settle()
        await check(life, first)
        assert await achievements.evaluate(made.deps, users[:2]) == 0
