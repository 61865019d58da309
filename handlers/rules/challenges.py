"""Challenges: in which state one is, how far a participant is, and what of it anyone is shown. Pure.

Everybody is measured over the same window, and by what was theirs when they first joined. Only what happens from then
on counts, against the whole window: who comes late has less time for the same, and nobody picks a good past.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from typing import Literal
from zoneinfo import ZoneInfo

from handlers.events import ChallengeUpdate
from handlers.rules.calendar import DAY, month_of
from handlers.rules.friends import SOMEONE, avatar
from handlers.rules.ids import event_id
from handlers.rules.money import dollars
from handlers.rules.periods import iso
from handlers.rules.prices import EXACT
from handlers.rules.wire import ratio
from store.challenge_scores import PRICE_PLACES, Saved, Spent, WinnerRow
from store.challenges import ChallengeRow, Frozen, LinkRow, ParticipantRow
from store.notifications import Notice
from store.records import Address, Draft

State = Literal["upcoming", "running", "ended", "settled", "cancelled"]

WHOLE = 10_000
"""Basis points of all."""
MOST = 2**53 - 1
"""No score is higher: sorted sets hold doubles."""
WINNERS = 3
"""Places that are told to everyone."""
WINNERS_SHOWN = 10
"""Winners that are told at most, since any number may share a place."""
NOON = timedelta(hours=12)
ANY_SIZE = Context(prec=500)
"""For cents of amounts that a hostile token may make as large as it likes."""

INVITED_KIND, SETTLED_KIND = "challenge_invited", "challenge_settled"


@dataclass(frozen=True, slots=True)
class Measured:
    """How far a participant is: an exact score (more is better), dollars behind it (None where days are counted).

    `unpriced` amounts count nothing in it; `due_at` is when the clock alone changes it next (None: never).
    """

    score: int
    amount: Decimal | None = None
    unpriced: int = 0
    due_at: datetime | None = None


def state(row: ChallengeRow, now: datetime) -> State:
    """In which state a challenge is."""
    if row.cancelled_at is not None:
        return "cancelled"
    if row.settled_at is not None:
        return "settled"
    # Once it was told it is so for everyone, also for a process whose clock is behind.
    if now >= row.ends_at or row.ended_at is not None:
        return "ended"
    return "running" if now >= row.starts_at else "upcoming"


def since(challenge: ChallengeRow, joined_at: datetime) -> datetime:
    """From when on what a participant does counts."""
    return max(challenge.starts_at, joined_at)


# Measures ----------------------------------------------------------------------------------------------------------


def saved(challenge: ChallengeRow, moved: Iterable[Saved]) -> Measured:
    """`savings_progress`: what was set aside and is still there, as a part of the target.

    Per token, what went in less what came out: the same money moved to and fro is nothing. What stayed counts at the
    lowest price at which any of it came in, what was taken of older savings at the highest: a better moment to move the
    same money gains nothing either.
    """
    assert challenge.target is not None
    total, unpriced = 0, 0
    for token in moved:
        net = token.ins - token.outs
        total += net * ((token.lowest if net > 0 else token.highest) or 0)
        unpriced += token.unpriced
    dollar = 10**PRICE_PLACES
    score = total * WHOLE * 100 // (int(challenge.target * 100) * dollar)
    amount = Decimal(total * 100 // dollar).scaleb(-2, ANY_SIZE)
    return Measured(_bounded(score), amount, unpriced)


def kept(challenge: ChallengeRow, frozen: Frozen, begins: datetime, spent: Spent) -> Measured:
    """`budget_kept`: the part of the window's budget that was neither spent nor gone before they joined."""
    zone = ZoneInfo(frozen.time_zone)
    budget = frozen.monthly_budget or Decimal(0)
    whole = budget_of(budget, challenge.starts_at, challenge.ends_at, zone)
    if not whole:
        return Measured(0, spent.usd, spent.unpriced)
    left = budget_of(budget, begins, challenge.ends_at, zone) - Fraction(spent.usd)
    return Measured(_bounded(left * WHOLE // whole), spent.usd, spent.unpriced)


def budget_of(monthly: Decimal, start: datetime, end: datetime, zone: ZoneInfo) -> Fraction:
    """What a monthly budget is for a span: of each calendar month in it, as much as lies in it."""
    total, at = Fraction(0), start
    while at < end:
        month = month_of(at, zone)
        until = min(month.end, end)
        total += Fraction(_us(until - at), _us(month.length))
        at = until
    return total * Fraction(monthly)


def _us(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def free(challenge: ChallengeRow, frozen: Frozen, begins: datetime, spent: Spent, *, now: datetime) -> Measured:
    """`no_spend_days`: days that have ended without a spend."""
    days = days_of(begins, challenge.ends_at, ZoneInfo(frozen.time_zone))
    over = [day for day, end in days if min(end, challenge.ends_at) <= now]
    ahead = [min(end, challenge.ends_at) for _, end in days[len(over) :]]
    count = sum(day not in spent.days for day in over)
    return Measured(count, due_at=ahead[0] if ahead else None)


def days_of(start: datetime, end: datetime, zone: ZoneInfo) -> list[tuple[date, datetime]]:
    """Days of a zone that belong to a span, each with its end: those whose noon lies in it.

    So a span of whole days has as many of them in every zone, wherever midnight falls.
    """
    day = start.astimezone(zone).date()
    found: list[tuple[date, datetime]] = []
    while (noon := _at(day, 12, zone)) < end:
        if noon >= start:
            found.append((day, _at(day + DAY, 0, zone)))
        day += DAY
    return found


def _at(day: date, hour: int, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=zone).astimezone(UTC)


def _bounded(score: int) -> int:
    """Never below nothing: who is behind where they began is not behind the others who are."""
    return max(0, min(score, MOST))


def measured(
    challenge: ChallengeRow,
    frozen: Frozen,
    joined_at: datetime,
    *,
    moved: Iterable[Saved] = (),
    spent: Spent,
    now: datetime,
) -> Measured:
    """How far somebody is, by the challenge's measure."""
    begins = since(challenge, joined_at)
    if challenge.measure == "savings_progress":
        return saved(challenge, moved)
    if challenge.measure == "budget_kept":
        return kept(challenge, frozen, begins, spent)
    return free(challenge, frozen, begins, spent, now=now)


def progress(challenge: ChallengeRow, score: int) -> str:
    """A score as a part of all there is; days of the days that the window has."""
    if challenge.measure == "no_spend_days":
        days = max(1, round((challenge.ends_at - challenge.starts_at) / DAY))
        return ratio(EXACT.divide(Decimal(score), Decimal(days)))
    return ratio(EXACT.divide(Decimal(score), Decimal(WHOLE)))


# What is shown -----------------------------------------------------------------------------------------------------


def resource(
    row: ChallengeRow,
    user: Address,
    part: ParticipantRow | None,
    *,
    now: datetime,
    winners: Sequence[WinnerRow] = (),
    hidden: Collection[Address] = (),
    cdn_url: str,
) -> dict[str, object]:
    """A challenge as one user sees it; of `hidden` winners they see neither name nor picture."""
    mine = part if part is not None and part.left_at is None else None
    return {
        "id": str(row.id),
        "name": row.name,
        "description": row.description,
        "measure": row.measure,
        "visibility": row.visibility,
        "startsAt": iso(row.starts_at),
        "endsAt": iso(row.ends_at),
        "state": state(row, now),
        "target": dollars(row.target) if row.target is not None else None,
        "participantCount": row.participants,
        "isCreator": row.creator == user,
        "joined": mine is not None,
        "myProgress": progress(row, mine.score) if mine else None,
        "myAmount": dollars(mine.amount) if mine and mine.amount is not None else None,
        "myUnpriced": mine.unpriced if mine else 0,
        "myRank": mine.final_rank if mine else None,
        "winners": [_winner(row, each, each.user in hidden, cdn_url) for each in winners],
    }


def _winner(row: ChallengeRow, each: WinnerRow, hidden: bool, cdn_url: str) -> dict[str, object]:
    return {
        "rank": each.rank,
        "displayName": SOMEONE if hidden else each.display_name or SOMEONE,
        "avatarUrl": None if hidden else avatar(each.avatar_url, cdn_url),
        "progress": progress(row, each.score),
    }


def link(row: LinkRow) -> dict[str, object]:
    """An invitation link without its token."""
    return {
        "id": str(row.id),
        "usesLeft": row.uses_left,
        "expiresAt": iso(row.expires_at),
        "createdAt": iso(row.created_at),
    }


def draft(user: Address, shown: Mapping[str, object], *cause: object) -> Draft:
    """`challenge_update` of a challenge as it is shown; its id is made of random ids and never of an address."""
    return Draft(
        user=user,
        event_id=event_id(ChallengeUpdate.name, shown["id"], *cause),
        event=ChallengeUpdate.name,
        version=ChallengeUpdate.version,
        body={"challenge": dict(shown)},
    )


def invited_notice(user: Address, row: ChallengeRow, inviter: str | None, *, about: str, at: datetime) -> Notice:
    """The inbox entry of somebody who was invited: by name alone."""
    name = inviter or SOMEONE
    return Notice(
        user=user,
        event_id=about,
        kind=INVITED_KIND,
        title="Challenge",
        body=f"{name} invites you to “{row.name}”.",
        severity="info",
        transaction_id=None,
        created_at=at,
        facts={"name": name, "challenge": row.name, "challenge_id": str(row.id)},
        subject=f"{INVITED_KIND}:{row.id}",
    )


def settled_notice(user: Address, row: ChallengeRow, rank: int, *, about: str, at: datetime) -> Notice:
    """The inbox entry of how a challenge ended for somebody."""
    return Notice(
        user=user,
        event_id=about,
        kind=SETTLED_KIND,
        title=f"“{row.name}” is settled",
        body=f"You are number {rank} of {row.participants}.",
        severity="info",
        transaction_id=None,
        created_at=at,
        facts={"challenge": row.name, "rank": rank, "count": row.participants, "challenge_id": str(row.id)},
        subject=f"{SETTLED_KIND}:{row.id}",
    )
