"""The search index follows what the ledger, memos, contacts and categories say, whatever happens twice or at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from handlers import categories, categorizing, history, memos, people, search
from handlers.categorizing import Choice
from handlers.search import BLOCK, MANY, ROWS
from jobs.job import Job, Tools
from jobs.search import INDEX_BLOCK, INDEX_MANY, INDEX_ROWS
from store import outbox
from store import search as index
from store.history import Filters
from store.outbox import Claim
from store.postgres import Pool, Tx
from store.records import Draft, TransactionRow
from tests.conftest import MakeSettings
from tests.factories import TIME, make_address, make_hash, make_transaction
from tests.handlers.ledger import make_deps, sign_in
from tests.handlers.persisting import commit_block, revert_block
from tests.realtime.wiring import CHAIN

KEY, NEWER = "k1:" + "A" * 43 + "=", "k2:" + "B" * 43 + "="
ALICE, BOB, SHOP = make_address("alice"), make_address("bob"), make_address("shop")
FOOD, FUN = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000004"
JOBS: dict[str, Job] = {BLOCK: INDEX_BLOCK, ROWS: INDEX_ROWS, MANY: INDEX_MANY}


class Stage:
    """A ledger, and the search jobs that its changes ask for; `found` searches as REST does."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.deps = tools.deps
        self.pool: Pool = tools.deps.pool

    async def commit(self, user: str = ALICE, number: int = 1, **fields: Any) -> TransactionRow:
        hashes = {"block_hash": make_hash("block", number), "tx_hash": make_hash("tx", number)}
        facts = {"bucket": "Groceries", "counterparty": SHOP, "chain_id": CHAIN.id, **hashes, **fields}
        facts["block_time"] = TIME + timedelta(seconds=number)
        row = make_transaction(user=user, block_number=number, **facts)
        await commit_block(self.pool, [row])
        return row

    async def claims(self) -> list[tuple[Job, Claim]]:
        found = []
        for row in await self.pool.fetch("SELECT id, job FROM outbox WHERE job = ANY ($1)", list(JOBS)):
            claim = await outbox.begin(self.pool, row["id"])
            assert claim is not None
            found.append((JOBS[row["job"]], claim))
        return found

    async def work(self) -> int:
        """Run search jobs until none is left; returns how many ran."""
        ran = 0
        while claims := await self.claims():
            for job, claim in claims:
                await job.run(self.tools, claim)
                ran += 1
        return ran

    async def found(self, q: str, user: str = ALICE) -> list[str]:
        await self.work()
        filters = Filters(chain_ids=[CHAIN.id])
        page = await history.transactions(self.deps, user, filters, q=q, below=None, limit=100)
        return [str(each["id"]) for each in page.resources]

    async def texts(self) -> int:
        return int(await self.pool.fetchval("SELECT count(*) FROM search_texts"))


@pytest.fixture
async def stage(tools: Tools, make_settings: MakeSettings) -> Stage:
    deps = make_deps(tools.deps.pool, make_settings(seal_keys=[KEY]), CHAIN)
    await sign_in(deps.pool, ALICE, BOB)
    return Stage(replace(tools, deps=deps))


async def test_a_transaction_is_found_by_memo_label_bucket_and_category(stage: Stage) -> None:
    row = await stage.commit()
    assert await stage.found("grocer") == [row.id]
    await memos.note_transaction(stage.deps, ALICE, row.id, "Birthday cake for Léa")
    assert await stage.found("lea cake") == [row.id]
    await people.name_contact(stage.deps, ALICE, SHOP, "Corner Bakery")
    assert await stage.found("bakery birthday") == [row.id]
    await categorizing.choose(stage.deps, ALICE, row.id, FOOD, apply_to_similar=False)
    assert await stage.found("dining bakery cake grocer") == [row.id]
    assert await stage.found("dining rent") == []
    assert await stage.texts() == 1  # what it said before is gone


async def test_what_changed_is_found_as_it_is_now(stage: Stage) -> None:
    row = await stage.commit()
    await memos.note_transaction(stage.deps, ALICE, row.id, "umbrella")
    await people.name_contact(stage.deps, ALICE, SHOP, "Bakery")
    own = await categories.create(stage.deps, ALICE, categories.Base("Hobbies", "", "#112233", None, 0))
    await categorizing.choose(stage.deps, ALICE, row.id, str(own["id"]), apply_to_similar=False)
    assert await stage.found("umbrella bakery hobbies") == [row.id]
    await memos.note_transaction(stage.deps, ALICE, row.id, "raincoat")
    await people.name_contact(stage.deps, ALICE, SHOP, "Outfitter")
    await categories.edit(stage.deps, ALICE, str(own["id"]), {"name": "Outdoors"}, unless=lambda _: False)
    for gone in ("umbrella", "bakery", "hobbies"):
        assert await stage.found(gone) == [], gone
    assert await stage.found("raincoat outfitter outdoors") == [row.id]
    await memos.note_transaction(stage.deps, ALICE, row.id, "")
    await people.forget_contact(stage.deps, ALICE, SHOP)
    await categorizing.choose(stage.deps, ALICE, row.id, FUN, apply_to_similar=False)
    for gone in ("raincoat", "outfitter", "outdoors"):
        assert await stage.found(gone) == [], gone
    assert await stage.found("entertainment") == [row.id]


async def test_a_default_category_is_found_by_the_name_its_user_gave_it(stage: Stage) -> None:
    row, others = await stage.commit(), await stage.commit(BOB, 2)
    for user, id_ in ((ALICE, row.id), (BOB, others.id)):
        await categorizing.choose(stage.deps, user, id_, FOOD, apply_to_similar=False)
    changed = {"custom_name": "Yummy things"}
    await categories.prefer(stage.deps, ALICE, FOOD, changed, budget_changed=_unused)
    assert await stage.found("yummy") == [row.id]
    assert await stage.found("dining") == []
    assert await stage.found("yummy", BOB) == []
    assert await stage.found("dining", BOB) == [others.id]


async def _unused(tx: Tx, user: str, now: datetime) -> Draft:
    raise AssertionError("no budget changes here")


async def test_a_memo_written_before_its_transaction_is_found_with_it(stage: Stage) -> None:
    row = make_transaction(user=ALICE, chain_id=CHAIN.id)
    await memos.note_ahead(stage.deps, ALICE, CHAIN.id, row.tx_hash, "lighthouse")
    assert await stage.found("lighthouse") == []
    await commit_block(stage.pool, [row])
    assert await stage.found("lighthouse") == [row.id]


async def test_nobody_finds_what_is_anothers(stage: Stage) -> None:
    row = await stage.commit(BOB)
    await memos.note_transaction(stage.deps, BOB, row.id, "secret garden")
    assert await stage.found("secret", BOB) == [row.id]
    assert await stage.found("secret") == []
    assert await stage.found("grocer") == []
    assert await stage.found(SHOP) == []


async def test_a_delegate_finds_a_spend_by_its_bucket_alone(stage: Stage) -> None:
    row = await stage.commit(role="delegate")
    own = replace(row, n=1, role="owner", event_id="e" * 32, bucket="Rent")  # in the same transaction of the chain
    await commit_block(stage.pool, [row, own])
    await memos.note_ahead(stage.deps, ALICE, CHAIN.id, row.tx_hash, "umbrella")
    assert await stage.found("grocer") == [row.id]
    assert await stage.found("umbrella") == [own.id]


async def test_what_a_reorg_took_back_is_neither_found_nor_kept(stage: Stage) -> None:
    row = await stage.commit()
    await memos.note_transaction(stage.deps, ALICE, row.id, "umbrella")
    assert await stage.found("umbrella") == [row.id]
    await revert_block(stage.pool, row)
    filters = Filters(chain_ids=[CHAIN.id])
    page = await history.transactions(stage.deps, ALICE, filters, q="umbrella", below=None, limit=9)
    assert page.resources == []  # before the job
    assert await stage.found("umbrella") == []
    assert await stage.texts() == 0
    again = replace(row, block_number=2, block_hash=make_hash("another"))
    await commit_block(stage.pool, [again])
    assert await stage.found("umbrella") == [row.id]


async def test_the_same_job_twice_and_beside_itself_changes_nothing(stage: Stage) -> None:
    row = await stage.commit()
    [(job, claim)] = await stage.claims()
    await asyncio.gather(*(job.run(stage.tools, claim) for _ in range(4)))
    assert await stage.found("grocer") == [row.id]
    assert await stage.texts() == await stage.pool.fetchval("SELECT count(*) FROM search_rows") == 1


async def test_a_job_that_read_before_a_change_does_not_overwrite_the_one_after_it(stage: Stage) -> None:
    row = await stage.commit()
    await stage.work()
    async with stage.pool.acquire() as conn, conn.transaction():
        await index.lock(conn, [ALICE])  # a job that has begun
        await people.name_contact(stage.deps, ALICE, SHOP, "Bakery")
        beside = asyncio.create_task(stage.work())
        await asyncio.wait({beside}, timeout=0.3)
        assert not beside.done()
        # It has read nothing yet, so what commits now is seen.
        await people.name_contact(stage.deps, ALICE, SHOP, "Outfitter")
    await beside
    assert await stage.found("outfitter") == [row.id]
    assert await stage.found("bakery") == []


async def test_what_changed_while_a_job_ran_is_indexed_again(stage: Stage) -> None:
    row = await stage.commit()
    [(job, claim)] = await stage.claims()
    await revert_block(stage.pool, row)
    assert not await job.run(stage.tools, claim)
    assert await stage.found("grocer") == []


async def test_a_large_change_takes_several_runs(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "CHUNK", 2)
    monkeypatch.setattr(search, "CHUNKS", 2)
    rows = [await stage.commit(number=number) for number in range(1, 12)]
    await stage.work()
    await people.name_contact(stage.deps, ALICE, SHOP, "Bakery")
    assert await stage.work() == 3  # 4, 4 and 3 transactions
    assert sorted(await stage.found("bakery")) == sorted(row.id for row in rows)


async def test_the_tables_hold_no_word_of_a_memo(stage: Stage) -> None:
    row = await stage.commit()
    await memos.note_transaction(stage.deps, ALICE, row.id, "umbrella")
    assert await stage.found("umbrella") == [row.id]
    stored = await stage.pool.fetch(
        "SELECT s::text FROM search_texts AS s UNION ALL SELECT s::text FROM search_rows AS s"
    )
    assert len(stored) == 2
    assert not any(part in each[0] for each in stored for part in ("umb", "mbr", "bre", "roc"))
    other = make_deps(stage.pool, stage.deps.settings.model_copy(update={"seal_keys": ()}), CHAIN)
    page = await history.transactions(other, ALICE, Filters(chain_ids=[CHAIN.id]), q="umbrella", below=None, limit=9)
    assert page.resources == []  # without the key nothing is found


async def test_a_new_key_finds_what_the_old_one_hashed_until_it_is_hashed_anew(
    stage: Stage, make_settings: MakeSettings
) -> None:
    row = await stage.commit()
    await memos.note_transaction(stage.deps, ALICE, row.id, "umbrella")
    await stage.work()
    both = make_settings(seal_keys=[NEWER, KEY])
    changed = Stage(replace(stage.tools, deps=replace(stage.deps, settings=both)))
    assert await changed.found("umbrella grocer") == [row.id]
    second = await changed.commit(number=2)
    assert await changed.found("grocer") == [second.id, row.id]
    async with stage.pool.acquire() as conn, conn.transaction():
        await outbox.request(conn, "slow", MANY, {"user": ALICE})
    await changed.work()
    assert await stage.pool.fetchval("SELECT array_agg(DISTINCT key_id) FROM search_texts") == ["k2"]
    assert await changed.found("umbrella") == [row.id]


async def test_models_choices_are_found_too(stage: Stage) -> None:
    row = await stage.commit()
    await stage.work()
    choice = Choice(row.id, FUN, categorizing.CHOSEN, "model", "because")
    await categorizing.assign(stage.deps, ALICE, [choice])
    assert await stage.found("entertainment") == [row.id]
