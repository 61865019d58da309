"""Achievements: the table of rules, and what facts make of them. Pure: facts and the clock are arguments.

Each rule measures something that grows with what a user has done; it is unlocked when the measure comes to the target.
What is measured on the ledger falls again when a reorg or another category takes the cause back, and the achievement
with it. What a user once did by hand (`kept`) stays done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Literal
from zoneinfo import ZoneInfo

from handlers.resources import Tier
from handlers.rules.calendar import month_of
from handlers.rules.goals import day_of
from handlers.rules.money import dollars
from handlers.rules.periods import iso
from handlers.rules.prices import EXACT
from handlers.rules.trends import midnight
from store.achievements import BudgetsRow, Counted, DayRow, Facts, MonthRow, PointRow

Unit = Literal["times", "days", "weeks", "months", "usd"]

KIND = "achievement_unlocked"
"""Kind of the notification."""
DAY = timedelta(days=1)
HALF = Decimal("0.5")


@dataclass(frozen=True, slots=True)
class Invested:
    """What was invested over time: dollars paid in and not taken out again."""

    steps: Sequence[tuple[Decimal, str | None]]
    """After each block that changed a position: dollars invested then, and the event that told of it."""
    spread: int
    """Most vaults, locks and accounts with something in them at once."""

    @property
    def most(self) -> Decimal:
        """The highest of the steps."""
        return max((usd for usd, _ in self.steps), default=Decimal(0))

    def beyond(self, target: Decimal) -> str | None:
        """The event by which it was more than `target` first."""
        return next((told for usd, told in self.steps if usd > target), None)


@dataclass(frozen=True, slots=True)
class Closed:
    """A month that is over, and was judged by the budget that stood at its end."""

    month: date
    ended: datetime
    spent: Decimal
    budget: Decimal
    is_kept: bool
    """Something was spent, all of it has a price, and it is not more than the budget."""


@dataclass(frozen=True, slots=True)
class Record:
    """One user's facts as rules read them, as of one moment."""

    facts: Facts
    today: date
    invested: Invested
    closed: Sequence[Closed]

    def total(self, count: Callable[[DayRow], int]) -> int:
        """Something that each day counts, over all days."""
        return sum(count(day) for day in self.facts.days)

    def days(self, counts: Callable[[DayRow], int]) -> list[date]:
        """Days with any of something."""
        return [day.day for day in self.facts.days if counts(day)]

    @property
    def deposited(self) -> Decimal:
        """Dollars of all deposits that have a price."""
        return _sum(day.deposited for day in self.facts.days)

    @property
    def chains(self) -> int:
        """Chains with a transaction."""
        return len({chain for day in self.facts.days for chain in day.chains})

    @property
    def kept_months(self) -> list[Closed]:
        """Months whose budget was kept, oldest first."""
        return [each for each in self.closed if each.is_kept]


@dataclass(frozen=True, slots=True)
class Cause:
    """Where the events that unlocked it are found: a count of ledger rows, a goal, an investment, or a month's end."""

    kind: Literal["ledger", "goal", "invested", "month", "none"] = "none"
    counted: Counted = "spends"


@dataclass(frozen=True, slots=True)
class Rule:
    """One achievement; `measure` comes to `target`, or exceeds it where the rule says more than."""

    code: str
    title: str
    description: str
    tier: Tier
    unit: Unit
    target: Decimal
    measure: Callable[[Record], Decimal | int]
    cause: Cause = Cause()
    more_than: bool = False
    kept: bool = False

    @property
    def is_announced(self) -> bool:
        """Whether inbox and phones are told: bronze is shown where it happens, and disturbs nobody."""
        return self.tier != "bronze"

    def is_met(self, record: Record) -> bool:
        """Whether these facts unlock it."""
        value = self.measure(record)
        return value > self.target if self.more_than else value >= self.target


def record(facts: Facts, now: datetime) -> Record:
    """A user's facts as of now."""
    return Record(facts, day_of(now, facts.person.time_zone), invested(facts.points), closed_months(facts, now))


# What is measured --------------------------------------------------------------------------------------------------


def invested(points: Iterable[PointRow]) -> Invested:
    """What was invested after each change, in dollars at the prices at which it was paid in.

    What is taken out takes its part of what was paid in with it, by the same block too, so that yield is neither. A
    payment without a price adds nothing.
    """
    usd: dict[str, Decimal] = {}
    principal: dict[str, int] = {}
    places: dict[str, tuple[int, str]] = {}
    steps: list[tuple[Decimal, str | None]] = []
    spread = 0
    # What moves from one position to another in a block was never in both.
    for _, block in groupby(points, key=lambda point: (point.chain_id, point.block_number)):
        told: str | None = None
        for point in block:
            key, after = point.position_id, point.principal or 0
            whole = principal.get(key, 0) + point.paid_raw
            usd[key] = EXACT.add(usd.get(key, Decimal(0)), point.paid or Decimal(0))
            if after < whole:
                usd[key] = EXACT.divide(EXACT.multiply(usd[key], Decimal(after)), Decimal(whole))
            principal[key] = after
            places.pop(key, None)
            if point.shares or after:
                places[key] = (point.chain_id, point.contract)
            told = point.event_id or told
        steps.append((_sum(usd.values()), told))
        spread = max(spread, len(set(places.values())))
    return Invested(steps, spread)


def closed_months(facts: Facts, now: datetime) -> list[Closed]:
    """Months that are over and had a budget at their end, oldest first."""
    zone = ZoneInfo(facts.person.time_zone)
    found: list[Closed] = []
    rows: dict[date, list[MonthRow]] = {}
    for row in facts.months:
        rows.setdefault(row.month, []).append(row)
    for first in sorted(rows):
        month = month_of(datetime(first.year, first.month, 15, tzinfo=zone), zone)
        budgets = _standing(facts.budgets, month.end)
        if month.end <= now and budgets is not None:
            found.append(_closed(first, month.end, rows[first], budgets))
    return found


def _standing(history: Iterable[BudgetsRow], at: datetime) -> BudgetsRow | None:
    """The budgets that stood at an instant; None when none did."""
    last = None
    for row in history:
        if row.since < at:
            last = row
    return last if last is not None and (last.total is not None or last.by_category) else None


def _closed(first: date, ended: datetime, rows: Sequence[MonthRow], budgets: BudgetsRow) -> Closed:
    """A month against the total, or against the sum of the categories' budgets by what was spent in those."""
    counted = [row for row in rows if budgets.total is not None or row.category_id in budgets.by_category]
    budget = budgets.total if budgets.total is not None else _sum(budgets.by_category.values())
    spent = _sum(row.spent for row in counted)
    is_known = all(not row.unpriced for row in counted)
    amounts = sum(row.amounts for row in counted)
    return Closed(first, ended, spent, budget, is_kept=bool(amounts) and is_known and spent <= budget)


def longest_run(numbers: Iterable[int]) -> int:
    """Most of these that follow each other by one."""
    best = run = 0
    last: int | None = None
    for number in sorted(set(numbers)):
        run = run + 1 if last is not None and number == last + 1 else 1
        best, last = max(best, run), number
    return best


def longest_pause(days: Sequence[date], today: date) -> int:
    """Most whole days without one of these between the first of them and today, which is not over."""
    ends = [*sorted(days)[1:], today] if days else []
    return max((max(0, (end - begin).days - 1) for begin, end in zip(sorted(days), ends, strict=True)), default=0)


def _weeks(days: Iterable[date]) -> list[int]:
    """Numbers of these days' weeks, which begin on Monday as the first day of the calendar did."""
    return [(day.toordinal() - 1) // 7 for day in days]


def _months(closed: Iterable[Closed]) -> list[int]:
    """Numbers of months."""
    return [each.month.year * 12 + each.month.month for each in closed]


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    total = Decimal(0)
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total


# The table ---------------------------------------------------------------------------------------------------------


def _any_row(day: DayRow) -> int:
    return len(day.chains)


def _counted(name: Counted) -> Cause:
    return Cause("ledger", name)


def _spends(day: DayRow) -> int:
    return day.spends


def _savings(day: DayRow) -> int:
    return day.savings


GOAL, INVESTED, MONTH = Cause("goal"), Cause("invested"), Cause("month")

RULES: tuple[Rule, ...] = (
    # Spending. A hundred payments are about three months of one a day; five buckets are the usual envelopes.
    Rule("SPENDER_100", "Regular", "Make 100 payments.", "silver", "times", Decimal(100),
         lambda r: r.total(_spends), _counted("spends")),
    Rule("BUCKETS_5", "Envelopes", "Make five buckets.", "silver", "times", Decimal(5),
         lambda r: r.facts.person.buckets),
    Rule("SHARED_SPEND", "Shared money", "Have a delegate pay from a bucket of yours.", "bronze", "times", Decimal(1),
         lambda r: r.total(lambda day: day.delegated), _counted("delegated")),
    Rule("DEPOSITED_10K", "Five figures", "Deposit more than 10,000 USD in all.", "gold", "usd", Decimal(10_000),
         lambda r: r.deposited, _counted("deposited"), more_than=True),
    Rule("TWO_CHAINS", "Traveller", "Use two chains.", "silver", "times", Decimal(2), lambda r: r.chains),
    # Budgets: judged when a month is over, never before.
    Rule("BUDGET_SAVER", "Budget saver", "Close a month within your budget.", "silver", "months", Decimal(1),
         lambda r: len(r.kept_months), MONTH),
    Rule("HALF_BUDGET", "Half is enough", "Close a month with half of your budget left.", "gold", "months", Decimal(1),
         lambda r: sum(each.spent <= EXACT.multiply(each.budget, HALF) for each in r.kept_months), MONTH),
    Rule("BUDGET_STREAK_3", "Steady hand", "Keep your budget three months in a row.", "gold", "months", Decimal(3),
         lambda r: longest_run(_months(r.kept_months)), MONTH),
    Rule("BUDGET_STREAK_12", "A whole year", "Keep your budget twelve months in a row.", "platinum", "months",
         Decimal(12), lambda r: longest_run(_months(r.kept_months)), MONTH),
    # Streaks. A week is the shortest span in which going without is a choice; eight weeks make a habit.
    Rule("NO_SPEND_WEEK", "Week off", "Spend nothing for seven days.", "silver", "days", Decimal(7),
         lambda r: longest_pause(r.days(_spends), r.today)),
    Rule("SAVING_STREAK_4", "Saving habit", "Set money aside four weeks in a row.", "silver", "weeks", Decimal(4),
         lambda r: longest_run(_weeks(r.days(_savings)))),
    Rule("ACTIVE_STREAK_8", "Keeping at it", "Move money eight weeks in a row.", "silver", "weeks", Decimal(8),
         lambda r: longest_run(_weeks(r.days(_any_row)))),
    # Saving.
    Rule("FIRST_GOAL", "Aiming", "Set a savings goal.", "bronze", "times", Decimal(1),
         lambda r: r.facts.person.goals, kept=True),
    Rule("GOAL_REACHED", "Goal!", "Reach a savings goal.", "silver", "times", Decimal(1),
         lambda r: r.facts.person.goals_reached, GOAL),
    Rule("GOALS_5", "Marksman", "Reach five savings goals.", "gold", "times", Decimal(5),
         lambda r: r.facts.person.goals_reached, GOAL),
    # Investing. What was paid in counts, not what it is worth: a price unlocks nothing and takes nothing back.
    Rule("FIRST_INVESTMENT", "Investor", "Make your first investment.", "bronze", "times", Decimal(1),
         lambda r: r.total(lambda day: day.investments), _counted("investments")),
    Rule("INVESTOR_1K", "A thousand at work", "Have more than 1,000 USD invested.", "silver", "usd", Decimal(1000),
         lambda r: r.invested.most, INVESTED, more_than=True),
    Rule("INVESTOR_10K", "Ten thousand at work", "Have more than 10,000 USD invested.", "gold", "usd", Decimal(10_000),
         lambda r: r.invested.most, INVESTED, more_than=True),
    Rule("DIVERSIFIED", "Many baskets", "Have three different investments at once.", "gold", "times", Decimal(3),
         lambda r: r.invested.spread),
    Rule("TIME_LOCK", "Patience", "Lock money to earn yield.", "silver", "times", Decimal(1),
         lambda r: r.total(lambda day: day.locks), _counted("locks")),
    # Use.
    Rule("SORTED_10", "Tidy", "Give ten payments a category.", "bronze", "times", Decimal(10),
         lambda r: r.facts.person.sorted, kept=True),
    Rule("SORTED_100", "Librarian", "Give a hundred payments a category.", "gold", "times", Decimal(100),
         lambda r: r.facts.person.sorted, kept=True),
    Rule("FIRST_FRIEND", "Company", "Make a friend.", "bronze", "times", Decimal(1),
         lambda r: r.facts.person.friends, kept=True),
    Rule("MONTH_WITH_US", "A month together", "Be here for 30 days.", "bronze", "days", Decimal(30),
         lambda r: (r.today - day_of(r.facts.person.opened_at, r.facts.person.time_zone)).days, kept=True),
    Rule("YEAR_WITH_US", "A year together", "Be here for 365 days.", "gold", "days", Decimal(365),
         lambda r: (r.today - day_of(r.facts.person.opened_at, r.facts.person.time_zone)).days, kept=True),
)  # fmt: skip
BY_CODE: Mapping[str, Rule] = {rule.code: rule for rule in RULES}


# What follows ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """What facts say that is not held yet, and what is held without a reason."""

    unlocked: Sequence[Rule] = ()
    revoked: Sequence[str] = ()


def difference(record: Record, held: Iterable[str]) -> Difference:
    """What to unlock, in the order of the table, and what to take back; a code that left the table stays as it is."""
    codes = set(held)
    met = {rule.code for rule in RULES if rule.is_met(record)}
    return Difference(
        [rule for rule in RULES if rule.code in met and rule.code not in codes],
        [rule.code for rule in RULES if rule.code in codes and rule.code not in met and not rule.kept],
    )


def next_look(now: datetime, zone: str) -> datetime:
    """When the user's day ends (UTC)."""
    return midnight(day_of(now, zone) + DAY, ZoneInfo(zone))


def resource(code: str, unlocked_at: datetime) -> dict[str, object]:
    """An unlocked achievement on the wire; one that left the table shows its code."""
    rule = BY_CODE.get(code)
    return {
        "code": code,
        "title": rule.title if rule else code,
        "description": rule.description if rule else "",
        "tier": rule.tier if rule else "bronze",
        "unlockedAt": iso(unlocked_at),
    }


def standing(rule: Rule, record: Record, unlocked_at: datetime | None) -> dict[str, object]:
    """An achievement of the table as its user sees it, locked or not, with how far it is."""
    value = rule.measure(record)
    return {
        "code": rule.code,
        "title": rule.title,
        "description": rule.description,
        "tier": rule.tier,
        "isUnlocked": unlocked_at is not None,
        "unlockedAt": iso(unlocked_at) if unlocked_at else None,
        "progress": {
            "current": _figure(value, rule.unit),
            "target": _figure(rule.target, rule.unit),
            "unit": rule.unit,
            "moreThan": rule.more_than,
        },
    }


def _figure(value: Decimal | int, unit: Unit) -> str:
    return dollars(Decimal(value)) if unit == "usd" else str(int(value))
