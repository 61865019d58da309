"""zulip's strongest test and ponder's: random histories with forks, on the real database.

After every step each user's view with the new events applied equals a fresh snapshot, and the snapshot equals a plain
recomputation from the canonical blocks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.settings import Settings
from handlers import budgets, categorizing, goal_edits, goals
from handlers import chain_events as ce
from handlers.chain_events import ChainEvent, DecodedBlock
from handlers.errors import Conflict
from handlers.goal_edits import Base, Wanted
from handlers.rules.holdings import Values
from handlers.rules.legs import join
from handlers.rules.yields import PRECISE, Rate
from store.postgres import Pool
from store.records import Address
from tests.handlers.ledger import Bench, bench, set_budget, sign_in
from tests.handlers.scripted import (
    LOCK,
    OTHER_TOKEN,
    SHOP,
    START,
    USDC,
    VAULT,
    WALLET,
    Script,
    address,
    at,
    divested,
    handed,
    invested,
    kept,
    listed_vault,
    locked,
    make_chain,
    operation,
    transfer,
    unlocked,
)
from tests.positions import positions, shown_positions
from tests.recompute import recompute, shown
from tests.sharing import check_shared
from watchers.devnet import view as client

EXAMPLES = itertools.count(1)
"""Each example has a chain and users of its own in one database: a fresh database each would cost most of the time."""

NAMES = (b"food", b"rent", "caf\u00e9".encode())
WALLETS = (WALLET, "0x" + "ab" * 20)
DAY_S = 86_400
CATEGORIES = tuple(f"00000000-0000-4000-8000-00000000000{i}" for i in (1, 2, 3))

users = st.integers(0, 2)
amounts = st.integers(0, 1000).map(lambda milli: milli * 1000)
large = st.integers(200, 1000).map(lambda milli: milli * 1000)
tokens = st.sampled_from((USDC, OTHER_TOKEN))
names = st.sampled_from(NAMES)
wallets = st.sampled_from(WALLETS)

actions = st.one_of(
    st.tuples(st.just("create"), users, wallets, names, amounts),
    st.tuples(st.just("update"), users, wallets, names, amounts, st.booleans()),
    st.tuples(st.just("deposit"), users, wallets, tokens, amounts, st.booleans()),
    st.tuples(st.just("fund"), users, wallets, names, tokens, amounts),
    st.tuples(st.just("spend"), users, wallets, names, tokens, amounts, users, users),
    st.tuples(st.just("move"), users, wallets, names, names, tokens, amounts),
    st.tuples(st.just("withdraw"), users, wallets, tokens, amounts),
    st.tuples(st.just("empty"), users, wallets, tokens),
    st.tuples(st.just("delegate"), users, wallets, names, users, st.booleans()),
    st.tuples(st.just("pay"), users, users, amounts),
    st.tuples(st.just("strand"), users, wallets, amounts),
)
shares = st.integers(1, 1_500_000)
investments = st.one_of(
    st.tuples(st.just("invest"), users, shares),
    st.tuples(st.just("divest"), users, shares),
    st.tuples(st.just("give"), users, users, shares),
    st.tuples(st.just("give"), users, st.just(3), shares),
    st.tuples(st.just("lock"), users, st.integers(0, 1), shares),
    st.tuples(st.just("unlock"), users, st.integers(0, 1), st.integers(0, 1000)),
    st.tuples(st.just("operate"), users, st.integers(0, 2), st.integers(0, 1), shares, st.integers(0, 1000)),
)
blocks = st.tuples(
    st.just("block"),
    st.lists(st.lists(actions, min_size=1, max_size=3), max_size=3),
    st.sampled_from((2, 2, 2, 10 * DAY_S, 30 * DAY_S)),
)
paid = st.tuples(st.just("spend"), st.integers(0, 1), st.just(WALLET), names, st.just(USDC), large, users, users)
spends = st.tuples(
    st.just("block"), st.lists(st.lists(paid, min_size=1, max_size=2), min_size=1, max_size=2), st.just(2)
)
moves = st.tuples(
    st.just("block"),
    st.lists(st.lists(investments, min_size=1, max_size=3), min_size=1, max_size=2),
    st.sampled_from((2, 2, 3600, DAY_S, 10 * DAY_S)),
)
forks = st.tuples(st.just("fork"), st.integers(1, 4))
choices = st.tuples(
    st.just("choose"), st.integers(0, 1), st.integers(0, 2), st.sampled_from(CATEGORIES[:2]), st.booleans()
)
edits = st.tuples(
    st.just("budget"), st.integers(0, 1), st.sampled_from((None, *CATEGORIES[:2])), st.sampled_from((None, 0, 1, 300))
)
saves = st.tuples(
    st.just("goal"),
    st.integers(0, 1),
    st.sampled_from(("make", "make", "target", "link", "by hand", "delete", "rename")),
    st.integers(0, 3),
    st.sampled_from((1, 30, 80, 200)),
)
filled = st.tuples(st.just("fund"), st.integers(0, 1), st.just(WALLET), names, tokens, large)
funds = st.tuples(
    st.just("block"), st.lists(st.lists(filled, min_size=1, max_size=2), min_size=1, max_size=2), st.just(2)
)
steps = st.one_of(
    blocks,
    saves,
    funds,
    spends,
    moves,
    choices,
    forks,
    spends,
    choices,
    choices,
    choices,
    moves,
    edits,
    st.tuples(st.just("return"), st.integers(1, 2)),
    st.tuples(st.just("sign in")),
)


def price_at(block: DecodedBlock) -> Fraction:
    """What a share of the vault is worth at the end of a block: up and down, and never even."""
    return Fraction(1_000_003 + 10_007 * (block.number % 11) - 30_011 * (block.number % 3), 1_000_000)


def values_at(block: DecodedBlock, made: Sequence[DecodedBlock]) -> Values:
    """What the watcher would have read at a block; every other one is valued in full."""
    locks = {
        f"{block.chain_id}:{LOCK}:{event.lock_id}": int(event.principal * price_at(block))
        for one in made
        for event in one.events
        if isinstance(event, ce.YieldLockCreated)
    }
    rate = Rate(int(PRECISE * price_at(block)), PRECISE)
    return Values({VAULT: rate}, locks, full=block.number % 2 == 0)


def plain_spending(
    blocks: Sequence[DecodedBlock], user: Address, categories: Mapping[str, str], budget: Mapping[str, Any]
) -> tuple[Decimal, int]:
    """Dollars spent of a budget, and amounts without a price, straight from the canonical blocks of its month."""
    start, end = (datetime.fromisoformat(budget[key]) for key in ("periodStart", "periodEnd"))
    spent, unpriced = Decimal(0), 0
    for block in blocks:
        wallet_legs = {id(leg) for leg in join(block.events).of.values()}
        for event in block.events if start <= block.time < end else ():
            category = categories.get(f"{block.chain_id}:{event.tx_hash}:{event.n}")
            match event:
                case ce.SpentFromBucket() if event.user == user:
                    token, counted = event.token, True
                case ce.TokenTransfer() if event.sender == user and id(event) not in wallet_legs:
                    is_plain = event.recipient not in (user, *WALLETS)
                    token, counted = event.emitter, is_plain and category is not None
                case _:
                    continue
            if not counted or (budget["scope"] == "category" and category != budget["categoryId"]):
                continue
            spent += Decimal(event.amount) / 10**6 if token == USDC else 0
            unpriced += token != USDC
    return spent, unpriced


@dataclass
class World:
    bench: Bench
    script: Script
    people: tuple[Address, ...]
    views: dict[Address, dict[str, Any]] = field(default_factory=dict)
    forks: int = 0
    locks_made: int = 0
    clock: datetime = START

    @property
    def price(self) -> Fraction:
        """At the block that is about to be made."""
        following = DecodedBlock(0, self.script.number + 1, "", "", START, (), {})
        return price_at(following)

    def locks(self, user: Address) -> list[int]:
        """Locks of a user that are open before the block that is about to be made."""
        mine: dict[int, None] = {}
        for event in (event for block in self.script.made for event in block.events):
            if isinstance(event, ce.YieldLockCreated) and event.user == user:
                mine[event.lock_id] = None
            elif isinstance(event, ce.YieldLockWithdrawn) and event.user == user:
                mine.pop(event.lock_id, None)
        return list(mine)

    async def watch(self, user: Address) -> None:
        self.views[user] = await self.bench.snapshot(user)

    async def check(self) -> None:
        """Apply what was told since; then view, fresh snapshot and recomputation are one."""
        for user, seen in self.views.items():
            fresh = await self.bench.snapshot(user)
            told = await self.bench.told(user, seen["seq"])
            assert [payload["seq"] for _, payload in told] == list(range(seen["seq"] + 1, fresh["seq"] + 1))
            applied = client.apply_all(seen, told)
            if any(event == "resync" for event, _ in told):
                applied = fresh
            assert client.differences(applied, fresh) == []
            expected = recompute(self.script.made, user, followed=True).shown()
            assert shown(fresh, chain_id=self.script.chain_id) == expected
            check_shared(self.script.made, user, fresh, self.script.chain_id)
            self.check_positions(fresh, user)
            for budget in fresh["budgets"]:
                plain = plain_spending(self.script.made, user, await self.categories(user), budget)
                assert (Decimal(budget["spent"]), budget["unpriced"]) == plain
            self.check_goals(fresh, await self.bench.told(user))
            self.views[user] = applied

    def check_positions(self, fresh: Mapping[str, Any], user: Address) -> None:
        """Shares and principal as recomputed; the value is what the block of the telling made of them."""
        assert shown_positions(fresh) == positions(self.script.made, user, price_at)
        by_number = {block.number: block for block in self.script.made}
        for one in fresh["positions"]:
            price = price_at(by_number[one["asOfBlock"]])
            worth = {"vault": "shares", "lock": "principal", "account": "principal"}[one["kind"]]
            raw = int(one[worth]["raw"])
            assert int(one["value"]["raw"]) == (raw if one["kind"] == "account" else int(raw * price))
            assert int(one["yield"]["raw"]) == int(one["value"]["raw"]) - int(one["principal"]["raw"])

    async def apply(self, block: DecodedBlock) -> None:
        await self.bench.apply(block, values=values_at(block, self.script.made))

    async def categories(self, user: Address) -> dict[str, str]:
        rows = await self.bench.deps.pool.fetch(
            "SELECT transaction_id, category_id::text FROM transaction_categories WHERE user_address = $1", user
        )
        return {row["transaction_id"]: row["category_id"] for row in rows}

    async def save(self, who: int, what: str, which: int, cents: int) -> None:
        """The user makes a goal of a bucket of theirs, or changes one; what is refused changes nothing."""
        user, deps = self.people[who], self.bench.deps
        if user not in self.views:
            return
        goals = self.views[user]["goals"]
        own = sorted(bucket["id"] for bucket in self.views[user]["buckets"] if bucket["owner"] == user)
        target, link = Decimal(cents) / 100, Wanted("bucket", None, own[which % len(own)]) if own else None
        with suppress(Conflict):
            if what == "make" or not goals:
                due = (self.clock + timedelta(days=cents)).date()
                base = Base(f"goal {which}", target, Decimal(0), due, CATEGORIES[which % 3], link)
                await goal_edits.create(deps, user, base)
                return
            goal = goals[which % len(goals)]
            changes: Mapping[str, Mapping[str, Any]] = {
                "target": {"target": target},
                "link": {"link": link},
                "by hand": {"link": None, "current": target},
                "rename": {"name": f"goal {cents}"},
            }
            if what == "delete":
                await goal_edits.delete(deps, user, goal["goalId"])
            else:
                await goal_edits.edit(deps, user, goal["goalId"], changes[what], unless=lambda _: False)

    def check_goals(self, fresh: Mapping[str, Any], events: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Amounts are those of the buckets; each milestone was told once, and stands unless it was taken back."""
        worth = {
            bucket["id"]: (
                sum((Decimal(held["usd"]) for held in bucket["balances"] if held["usd"] is not None), Decimal(0)),
                sum(held["usd"] is None for held in bucket["balances"]),
            )
            for bucket in fresh["buckets"]
        }
        gone = {key for _, payload in events for key in payload.get("corrects", ())}
        told: dict[str, list[int]] = {}
        for event, payload in events:
            if event == "goal_milestone" and payload["id"] not in gone:
                told.setdefault(payload["goalId"], []).append(payload["milestone"])
        for goal in fresh["goals"]:
            if goal["link"] is not None:
                amount = Decimal(goal["currentAmount"]), goal["unpriced"]
                assert amount == worth.get(goal["link"]["id"], (0, 0))
            assert sorted(told.get(goal["goalId"], [])) == goal["milestones"]
            part = Decimal(goal["currentAmount"]) * 100 / Decimal(goal["targetAmount"])
            assert part < 100 or goal["isCompleted"] or goal["link"] is not None
            assert (goal["daysRemaining"] is None) == (goal["targetDate"] is None)

    async def choose(self, who: int, which: int, category: str, to_similar: bool) -> None:
        """The user gives one of the newest transactions a category by hand."""
        user = self.people[who]
        ids = await self.bench.deps.pool.fetch(
            "SELECT id FROM transactions WHERE user_address = $1 AND canonical AND role = 'owner' AND "
            "(type = 'spend' OR type = 'transfer' AND direction = 'out') ORDER BY block_time DESC, id LIMIT 10",
            user,
        )
        if user in self.views and which < len(ids):
            await categorizing.choose(self.bench.deps, user, ids[which]["id"], category, apply_to_similar=to_similar)

    def events(self, transaction: Sequence[tuple[Any, ...]]) -> list[ChainEvent]:
        return [event for action in transaction for event in self._events(action)]

    def _events(self, action: tuple[Any, ...]) -> list[ChainEvent]:
        kind, who, *rest = action
        user, people = self.people[who], (*self.people, SHOP)
        price = self.price
        match kind, rest:
            case "create", (wallet, name, limit):
                return [ce.BucketCreated(**at(wallet), user=user, name=name, monthly_limit=limit)]
            case "update", (wallet, name, limit, active):
                return [ce.BucketUpdated(**at(wallet), user=user, name=name, new_limit=limit, active=active)]
            case "deposit", (wallet, token, amount, with_leg):
                event = ce.FundsDeposited(**at(wallet), user=user, amount=amount, token=token)
                return [transfer(user, wallet, amount), event] if with_leg and token == USDC else [event]
            case "fund", (wallet, name, token, amount):
                return [ce.BucketFunded(**at(wallet), user=user, name=name, amount=amount, token=token)]
            case "spend", (wallet, name, token, amount, to, by):
                recipient = people[to] if to != who else SHOP
                event_ = ce.SpentFromBucket(
                    **at(wallet),
                    user=user,
                    name=name,
                    amount=amount,
                    recipient=recipient,
                    token=token,
                    spender=people[by],
                )
                return [transfer(wallet, recipient, amount), event_] if token == USDC else [event_]
            case "move", (wallet, source, target, token, amount):
                return [
                    ce.BucketTransfer(
                        **at(wallet), user=user, from_name=source, to_name=target, amount=amount, token=token
                    )
                ]
            case "withdraw", (wallet, token, amount):
                out = ce.UnallocatedWithdraw(**at(wallet), user=user, token=token, amount=amount, recipient=user)
                return [out, transfer(wallet, user, amount)] if token == USDC else [out]
            case "empty", (wallet, token):
                return [ce.EmergencyWithdraw(**at(wallet), user=user, token=token, amount=1)]
            case "delegate", (wallet, name, other, added):
                event_type = ce.DelegateAdded if added else ce.DelegateRemoved
                return [event_type(**at(wallet), user=user, delegate=people[other], name=name)]
            case "pay", (other, amount):
                return [transfer(user, people[other], amount)]
            case "invest", (shares,):
                return invested(user, int(shares * price), shares)
            case "divest", (shares,):
                return divested(user, int(shares * price), shares)
            case "give", (other, shares):
                return [handed(user, people[other], shares)]
            case "lock", (number, principal):
                self.locks_made += 1  # a contract numbers locks itself: never twice
                return locked(user, 10 * self.locks_made + number, principal)
            case "unlock", (number, fee):
                mine = self.locks(user)  # two in one block would unlock the same: the second finds it closed
                return unlocked(user, mine[number], 1_000_000, fee=fee) if number < len(mine) else []
            case "operate", (operation_, number, amount, fee):
                said = operation(user, operation_, amount, identifier=bytes([number]) * 32)
                return [said, kept(user, fee)]
            case "strand", (wallet, amount):
                return [transfer(user, wallet, amount)]
        raise AssertionError(action)


async def play(world: World, pool: Pool, history: Sequence[tuple[Any, ...]]) -> None:
    taken: list[DecodedBlock] = []
    for kind, *rest in history:
        match kind:
            case "block":
                transactions, after_s = rest
                events = [self_events for t in transactions if (self_events := world.events(t))]
                await world.apply(world.script.block(*events, after_s=after_s))
                taken = []
            case "fork":
                world.forks += 1
                taken = world.script.back(rest[0], fork=str(world.forks))
                await world.bench.revert(len(taken))
            case "return":
                for _ in range(min(rest[0], len(taken))):
                    await world.apply(world.script.put_back(taken.pop()))
            case "budget":
                who, category, amount = rest
                if world.people[who] in world.views:
                    await set_budget(
                        world.bench.deps, world.people[who], category, None if amount is None else Decimal(amount) / 100
                    )
            case "goal":
                await world.save(*rest)
            case "choose":
                await world.choose(*rest)
            case "sign in":
                await sign_in(pool, world.people[2])
                if world.people[2] not in world.views:
                    await world.watch(world.people[2])
        world.clock = max(world.clock, world.script.time + timedelta(seconds=1))
        while await budgets.begin_months(world.bench.deps, limit=100):
            pass
        while await goals.begin_days(world.bench.deps, limit=100):
            pass
        await world.check()


@pytest.fixture
def configured(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@given(history=st.lists(steps, min_size=6, max_size=20))
@settings(
    max_examples=35,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_view_with_events_applied_equals_snapshot_and_recomputation(
    pool: Pool, configured: Settings, history: list[tuple[Any, ...]]
) -> None:
    number = next(EXAMPLES)
    people = tuple(address(number * 16 + i + 1) for i in range(3))
    chain = make_chain(1_000_000 + number, wallets=WALLETS, vaults=(listed_vault(),), yield_locks=(LOCK,))
    async with bench(pool, configured, chain) as made:
        await follow(pool, chain.id, people)
        world = World(made, Script(chain.id), people)
        made.ledger._deps = made.deps = replace(made.deps, now=lambda: world.clock)
        await sign_in(pool, *people[:2])
        for user in people[:2]:
            # Small enough for every edge to be crossed by a spend or two.
            await set_budget(made.deps, user, CATEGORIES[0], Decimal("0.80"))
            await set_budget(made.deps, user, None, Decimal("1.50"))
            await world.watch(user)
        await play(world, pool, history)


async def follow(pool: Pool, chain_id: int, people: Sequence[Address]) -> None:
    """Registered, with their own addresses followed from the beginning."""
    for user in people:
        await pool.execute("INSERT INTO users (address) VALUES ($1)", user)
        await pool.execute(
            "INSERT INTO wallet_scopes (chain_id, user_address, opened_block) VALUES ($1, $2, 0)", chain_id, user
        )


def test_catalogue_of_steps_covers_every_wallet_event() -> None:
    """A new event that moves money must join the random histories."""
    world = World(None, Script(), tuple(address(i) for i in range(3)))  # type: ignore[arg-type]  # events need no bench
    samples: Mapping[str, tuple[Any, ...]] = {
        "create": ("create", 0, WALLET, b"x", 1),
        "update": ("update", 0, WALLET, b"x", 1, True),
        "deposit": ("deposit", 0, WALLET, USDC, 1, True),
        "fund": ("fund", 0, WALLET, b"x", USDC, 1),
        "spend": ("spend", 0, WALLET, b"x", USDC, 1, 1, 2),
        "move": ("move", 0, WALLET, b"x", b"y", USDC, 1),
        "withdraw": ("withdraw", 0, WALLET, USDC, 1),
        "empty": ("empty", 0, WALLET, USDC),
        "add": ("delegate", 0, WALLET, b"x", 1, True),
        "remove": ("delegate", 0, WALLET, b"x", 1, False),
        "invest": ("invest", 0, 1),
        "divest": ("divest", 0, 1),
        "lock": ("lock", 0, 0, 1),
        "operate": ("operate", 0, 0, 0, 1, 1),
    }
    made = {type(event) for sample in samples.values() for event in world.events([sample])}
    from handlers.routes import ON

    untested = {kind for kind, handlers in ON.items() if handlers} - made
    assert untested == {ce.WalletCreated, ce.WalletRegistered, ce.MonthlyLimitReset, ce.YieldLockWithdrawn}
