"""What a user may learn of what friends spend: a band of many, never a figure, never of a few. Pure.

Everything that is told is a function of each member's band. So nothing that happens within a band can be seen, whoever
asks, however often, and whoever joins or leaves.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Literal

COHORT_LEAST = 5
"""People beside the user whom an answer must be about (DOMAIN section 3)."""
CHANGE_LEAST = 5
"""People that must have joined, or left, for another answer, if any did: the difference of two answers is one, too."""
EDGES = tuple(map(Decimal, (50, 150, 400, 1000, 2500)))
"""Dollars a month at which bands begin: each about two and a half times the one before, so that a band tells a way of
living and not an amount. The lowest begins at nothing: whether someone spent anything is not told."""
SETTLED = timedelta(hours=12)
"""Time after a month's end (UTC) until it has ended in every time zone."""

Withheld = Literal["too_few", "no_consent", "cohort_changed", "no_data"]


@dataclass(frozen=True, slots=True)
class Past:
    """A month that was answered, and of whom."""

    month: date
    members: frozenset[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a question: release the month's figures, or answer from `month` (None: not at all), and why."""

    release: bool
    month: date | None
    withheld: Withheld | None


def month_closed(now: datetime) -> date:
    """First day of the last month that has ended for everybody."""
    first = (now.astimezone(UTC) - SETTLED).date().replace(day=1)
    return (first - timedelta(days=1)).replace(day=1)


def band(spent: Decimal) -> int:
    """Number of the band that an amount lies in."""
    return bisect_right(EDGES, spent)


def shown(number: int) -> dict[str, str | None]:
    """A band as dollars: from, and below what; the highest has no end."""
    low = EDGES[number - 1] if number else Decimal(0)
    high = EDGES[number] if number < len(EDGES) else None
    return {"from": f"{low:.2f}", "below": None if high is None else f"{high:.2f}"}


def median(bands: Iterable[int]) -> int:
    """The band of the one in the middle, the lower of two: always the band of somebody, never a mean."""
    ordered = sorted(bands)
    return ordered[(len(ordered) - 1) // 2]


def may_follow(cohort: Collection[str], past: Collection[str]) -> bool:
    """Whether an answer about a cohort may stand beside one about another: nobody, or many, make the difference."""
    joined, left = set(cohort) - set(past), set(past) - set(cohort)
    return all(not some or len(some) >= CHANGE_LEAST for some in (joined, left))


def decide(
    cohort: Collection[str], present: Collection[str], past: Sequence[Past], *, month: date, consents: bool
) -> Verdict:
    """How a question about `month` is answered; nothing of what anyone spent is looked at for it.

    `cohort`: friends who consent; `present`: those of them who were users when the month ended.
    """
    if not consents:
        return Verdict(False, None, "no_consent")
    if len(cohort) < COHORT_LEAST:
        return Verdict(False, None, "too_few")
    if any(each.month == month for each in past):
        return Verdict(False, month, None)
    last = max((each.month for each in past), default=None)
    if len(present) < COHORT_LEAST:
        return Verdict(False, last, "no_data")
    if not all(may_follow(present, each.members) for each in past):
        return Verdict(False, last, "cohort_changed")
    return Verdict(True, month, None)
