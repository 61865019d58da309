"""How far participants of challenges are: measured from the ledger when it changed, and when a day has ended.

Nothing is added up over time. Whoever changes what counts asks for a job; it locks the users it is about, reads what
decides, and writes scores where they differ: run twice, late or in any order, it comes to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

import structlog

from handlers.deps import Deps
from handlers.one_by_one import one_by_one
from handlers.rules import challenges as rules
from store import challenge_scores as scores
from store import challenges as rows
from store import log
from store.challenge_scores import ScoreChange, ScoreRow, Spent
from store.challenges import Frozen, Member
from store.log import Counter
from store.outbox import Claim
from store.postgres import Tx, in_transaction, is_passing
from store.records import Address, BlockRef, Frame

logger = structlog.get_logger(__name__)

MEASURE = "measure_challenges"
"""Job that measures whom a block concerns, or one user, in their challenges."""
USERS_AT_ONCE = 100
"""Users measured by one transaction: some 50 ms in which no block of theirs goes on."""

Rows = Mapping[UUID, Sequence[ScoreRow]]
"""Of each challenge the rows that standings are to be brought up to."""


# Asking ------------------------------------------------------------------------------------------------------------


async def request_of_block(tx: Tx, chain_id: int, ref: BlockRef, users: Iterable[Address]) -> None:
    """Ask for those whom a block concerns to be measured, when it came and when it went; nothing without any."""
    await scores.request_measure(tx, MEASURE, {"chainId": chain_id, "hash": ref.hash}, users)


async def request_of_users(tx: Tx, users: Iterable[Address]) -> None:
    """The same for users of whom something else changed that counts."""
    for user in sorted(users):
        await scores.request_measure(tx, MEASURE, {"user": user}, [user])


# Measuring ---------------------------------------------------------------------------------------------------------


async def measure(deps: Deps, claim: Claim) -> Rows:
    """Measure whom a request names; returns all of their rows, so that standings lost on the way are found again."""
    args = claim.args
    if "challengeId" in args:
        members = [Member(UUID(args["challengeId"]), args["user"])]
    else:
        users = [args["user"]] if "user" in args else await scores.of_block(deps.pool, args["chainId"], args["hash"])
        members = await scores.running_of(deps.pool, users)
    return await measure_members(deps, members)


async def measure_due(deps: Deps, *, limit: int) -> tuple[int, Rows]:
    """Measure those whose day has ended, at most so many; returns how many there were."""
    members = await scores.due(deps.pool, deps.now(), limit=limit)
    return len(members), await measure_members(deps, members)


async def measure_members(deps: Deps, members: Sequence[Member]) -> Rows:
    """Measure these, some users at a time; one whose rows can't be measured costs only themselves."""
    of: dict[Address, list[Member]] = {}
    for member in members:
        of.setdefault(member.user, []).append(member)
    users = sorted(of)
    for start in range(0, len(users), USERS_AT_ONCE):
        part = users[start : start + USERS_AT_ONCE]
        try:
            await in_transaction(deps.pool, partial(_measure_locked, deps, [m for user in part for m in of[user]]))
        except Exception as error:  # whatever one user's rows make of it, the others go on
            if is_passing(error):
                raise
            logger.exception("measuring_failed", users=len(part))
            await one_by_one(deps, [(user, partial(_turn, deps, of[user])) for user in part], name="measure_challenges")
    found: dict[UUID, list[Address]] = {}
    for member in members:
        found.setdefault(member.challenge_id, []).append(member.user)
    return {key: list((await scores.scores(deps.pool, key, who)).values()) for key, who in found.items()}


async def _measure_locked(deps: Deps, members: Sequence[Member], tx: Tx) -> None:
    await log.lock(tx, {member.user for member in members})
    await look_at(tx, members, now=deps.now())


async def _turn(deps: Deps, members: Sequence[Member], tx: Tx, _: Mapping[Address, Counter]) -> Sequence[Frame]:
    await look_at(tx, members, now=deps.now())
    return []


async def look_at(tx: Tx, members: Sequence[Member], *, now: datetime, final: bool = False) -> None:
    """Write how far these are, of challenges that go on; their users are locked. `final`: for good."""
    found = await rows.of_ids(tx, {member.challenge_id for member in members})
    parts = {
        member: part
        for member, part in (await rows.parts(tx, members)).items()
        if part.left_at is None
        and part.final_score is None
        and found[member.challenge_id].cancelled_at is None
        and (final or found[member.challenge_id].settling_at is None)
    }
    saving = [member for member in parts if found[member.challenge_id].measure == "savings_progress"]
    moved = await scores.saved(tx, saving)
    spent = await scores.spent(tx, [member for member in parts if member not in set(saving)])
    changes: list[ScoreChange] = []
    for member, part in parts.items():
        made = rules.measured(
            found[member.challenge_id],
            Frozen(part.time_zone, part.monthly_budget, part.buckets),
            part.joined_at,
            moved=moved.get(member, ()),
            spent=spent.get(member, Spent()),
            now=now,
        )
        changes.append(
            ScoreChange(member.challenge_id, member.user, made.score, made.amount, made.unpriced, made.due_at)
        )
    await scores.set_scores(tx, changes, at=now, final=final)
