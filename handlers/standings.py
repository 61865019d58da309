"""Live standings of challenges: kept in Redis after every change of scores, told to those whom a change concerns.

PostgreSQL has the scores and is the truth; what is here is made from it and may be lost at any time. Who reads is
answered by Redis, else by PostgreSQL; who is told is told once at most, best effort.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import structlog

from config import keys, metrics
from handlers.deps import Deps
from handlers.rules import standings as shapes
from handlers.rules.challenges import progress
from store import challenges, outbox, standings
from store.challenges import ChallengeRow, ParticipantRow
from store.leaderboards import Due, Leaderboards, NotBuilt, Pace, Place, Ranked, Standing
from store.postgres import Pool, frozen
from store.records import Address
from store.redis import AWAY
from store.standings import TOP

log = structlog.get_logger(__name__)

REPAIR = "repair_standings"
"""Job that makes one challenge's standings in Redis what PostgreSQL says."""
LIVE = frozenset({"running", "ended"})
"""States of a challenge in which ranks are live; before them everybody has the same, after them ranks are final."""
WAITING_AT_ONCE = 20
"""Challenges whose waiting participants are told in one turn."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, best first, and the place after which the next page begins (None: there is none)."""

    resources: Sequence[Mapping[str, object]]
    next: Place | None


# After a commit ----------------------------------------------------------------------------------------------------


async def changed(deps: Deps, boards: Leaderboards, challenge: UUID, rows: Sequence[Standing]) -> None:
    """Bring standings up to rows that a transaction has just committed, and tell whom that concerns.

    Nothing is raised while Redis is away: the standings are compared once it is back.
    """
    with metrics.STANDINGS_SECONDS.time():
        try:
            due = await _taken(deps, boards, challenge, rows)
        except AWAY as error:
            log.warning("standings_wait_for_redis", challenge=str(challenge), reason=repr(error))
            await ask_repair(deps, challenge)
            return
        await tell(deps, challenge, due)


async def _taken(deps: Deps, boards: Leaderboards, challenge: UUID, rows: Sequence[Standing]) -> list[Due]:
    try:
        return await boards.apply(challenge, rows, _pace(deps))
    except NotBuilt as missing:
        # Who builds them has these rows: from the database, or from the journal.
        if missing.building or await rebuild(deps, boards, challenge) is None:
            return []
    return await boards.tell(challenge, [row.id for row in rows if row.score is not None], _pace(deps))


async def tell(deps: Deps, challenge: UUID, due: Sequence[Due]) -> None:
    """Publish to each their own place; to those who left meanwhile nothing."""
    if not due:
        return
    row = await challenges.one(deps.pool, challenge)
    if row is None:
        return
    users = await standings.recipients(deps.pool, challenge, [each.id for each in due])
    told = [
        (user, shapes.update(challenge, each, progress(row, each.score)))
        for each in due
        if (user := users.get(each.id)) is not None
    ]
    await deps.publisher.publish(told)
    metrics.STANDINGS_TOLD.inc(len(told))


async def tell_waiting(deps: Deps, boards: Leaderboards) -> int:
    """Tell those who moved again within the interval; returns how many."""
    count = 0
    for challenge in await boards.waiting(_pace(deps).now_ms, limit=WAITING_AT_ONCE):
        due = await boards.flush(challenge, _pace(deps))
        await tell(deps, challenge, due)
        count += len(due)
    return count


def _pace(deps: Deps) -> Pace:
    return Pace(int(deps.now().timestamp() * 1000), int(deps.settings.leaderboard_interval_s * 1000))


# Made again --------------------------------------------------------------------------------------------------------


async def rebuild(deps: Deps, boards: Leaderboards, challenge: UUID) -> int | None:
    """Make a challenge's standings again from PostgreSQL; None where somebody else is at it."""
    count = await boards.rebuild(challenge, partial(standings.every_row, deps.pool, challenge))
    if count is not None:
        metrics.STANDINGS_REBUILT.inc()
        log.info("standings_rebuilt", challenge=str(challenge), participants=count)
    return count


async def repair(deps: Deps, boards: Leaderboards, challenge: UUID) -> int:
    """Make standings equal what PostgreSQL says; returns how many participants differed (-1: all were missing).

    A row that is newer than what Redis has is on its way, or was lost: taken in again it does no harm. Whatever else
    differs can't be (Redis never knows more than was committed, unless PostgreSQL was restored), so all is made again.
    """
    try:
        wrong = await _compared(deps, boards, challenge)
    except NotBuilt:
        await rebuild(deps, boards, challenge)
        return -1
    if wrong is None:
        log.error("standings_differ", challenge=str(challenge))
        await rebuild(deps, boards, challenge)
        return 1
    await boards.keep(challenge)
    return wrong


async def _compared(deps: Deps, boards: Leaderboards, challenge: UUID) -> int | None:
    """How many rows Redis lacked, which it has now; None where it has what can't be."""
    lacked, known = 0, set[UUID]()
    async for rows in standings.every_row(deps.pool, challenge):
        ids = [row.id for row in rows]
        known.update(row.id for row in rows if row.score is not None)
        states = await boards.states(challenge, ids)
        differing = [row.id for row, state in zip(rows, states, strict=True) if row != state]
        if not differing:
            continue
        # Redis first, PostgreSQL after it: what it had was committed before these rows are read.
        had = dict(zip(ids, states, strict=True))
        now = await standings.rows_of(deps.pool, challenge, differing)
        if not all(is_behind(had[id_], now.get(id_)) for id_ in differing):
            return None
        late = [row for id_, row in now.items() if row != had[id_]]
        await boards.apply(challenge, late, _pace(deps))
        lacked += len(late)
    strangers = [id_ async for ids in boards.members(challenge) for id_ in ids if id_ not in known]
    rows_now = await standings.rows_of(deps.pool, challenge, strangers) if strangers else {}
    return None if any(id_ not in rows_now for id_ in strangers) else lacked


def is_behind(state: Standing | None, row: Standing | None) -> bool:
    """Whether what Redis had may come from an earlier version of a row, or is it."""
    if state is None or row is None:
        return row is not None
    return state.change < row.change or state == row


async def ask_repair(deps: Deps, challenge: UUID) -> None:
    """Have a worker compare a challenge's standings, and make them again where they are gone."""
    await _request(deps.pool, challenge)
    await deps.publisher.wake(keys.JOBS_WAKE)


async def _request(pool: Pool, challenge: UUID) -> None:
    async with pool.acquire() as conn, conn.transaction():
        await outbox.request(conn, "quick", REPAIR, {"challengeId": str(challenge)})


# What users read ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class View:
    """Whose leaderboard is read: the challenge, who reads, and their own part in it (None: they take none)."""

    challenge: ChallengeRow
    user: Address
    me: Place | None


@dataclass(frozen=True, slots=True)
class Span:
    """What of it is read: places after one (None: from the first), or those around the reader."""

    limit: int
    after: Place | None = None
    around: bool = False


def place_of(challenge: ChallengeRow, part: ParticipantRow | None) -> Place | None:
    """The place of someone who takes part; None for one who does not, or not any more."""
    if part is None or part.left_at is not None:
        return None
    if challenge.settled_at is not None:
        return None if part.final_score is None else Place(part.final_score, part.participant_id)
    return Place(part.score, part.participant_id)


async def ranks(deps: Deps, boards: Leaderboards, user: Address, ids: Sequence[UUID]) -> Mapping[UUID, int]:
    """Ranks of a user in these challenges, as far as they take part in them; of challenges that are not settled."""
    mine = await standings.own(deps.pool, user, ids)
    found: dict[UUID, int] = {}
    for challenge, place in mine.items():
        try:
            if (ranked := await boards.ranked(challenge, place.id)) is not None:
                found[challenge] = ranked.rank
        except NotBuilt as error:
            await _missed(deps, challenge, error)
        except AWAY as error:
            await _missed(deps, challenge, error)
            break  # one wait for a Redis that does not answer is enough
    for challenge in mine.keys() - found.keys():
        found[challenge] = await standings.rank(deps.pool, challenge, mine[challenge])
    return found


async def with_ranks(
    deps: Deps, boards: Leaderboards, user: Address, shown: Sequence[Mapping[str, object]]
) -> Sequence[Mapping[str, object]]:
    """Challenges as a user sees them, with the user's rank now in those that go on."""
    open_ = [UUID(str(each["id"])) for each in shown if each["joined"] and each["state"] in LIVE]
    found = await ranks(deps, boards, user, open_) if open_ else {}
    return [{**each, "myRank": found.get(UUID(str(each["id"])), each["myRank"])} for each in shown]


async def listed(deps: Deps, boards: Leaderboards, view: View, span: Span) -> Page:
    """Places of a leaderboard, best first, as a user sees them."""
    if view.challenge.settled_at is not None:
        found = await _final(deps, view, span)
    else:
        found = await _live(deps, boards, view, span)
    return await _page(deps, view, found, limit=span.limit)


async def _live(deps: Deps, boards: Leaderboards, view: View, span: Span) -> list[Ranked]:
    challenge, me = view.challenge.id, view.me
    try:
        if span.around and me is not None:
            return await boards.around(challenge, me.id, limit=span.limit)
        return await boards.page(challenge, span.after, limit=span.limit + 1)
    except (NotBuilt, *AWAY) as error:
        await _missed(deps, challenge, error)
    async with frozen(deps.pool) as tx:
        if span.around and me is not None:
            return await standings.around(tx, challenge, me, limit=span.limit)
        return await standings.page(tx, challenge, span.after or TOP, limit=span.limit + 1)


async def _final(deps: Deps, view: View, span: Span) -> list[Ranked]:
    challenge, me = view.challenge.id, view.me
    async with frozen(deps.pool) as tx:
        if span.around and me is not None:
            return await standings.final_around(tx, challenge, me, limit=span.limit)
        return await standings.final_page(tx, challenge, span.after or TOP, limit=span.limit + 1)


async def _page(deps: Deps, view: View, found: Sequence[Ranked], *, limit: int) -> Page:
    first = found[:limit]
    ids, cdn = [each.id for each in first], deps.settings.cdn_url
    people = await standings.people(deps.pool, view.challenge.id, ids, viewer=view.user)
    # Who left since is not there any more.
    entries = [
        shapes.entry(each, people[each.id], progress(view.challenge, each.score), cdn_url=cdn)
        for each in first
        if each.id in people
    ]
    last = first[-1] if len(found) > limit else None
    return Page(entries, last and Place(last.score, last.id))


async def _missed(deps: Deps, challenge: UUID, error: Exception) -> None:
    """Redis does not say: PostgreSQL is asked, and where only the standings are gone a worker makes them again."""
    metrics.STANDINGS_MISSED.inc()
    if isinstance(error, NotBuilt) and not error.building:
        await ask_repair(deps, challenge)
