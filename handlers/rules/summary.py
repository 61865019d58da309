"""A user's whole position on one page: what there is, what the month brought and took, what is worth a word. Pure.

Income is yield; a deposit is money that was there before, so it is shown apart and is part of no flow. Every total
says how many amounts it lacks because nobody knows their price.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from zoneinfo import ZoneInfo

from config.chains import Chain
from handlers.rules.calendar import Month, month_of
from handlers.rules.looks import Look
from handlers.rules.money import dollars
from handlers.rules.month_budget import RATIO, Budget, status, utilization
from handlers.rules.periods import iso
from handlers.rules.prices import EXACT, Prices
from handlers.rules.trends import midnight
from store.analytics import Flow
from store.records import Address, BalanceKey

TOP = 5
"""Categories that are named: what a card shows."""
GROWTH, GROWTH_USD = Decimal("1.25"), Decimal(20)
"""What spending has to have grown by since the last month, as a ratio and in dollars, to be worth a word."""
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Total:
    """Dollars, and how many amounts are not in them for want of a price."""

    usd: Decimal = ZERO
    unpriced: int = 0

    def plus(self, usd: Decimal | None, *, unpriced: int = 0) -> Total:
        """With one more amount; one without a price is counted."""
        if usd is None:
            return Total(self.usd, self.unpriced + 1)
        return Total(EXACT.add(self.usd, usd), self.unpriced + unpriced)


@dataclass(frozen=True, slots=True)
class Spans:
    """The open month, and the last one up to the same day: instants."""

    month: Month
    last: datetime
    last_until: datetime

    @property
    def starts(self) -> tuple[datetime, ...]:
        """Beginnings of the spans that figures are summed in, ascending; the middle one is of no interest."""
        return tuple(sorted({self.last, self.last_until, self.month.start}))


@dataclass(frozen=True, slots=True)
class Flows:
    """What the month brought and took so far, and what the last one had taken by this day."""

    deposits: Total
    spent: Mapping[str, Total]
    """By category; '': without one."""
    spent_last: Total

    @property
    def expenses(self) -> Total:
        """Spending on everything."""
        return summed(self.spent.values())


def spans(now: datetime, zone: ZoneInfo) -> Spans:
    """The months of a user's calendar that a summary compares, as of a day."""
    month = month_of(now, zone)
    last = month_of(month.start - timedelta(seconds=1), zone)
    today: date = now.astimezone(zone).date()
    first = last.start.astimezone(zone).date()
    return Spans(month, last.start, min(midnight(first + timedelta(days=today.day), zone), month.start))


def flows_of(rows: Iterable[Flow], at: Spans) -> Flows:
    """Rows of ClickHouse as the flows of the spans."""
    deposits, last = Total(), Total()
    spent: dict[str, Total] = {}
    for row in rows:
        if row.span == at.month.start and row.is_deposit:
            deposits = deposits.plus(row.usd, unpriced=row.unpriced)
        elif row.span == at.month.start:
            spent[row.category_id] = spent.get(row.category_id, Total()).plus(row.usd, unpriced=row.unpriced)
        elif row.span == at.last and not row.is_deposit:
            last = last.plus(row.usd, unpriced=row.unpriced)
    return Flows(deposits, spent, last)


def worth(balances: Mapping[BalanceKey, int], chains: Mapping[int, Chain], prices: Prices) -> Total:
    """What is held everywhere; vault shares are left out, since positions count them."""
    total = Total()
    for key, raw in balances.items():
        chain = chains.get(key.chain_id)
        if raw and chain is not None:
            total = total.plus(prices.usd(chain, key.token, raw))
    return total


def kept_elsewhere(saved: Mapping[tuple[int, Address], int], chains: Mapping[int, Chain], prices: Prices) -> Total:
    """What lies in savings accounts of the planned contract, for a goal or not, by (chain id, token).

    What goals have in buckets and positions is counted there; what a user keeps by hand is only said.
    """
    total = Total()
    for (chain_id, token), raw in saved.items():
        chain = chains.get(chain_id)
        if raw and chain is not None:
            total = total.plus(prices.usd(chain, token, raw))
    return total


def monthly_flow(flows: Flows, income: Total, month: Month) -> dict[str, object]:
    """`monthlyFlow`: yield in, spending out; deposits beside it."""
    return {
        "income": dollars(income.usd),
        "expenses": dollars(flows.expenses.usd),
        "netFlow": dollars(EXACT.subtract(income.usd, flows.expenses.usd)),
        "deposits": dollars(flows.deposits.usd),
        "unpriced": flows.expenses.unpriced + flows.deposits.unpriced + income.unpriced,
        "periodStart": iso(month.start),
        "periodEnd": iso(month.end),
    }


def spending(balance: Total, flows: Flows, budgets: Sequence[Budget], looks: Mapping[str, Look]) -> dict[str, object]:
    """`accounts.spending`: what is there to spend, what was spent, and on what."""
    spent = flows.expenses
    ranked = sorted(flows.spent.items(), key=lambda each: (-each[1].usd, each[0]))
    budget, counted = _whole(budgets, flows)
    return {
        "totalBalance": dollars(balance.usd),
        "monthlySpent": dollars(spent.usd),
        "budgetUtilization": None if budget is None else utilization(counted, budget),
        "topCategories": [
            {
                "categoryId": key or None,
                "name": looks[key].name if key in looks else None,
                "spent": dollars(total.usd),
                "share": utilization(total.usd, spent.usd),
                "unpriced": total.unpriced,
            }
            for key, total in ranked[:TOP]
        ],
        "unpriced": balance.unpriced + spent.unpriced,
    }


def _whole(budgets: Sequence[Budget], flows: Flows) -> tuple[Decimal | None, Decimal]:
    """The monthly budget and what counts against it: the total if there is one, else all categories that have one."""
    for budget in budgets:
        if budget.scope == "total":
            return budget.amount, flows.expenses.usd
    if not budgets:
        return None, ZERO
    spent = summed(flows.spent.get(budget.category_id or "", Total()) for budget in budgets)
    return sum((budget.amount for budget in budgets), ZERO), spent.usd


def insights(flows: Flows, budgets: Sequence[Budget], *, unpriced: int) -> list[dict[str, object]]:
    """What of spending is worth a word, with its figures; others add theirs."""
    found = [each for budget in budgets for each in _about(budget, flows)]
    now, last = flows.expenses.usd, flows.spent_last.usd
    if last and now >= last * GROWTH and now - last >= GROWTH_USD:
        figures = {
            "spent": dollars(now),
            "lastMonth": dollars(last),
            "change": f"{(now / last - 1).quantize(RATIO, ROUND_HALF_UP):f}",
        }
        body = f"${dollars(now)} so far, ${dollars(last)} by this day of the last month."
        found.append(insight("spending", 60, "Dearer than last month", body, figures, ["see_trends"]))
    if unpriced:
        body = f"{unpriced} amounts have no price and are in no total."
        found.append(insight("holistic", 30, "Amounts without a price", body, {"unpriced": unpriced}, []))
    return found


def _about(budget: Budget, flows: Flows) -> list[dict[str, object]]:
    total = flows.expenses if budget.scope == "total" else flows.spent.get(budget.category_id or "", Total())
    state = status(total.usd, budget.amount)
    if state == "healthy":
        return []
    figures: dict[str, object] = {
        "categoryId": budget.category_id,
        "spent": dollars(total.usd),
        "budget": dollars(budget.amount),
        "utilization": utilization(total.usd, budget.amount),
    }
    body = f"{budget.name}: ${dollars(total.usd)} of ${dollars(budget.amount)} are spent."
    if state == "warning":
        return [insight("spending", 70, "Budget nearly used", body, figures, ["see_budget"])]
    return [insight("spending", 90, "Over budget", body, figures, ["edit_budget", "see_budget"])]


def insight(
    kind: str, priority: int, title: str, body: str, figures: Mapping[str, object], actions: Sequence[str]
) -> dict[str, object]:
    """An insight as it is told; priority 0 to 100."""
    return {
        "kind": kind,
        "priority": priority,
        "title": title,
        "body": body,
        "figures": dict(figures),
        "actions": list(actions),
    }


def by_priority(found: Iterable[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Highest priority first; of two as high the one that was found first."""
    return sorted(found, key=lambda each: -int(str(each["priority"])))


def summed(totals: Iterable[Total]) -> Total:
    """All of them together."""
    whole = Total()
    for total in totals:
        whole = whole.plus(total.usd, unpriced=total.unpriced)
    return whole
