"""Monthly reports: what a user's month came to, read from the ledger in the user's own time zone in one instant."""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import orjson

from handlers.deps import Deps
from handlers.errors import NotFound
from handlers.rules.calendar import Month, month_of
from handlers.rules.looks import amounts_of, looks_of
from handlers.rules.report import Facts, page, report
from store import budgets, people, reports
from store.postgres import Tx, frozen
from store.records import Address

PAYEES = 20
MEDIA = {"html": "text/html; charset=utf-8", "json": "application/json"}

_MONTH = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])")


async def check(deps: Deps, user: Address, name: str) -> None:
    """Refuse what is no month that has begun for this user: raises NotFound."""
    person = await people.person(deps.pool, user)
    month = None if person is None else _month(name, ZoneInfo(person.time_zone))
    if month is None or month.start > deps.now():
        raise NotFound("There is no report of this month.")


async def made(deps: Deps, user: Address, name: str, *, format_: str) -> bytes:
    """The report of a month that `check` let through, as HTML or JSON."""
    async with frozen(deps.pool) as tx:
        facts = await _facts(deps, tx, user, name)
    return page(facts).encode() if format_ == "html" else orjson.dumps(report(facts))


async def _facts(deps: Deps, tx: Tx, user: Address, name: str) -> Facts:
    person = await people.person(tx, user)
    zone = ZoneInfo(person.time_zone if person else "UTC")
    month = _month(name, zone)
    assert month is not None
    rows, customs = await budgets.looks(tx, [user])
    sums = await reports.sums(tx, user, since=month.start, until=month.end, payees=PAYEES)
    labels = await people.labels(tx, [(user, each.name) for each in sums.payees if each.name])
    return Facts(
        name=name,
        month=month,
        zone=zone,
        now=deps.now(),
        sums=sums,
        looks=looks_of([user], rows, customs, cdn_url=deps.settings.cdn_url)[user],
        budgets=dict(amounts_of(customs).get(user, ())),
        total_budget=person.monthly_budget if person else None,
        labels={address: label for (_, address), label in labels.items()},
    )


def _month(name: str, zone: ZoneInfo) -> Month | None:
    match = _MONTH.fullmatch(name)
    return None if match is None else month_of(datetime(int(match[1]), int(match[2]), 15, tzinfo=zone), zone)
