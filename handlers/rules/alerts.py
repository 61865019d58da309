"""Budget alerts are edges, not levels: once per period and scope, armed again only after falling well below. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from handlers.rules.calendar import DAY

REARM_POINTS = 5
"""Percentage points below an edge at which it may alert again: a figure that trembles on an edge alerts once."""

PROJECTION_AFTER_DAYS = 3
"""Days of a period before its pace is believed."""

OVER = "over"
PROJECTED = "projected"

AlertType = Literal["threshold", "over_budget", "projected_overrun"]
Severity = Literal["info", "warning", "critical"]


@dataclass(frozen=True, slots=True)
class Level:
    """A budget at one moment: spent and budget in one unit (dollars or raw), and what it will be at this pace."""

    spent: Decimal
    budget: Decimal
    projected: Decimal
    period_start: datetime

    def reaches(self, percent: int) -> bool:
        """Whether spending is at or above this part of the budget."""
        return self.budget > 0 and self.spent * 100 >= self.budget * percent

    def is_below(self, percent: int) -> bool:
        """Whether it has fallen far enough below an edge for it to alert again."""
        return self.spent * 100 < self.budget * (percent - REARM_POINTS)


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge that was crossed in this period; `armed` when it may alert again.

    `round` counts how often spending fell far enough below it since: a crossing in a later round is told anew, while
    one that a reorg took back and that comes again is the same effect.
    """

    name: str
    event_id: str
    armed: bool
    round: int = 1


@dataclass(frozen=True, slots=True)
class Crossing:
    """An alert to be told: the highest edge crossed at once, and every edge that counts as told with it."""

    type: AlertType
    threshold: int | None
    severity: Severity
    edges: tuple[str, ...]


def crossing(level: Level, known: Mapping[str, Edge], *, thresholds: Sequence[int], now: datetime) -> Crossing | None:
    """What to alert now, if anything. Several edges crossed at once are one alert, of the highest."""
    passed = [t for t in thresholds if level.reaches(t) and _free(known, str(t))]
    over = level.spent > level.budget and _free(known, OVER)
    edges = (*map(str, passed), *((OVER,) if over else ()))
    if over:
        return Crossing("over_budget", None, "critical", edges)
    if passed:
        top = max(passed)
        return Crossing("threshold", top, "info" if top < 80 else "warning", edges)
    week = _projection_edge(level, known, now)
    return Crossing("projected_overrun", None, "warning", (week,)) if week else None


def rearmed(level: Level, known: Iterable[Edge]) -> list[str]:
    """Edges that spending has fallen far enough below to alert again."""
    return [edge.name for edge in known if not edge.armed and _fell(level, edge.name, level.is_below)]


def undone(level: Level, known: Iterable[Edge]) -> list[Edge]:
    """Edges that would not have been crossed without what was just taken back: corrected, and armed again."""
    return [edge for edge in known if not edge.armed and _fell(level, edge.name, lambda p: not level.reaches(p))]


def _free(known: Mapping[str, Edge], name: str) -> bool:
    return name not in known or known[name].armed


def _fell(level: Level, name: str, below: Callable[[int], bool]) -> bool:
    if name == OVER:
        return level.spent <= level.budget
    if name.startswith(PROJECTED):
        return level.projected <= level.budget
    return below(int(name))


def _projection_edge(level: Level, known: Mapping[str, Edge], now: datetime) -> str | None:
    """Name of this week's projection edge when the pace breaks the budget and nobody was told this week."""
    days = (now - level.period_start) // DAY
    if days < PROJECTION_AFTER_DAYS or level.budget <= 0 or level.spent > level.budget:
        return None
    name = f"{PROJECTED}:{days // 7}"
    return name if level.projected > level.budget and _free(known, name) else None
