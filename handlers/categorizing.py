"""A transaction gets a category after it was told: by a model's job, or by its user, whose choice is final.

One transaction under the user's lock: the subject is read again (a reverted one stops here), budgets move, alerts are
told or taken back, and everything commits with the log entries that say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from config import keys
from handlers import budgets, categories
from handlers.challenge_scores import request_of_users
from handlers.committed import request_evaluation
from handlers.deps import Deps
from handlers.errors import NotFound
from handlers.events import TransactionCategorized, UnreadCount
from handlers.rules.categorize import Assignment, Source, Subject, taught
from handlers.rules.ids import event_id
from handlers.rules.inbox import Inbox, told_id, unread_body
from handlers.rules.month_budget import NOTHING, Budget
from handlers.rules.notices import alert_draft, alert_notice
from handlers.rules.purse import Purse
from store import budgets as rows
from store import log, notifications, outbox, pushes
from store.budgets import SubjectRow
from store.outbox import Wanted
from store.postgres import Tx, in_transaction
from store.pushes import Intent
from store.records import Address, Draft, Frame

SIMILAR_MAX = 500
"""Past payments to the same payee that one choice may change: bounds the transaction."""
CHOSEN = Decimal("1.00")


@dataclass(frozen=True, slots=True)
class Choice:
    """A category for one transaction, how sure, who says so and why."""

    transaction_id: str
    category_id: str
    confidence: Decimal
    source: Source
    reasoning: str = ""


async def assign(deps: Deps, user: Address, choices: Sequence[Choice]) -> int:
    """Apply choices in order; returns how many changed anything.

    Reverted transactions and unknown categories are passed over, and so is whatever the user decided by hand, unless
    the choice is the user's own.
    """
    changed = 0

    async def body(tx: Tx) -> list[Frame]:
        nonlocal changed
        frames, changed = await _assign(deps, tx, user, choices)
        return frames

    await _publish(deps, await in_transaction(deps.pool, body))
    return changed


async def choose(deps: Deps, user: Address, transaction_id: str, category_id: str, *, apply_to_similar: bool) -> int:
    """The user's own choice, which is final and teaches; returns how many transactions it changed.

    `apply_to_similar` gives it to other payments to the same payee too, and makes it a rule for those to come.
    """
    changed = 0

    async def body(tx: Tx) -> list[Frame]:
        nonlocal changed
        await log.lock(tx, [user])
        subject = (await rows.subjects(tx, user, [transaction_id])).get(transaction_id)
        if subject is None:
            raise NotFound("There is no transaction of yours with this id.")
        look = (await budgets.load(tx, [user], at=subject.block_time))[user].looks.get(category_id)
        if look is None or not look.is_active:
            raise NotFound("There is no category of yours with this id.")
        choices = [Choice(transaction_id, category_id, CHOSEN, "manual", "you chose it")]
        if apply_to_similar and subject.counterparty is not None:
            await categories.make_rule(tx, user, "counterparty", subject.counterparty, category_id, now=deps.now())
            others = await rows.similar(tx, user, subject.counterparty, but=transaction_id, limit=SIMILAR_MAX)
            reason = "your rule for this payee"
            choices += [Choice(other, category_id, CHOSEN, "rule", reason) for other in others]
        frames, changed = await _assign(deps, tx, user, choices)
        return frames

    await _publish(deps, await in_transaction(deps.pool, body))
    return changed


async def _publish(deps: Deps, frames: Sequence[Frame]) -> None:
    await deps.publisher.publish([(frame.user, frame.text) for frame in frames])
    await deps.publisher.wake(keys.JOBS_WAKE)


async def _assign(deps: Deps, tx: Tx, user: Address, choices: Sequence[Choice]) -> tuple[list[Frame], int]:
    counters = await log.lock(tx, [user])
    now = deps.now()
    subjects = await rows.subjects(tx, user, [choice.transaction_id for choice in choices])
    drafts: list[Draft] = []
    intents: list[Intent] = []
    changed, moved = 0, set[tuple[int, str]]()
    for moment, group in _by_month(choices, subjects):
        asked = [subjects[choice.transaction_id] for choice in group]
        work = await _open(tx, user, asked, at=moment, now=now, cdn_url=deps.settings.cdn_url)
        if work is None:
            continue
        for choice in group:
            told = work.apply(subjects[choice.transaction_id], choice)
            drafts += told
            changed += bool(told)
            if told:
                moved.add((subjects[choice.transaction_id].chain_id, subjects[choice.transaction_id].block_hash))
        await budgets.save(tx, [work.purse])
        await notifications.record(tx, work.inbox.kept)
        await rows.save_memory(tx, user, work.learned)
        drafts += await work.correct(tx)
        intents += work.inbox.intents
    # Search finds them by their category, too. By block, so that a block full of them is one job.
    asked_for = [Wanted("quick", "index_block", {"chainId": chain_id, "hash": block}) for chain_id, block in moved]
    await outbox.request_each(tx, asked_for)
    await request_of_users(tx, [user] if moved else [])
    if changed:
        await request_evaluation(tx, [user])
    frames = await log.append(tx, counters, drafts, at=now)
    await pushes.record(tx, intents, at=now, hold_s=deps.settings.push_hold_s)
    return frames, changed


def _by_month(choices: Iterable[Choice], subjects: dict[str, SubjectRow]) -> list[tuple[datetime, list[Choice]]]:
    """Choices whose subject still counts, by the instant of their block: each block's month has figures of its own."""
    groups: dict[datetime, list[Choice]] = {}
    for choice in choices:
        if choice.transaction_id in subjects:
            groups.setdefault(subjects[choice.transaction_id].block_time, []).append(choice)
    return list(groups.items())


async def _open(
    tx: Tx, user: Address, subjects: Sequence[SubjectRow], *, at: datetime, now: datetime, cdn_url: str
) -> _Work | None:
    asked = {user: {subject.id: _subject(subject) for subject in subjects}}
    ids = [(user, subject.id) for subject in subjects]
    purse = (await budgets.load(tx, [user], at=at, asked=asked, transactions=ids, cdn_url=cdn_url)).get(user)
    if purse is None:
        return None
    unread = (await notifications.unread(tx, [user]))[user]
    inbox = Inbox(user, (await notifications.allowed(tx, [user]))[user], unread)
    return _Work(purse, inbox, at, now, {}, [])


@dataclass(slots=True)
class _Work:
    """One user's purse while choices for transactions of one block are applied to it."""

    purse: Purse
    inbox: Inbox
    at: datetime
    now: datetime
    learned: dict[tuple[str, str], int]
    gone: list[str]

    def apply(self, subject: SubjectRow, choice: Choice) -> list[Draft]:
        """Move the transaction to its category; what to tell, nothing when that changes nothing."""
        before = self.purse.decided.get(subject.id)
        look = self.purse.looks.get(choice.category_id)
        if look is None or not look.is_active or (before and before.is_manual and choice.source != "manual"):
            return []
        if before is not None and before.assignment.category_id == choice.category_id and choice.source != "manual":
            return []
        old = before.assignment.category_id if before else None
        made = self.purse.decide(
            subject.id, Assignment(choice.category_id, choice.confidence, choice.source, choice.reasoning)
        )
        if choice.source == "manual":
            self.learned |= taught(_subject(subject), choice.category_id, self.purse.habits.memory)
        touched, impacts = self._move(subject, old, choice.category_id)
        taken_back = self.purse.taken_back_of(touched, self.at)
        self.gone += taken_back
        told = Draft(
            user=self.purse.user,
            event_id=event_id(TransactionCategorized.name, self.purse.user, subject.cause, subject.id, made.revision),
            event=TransactionCategorized.name,
            version=TransactionCategorized.version,
            body={
                "transactionId": subject.id,
                "category": self.purse.category(made),
                "confidence": f"{choice.confidence:.2f}",
                "source": choice.source,
                "reasoning": choice.reasoning,
                "budgetImpact": impacts,
            },
            corrects=tuple(taken_back),
            chain_id=subject.chain_id,
            cause=subject.cause,
            transaction_id=subject.id,
        )
        return [told, *self._alerts(touched, subject, because=told.event_id)]

    def _move(self, subject: SubjectRow, old: str | None, new: str) -> tuple[list[Budget], list[dict[str, object]]]:
        """Take the amount out of its old category and into the new one; budgets touched, and what it did to them."""
        counted = subject.type == "spend" or (subject.type == "transfer" and subject.direction == "out")
        is_new = subject.type == "transfer" and old is None
        touched = [
            budget
            for budget in self.purse.budgets
            if counted and (budget.category_id in {old, new} - {None} or (budget.scope == "total" and is_new))
        ]
        before = {budget: self.purse.figure(budget) for budget in touched}
        if counted:
            if not is_new:
                self.purse.figures[old] = self.purse.figures.get(old, NOTHING).minus(subject.usd)
            self.purse.figures[new] = self.purse.figures.get(new, NOTHING).plus(subject.usd)
        return touched, self.purse.impacts(touched, before, at=self.at)

    def _alerts(self, touched: Iterable[Budget], subject: SubjectRow, *, because: str) -> list[Draft]:
        drafts: list[Draft] = []
        for alert in self.purse.look_at(touched, self.at):
            if alert.ends <= self.now:
                continue
            told = alert_draft(
                alert,
                self.purse,
                because=because,
                cause=subject.cause,
                chain_id=subject.chain_id,
                transaction_id=subject.id,
                at=self.now,
            )
            notice = alert_notice(
                alert, self.purse.user, event_id=told.event_id, transaction_id=subject.id, at=self.now
            )
            drafts += [told, *(replace(d, chain_id=subject.chain_id) for d in self.inbox.add(notice, subject.cause))]
        return drafts

    async def correct(self, tx: Tx) -> list[Draft]:
        """Take alerts that no longer hold out of the inbox; what to tell when that leaves fewer unread."""
        await pushes.take_back(tx, self.purse.user, self.gone, at=self.now)
        if not await notifications.correct(tx, self.purse.user, self.gone, at=self.now):
            return []
        left = (await notifications.unread(tx, [self.purse.user]))[self.purse.user]
        return [
            Draft(
                user=self.purse.user,
                event_id=event_id(UnreadCount.name, self.purse.user, "corrects", *self.gone),
                event=UnreadCount.name,
                version=UnreadCount.version,
                body=unread_body(left),
                corrects=tuple(told_id(self.purse.user, alert) for alert in self.gone),
            )
        ]


def _subject(row: SubjectRow) -> Subject:
    return Subject(row.counterparty, row.bucket, None, row.usd)
