"""How challenges end: told at once, settled once when no chain can take anything back, told to everyone who took part.

Each step is a transaction over a bounded number of participants and leaves in their rows what is done. So whoever goes
on after a stop, or at the same time as another worker, finds what is left, and nobody is told or ranked twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Literal
from uuid import UUID

import structlog

from config import keys, metrics
from handlers.challenge_scores import look_at
from handlers.challenges import resources
from handlers.deps import Deps
from handlers.rules import challenges as rules
from handlers.rules.inbox import Inbox
from store import challenge_scores as scores
from store import challenges as rows
from store import log, notifications, pushes
from store.challenge_scores import ScoreRow
from store.challenges import FIRST, ChallengeRow, Member, ParticipantRow
from store.log import Counter
from store.postgres import Tx, in_transaction, is_passing
from store.records import Address, Draft, Frame

logger = structlog.get_logger(__name__)

BATCH = 200
"""Participants of one transaction that measures or tells: some 100 ms under their locks."""
RANKS = 2000
"""Participants ranked by one transaction, which locks none of them."""

Told = Literal["ended", "settled", "cancelled"]
LEVEL: Mapping[Told, int] = {"ended": 1, "settled": 2, "cancelled": 2}
"""What `told` says of a participant who was told."""
STAMP: Mapping[Told, Literal["ended", "closed"]] = {"ended": "ended", "settled": "closed", "cancelled": "closed"}
"""What is noted of a challenge once everybody was told."""

Follow = Callable[[UUID, Sequence[ScoreRow]], Awaitable[None]]
"""Brings standings up to rows that were committed."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is left after one step: nothing (for now), or more of it after this participant."""

    more: bool
    after: UUID = FIRST
    scores: Sequence[ScoreRow] = ()
    """Final scores that standings do not know yet."""


DONE = Step(more=False)


async def advance(deps: Deps, follow: Follow, *, is_over: Callable[[], bool]) -> int:
    """Go on with all that have ended or were cancelled, a step of each in turn, until nothing can be done.

    Returns the steps. One that fails costs only itself: it is logged and counted, and due at the next look.
    """
    steps = 0
    left = deque((challenge, FIRST) for challenge in await unfinished(deps))
    while left and not is_over():
        challenge, after = left.popleft()
        try:
            step = await go_on(deps, challenge, after)
            if step.scores:
                await follow(challenge, step.scores)
        except Exception as error:  # whatever the rows of one make of it, the others go on
            if is_passing(error):
                raise
            metrics.TURNS_FAILED.labels("end_challenges").inc()
            logger.exception("challenge_end_failed", challenge=str(challenge))
            continue
        if step.more:
            left.append((challenge, step.after))
            steps += 1
    return steps


async def unfinished(deps: Deps) -> list[UUID]:
    """Challenges of which something is left to do, as soon as it can be done."""
    return await scores.unfinished(deps.pool, deps.now())


async def go_on(deps: Deps, challenge: UUID, after: UUID = FIRST) -> Step:
    """Take the next step of a challenge, with participants beyond `after`."""
    row, now = await rows.one(deps.pool, challenge), deps.now()
    if row is None or row.closed_at is not None:
        return DONE
    if row.cancelled_at is not None:
        return await _tell(deps, row, "cancelled", after)
    if now < row.ends_at:
        return DONE
    if row.ended_at is None:
        return await _tell(deps, row, "ended", after)
    if row.settled_at is not None:
        return await _tell(deps, row, "settled", after)
    if row.settling_at is None:
        if not await is_final(deps, row, now):
            return DONE
        await in_transaction(deps.pool, partial(_mark, deps, challenge, "settling"))
    return await _settle(deps, row, after)


async def is_final(deps: Deps, row: ChallengeRow, now: datetime) -> bool:
    """Whether no enabled chain can change the window any more, or has been waited for long enough."""
    if now >= row.ends_at + timedelta(hours=deps.settings.challenge_settle_wait_hours):
        return True
    times = await scores.final_times(deps.pool, sorted(deps.chains))
    return all(time is not None and time >= row.ends_at for time in times.values())


async def _mark(deps: Deps, challenge: UUID, what: Literal["settling", "settled"], tx: Tx) -> None:
    await rows.locked(tx, challenge)
    await rows.mark(tx, challenge, what, at=deps.now())


# Settling ----------------------------------------------------------------------------------------------------------


async def _settle(deps: Deps, row: ChallengeRow, after: UUID) -> Step:
    """Measure some for good; then, best first, give some their ranks; then it is settled."""
    left = await scores.not_final(deps.pool, row.id, after=after, limit=BATCH)
    if left:
        users = [part.user for part in left]
        try:
            await in_transaction(deps.pool, partial(_take_scores, deps, row.id, users))
        except Exception as error:  # one who can't be measured any more holds up nobody: their last score is final
            if is_passing(error):
                raise
            logger.exception("final_measuring_failed", challenge=str(row.id))
            for user in users:
                await _take_score(deps, row.id, user)
        known = await scores.scores(deps.pool, row.id, users)
        return Step(more=True, after=left[-1].participant_id, scores=list(known.values()))
    if after != FIRST:
        return Step(more=True)  # once more from the beginning: nobody is left out
    if not await in_transaction(deps.pool, partial(_give_ranks, deps, row.id)):
        logger.info("challenge_settled", challenge=str(row.id), participants=row.participants)
    return Step(more=True)


async def _take_scores(deps: Deps, challenge: UUID, users: Sequence[Address], tx: Tx) -> None:
    await log.lock(tx, users)
    await look_at(tx, [Member(challenge, user) for user in users], now=deps.now(), final=True)


async def _take_score(deps: Deps, challenge: UUID, user: Address) -> None:
    try:
        await in_transaction(deps.pool, partial(_take_scores, deps, challenge, [user]))
    except Exception as error:
        if is_passing(error):
            raise
        await in_transaction(deps.pool, partial(scores.keep_score, challenge, user))


async def _give_ranks(deps: Deps, challenge: UUID, tx: Tx) -> bool:
    """Whether there were some to rank; without any the challenge is settled from this moment on."""
    row = await rows.locked(tx, challenge)
    if row is None or row.settled_at is not None:
        return False
    if await scores.give_ranks(tx, challenge, limit=RANKS):
        return True
    await rows.mark(tx, challenge, "settled", at=deps.now())
    return False


# Telling -----------------------------------------------------------------------------------------------------------


async def _tell(deps: Deps, row: ChallengeRow, told: Told, after: UUID) -> Step:
    """Tell some participants; after the last of them the creator who takes no part, and then that is done."""
    left = await scores.untold(deps.pool, row.id, LEVEL[told], after=after, limit=BATCH)
    if left:
        frames = await in_transaction(deps.pool, partial(_tell_some, deps, row, told, [part.user for part in left]))
    elif after != FIRST:
        return Step(more=True)
    else:
        frames = await in_transaction(deps.pool, partial(_tell_last, deps, row, told))
    await deps.publisher.publish([(frame.user, frame.text) for frame in frames])
    if told == "settled" and frames:
        await deps.publisher.wake(keys.JOBS_WAKE)
    return Step(more=True, after=left[-1].participant_id) if left else Step(more=STAMP[told] == "ended")


async def _tell_some(deps: Deps, row: ChallengeRow, told: Told, users: Sequence[Address], tx: Tx) -> list[Frame]:
    counters = await log.lock(tx, users)
    now = deps.now()
    parts = await rows.parts(tx, [Member(row.id, user) for user in users])
    # Another worker may have told them until the lock was ours.
    due = [part for part in parts.values() if part.left_at is None and part.told < LEVEL[told]]
    if not due:
        return []
    drafts = await _drafts(deps, tx, row, told, due, now=now)
    inboxes = await _inboxes(tx, row, due, drafts, now=now) if told == "settled" else []
    await scores.set_told(tx, row.id, [part.user for part in due], LEVEL[told])
    await notifications.record(tx, [notice for inbox in inboxes for notice in inbox.kept])
    frames = await log.append(tx, counters, drafts, at=now)
    intents = [intent for inbox in inboxes for intent in inbox.intents]
    await pushes.record(tx, intents, at=now, hold_s=deps.settings.push_hold_s)
    return frames


async def _drafts(
    deps: Deps, tx: Tx, row: ChallengeRow, told: Told, parts: Sequence[ParticipantRow], *, now: datetime
) -> list[Draft]:
    found = await scores.winners(tx, [row.id], ranks=rules.WINNERS, limit=rules.WINNERS_SHOWN)
    winners = found[row.id] if told == "settled" else []
    users = [part.user for part in parts]
    hidden = await scores.strangers(tx, users, [each.user for each in winners]) if winners else {}
    drafts: list[Draft] = []
    for part in parts:
        shown = rules.resource(
            row,
            part.user,
            part,
            now=now,
            winners=winners,
            hidden=hidden.get(part.user, ()),
            cdn_url=deps.settings.cdn_url,
        )
        drafts.append(rules.draft(part.user, shown, told))
    return drafts


async def _inboxes(
    tx: Tx, row: ChallengeRow, parts: Sequence[ParticipantRow], drafts: list[Draft], *, now: datetime
) -> list[Inbox]:
    """What goes into inboxes and, by what each wants, to phones; `drafts` are what it is about, and grow by it."""
    users = [part.user for part in parts]
    about = {draft.user: draft.event_id for draft in drafts}
    allowed, unread = await notifications.allowed(tx, users), await notifications.unread(tx, users)
    inboxes = {user: Inbox(user, allowed[user], unread[user]) for user in users}
    for part in parts:
        assert part.final_rank is not None  # settled
        notice = rules.settled_notice(part.user, row, part.final_rank, about=about[part.user], at=now)
        drafts += inboxes[part.user].add(notice, None)
    return list(inboxes.values())


async def _tell_last(deps: Deps, row: ChallengeRow, told: Told, tx: Tx) -> list[Frame]:
    counters: Mapping[Address, Counter] = await log.lock(tx, [row.creator] if row.creator is not None else [])
    locked, now = await rows.locked(tx, row.id), deps.now()
    if locked is None:
        return []
    drafts: list[Draft] = []
    if locked.creator is not None and locked.creator in counters:
        part = await rows.participation(tx, row.id, locked.creator)
        if part is None or part.left_at is not None:
            shown = (await resources(deps, tx, locked.creator, [locked], at=now))[0]
            drafts.append(rules.draft(locked.creator, shown, told))
    await rows.mark(tx, row.id, STAMP[told], at=now)
    return await log.append(tx, counters, drafts, at=now)
