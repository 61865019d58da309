"""Push: what was recorded with its event goes to the user's phones, once, unless they know it already.

`pushes` is its own outbox: a row is claimed (`sending`) before the provider is called and settled after, so a process
that dies in between leaves a row that is sent again under the same key. Runs every second on the quick queue.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

import structlog

from config import metrics
from handlers.rules import push_policy, push_texts
from handlers.rules.push_texts import LOOKS, RETRACTED, Text
from jobs.job import Tools
from jobs.outbound.push import Message, Outcome
from store import acks, devices, notifications, pushes
from store.devices import Reachable
from store.notifications import Preferences
from store.pushes import Audience, PushRow, Settled, State
from store.records import Address
from store.sealed import KeyRing, SealError

log = structlog.get_logger(__name__)

BATCH = 50
"""Pushes claimed at a time."""
AT_ONCE = 8
"""Pushes under way at once in one process."""
LEASE_S = 60.0
"""How long a claim holds (s): several times what the provider may take."""
BUDGET_S = 5.0
"""Time a run may begin pushes in (s): what it claimed and did not begin is due again at once."""
TIMEOUT_S = 20.0
"""Limit of one run (s): both budgets, and what a provider that hangs may take of each."""
REPLACE_AFTER_S = 60.0
"""How long an effect has to stay taken back before phones are told (s): reorgs include most transactions again."""
KEPT = timedelta(days=30)
"""How long a push is remembered, so that its effect is not told twice."""


Work: TypeAlias = Callable[[PushRow], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Reader:
    """All that a batch needs to know of its users, read at once."""

    people: Mapping[Address, Audience]
    wishes: Mapping[Address, Preferences]
    unread: Mapping[Address, int]
    devices: Mapping[Address, Sequence[Reachable]]
    shown: Mapping[Address, int | None]


async def run(tools: Tools) -> int:
    """Send what is due and replace what was taken back; one run at a time in a process, however slow the provider."""
    if tools.pushing.locked():
        return 0
    async with tools.pushing:
        return await send_due(tools) + await replace_reverted(tools)


async def send_due(tools: Tools) -> int:
    """Send what is due; returns how many pushes were looked at."""
    return await _batches(lambda: _due_batch(tools))


async def replace_reverted(tools: Tools) -> int:
    """Tell phones, without a sound, that what they show was taken back for good."""
    return await _batches(lambda: _reverted_batch(tools))


async def prune(tools: Tools) -> int:
    """Forget pushes of long ago."""
    before = tools.deps.now() - KEPT
    return await _batches(lambda: pushes.prune(tools.deps.pool, before=before, batch=2000))


async def _batches(step: Callable[[], Awaitable[int]]) -> int:
    deadline = asyncio.get_running_loop().time() + BUDGET_S
    total = 0
    while (count := await step()) and asyncio.get_running_loop().time() < deadline:
        total += count
    return total + count


async def _due_batch(tools: Tools) -> int:
    now = tools.deps.now()
    rows = await pushes.claim(tools.deps.pool, now=now, lease_s=LEASE_S, limit=BATCH)
    readers = await _read(tools, {row.user for row in rows})
    await _each(rows, lambda row: _send(tools, row, readers, now), lambda row: _put_back(tools, row, "due", now))
    return len(rows)


async def _reverted_batch(tools: Tools) -> int:
    now = tools.deps.now()
    rows = await pushes.claim_reverted(tools.deps.pool, now=now, after_s=REPLACE_AFTER_S, lease_s=LEASE_S, limit=BATCH)
    readers = await _read(tools, {row.user for row in rows})
    await _each(
        rows, lambda row: _replace(tools, row, readers, now), lambda row: _put_back(tools, row, "replacing", now)
    )
    return len(rows)


async def _each(rows: Sequence[PushRow], work: Work, put_back: Work) -> None:
    """Do the rows, some at once, those of one user in order; the first fault ends it after the others are done."""
    slots, clock = asyncio.Semaphore(AT_ONCE), asyncio.get_running_loop().time
    deadline = clock() + BUDGET_S
    by_user: dict[Address, list[PushRow]] = defaultdict(list)
    for row in rows:
        by_user[row.user].append(row)

    async def in_order(mine: Sequence[PushRow]) -> None:
        async with slots:
            for row in mine:
                await (work if clock() < deadline else put_back)(row)

    results = await asyncio.gather(*map(in_order, by_user.values()), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _read(tools: Tools, users: set[Address]) -> Reader:
    pool, wanted = tools.deps.pool, sorted(users)
    if not wanted:
        return Reader({}, {}, {}, {}, {})
    reachable: dict[Address, list[Reachable]] = defaultdict(list)
    for device in await devices.reachable(pool, wanted):
        reachable[device.user].append(device)
    seqs = [None] * len(wanted) if tools.redis is None else await _shown(tools, wanted)
    return Reader(
        people=await pushes.audience(pool, wanted),
        wishes=await notifications.allowed(pool, wanted),
        unread=await notifications.unread(pool, wanted),
        devices=reachable,
        shown=dict(zip(wanted, seqs, strict=True)),
    )


async def _shown(tools: Tools, users: Sequence[Address]) -> Sequence[int | None]:
    assert tools.redis is not None
    return await asyncio.gather(*(acks.shown(tools.redis, user) for user in users))


# -- one push ----------------------------------------------------------------------------------------------------------


async def _put_back(tools: Tools, row: PushRow, state: State, now: datetime) -> None:
    outcome = Settled(state=state, reason="out_of_time", not_before=now, delivered=row.delivered)
    await pushes.settle(tools.deps.pool, row, outcome)


async def _send(tools: Tools, row: PushRow, known: Reader, now: datetime) -> None:
    outcome = await _sent(tools, row, known, now)
    metrics.PUSHES.labels(row.kind, outcome.state).inc()
    await pushes.settle(tools.deps.pool, row, outcome)


async def _sent(tools: Tools, row: PushRow, known: Reader, now: datetime) -> Settled:
    """Decide, look once more, send to those who do not have it; what to write down."""
    if row.reverted_at is not None:
        # Only an attempt that died leaves such a row: any of the phones may have it, and has to be told.
        reached = row.delivered | {device.id for device in known.devices.get(row.user, ())}
        return Settled(state="due", reason="unknown", not_before=now, delivered=reached)
    person = known.people.get(row.user)
    wishes = known.wishes.get(row.user, Preferences())
    verdict = push_policy.decide(row, person, wishes, shown=known.shown.get(row.user), now=now)
    if verdict.action == "later":
        assert verdict.until is not None
        return Settled(state="due", reason=verdict.reason, not_before=verdict.until, delivered=row.delivered)
    if verdict.action != "send" or person is None:
        ended: State = "held" if verdict.action == "held" else "dropped"
        return Settled(state=ended, reason=verdict.reason, not_before=now, delivered=row.delivered)
    targets = [device for device in known.devices.get(row.user, ()) if device.id not in row.delivered]
    reason = None if targets else "no_device"
    reason = reason if tools.push is not None else "no_provider"
    if reason is not None:
        state: State = "sent" if row.delivered else "dropped"
        return Settled(state=state, reason=reason, not_before=now, delivered=row.delivered)
    if not await pushes.still(tools.deps.pool, [row.id]):
        return Settled(state="due", reason="reverted", not_before=now, delivered=row.delivered)

    def words(locale: str) -> Text | None:
        return push_texts.text(row.kind, row.facts, locale=locale, hide_amounts=person.hide_amounts)

    sent = await _deliver(tools, row, targets, words, kind=row.kind, badge=known.unread[row.user], now=now)
    return _settled(row, sent, now)


def _settled(row: PushRow, sent: Mapping[UUID, Outcome], now: datetime) -> Settled:
    """What became of the push: tried again for the devices that failed, until none is left."""
    delivered = row.delivered | {id_ for id_, outcome in sent.items() if outcome.fate == "sent"}
    failed = [outcome for outcome in sent.values() if outcome.fate == "later"]
    if failed:
        asked = max((each.retry_after_s or 0.0 for each in failed), default=0.0)
        pause = timedelta(seconds=push_policy.retry_s(row.attempts, asked_s=asked))
        return Settled(state="due", reason=failed[0].reason, not_before=now + pause, delivered=delivered)
    if delivered:
        return Settled(state="sent", not_before=now, delivered=delivered)
    reason = next((outcome.reason for outcome in sent.values()), "nothing_to_say")
    return Settled(state="dropped", reason=reason, not_before=now)


async def _replace(tools: Tools, row: PushRow, known: Reader, now: datetime) -> None:
    """Take the place of what phones show. Those that got it are told, whatever their user wants by now."""
    targets = [device for device in known.devices.get(row.user, ()) if device.id in row.delivered]
    outcome = Settled(state="replaced", reason="reverted", not_before=now, delivered=row.delivered)
    if targets and tools.push is not None and now - row.created_at <= push_policy.EXPIRY:

        def words(locale: str) -> Text | None:
            return push_texts.text(RETRACTED, row.facts, locale=locale, hide_amounts=True)

        sent = await _deliver(tools, row, targets, words, kind=RETRACTED, badge=known.unread[row.user], now=now)
        if any(each.fate == "later" for each in sent.values()):
            pause = timedelta(seconds=push_policy.retry_s(row.attempts, asked_s=None))
            outcome = Settled(state="replacing", reason="later", not_before=now + pause, delivered=row.delivered)
    metrics.PUSHES.labels(RETRACTED, outcome.state).inc()
    await pushes.settle(tools.deps.pool, row, outcome)


async def _deliver(
    tools: Tools,
    row: PushRow,
    targets: Sequence[Reachable],
    words: Callable[[str], Text | None],
    *,
    kind: str,
    badge: int,
    now: datetime,
) -> dict[UUID, Outcome]:
    """Send to these devices, each in its language; outcomes by device. Tokens that are gone are forgotten."""
    assert tools.push is not None
    ring, outcomes = KeyRing.of(tools.deps.settings), {}
    by_locale: dict[str, dict[str, Reachable]] = defaultdict(dict)
    for device in targets:
        try:
            token = ring.unseal(device.sealed, purpose="push_token", owner=device.user)
        except SealError as error:
            log.error("push_token_sealed", device=str(device.id), error=str(error))
            outcomes[device.id] = Outcome("refused", "sealed")
        else:
            by_locale[device.locale][token] = device
    for locale, tokens in by_locale.items():
        text = words(locale)
        if text is None:
            continue
        message = _message(row, text, kind=kind, badge=badge, now=now)
        answers = await tools.push.send(message, list(tokens))
        for device, outcome in zip(tokens.values(), answers, strict=True):
            outcomes[device.id] = outcome
            await _note(tools, row, device, outcome)
    return outcomes


def _message(row: PushRow, text: Text, *, kind: str, badge: int, now: datetime) -> Message:
    look = LOOKS.get(row.kind)
    ends = row.created_at + push_policy.EXPIRY
    return Message(
        title=text.title,
        body=text.body,
        data=push_texts.data(
            kind, {**row.facts, "transaction_id": row.transaction_id}, event_id=row.event_id, seq=row.seq
        ),
        badge=badge,
        collapse_key=push_policy.collapse_key(row.user, row.subject),
        ttl=max(ends - now, timedelta(seconds=1)),
        expires_at=int(ends.timestamp()),
        icon=look.icon if look else None,
        colour=look.colour if look else None,
        silent=row.silent,
    )


async def _note(tools: Tools, row: PushRow, device: Reachable, outcome: Outcome) -> None:
    metrics.PUSH_SENDS.labels(outcome.fate).inc()
    if outcome.fate == "gone":
        pruned = await devices.prune_token(tools.deps.pool, device)
        log.info("push_token_gone", device=str(device.id), pruned=pruned)
    elif outcome.fate != "sent":
        log.warning("push_failed", push=str(row.id), device=str(device.id), fate=outcome.fate, reason=outcome.reason)
