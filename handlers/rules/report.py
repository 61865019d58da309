"""A month's report as JSON and as a page: every figure from the ledger, every total with what it leaves out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from html import escape
from zoneinfo import ZoneInfo

from handlers.rules.calendar import Month
from handlers.rules.looks import Look
from handlers.rules.money import dollars
from handlers.rules.month_budget import status, utilization
from handlers.rules.periods import iso
from store.reports import Sum, Sums

NONE = "Without a category"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report is made of; budgets are those of now, in dollars, by category id."""

    name: str
    """The month, as `2026-11`."""
    month: Month
    zone: ZoneInfo
    now: datetime
    sums: Sums
    looks: Mapping[str, Look]
    budgets: Mapping[str, Decimal]
    total_budget: Decimal | None
    labels: Mapping[str, str]


def report(facts: Facts) -> dict[str, object]:
    """The report as an object; amounts are decimal strings, `unpriced` counts what no total holds."""
    sums = facts.sums
    spent = sum((each.usd for each in sums.categories), Decimal(0))
    return {
        "month": facts.name,
        "timeZone": facts.zone.key,
        "from": iso(facts.month.start),
        "to": iso(facts.month.end),
        "complete": facts.now >= facts.month.end,
        "createdAt": iso(facts.now),
        "spent": dollars(spent),
        "transactions": sum(each.count for each in sums.categories),
        "unpriced": sum(each.unpriced for each in sums.categories),
        **_budget(spent, facts.total_budget),
        "categories": [_category(each, facts) for each in _with_budgets(facts)],
        "payees": [
            {"address": each.name, "label": facts.labels.get(each.name or ""), **_sum(each)} for each in sums.payees
        ],
        "buckets": [{"name": each.name, **_sum(each)} for each in sums.buckets],
        "flows": [
            {
                "type": flow.type,
                "direction": flow.direction,
                "total": dollars(flow.usd),
                "transactions": flow.count,
                "unpriced": flow.unpriced,
            }
            for flow in sums.flows
        ],
    }


def _with_budgets(facts: Facts) -> list[Sum]:
    """Categories with spends, then those with a budget and none."""
    spent = {each.name for each in facts.sums.categories}
    idle = [Sum(id_, 0, Decimal(0), 0) for id_ in facts.budgets if id_ not in spent]
    return [*facts.sums.categories, *idle]


def _sum(each: Sum) -> dict[str, object]:
    return {"spent": dollars(each.usd), "transactions": each.count, "unpriced": each.unpriced}


def _category(each: Sum, facts: Facts) -> dict[str, object]:
    look = facts.looks.get(each.name or "")
    budget = facts.budgets.get(each.name or "")
    name = NONE if look is None else look.name
    return {"categoryId": each.name, "name": name, **_sum(each), **_budget(each.usd, budget)}


def _budget(spent: Decimal, budget: Decimal | None) -> dict[str, object]:
    if budget is None:
        return {"budget": None, "utilization": None, "status": None}
    return {"budget": dollars(budget), "utilization": utilization(spent, budget), "status": status(spent, budget)}


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}}
table{{border-collapse:collapse;width:100%;margin:0 0 2rem}}
caption{{text-align:left;font-weight:600;font-size:1.2rem;padding:.5rem 0}}
th,td{{text-align:left;padding:.4rem .6rem;border-bottom:1px solid #d0d7de}}.n{{text-align:right}}
@media(prefers-color-scheme:dark){{body{{background:#0d1117;color:#e6edf3}}th,td{{border-color:#30363d}}}}</style></head>
<body><h1>{title}</h1><p>{span}</p><p>{total}</p>{tables}</body></html>
"""


def page(facts: Facts) -> str:
    """The report as a page of its own: no scripts, nothing from elsewhere, every text of people escaped."""
    found = report(facts)
    tables = [
        _table(
            "Categories",
            ("Category", "Spent", "Budget", "Status"),
            [_category_row(facts, e) for e in _with_budgets(facts)],
        ),
        _table("Payees", ("Payee", "Spent", "Payments"), [_payee_row(facts, each) for each in facts.sums.payees]),
        _table("Buckets", ("Bucket", "Spent", "Payments"), [_row(each.name, each) for each in facts.sums.buckets]),
    ]
    state = "" if found["complete"] else " (so far)"
    total = f"Spent {_money(found['spent'])} in {found['transactions']} payments" + _left_out(found["unpriced"])
    if facts.total_budget is not None:
        total += f", of a budget of {_money(found['budget'])}"
    title = f"Expendi report {facts.name}{state}"
    span = (
        f"{facts.month.start.astimezone(facts.zone):%Y-%m-%d} up to {facts.month.end.astimezone(facts.zone):%Y-%m-%d}"
    )
    return _PAGE.format(
        title=escape(title), span=escape(f"{span}, {facts.zone.key}"), total=escape(total + "."), tables="".join(tables)
    )


def _category_row(facts: Facts, each: Sum) -> tuple[str, ...]:
    shown = _category(each, facts)
    budget = "" if shown["budget"] is None else _money(shown["budget"])
    state = str(shown["status"] or "").replace("_", " ")
    return str(shown["name"]), _money(shown["spent"]) + _left_out(each.unpriced), budget, state


def _payee_row(facts: Facts, each: Sum) -> tuple[str, ...]:
    return _row(facts.labels.get(each.name or "") or each.name, each)


def _row(name: str | None, each: Sum) -> tuple[str, ...]:
    return name or "", _money(dollars(each.usd)) + _left_out(each.unpriced), str(each.count)


def _money(text: object) -> str:
    return f"${text}"


def _left_out(unpriced: object) -> str:
    return f" + {unpriced} without a price" if unpriced else ""


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col"{_side(at)}>{escape(text)}</th>' for at, text in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(f"<td{_side(at)}>{escape(text)}</td>" for at, text in enumerate(row)) + "</tr>" for row in rows
    )
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _side(at: int) -> str:
    return ' class="n"' if at else ""
