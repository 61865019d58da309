"""Random histories of money, edits and forks, on a real database, against a goal kept in plain Python beside them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.settings import Settings
from handlers import goal_edits
from handlers.goal_edits import Base, Wanted
from handlers.rules.ids import bucket_id
from store.postgres import Pool
from store.records import Address
from tests.handlers.ledger import Bench, bench, sign_in
from tests.handlers.scripted import WALLET, Script, address, created, deposit, fund, make_chain, spend
from tests.recompute import recompute
from watchers.devnet import view as client

EXAMPLES = itertools.count(1)
NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)
CENT = 10_000
BUCKETS = ("bike", "boat")

buckets = st.sampled_from(BUCKETS)
cents = st.sampled_from((10, 25, 30, 50, 100, 200))
steps = st.one_of(
    st.tuples(st.just("fund"), buckets, cents),
    st.tuples(st.just("fund"), buckets, cents),
    st.tuples(st.just("spend"), buckets, cents),
    st.tuples(st.just("fork"), st.integers(1, 3)),
    st.tuples(st.just("fork"), st.integers(1, 2)),
    st.tuples(st.just("return"), st.integers(1, 2)),
    st.tuples(st.just("target"), cents),
    st.tuples(st.just("rename"), cents),
    st.tuples(st.just("link"), buckets),
)


@dataclass
class Plain:
    """What DOMAIN says of one goal: milestones once each, and taken back with the money that reached them."""

    target: Decimal
    bucket: str
    reached: dict[int, tuple[Decimal, int | None]] = field(default_factory=dict)
    completed: int | None = None
    """Height at which it was."""

    def look(self, amount: Decimal, height: int) -> None:
        for percent in (25, 50, 75, 100):
            needed = self.target * percent / 100
            if amount >= needed and percent not in self.reached:
                self.reached[percent] = (needed, height)
        if amount >= self.target and self.completed is None:
            self.completed = height

    def measure_anew(self, amount: Decimal, height: int) -> None:
        self.completed = None
        self.look(amount, height)

    def relink(self, bucket: str) -> None:
        self.bucket = bucket
        self.reached = {percent: (needed, None) for percent, (needed, _) in self.reached.items()}

    def undo(self, amount: Decimal, number: int) -> None:
        for percent, (needed, height) in list(self.reached.items()):
            if height is not None and height >= number and amount < needed:
                del self.reached[percent]
        if self.completed is not None and self.completed >= number and amount < self.target:
            self.completed = None


@dataclass
class Story:
    bench: Bench
    script: Script
    user: Address
    goal_id: str
    plain: Plain
    view: dict[str, Any]
    forks: int = 0

    def amount(self) -> Decimal:
        state = recompute(self.script.made, self.user)
        raw = sum(raw for name, raw in state.balances.items() if name[0] == "bucket" and name[2] == self.plain.bucket)
        return Decimal(raw) / 10**6

    def link(self, name: str) -> Wanted:
        return Wanted("bucket", None, bucket_id(self.script.chain_id, WALLET, self.user, name.encode()))

    async def edit(self, **changes: Any) -> None:
        await goal_edits.edit(self.bench.deps, self.user, self.goal_id, changes, unless=lambda _: False)

    async def step(self, kind: str, *rest: Any) -> None:
        match kind, rest:
            case "fund", (name, amount):
                await self.bench.apply(self.script.block([fund(self.user, name, amount * CENT)]))
                self.plain.look(self.amount(), self.script.number)
            case "spend", (name, amount):
                await self.bench.apply(self.script.block([spend(self.user, name, amount * CENT)]))
                self.plain.look(self.amount(), self.script.number)
            case "target", (amount,):
                is_new = Decimal(amount) / 100 != self.plain.target
                self.plain.target = Decimal(amount) / 100
                await self.edit(target=self.plain.target)
                if is_new:
                    self.plain.measure_anew(self.amount(), self.script.number)
            case "rename", (amount,):
                await self.edit(name=f"goal {amount}")
                self.plain.look(self.amount(), self.script.number)
            case "link", (name,):
                is_new = name != self.plain.bucket
                await self.edit(link=self.link(name))
                if is_new:
                    self.plain.relink(name)
                    self.plain.measure_anew(self.amount(), self.script.number)

    async def fork(self, depth: int) -> list[Any]:
        """Take blocks back, but for the first, which made the buckets."""
        self.forks += 1
        taken: list[Any] = []
        for _ in range(min(depth, len(self.script.made) - 1)):
            number = self.script.number
            taken += self.script.back(1, fork=str(self.forks))
            await self.bench.revert()
            self.plain.undo(self.amount(), number)
        return taken

    async def put_back(self, block: Any) -> None:
        await self.bench.apply(self.script.put_back(block))
        self.plain.look(self.amount(), self.script.number)

    async def check(self) -> None:
        fresh = await self.bench.snapshot(self.user)
        everything = await self.bench.told(self.user)
        new = [(event, payload) for event, payload in everything if payload["seq"] > self.view["seq"]]
        self.view = client.apply_all(self.view, new)
        assert client.differences(self.view, fresh) == []
        (goal,) = fresh["goals"]
        assert Decimal(goal["currentAmount"]) == self.amount()
        assert goal["milestones"] == sorted(self.plain.reached)
        assert goal["isCompleted"] == (self.plain.completed is not None)
        told = {payload["id"]: payload for event, payload in everything if event == "goal_milestone"}
        corrected = [key for _, payload in everything for key in payload.get("corrects", ())]
        standing = sorted(payload["milestone"] for key, payload in told.items() if key not in corrected)
        assert standing == goal["milestones"]
        assert len([key for key in corrected if key in told]) == len({key for key in corrected if key in told})
        await self.check_phone(told, corrected)

    async def check_phone(self, told: dict[str, Any], corrected: list[str]) -> None:
        """One push per milestone for ever, and the inbox holds what stands."""
        pool = self.bench.deps.pool
        pushes = await pool.fetch(
            "SELECT subject, latest_event_id, reverted_at FROM pushes WHERE user_address = $1 AND kind = $2",
            self.user,
            "goal_milestone",
        )
        assert len({row["subject"] for row in pushes}) == len(pushes)
        for row in pushes:
            assert (row["reverted_at"] is not None) == (row["latest_event_id"] in corrected)
        kept = await pool.fetch(
            "SELECT event_id, corrected_at FROM notifications WHERE user_address = $1 AND kind = 'goal_milestone'",
            self.user,
        )
        for row in kept:
            assert row["event_id"] in told
            assert (row["corrected_at"] is not None) == (row["event_id"] in corrected)


@given(history=st.lists(steps, min_size=4, max_size=16))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_goal_is_what_its_canonical_history_says(
    pool: Pool, make_settings: Callable[..., Settings], history: list[tuple[Any, ...]]
) -> None:
    number = next(EXAMPLES)
    user = address(number)
    async with bench(pool, make_settings(), make_chain(2_000_000 + number)) as made:
        made.ledger._deps = made.deps = replace(made.deps, now=lambda: NOW)
        await sign_in(pool, user)
        script = Script(made.chain.id)
        begin = [created(user, "bike"), created(user, "boat"), deposit(user, 10**9)]
        await made.apply(script.block(begin))
        base = Base("Bike", Decimal(1), Decimal(0), None, None, None)
        story = Story(made, script, user, "", Plain(Decimal(1), "bike"), {})
        goal = await goal_edits.create(made.deps, user, replace(base, link=story.link("bike")))
        story.goal_id, story.view = str(goal["goalId"]), await made.snapshot(user)
        taken: list[Any] = []
        for kind, *rest in history:
            if kind == "fork":
                taken = await story.fork(rest[0])
            elif kind == "return":
                for _ in range(min(rest[0], len(taken))):
                    await story.put_back(taken.pop())
            else:
                await story.step(kind, *rest)
                taken = [] if kind in ("fund", "spend") else taken
            await story.check()
