"""Spends get categories from what their users taught, from the local model, and from language models where allowed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import cycle
from typing import Any

import orjson
import pytest

from handlers import categories, categorizing
from handlers.events import BY_NAME
from handlers.rules.prompts import Answer, Candidate, Item
from jobs import categorize
from jobs.categorize import CATEGORIZE, CATEGORIZE_AGAIN, CHUNK
from jobs.job import Tools
from jobs.outbound.embeddings import Guess
from jobs.outbound.models import Models, Question
from store import ai, budgets, ledger, log, memos, outbox
from store.clickhouse import Analytics
from store.postgres import Pool
from store.records import TransactionRow
from store.sealed import KeyRing
from tests.conftest import MakeSettings
from tests.factories import insert_transactions, make_address, make_hash, make_transaction
from tests.handlers.ledger import NOW, make_deps, sign_in
from tests.jobs.models import ID, Loaded

ALICE, BOB = make_address("alice"), make_address("bob")
KEY = "k1:" + "A" * 43 + "="
FOOD, FUN, HEALTH, SAVINGS = ID["food"], ID["entertainment"], ID["health"], ID["savings"]


def guessed(category_id: str, confidence: str = "0.90") -> Guess:
    return Guess(category_id, Decimal(confidence), "because")


@dataclass
class FakeLocal:
    """Says what `judging` makes of a memo, and keeps what it was asked."""

    judging: Callable[[str], Guess | None] = lambda _: guessed(FOOD)
    asked: list[Item] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)

    async def judge(self, items: Sequence[Item], candidates: Sequence[Candidate]) -> list[Guess | None]:
        self.asked += items
        self.candidates = list(candidates)
        return [self.judging(item.memo) for item in items]


@dataclass
class FakeRemote:
    """Answers every item with one category, or does what `instead` does."""

    answer: Answer | None = None
    instead: Callable[[], Any] | None = None
    questions: list[Question] = field(default_factory=list)

    async def ask(self, question: Question) -> list[Answer | None]:
        self.questions.append(question)
        if self.instead is not None:
            await self.instead()
        return [self.answer] * len(question.items)


@dataclass
class Stage:
    """A block of spends, and the jobs that its transaction asked for."""

    tools: Tools
    block: str = field(default_factory=lambda: make_hash(uuid.uuid4()))

    @property
    def pool(self) -> Pool:
        return self.tools.deps.pool

    def asking(self, local: Any, remote: Any = None) -> Stage:
        return Stage(replace(self.tools, models=Models(local, remote)), self.block)

    async def spend(self, user: str = ALICE, *, memo: str = "", **fields: Any) -> TransactionRow:
        row = make_transaction(user=user, block_hash=self.block, tx_hash=make_hash(uuid.uuid4()), **fields)
        async with self.pool.acquire() as conn, conn.transaction():
            await insert_transactions(conn, [row])
        if memo:
            await self.note(row, memo)
        return row

    async def note(self, row: TransactionRow, memo: str) -> None:
        sealed = KeyRing.of(self.tools.deps.settings).seal(memo, purpose="memo", owner=row.user)
        async with self.pool.acquire() as conn, conn.transaction():
            await memos.put(conn, (row.user, row.chain_id, row.tx_hash, row.n), sealed, at=row.block_time)

    async def request(self, job: str = "categorize", **args: Any) -> None:
        args = args or {"chainId": 8453, "number": 100, "hash": self.block}
        async with self.pool.acquire() as conn, conn.transaction():
            await outbox.request(conn, "slow", job, args)

    async def work(self) -> int:
        """Run jobs until none is left; returns how many ran."""
        ran = 0
        ours = "SELECT id, job FROM outbox WHERE job LIKE 'categorize%' LIMIT 1"  # others ask for theirs
        while (row := await self.pool.fetchrow(ours)) is not None:
            claim = await outbox.begin(self.pool, row["id"])
            assert claim is not None
            job = {each.name: each for each in (CATEGORIZE, CATEGORIZE_AGAIN)}[row["job"]]
            assert await job.run(self.tools, claim)
            ran += 1
        await self.pool.execute("DELETE FROM outbox WHERE job LIKE 'index%'")
        return ran

    async def categorize(self) -> dict[str, tuple[str, str, str]]:
        await self.request()
        await self.work()
        return await self.categories()

    async def categories(self) -> dict[str, tuple[str, str, str]]:
        """Category, source and confidence by transaction id."""
        rows = await self.pool.fetch("SELECT * FROM transaction_categories")
        return {
            row["transaction_id"]: (str(row["category_id"]), row["source"], str(row["confidence_score"]))
            for row in rows
        }

    async def told(self, user: str = ALICE) -> list[tuple[str, dict[str, Any]]]:
        entries = await log.after(self.pool, user, 0, limit=10_000, max_bytes=2**40)
        found = [(entry.event, orjson.loads(entry.payload)) for entry in entries]
        for event, payload in found:
            BY_NAME[event].model_validate(payload)
        return found


@pytest.fixture
async def stage(pool: Pool, make_settings: MakeSettings) -> Stage:
    settings = make_settings(seal_keys=(KEY,))
    await sign_in(pool, ALICE, BOB)
    return Stage(Tools(make_deps(pool, settings), Analytics(settings.clickhouse_url)))


async def consent(pool: Pool, user: str = ALICE) -> None:
    await pool.execute("UPDATE users SET ai_consent = true WHERE address = $1", user)


async def test_spends_of_a_block_get_their_categories_by_the_real_model(stage: Stage) -> None:
    stage = stage.asking(Loaded())
    pizza = await stage.spend(memo="two large pizzas for the team")
    gym = await stage.spend(BOB, bucket="Gym")
    pharmacy = await stage.spend(memo="", counterparty=make_address("shop 7"), bucket="Everyday")
    await stage.pool.execute(
        "INSERT INTO contacts (user_address, address, label) VALUES ($1, $2, 'Corner pharmacy')",
        ALICE,
        make_address("shop 7"),
    )
    found = await stage.categorize()
    assert {id_: category for id_, (category, _, _) in found.items()} == {
        pizza.id: FOOD,
        gym.id: HEALTH,
        pharmacy.id: HEALTH,
    }
    events = await stage.told()
    assert [event for event, _ in events] == ["transaction_categorized"] * 2
    told = next(payload for _, payload in events if payload["transactionId"] == pizza.id)
    assert told["source"] == "model"
    assert float(told["confidence"]) >= 0.9
    assert told["reasoning"].startswith("memo is closest to '")


async def test_a_block_is_worked_in_chunks(stage: Stage) -> None:
    turns = cycle([guessed(FOOD), None])
    local = FakeLocal(lambda _: next(turns))
    stage = stage.asking(local)
    rows = [
        make_transaction(user=user, block_hash=stage.block, tx_hash=make_hash(user, n), n=n)
        for user, count in ((ALICE, CHUNK), (BOB, CHUNK // 2))
        for n in range(count)
    ]
    async with stage.pool.acquire() as conn, conn.transaction():
        await insert_transactions(conn, rows)
    await stage.request()
    assert await stage.work() == 2
    assert len(local.asked) == len(rows)
    assert len(await stage.categories()) == len(rows) / 2
    assert await stage.pool.fetchval("SELECT count(*) FROM outbox WHERE job LIKE 'categorize%'") == 0


async def test_running_again_changes_and_tells_nothing(stage: Stage) -> None:
    stage = stage.asking(FakeLocal())
    await stage.spend()
    first, told = await stage.categorize(), await stage.told()
    assert len(told) == 1
    assert await stage.categorize() == first
    assert await stage.told() == told


async def test_what_is_no_signed_in_users_own_spend_is_left_alone(stage: Stage) -> None:
    local = FakeLocal()
    stage = stage.asking(local)
    await stage.spend(make_address("stranger"))
    known = make_address("known, never signed in")
    await stage.pool.execute("INSERT INTO users (address) VALUES ($1)", known)
    await stage.pool.execute("INSERT INTO user_counters (user_address) VALUES ($1)", known)
    await stage.spend(known)
    await stage.spend(role="delegate")
    await stage.spend(type="transfer")
    await stage.spend(type="deposit", direction="in")
    assert await stage.categorize() == {}
    assert local.asked == []
    await stage.spend()
    async with stage.pool.acquire() as conn:
        await ledger.revert(conn, 8453, stage.block)
    assert await stage.categorize() == {}
    assert local.asked == []


async def test_a_block_that_is_taken_back_while_models_think_gets_nothing(stage: Stage) -> None:
    async def revert() -> None:
        async with stage.pool.acquire() as conn:
            await ledger.revert(conn, 8453, stage.block)

    stage = stage.asking(
        FakeLocal(lambda _: guessed(FOOD, "0.50")), FakeRemote(Answer(FUN, Decimal("0.9"), ""), revert)
    )
    await consent(stage.pool)
    await stage.spend(memo="x")
    assert await stage.categorize() == {}
    assert await stage.told() == []


async def test_a_guess_that_is_likelier_wrong_gives_no_category(stage: Stage) -> None:
    guesses = {"likely": guessed(FOOD, "0.45"), "unlikely": guessed(FOOD, "0.44"), "unreadable": None}
    stage = stage.asking(FakeLocal(guesses.__getitem__))
    likely = await stage.spend(memo="likely")
    await stage.spend(memo="unlikely")
    await stage.spend(memo="unreadable")
    assert await stage.categorize() == {likely.id: (FOOD, "model", "0.45")}


async def test_language_models_are_asked_where_the_local_one_is_unsure_and_the_user_lets_them(stage: Stage) -> None:
    remote = FakeRemote(Answer(FUN, Decimal("0.80"), "fun"))
    local = FakeLocal(lambda memo: guessed(FOOD, "0.75" if memo == "sure" else "0.74") if memo else None)
    stage = stage.asking(local, remote)
    await consent(stage.pool)
    sure, unsure = await stage.spend(memo="sure"), await stage.spend(memo="unsure", usd=Decimal("7"))
    await stage.spend()
    private = await stage.spend(BOB, memo="unsure")
    assert await stage.categorize() == {
        sure.id: (FOOD, "model", "0.75"),
        unsure.id: (FUN, "model", "0.80"),
        private.id: (FOOD, "model", "0.74"),
    }
    (question,) = remote.questions
    assert question.user == ALICE
    assert question.items == [Item("unsure", "", "", "5 to 20")]
    assert {candidate.slug for candidate in question.candidates} == set(ID)


async def test_the_local_answer_counts_where_nobody_else_answers_in_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(categorize, "ASKING_S", 0.05)
    local = FakeLocal(lambda _: guessed(FOOD, "0.50"))
    await consent(stage.pool)
    await consent(stage.pool, BOB)
    hanging = stage.asking(local, FakeRemote(instead=asyncio.Event().wait))
    rows = [await hanging.spend(user, memo="x") for user in (ALICE, BOB)]
    assert await hanging.categorize() == {row.id: (FOOD, "model", "0.50") for row in rows}
    silent = stage.asking(local, FakeRemote(None))
    row = await silent.spend(memo="y")
    assert (await silent.categorize())[row.id] == (FOOD, "model", "0.50")


async def test_an_engine_that_is_away_is_told_by_its_own_error(stage: Stage) -> None:
    async def away() -> None:
        raise ConnectionRefusedError

    await consent(stage.pool)
    stage = stage.asking(FakeLocal(lambda _: guessed(FOOD, "0.50")), FakeRemote(instead=away))
    await stage.spend(memo="x")
    await stage.request()
    with pytest.raises(ConnectionRefusedError):
        await stage.work()
    assert await outbox.depth(stage.pool) == 1


async def test_what_the_user_taught_meanwhile_comes_before_every_model(stage: Stage) -> None:
    local = FakeLocal()
    stage = stage.asking(local)
    shop, cinema = make_address("shop"), make_address("cinema")
    known = await stage.spend(counterparty=shop, memo="popcorn")
    ruled = await stage.spend(counterparty=cinema, memo="weekly stash")
    async with stage.pool.acquire() as conn:
        await budgets.save_memory(conn, ALICE, {(f"counterparty:{shop}", FUN): 1})
        await categories.make_rule(conn, ALICE, "memo", "stash", SAVINGS, now=NOW)
    found = await stage.categorize()
    assert found == {known.id: (FUN, "history", "0.95"), ruled.id: (SAVINGS, "rule", "1.00")}
    assert local.asked == []


async def test_without_models_rules_and_history_decide_alone(stage: Stage) -> None:
    ruled = await stage.spend(memo="weekly stash")
    await stage.spend(memo="pizza")
    async with stage.pool.acquire() as conn:
        await categories.make_rule(conn, ALICE, "memo", "stash", SAVINGS, now=NOW)
    assert await stage.categorize() == {ruled.id: (SAVINGS, "rule", "1.00")}


async def test_a_memo_makes_the_models_think_again(stage: Stage) -> None:
    stage = stage.asking(FakeLocal(lambda memo: guessed(FUN if memo == "cinema" else FOOD)))
    row = await stage.spend()
    await stage.categorize()
    await stage.note(row, "cinema")
    await stage.request("categorize_again", user=ALICE, transactionId=row.id)
    await stage.work()
    assert await stage.categories() == {row.id: (FUN, "model", "0.90")}
    assert [payload["category"]["id"] for _, payload in await stage.told()] == [FOOD, FUN]


async def test_a_choice_by_hand_is_final(stage: Stage) -> None:
    local = FakeLocal()
    stage = stage.asking(local)
    row = await stage.spend(memo="cinema")
    await categorizing.choose(stage.tools.deps, ALICE, row.id, SAVINGS, apply_to_similar=False)
    for _ in range(2):
        await stage.request("categorize_again", user=ALICE, transactionId=row.id)
        await stage.work()
        await stage.categorize()
    assert await stage.categories() == {row.id: (SAVINGS, "manual", "1.00")}
    assert await ai.spend(stage.pool, ALICE, row.id) is None
    assert local.asked == []


async def test_thinking_again_of_what_is_not_there_ends_the_job(stage: Stage) -> None:
    stage = stage.asking(FakeLocal())
    theirs = await stage.spend(BOB)
    for id_ in (theirs.id, "8453:0x00:1", "x"):
        await stage.request("categorize_again", user=ALICE, transactionId=id_)
        assert await stage.work() == 1
    assert await stage.categories() == {}


async def test_candidates_are_the_defaults_and_the_users_own_active_ones(stage: Stage) -> None:
    local = FakeLocal(lambda _: None)
    stage = stage.asking(local)
    await stage.pool.executemany(
        "INSERT INTO categories (owner, name, description, color_hex, is_active) VALUES ($1, $2, $3, '#000000', $4)",
        [(ALICE, "Pets", "Vet, food", True), (ALICE, "Old", "", False), (BOB, "Secret", "", True)],
    )
    await stage.pool.execute(
        "INSERT INTO user_categories (user_address, category_id, custom_name) VALUES ($1, $2, 'Fun')", ALICE, FUN
    )
    await stage.spend()
    await stage.categorize()
    names = [candidate.name for candidate in local.candidates]
    assert len(names) == 9
    assert names[-1] == "Pets"
    assert local.candidates[-1].slug is None
    assert "Fun" in names
    assert not {"Old", "Secret", "Entertainment"} & set(names)
