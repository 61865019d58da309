"""Scores are what a plain pass over the ledger says, whatever order blocks, forks, jobs, joins and leaves come in."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.settings import Settings
from handlers import chain_events as ce
from handlers import challenge_scores, challenges, goal_edits
from handlers.challenges import Base
from handlers.deps import Deps
from handlers.goal_edits import Wanted
from handlers.rules.ids import bucket_id
from store import challenge_scores as scores
from store import challenges as rows
from store import outbox
from store.audit import Caller
from store.challenges import Measure, Member
from store.postgres import Pool
from store.records import Address
from tests.conftest import MakeSettings
from tests.contestants import Result, Rules, plainly
from tests.factories import insert_transactions, make_address, make_hash, make_transaction
from tests.handlers.ledger import Bench, bench, make_deps, set_budget, sign_in
from tests.handlers.scripted import (
    OTHER_TOKEN,
    START,
    USDC,
    WALLET,
    Script,
    address,
    at,
    created,
    deposit,
    divested,
    fund,
    invested,
    listed_vault,
    locked,
    make_chain,
    operation,
    spend,
    unlocked,
)

CALLER = Caller()
MEASURES: tuple[Measure, ...] = ("savings_progress", "budget_kept", "no_spend_days")
ZONES = ("UTC", "Pacific/Kiritimati", "America/New_York")
EXAMPLES = itertools.count(1)
CENT = 10_000


async def of_user(pool: Pool, member: Member, *, now: datetime) -> tuple[Result, Result]:
    """What is stored of a participant, and what their rows say."""
    challenge, part = await rows.one(pool, member.challenge_id), await rows.participation(pool, *member)
    assert challenge is not None
    assert part is not None
    facts = await pool.fetch("SELECT * FROM transactions WHERE user_address = $1", member.user)
    known = await pool.fetch("SELECT transaction_id FROM transaction_categories WHERE user_address = $1", member.user)
    rules = Rules(
        challenge.measure,
        challenge.starts_at,
        challenge.ends_at,
        challenge.target,
        part.joined_at,
        part.time_zone,
        part.monthly_budget,
        frozenset(part.buckets),
    )
    plain = plainly(rules, map(dict, facts), sorted_ids=[row[0] for row in known], now=now)
    return Result(part.score, part.amount, part.unpriced), plain


# Whole histories, through the ledger's writer -----------------------------------------------------------------------

cents = st.sampled_from((10, 25, 100, 3333))
users = st.integers(0, 1)
names = st.sampled_from(("bike", "food"))
pauses = st.sampled_from((2, 3600, 7 * 3600, 26 * 3600))
moves = st.sampled_from(
    ("fund", "fund", "spend", "spend", "move", "pay", "invest", "divest", "lock", "unlock", "save", "empty", "foreign")
)
steps = st.one_of(
    st.tuples(moves, users, names, cents, pauses),
    st.tuples(moves, users, names, cents, pauses),
    st.tuples(moves, users, names, cents, pauses),
    st.tuples(st.just("fork"), st.integers(1, 3)),
    st.tuples(st.just("return"), st.integers(1, 3)),
    st.tuples(st.sampled_from(("join", "leave")), users, st.integers(0, 2)),
    st.tuples(st.sampled_from(("job", "job", "clock", "rename", "budget")), users),
)


def moved(user: Address, name: str, amount: int) -> ce.BucketTransfer:
    return ce.BucketTransfer(**at(), user=user, from_name=name.encode(), to_name=b"bike", amount=amount, token=USDC)


@dataclass
class Story:
    bench: Bench
    script: Script
    people: list[Address]
    contests: list[UUID]
    now: datetime
    forks: int = 0
    joined: dict[Member, datetime] = field(default_factory=dict)

    @property
    def deps(self) -> Deps:
        return self.bench.deps

    async def move(self, kind: str, number: int, name: str, amount: int, pause: int) -> None:
        user, raw = self.people[number], amount * CENT
        events: dict[str, list[Any]] = {
            "fund": [fund(user, name, raw)],
            "spend": [spend(user, name, raw)],
            "move": [moved(user, name, raw)],
            "pay": [spend(user, "food", raw, spender=self.people[1 - number])],
            "invest": invested(user, raw, raw),
            "divest": divested(user, raw, raw),
            "lock": locked(user, amount, raw),
            "unlock": unlocked(user, amount, raw + 5, fee=1),
            "save": [operation(user, amount % 3, raw, account=2)],
            "empty": [ce.EmergencyWithdraw(**at(), user=user, amount=raw, token=USDC)],
            "foreign": [fund(user, name, raw, token=OTHER_TOKEN), spend(user, name, raw, token=OTHER_TOKEN)],
        }
        await self.bench.apply(self.script.block(events[kind], after_s=pause))
        self.now = max(self.now, self.script.time)

    async def fork(self, depth: int) -> list[Any]:
        self.forks += 1
        depth = min(depth, len(self.script.made) - 1)
        taken = self.script.back(depth, fork=str(self.forks))
        await self.bench.revert(depth)
        return taken

    async def turn(self, kind: str, number: int, which: int) -> None:
        user, challenge = self.people[number], self.contests[which]
        if kind == "join":
            await challenges.join(self.deps, user, challenge, caller=CALLER)
            self.joined.setdefault(Member(challenge, user), self.now)
        else:
            await challenges.leave(self.deps, user, challenge, caller=CALLER)

    async def work(self, *, everything: bool) -> None:
        """Run what was asked for, newest first; what ran may run again."""
        for asked in reversed(await outbox.due(self.deps.pool, "quick", older_than_s=0, limit=1000)):
            if asked.job != challenge_scores.MEASURE:
                continue
            claim = await outbox.begin(self.deps.pool, asked.id)
            assert claim is not None
            await challenge_scores.measure(self.deps, claim)
            if everything:
                async with self.deps.pool.acquire() as conn, conn.transaction():
                    assert await outbox.done(conn, claim)

    async def check(self) -> None:
        await self.work(everything=True)
        await challenge_scores.measure_due(self.deps, limit=100)
        pool = self.deps.pool
        for challenge in self.contests:
            for user in self.people:
                part = await rows.participation(pool, challenge, user)
                if part is None or part.left_at is not None:
                    continue
                assert part.joined_at == self.joined[Member(challenge, user)]
                stored, plain = await of_user(pool, Member(challenge, user), now=self.now)
                assert stored == plain
        assert await scores.due(pool, self.now, limit=5) == []


@given(history=st.lists(steps, min_size=6, max_size=22))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_scores_are_what_the_canonical_rows_say(
    pool: Pool, make_settings: Callable[..., Settings], history: list[tuple[Any, ...]]
) -> None:
    number = next(EXAMPLES)
    people = [address(10_000 + 2 * number), address(10_001 + 2 * number)]
    chain = make_chain(3_000_000 + number, vaults=(listed_vault(),))
    async with bench(pool, make_settings(), chain) as made:
        script = Script(chain.id)
        story = Story(made, script, people, [], START)
        made.ledger._deps = made.deps = dataclasses.replace(made.deps, now=lambda: story.now)
        await sign_in(pool, *people)
        for user, zone in zip(people, ZONES, strict=False):
            await pool.execute("UPDATE users SET time_zone = $2 WHERE address = $1", user, zone)
            await set_budget(made.deps, user, None, Decimal(100))
        begin = [
            event for user in people for event in (created(user, "bike"), created(user, "food"), deposit(user, 10**9))
        ]
        await made.apply(script.block(begin))
        for user in people:
            link = Wanted("bucket", None, bucket_id(chain.id, WALLET, user, b"bike"))
            await goal_edits.create(made.deps, user, goal_edits.Base("Bike", Decimal(5), Decimal(0), None, None, link))
        story.now = script.time
        for measure in MEASURES:
            target = Decimal(7) if measure == "savings_progress" else None
            base = Base("x", "", measure, "public", target, story.now, story.now + timedelta(days=4), joins=False)
            shown = await challenges.create(made.deps, people[0], base, caller=CALLER)
            story.contests.append(UUID(str(shown["id"])))
        for which in range(3):
            await story.turn("join", 0, which)
        taken: list[Any] = []
        for kind, *rest in history:
            if story.now >= START + timedelta(days=4):
                break
            if kind == "fork":
                taken = await story.fork(rest[0])
            elif kind == "return":
                for _ in range(min(rest[0], len(taken))):
                    await made.apply(script.put_back(taken.pop()))
            elif kind in ("join", "leave"):
                await story.turn(kind, *rest)
            elif kind == "job":
                await story.work(everything=False)
            elif kind == "clock":
                story.now += timedelta(hours=11)
            elif kind == "budget":
                await set_budget(made.deps, people[rest[0]], None, Decimal(100_000))
            elif kind == "rename":
                await pool.execute("UPDATE users SET time_zone = 'Asia/Kolkata' WHERE address = $1", people[rest[0]])
            else:
                await story.move(kind, *rest)
                taken = []
            if kind in ("fork", "return", "clock", "join"):
                await story.check()
        await story.check()
        story.now = max(story.now, START + timedelta(days=9))
        await story.check()


# Rows of every kind, at any price -----------------------------------------------------------------------------------

BUCKETS = ("mine", "other", "third")
kinds = st.sampled_from(
    (
        ("bucket_funding", "internal", "spending"),
        ("bucket_transfer", "internal", "spending"),
        ("spend", "out", "spending"),
        ("transfer", "out", "spending"),
        ("transfer", "in", "spending"),
        ("vault_deposit", "in", "investment"),
        ("vault_withdraw", "out", "investment"),
        ("yield_lock", "in", "investment"),
        ("yield_unlock", "out", "investment"),
        ("account_operation", "in", "savings"),
        ("account_operation", "out", "savings"),
        ("account_operation", "internal", "savings"),
        ("account_operation", "in", "investment"),
        ("account_operation", "in", "spending"),
        ("emergency_withdraw", "out", "spending"),
        ("deposit", "in", "spending"),
    )
)
rows_of_one = st.lists(
    st.fixed_dictionaries(
        {
            "kind": kinds,
            "hours": st.integers(-60, 150),
            "amount": st.sampled_from((0, 1, 3, 7, 10**18, 2**200)),
            "usd": st.one_of(st.none(), st.decimals(min_value=0, max_value=10**6, places=18)),
            "bucket": st.sampled_from(BUCKETS),
            "to": st.sampled_from(BUCKETS),
            "token": st.integers(0, 1),
            "wallet": st.integers(0, 1),
            "chain": st.integers(0, 1),
            "role": st.sampled_from(("owner", "owner", "owner", "delegate")),
            "canonical": st.sampled_from((True, True, True, False)),
            "sorted": st.booleans(),
            "own": st.booleans(),
        }
    ),
    min_size=1,
    max_size=14,
)


@given(
    facts=rows_of_one,
    zone=st.sampled_from(ZONES),
    late_h=st.sampled_from((-100, 0, 13, 49)),
    now_h=st.integers(0, 200),
    budget=st.sampled_from(("0.01", "333.33", "1000000")),
)
@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_every_kind_of_row_counts_as_it_is_written_down(
    pool: Pool,
    make_settings: MakeSettings,
    facts: list[dict[str, Any]],
    zone: str,
    late_h: int,
    now_h: int,
    budget: str,
) -> None:
    user, start = make_address(uuid4()), datetime(2026, 10, 30, 21, tzinfo=UTC)
    now = start + timedelta(hours=now_h)
    deps = dataclasses.replace(make_deps(pool, make_settings()), now=lambda: now)
    await sign_in(pool, user)
    made = [_row(user, number, each, start) for number, each in enumerate(facts)]
    async with pool.acquire() as conn, conn.transaction():
        await insert_transactions(conn, made)
        for row, each in zip(made, facts, strict=True):
            if each["sorted"]:
                await conn.execute(
                    """INSERT INTO transaction_categories (user_address, transaction_id, chain_id, category_id,
                           confidence_score, source)
                       SELECT $1, $2, $3, id, 1, 'manual' FROM categories WHERE owner IS NULL LIMIT 1""",
                    user,
                    row.id,
                    row.chain_id,
                )
    members: list[Member] = []
    for measure in MEASURES:
        id_ = uuid4()
        target = Decimal("123.45") if measure == "savings_progress" else None
        await pool.execute(
            """INSERT INTO challenges (id, name, measure, visibility, target, starts_at, ends_at)
               VALUES ($1, 'x', $2, 'public', $3, $4, $5)""",
            id_,
            measure,
            target,
            start,
            start + timedelta(days=5),
        )
        await pool.execute(
            """INSERT INTO challenge_participants (challenge_id, user_address, joined_at, time_zone, monthly_budget,
                   buckets)
               VALUES ($1, $2, $3, $4, $5, $6)""",
            id_,
            user,
            start + timedelta(hours=late_h),
            zone,
            Decimal(budget),
            ["mine", "third"],
        )
        members.append(Member(id_, user))
    await challenge_scores.measure_members(deps, members)
    for member in members:
        stored, plain = await of_user(pool, member, now=now)
        assert stored == plain


def _row(user: Address, number: int, each: dict[str, Any], start: datetime) -> Any:
    type_, direction, account = each["kind"]
    # Later blocks are later, as on every chain.
    hour = each["hours"]
    return make_transaction(
        user=user,
        chain_id=8453 + each["chain"],
        block_hash=make_hash(user, number, "block"),
        tx_hash=make_hash(user, number),
        log_index=number,
        block_number=next(BLOCKS) + 10**6 * (hour + 100),
        block_time=start + timedelta(hours=hour),
        type=type_,
        direction=direction,
        account_type=account,
        role=each["role"],
        canonical=each["canonical"],
        token=make_address("token", each["token"]),
        amount=each["amount"],
        usd=each["usd"],
        wallet=make_address("wallet", each["wallet"]),
        bucket_id=each["bucket"],
        to_bucket_id=each["to"],
        counterparty=user if each["own"] else make_address("shop"),
    )


BLOCKS = itertools.count(1)
