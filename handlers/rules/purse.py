"""One signed-in user's categories, budgets and alerts while a block or a change of category is worked on. Pure.

Loaded once (handlers/budgets.py), asked for each ledger row, and written at once with what it decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from handlers.rules.alerts import Crossing, Edge, Level, crossing, rearmed, undone
from handlers.rules.budget_impact import projected_spend
from handlers.rules.calendar import Month, month_of
from handlers.rules.categorize import Assignment, Habits, Subject, assign
from handlers.rules.looks import Look, category_resource
from handlers.rules.month_budget import Budget, Figure, Pace, month_impact, month_state, projected
from handlers.rules.month_profile import Profile
from handlers.rules.periods import PERIOD
from store.records import Address, BucketRow, TransactionRow

INSTANT = timedelta(microseconds=1)
TOTAL = "total"
"""Subject of the total budget in the table of edges; category budgets have their category's id."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A category that a transaction has, and how often that was decided."""

    assignment: Assignment
    revision: int

    @property
    def is_manual(self) -> bool:
        """Whether the user chose it, which is final."""
        return self.assignment.source == "manual"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an edge lies: one period of one budget."""

    scope: str
    subject: str
    period_start: datetime


@dataclass(frozen=True, slots=True)
class Alert:
    """An edge just crossed: what to tell, about which budget, in which figures (dollars, or raw for a bucket)."""

    place: Place
    crossing: Crossing
    name: str
    spent: Decimal
    budget: Decimal
    ends: datetime
    """End of the period: nobody is alerted of one that is over."""
    decimals: int | None = None
    round: int = 1
    """How often these edges have been crossed in the period, reorgs apart."""


@dataclass(slots=True)
class Purse:
    """Everything about one user that decides what a spend means."""

    user: Address
    zone: ZoneInfo
    thresholds: tuple[int, ...]
    budgets: tuple[Budget, ...] = ()
    looks: Mapping[str, Look] = field(default_factory=dict)
    habits: Habits = field(default_factory=Habits)
    asked: Mapping[str, Subject] = field(default_factory=dict)
    """What is to be categorised, by transaction id."""
    decided: dict[str, Decided] = field(default_factory=dict)
    memos: Mapping[str, str] = field(default_factory=dict)
    figures: dict[str | None, Figure] = field(default_factory=dict)
    """Spent in the month at hand by category; None: without one."""
    month: Month | None = None
    profiles: Mapping[str | None, Profile] = field(default_factory=dict)
    """How a month usually goes by category; None: all of them together."""
    paces: dict[tuple[str | None, date], Pace | None] = field(default_factory=dict)
    """What was made of profiles already: a block has many spends of one day."""
    edges: dict[Place, dict[str, Edge]] = field(default_factory=dict)
    has_goals: bool = False
    """Whether goals are to be looked at (handlers/goals.py): nothing is asked for those who have none."""
    newly_decided: dict[str, Decided] = field(default_factory=dict)
    changed_edges: dict[tuple[Place, str], Edge] = field(default_factory=dict)

    # Categories -------------------------------------------------------------------------------------------------

    def categorize(self, row: TransactionRow) -> Decided | None:
        """The category that the transaction has, or gets now from rules or history."""
        known = self.decided.get(row.id)
        subject = self.asked.get(row.id)
        if known is not None or subject is None:
            return known
        found = assign(subject, self.habits)
        return None if found is None else self.decide(row.id, found)

    def decide(self, transaction_id: str, assignment: Assignment) -> Decided:
        """Give a transaction a category."""
        before = self.decided.get(transaction_id)
        made = Decided(assignment, before.revision + 1 if before else 1)
        self.decided[transaction_id] = self.newly_decided[transaction_id] = made
        return made

    def category(self, decided: Decided | None) -> dict[str, object] | None:
        """`transaction.category` as it goes on the wire."""
        return category_resource(self.looks, decided.assignment) if decided else None

    # Budgets ----------------------------------------------------------------------------------------------------

    def figure(self, budget: Budget) -> Figure:
        """What was spent of a budget in the month at hand."""
        if budget.scope == "category":
            return self.figures.get(budget.category_id, Figure())
        spent = sum((figure.spent for figure in self.figures.values()), Decimal(0))
        return Figure(spent, sum(figure.unpriced for figure in self.figures.values()))

    def count(self, category_id: str | None, figure: Figure) -> None:
        """Set what was spent in a category."""
        self.figures[category_id] = figure

    def spend(
        self, category_id: str | None, usd: Decimal | None, *, at: datetime
    ) -> tuple[list[dict[str, object]], list[Alert]]:
        """Count one amount; tells what it does to the budgets it touches, and what there is to alert."""
        if not self.budgets:
            return [], []
        month = self.month or month_of(at, self.zone)
        touched = [b for b in self.budgets if b.scope == "total" or b.category_id == category_id]
        before = [self.figure(budget) for budget in touched]
        self.figures[category_id] = self.figures.get(category_id, Figure()).plus(usd)
        impacts = [
            month_impact(budget, was, self.figure(budget), month=month, now=at, pace=self.pace(budget, at))
            for budget, was in zip(touched, before, strict=True)
        ]
        return impacts, self.look_at(touched, at)

    def impacts(
        self, budgets: Iterable[Budget], before: Mapping[Budget, Figure], *, at: datetime
    ) -> list[dict[str, object]]:
        """What a change of category did to budgets."""
        month = self.month or month_of(at, self.zone)
        return [month_impact(b, before[b], self.figure(b), month=month, now=at, pace=self.pace(b, at)) for b in budgets]

    def states(self, now: datetime) -> list[dict[str, object]]:
        """The user's budgets as the snapshot shows them."""
        month = self.month or month_of(now, self.zone)
        return [month_state(budget, self.figure(budget), month) for budget in self.budgets]

    def pace(self, budget: Budget, now: datetime) -> Pace | None:
        """How the month usually goes, as of the day that it is; None without enough history."""
        profile = self.profiles.get(budget.category_id)
        if profile is None:
            return None
        month = self.month or month_of(now, self.zone)
        today = min(max(now, month.start), month.end - INSTANT).astimezone(self.zone).date()
        key = budget.category_id, today
        if key not in self.paces:
            self.paces[key] = profile.pace(today)
        return self.paces[key]

    # Alerts -----------------------------------------------------------------------------------------------------

    def look_at(self, budgets: Iterable[Budget], now: datetime) -> list[Alert]:
        """Alerts of month budgets, as their figures are now."""
        found: list[Alert] = []
        for budget in budgets:
            level = self.level(budget, now)
            alert = self._cross(_place(budget, level), level, budget.name, now)
            found += [alert] if alert else []
        return found

    def look_at_bucket(self, bucket: BucketRow, now: datetime, *, decimals: int | None) -> list[Alert]:
        """Alerts of a bucket's limit, as it is now."""
        level = bucket_level(bucket, now)
        if level is None:
            return []
        place = Place("bucket", bucket.bucket_id, level.period_start)
        alert = self._cross(place, level, bucket.name, now, decimals=decimals)
        return [alert] if alert else []

    def level(self, budget: Budget, now: datetime) -> Level:
        """A month budget at one moment."""
        month = self.month or month_of(now, self.zone)
        figure = self.figure(budget)
        return Level(
            figure.spent, budget.amount, projected(figure.spent, month, now, self.pace(budget, now)), month.start
        )

    def fired(self, alert: Alert, event_id: str) -> None:
        """Remember the edges of an alert, told by this event."""
        for name in alert.crossing.edges:
            known = self.edges.get(alert.place, {}).get(name)
            self._set_edge(alert.place, Edge(name, event_id, armed=False, round=known.round if known else 1))

    def take_back(self, place: Place, level: Level) -> list[str]:
        """Arm edges that would not have been crossed without what was taken back; returns the events that told them.

        An alert may have told several edges at once: taken back for one of them, it tells none of the others either.
        """
        known = self.edges.get(place, {})
        gone = list(dict.fromkeys(edge.event_id for edge in undone(level, known.values())))
        for edge in [edge for edge in known.values() if edge.event_id in gone]:
            self._set_edge(place, replace(edge, armed=True))
        return gone

    def taken_back_of(self, budgets: Iterable[Budget], now: datetime) -> list[str]:
        """Alerts of these budgets that no longer hold, as their figures are now."""
        levels = [(budget, self.level(budget, now)) for budget in budgets]
        return [event for budget, level in levels for event in self.take_back(_place(budget, level), level)]

    def taken_back(self, buckets: Mapping[str, BucketRow], now: datetime) -> list[str]:
        """Every alert of the periods at hand that no longer holds, as figures and buckets are now."""
        found = self.taken_back_of(self.budgets, now)
        for place in [place for place in self.edges if place.scope == "bucket"]:
            bucket = buckets.get(place.subject)
            level = bucket_level(bucket, now) if bucket is not None else None
            gone = Level(Decimal(0), Decimal(1), Decimal(0), place.period_start)
            found += self.take_back(place, level if level and level.period_start == place.period_start else gone)
        return found

    def _cross(
        self, place: Place, level: Level, name: str, now: datetime, *, decimals: int | None = None
    ) -> Alert | None:
        known = self.edges.get(place, {})
        for edge in rearmed(level, known.values()):
            self._set_edge(place, replace(known[edge], armed=True, round=known[edge].round + 1))
        known = self.edges.get(place, {})
        found = crossing(level, known, thresholds=self.thresholds, now=now)
        if found is None:
            return None
        ends = place.period_start + PERIOD if place.scope == "bucket" or self.month is None else self.month.end
        rounds = [known[edge].round for edge in found.edges if edge in known]
        return Alert(place, found, name, level.spent, level.budget, ends, decimals, round=max(rounds, default=1))

    def _set_edge(self, place: Place, edge: Edge) -> None:
        self.edges.setdefault(place, {})[edge.name] = edge
        self.changed_edges[place, edge.name] = edge


def counts(row: TransactionRow, decided: Decided | None) -> bool:
    """Whether a row counts for budgets: own spends; outgoing transfers only once the user gave them a category."""
    if row.role != "owner":
        return False
    is_paid = row.type == "transfer" and row.direction == "out" and row.counterparty != row.user
    return row.type == "spend" or (is_paid and decided is not None)


def bucket_level(bucket: BucketRow, now: datetime) -> Level | None:
    """A bucket's limit at one moment, in raw units; None without a limit or outside a period."""
    if bucket.monthly_limit == 0 or bucket.period_start is None:
        return None
    ahead = projected_spend(bucket.spent, start=bucket.period_start, now=min(now, bucket.period_start + PERIOD))
    return Level(Decimal(bucket.spent), Decimal(bucket.monthly_limit), Decimal(ahead), bucket.period_start)


def _place(budget: Budget, level: Level) -> Place:
    return Place("category", budget.category_id or TOTAL, level.period_start)


def budgets_of(
    amounts: Sequence[tuple[str, Decimal]], total: Decimal | None, looks: Mapping[str, Look]
) -> tuple[Budget, ...]:
    """Budgets in the order they are shown: the total first, then by category name."""
    named = [
        Budget("category", category, looks[category].name, amount) for category, amount in amounts if category in looks
    ]
    head = [Budget("total", None, "Total", total)] if total is not None else []
    return (*head, *sorted(named, key=lambda budget: (budget.name, budget.category_id or "")))
