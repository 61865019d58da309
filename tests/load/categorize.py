"""`make bench-categorize`: spends per second through the keyless path, its memory, and its accuracy on held-out memos.

`--calibrate` prints how the constants of jobs/outbound/classifier.py do on the train part alone, by ten-fold
cross-validation: that is all that may be looked at while they are chosen.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import logging
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import structlog

from config.embedded.postgres import Postgres
from config.embedded.valkey import Valkey
from config.settings import Settings
from handlers.deps import Deps
from handlers.rules.prompts import Candidate, make_item
from jobs import categorize
from jobs.categorize import CATEGORIZE, LEAST, SURE
from jobs.job import Tools
from jobs.outbound.classifier import TEMPERATURE, Array, fit, softmax
from jobs.outbound.embeddings import Embedder, Guess, Judge, LocalModel, load_examples, load_judge
from jobs.outbound.models import Models
from store import ai, migrate, outbox
from store.clickhouse import Analytics
from store.feed import Publisher
from store.outbox import Claim
from store.postgres import Pool, open_pool
from store.records import TransactionRow
from store.sealed import KeyRing
from tests.factories import insert_transactions, make_address, make_hash, make_transaction
from tests.handlers.ledger import sign_in
from tests.load.ingest import commit, machine

MEMOS = Path(__file__).with_name("memos.csv")
TRAIN_BELOW = 166
"""A memo whose SHA-256 begins with a byte below this is for training (two thirds of them): nobody chooses."""
AT_ONCE = 4
"""Chunks under way at once, as a worker would have them."""
SEAL_KEY = "bench:" + "A" * 43 + "="

Part = Literal["train", "held-out"]


@dataclass(frozen=True)
class Labelled:
    part: Part
    category: str
    memo: str


def rows(part: Part | None = None) -> list[Labelled]:
    with MEMOS.open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    parts: list[Part] = ["train" if row["part"] == "train" else "held-out" for row in read]
    found = [Labelled(of, row["category"], row["memo"]) for of, row in zip(parts, read, strict=True)]
    return [row for row in found if part in (None, row.part)]


def part_of(memo: str) -> Part:
    return "train" if sha256(memo.encode()).digest()[0] < TRAIN_BELOW else "held-out"


# Accuracy ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    row: Labelled
    guess: Guess

    @property
    def right(self) -> bool:
        return self.guess.category_id == self.row.category


def judged(judge: Judge, labelled: Sequence[Labelled]) -> list[Judged]:
    defaults = [Candidate(slug, slug, slug, "") for slug in load_examples()]
    items = [make_item(memo=row.memo, label=None, bucket=None, usd=None) for row in labelled]
    guesses = judge.judge(items, defaults)
    return [Judged(row, guess) for row, guess in zip(labelled, guesses, strict=True) if guess is not None]


def share(found: Sequence[Judged]) -> str:
    right = sum(each.right for each in found)
    return f"{right}/{len(found)} = {right / len(found):.3f}" if found else "none"


def report_accuracy() -> None:
    found = judged(load_judge(Embedder()), rows("held-out"))
    print(f"held-out top-1: {share(found)} of memos alone, trained on {len(rows('train'))} others")
    by_slug = {slug: share([each for each in found if each.row.category == slug]) for slug in load_examples()}
    print("  " + ", ".join(f"{slug} {text}" for slug, text in by_slug.items()))
    given = [each for each in found if each.guess.confidence >= LEAST]
    sure = [each for each in given if each.guess.confidence >= SURE]
    print(f"  given (confidence {LEAST} and more): {len(given) / len(found):.1%} of all, right {share(given)}")
    print(f"  sure ({SURE} and more): {len(sure) / len(found):.1%} of all, right {share(sure)}")
    print("  confidence told, and how often it was right:")
    for low, high in ((0.0, 0.45), (0.45, 0.6), (0.6, 0.75), (0.75, 0.9), (0.9, 1.0)):
        band = [each for each in found if low <= each.guess.confidence < high]
        told = sum((each.guess.confidence for each in band), Decimal(0)) / max(len(band), 1)
        print(f"    {low:.2f} to {high:.2f}: told {told:.2f}, right {share(band)}")


def calibrate() -> None:
    labelled = rows("train")
    slugs = list(load_examples())
    labels = np.array([slugs.index(row.category) for row in labelled])
    made = Embedder().vectors([row.memo for row in labelled])
    vectors = np.stack([made[row.memo] for row in labelled]).astype(np.float64)
    fold = np.random.default_rng(0).permutation(len(labelled)) % 10
    posterior = np.zeros((len(labelled), len(slugs)))
    for held in range(10):
        learned = fit(slugs, [int(label) for label in labels[fold != held]], vectors[fold != held])
        posterior[fold == held] = learned.posterior(vectors[fold == held], [])
    print(f"train, ten-fold: top-1 {(posterior.argmax(axis=1) == labels).mean():.3f} of {len(labelled)}")
    scores = np.log(posterior) * TEMPERATURE
    for temperature in (0.05, 0.06, 0.07, TEMPERATURE, 0.09, 0.10, 0.12):
        print(f"  temperature {temperature:.2f}: log loss {_loss(softmax(scores / temperature), labels):.4f}")


def _loss(posterior: Array, labels: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
    return float(-np.log(posterior[np.arange(len(posterior)), labels]).mean())


# Throughput -------------------------------------------------------------------------------------------------------


def spends(count: int, *, per_block: int, users: int) -> list[tuple[TransactionRow, str]]:
    """Spends with a memo each; no two memos are the same, so that nothing is found in memory."""
    texts = [row.memo for row in rows()]
    return [
        (
            make_transaction(
                user=make_address("bench", n % users),
                block_hash=make_hash("block", n // per_block),
                block_number=n // per_block,
                tx_hash=make_hash("spend", n),
            ),
            f"{texts[n % len(texts)]} {n}",
        )
        for n in range(count)
    ]


async def prepare(pool: Pool, ring: KeyRing, load: Sequence[tuple[TransactionRow, str]]) -> None:
    await sign_in(pool, *{row.user for row, _ in load})
    async with pool.acquire() as conn, conn.transaction():
        await insert_transactions(conn, [row for row, _ in load])
        await conn.executemany(
            "INSERT INTO memos (user_address, chain_id, tx_hash, n, memo) VALUES ($1, $2, $3, $4, $5)",
            [
                (row.user, row.chain_id, row.tx_hash, row.n, ring.seal(memo, purpose="memo", owner=row.user))
                for row, memo in load
            ],
        )
        for block in dict.fromkeys(row.block_hash for row, _ in load):
            args = {"chainId": load[0][0].chain_id, "number": 0, "hash": block}
            await outbox.request(conn, "slow", "categorize", args)
    await pool.execute("ANALYZE")


async def work(tools: Tools) -> int:
    """Run every job there is; returns how many."""
    waiting: list[Claim] = []
    ran = 0

    async def one() -> None:
        while waiting:
            await CATEGORIZE.run(tools, waiting.pop())

    while ids := await tools.deps.pool.fetch("SELECT id FROM outbox WHERE job = 'categorize'"):
        begun = [await outbox.begin(tools.deps.pool, row["id"]) for row in ids]
        waiting += [claim for claim in begun if claim is not None]
        ran += len(waiting)
        await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    return ran


def memory_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


async def measure(count: int, *, per_block: int, users: int) -> None:
    with tempfile.TemporaryDirectory() as folder, Postgres(Path(folder)) as postgres, Valkey(Path(folder)) as valkey:
        async with migrate.locked(postgres.url) as conn:
            await migrate.postgres(conn)
        settings = Settings.model_validate(
            {"database_url": postgres.url, "redis_url": valkey.url, "seal_keys": (SEAL_KEY,)}
        )
        pool, publisher, local = await open_pool(postgres.url), Publisher(valkey.url), LocalModel()
        deps = Deps(settings, {}, pool, publisher, lambda: datetime.now(UTC))
        await prepare(pool, KeyRing.of(settings), spends(count, per_block=per_block, users=users))
        before_mb, began = memory_mb(), time.perf_counter()
        await local.judge([make_item(memo="warm up", label=None, bucket=None, usd=None)], await _defaults(pool))
        print(f"model loaded in {time.perf_counter() - began:.1f} s, {memory_mb() - before_mb} MB more")
        began, cpu = time.perf_counter(), time.process_time()
        ran = await work(Tools(deps, Analytics(settings.clickhouse_url), models=Models(local)))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        given = await pool.fetchval("SELECT count(*) FROM transaction_categories")
        print(
            f"{count} spends with {count} different memos, {ran} jobs: {count / wall:,.0f} spends/s wall, "
            f"{cpu / count * 1e3:.2f} ms CPU each in the worker; {given} got a category; most memory {memory_mb()} MB"
        )
        local.close()
        await publisher.close()
        await pool.close()


async def _defaults(pool: Pool) -> list[Candidate]:
    found = await ai.candidates(pool, [make_address("bench", 0)])
    return [Candidate(r.id, r.slug, r.name, r.description) for r in found[make_address("bench", 0)]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spends", type=int, default=10_000)
    parser.add_argument("--per-block", type=int, default=250)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--calibrate", action="store_true")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if asked.calibrate:
        calibrate()
        return
    print(f"categorize: chunks of {categorize.CHUNK}, {machine()}, commit {commit()}")
    asyncio.run(measure(asked.spends, per_block=asked.per_block, users=asked.users))
    report_accuracy()


if __name__ == "__main__":
    main()
