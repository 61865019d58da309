"""`categorize` and `categorize_again`: everything that calls a model to find a spend's category, chunk by chunk.

A spend gets what the user's rules and history say now, else the local model's guess, else, where that is unsure and
the user lets it be asked, a language model's answer. A guess that is likelier wrong than right is kept to ourselves.
What is found goes through `handlers.categorizing.assign`, which reads its subject again: a reverted spend, or one that
was categorised by hand meanwhile, stays as it is.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import structlog

from config import keys, metrics
from handlers import categorizing
from handlers.categorizing import Choice
from handlers.deps import Deps
from handlers.rules import categorize as taught
from handlers.rules.categorize import Habits, Subject
from handlers.rules.prompts import Answer, Candidate, Item, make_item
from jobs.job import Job, Tools
from jobs.outbound.embeddings import Guess
from jobs.outbound.models import Models, Question
from store import ai, budgets, memos, outbox
from store.ai import SpendRow
from store.outbox import Claim
from store.postgres import Tx, in_transaction
from store.records import Address
from store.sealed import KeyRing

log = structlog.get_logger(__name__)

CHUNK = 100
"""Spends of one run: about a second of the local model."""
LEAST = Decimal("0.45")
"""Least confidence that gives a category: below it, a budget would move by a guess that is likelier wrong."""
SURE = Decimal("0.75")
"""Confidence of the local model from which nobody else is asked."""
ASKING_S = 20.0
"""Time a run spends on asking language models (s); who was not answered by then gets the local model's answer."""
ASKED_AT_ONCE = 8
"""Users whose spends are asked about at the same time."""
TIMEOUT_S = 60.0
"""Limit of one run (s): with as many runs as a worker takes, each waits for its turn at the local model."""


@dataclass(frozen=True, slots=True)
class Readable:
    """A spend with its memo in clear, as rules know it and as models do."""

    row: SpendRow
    subject: Subject
    item: Item


async def categorize(tools: Tools, claim: Claim) -> bool:
    """One chunk of a block's spends, `{chainId, number, hash, after?}`; the next chunk is a job of its own."""
    deps, args = tools.deps, claim.args
    user, transaction_id = args.get("after", ("", ""))
    rows = await ai.uncategorized(deps.pool, args["chainId"], args["hash"], above=(user, transaction_id), limit=CHUNK)
    await _assign(deps, tools.models, rows)
    if len(rows) < CHUNK:
        return await in_transaction(deps.pool, lambda tx: outbox.done(tx, claim))
    following = {**args, "after": [rows[-1].user, rows[-1].id]}

    async def body(tx: Tx) -> bool:
        await outbox.request(tx, "slow", claim.job, following)
        return await outbox.done(tx, claim)

    done = await in_transaction(deps.pool, body)
    await deps.publisher.wake(keys.JOBS_WAKE)
    return done


async def categorize_again(tools: Tools, claim: Claim) -> bool:
    """One spend whose memo changed, `{user, transactionId}`; never one that was categorised by hand."""
    deps = tools.deps
    row = await ai.spend(deps.pool, claim.args["user"], claim.args["transactionId"])
    await _assign(deps, tools.models, [] if row is None else [row])
    return await in_transaction(deps.pool, lambda tx: outbox.done(tx, claim))


async def _assign(deps: Deps, models: Models | None, rows: Sequence[SpendRow]) -> None:
    """Find categories for spends and give them, user by user."""
    chosen: dict[Address, list[Choice]] = defaultdict(list)
    for row, choice in await _choices(deps, models, await _read(deps, rows)):
        chosen[row.user].append(choice)
    for user, choices in chosen.items():
        await categorizing.assign(deps, user, choices)


async def _read(deps: Deps, rows: Sequence[SpendRow]) -> list[Readable]:
    """Spends with their memos."""
    noted = await memos.for_transactions(
        deps.pool,
        KeyRing.of(deps.settings),
        {row.user for row in rows},
        {(row.chain_id, row.tx_hash) for row in rows},
    )
    found = []
    for row in rows:
        memo = noted.of(row.user, row.chain_id, row.tx_hash, row.n)
        item = make_item(memo=memo, label=row.label, bucket=row.bucket, usd=row.usd)
        found.append(Readable(row, Subject(row.counterparty, row.bucket, memo, row.usd), item))
    return found


async def _choices(deps: Deps, models: Models | None, spends: Sequence[Readable]) -> list[tuple[SpendRow, Choice]]:
    """Choices for those spends of which something can be said, in their order."""
    if not spends:
        return []
    by_user: dict[Address, list[Readable]] = defaultdict(list)
    for spend in spends:
        by_user[spend.row.user].append(spend)
    candidates = await _candidates(deps, list(by_user))
    habits = await _habits(deps, by_user)
    turn, deadline = asyncio.Semaphore(ASKED_AT_ONCE), asyncio.get_running_loop().time() + ASKING_S

    async def of_user(user: Address, theirs: Sequence[Readable]) -> list[tuple[SpendRow, Choice]]:
        known = {spend.row.id: _known(spend, habits[user]) for spend in theirs}
        unknown = [spend for spend in theirs if known[spend.row.id] is None]
        guesses: list[Guess | None] = [None] * len(unknown)
        if models is not None:
            guesses = await models.local.judge([spend.item for spend in unknown], candidates[user])
        async with turn:
            answers = await _asked(models, unknown, guesses, candidates[user], deadline=deadline)
        for spend, guess, answer in zip(unknown, guesses, answers, strict=True):
            known[spend.row.id] = _judged(spend, guess, answer)
        return [(spend.row, choice) for spend in theirs if (choice := known[spend.row.id]) is not None]

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(of_user(user, theirs)) for user, theirs in by_user.items()]
    except ExceptionGroup as several:
        raise several.exceptions[0] from several  # whoever runs jobs tells an engine that is away by its class
    return [pair for task in tasks for pair in task.result()]


async def _candidates(deps: Deps, users: Sequence[Address]) -> dict[Address, list[Candidate]]:
    found = await ai.candidates(deps.pool, users)
    return {user: [Candidate(r.id, r.slug, r.name, r.description) for r in rows] for user, rows in found.items()}


async def _habits(deps: Deps, by_user: Mapping[Address, Sequence[Readable]]) -> dict[Address, Habits]:
    """What users have taught until now: maybe more than when the block came."""
    rules = await budgets.rules(deps.pool, list(by_user))
    features = {user: taught.features_of(spend.subject for spend in theirs) for user, theirs in by_user.items()}
    memory = await budgets.memory(deps.pool, features)
    return {user: Habits(rules.get(user, {}), memory.get(user, {})) for user in by_user}


def _known(spend: Readable, habits: Habits) -> Choice | None:
    """What the user's rules and history say."""
    said = taught.assign(spend.subject, habits)
    if said is None:
        return None
    metrics.CATEGORIZED.labels(said.source).inc()
    return Choice(spend.row.id, said.category_id, said.confidence, said.source, said.reasoning)


async def _asked(
    models: Models | None,
    spends: Sequence[Readable],
    guesses: Sequence[Guess | None],
    candidates: Sequence[Candidate],
    *,
    deadline: float,
) -> list[Answer | None]:
    """What language models say of spends that the local one is unsure of, where they may read them."""
    answers: list[Answer | None] = [None] * len(spends)
    unsure = [
        index
        for index, (spend, guess) in enumerate(zip(spends, guesses, strict=True))
        if spend.row.consents and guess is not None and guess.confidence < SURE
    ]
    if models is None or models.remote is None or not unsure:
        return answers
    question = Question(spends[0].row.user, [spends[at].item for at in unsure], candidates)
    limit = asyncio.timeout_at(deadline)
    try:
        async with limit:
            given = await models.remote.ask(question)
    except TimeoutError:
        if not limit.expired():
            raise
        log.warning("models_take_too_long", items=len(unsure))
        return answers
    for at, answer in zip(unsure, given, strict=True):
        answers[at] = answer
    return answers


def _judged(spend: Readable, guess: Guess | None, answer: Answer | None) -> Choice | None:
    """The language model's answer, else the local one's if it is likely enough."""
    said = answer or guess
    by = "none" if said is None or said.confidence < LEAST else "language_model" if answer else "local_model"
    metrics.CATEGORIZED.labels(by).inc()
    if said is None or by == "none":
        return None
    return Choice(spend.row.id, said.category_id, said.confidence, "model", said.reasoning)


CATEGORIZE = Job("categorize", "slow", categorize, TIMEOUT_S)
CATEGORIZE_AGAIN = Job("categorize_again", "slow", categorize_again, TIMEOUT_S)
