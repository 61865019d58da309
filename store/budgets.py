"""What decides what a spend means to its user: categories, rules, history, budgets, edges. Set-based, by users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("budgets")


@dataclass(frozen=True, slots=True)
class PersonRow:
    """A signed-in user's settings that budgets need."""

    user: Address
    time_zone: str
    thresholds: tuple[int, ...]
    monthly_budget: Decimal | None
    has_habits: bool
    """Whether rules or history know anything of this user: nothing is looked up for those who taught nothing yet."""
    profiles: Mapping[str, Sequence[Any]]
    """How the user's months usually go, as stored (store/month_profiles.py); empty without a budget or history."""
    has_goals: bool


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """A category as it is for everyone (owner None) or for its owner."""

    owner: Address | None
    id: str
    name: str
    icon_url: str | None
    color_hex: str
    is_active: bool


@dataclass(frozen=True, slots=True)
class CustomRow:
    """What one user made of a category."""

    user: Address
    category_id: str
    name: str | None
    icon_url: str | None
    color_hex: str | None
    budget: Decimal | None


@dataclass(frozen=True, slots=True)
class EdgeRow:
    """An edge that was crossed; `armed` when it may alert again, in its `round`th time."""

    user: Address
    scope: str
    subject: str
    period_start: datetime
    edge: str
    event_id: str
    armed: bool
    round: int


@dataclass(frozen=True, slots=True)
class AssignedRow:
    """The category of one transaction of one user."""

    user: Address
    transaction_id: str
    category_id: str
    confidence: Decimal
    source: Literal["rule", "history", "model", "manual"]
    reasoning: str
    revision: int


@dataclass(frozen=True, slots=True)
class SubjectRow:
    """A canonical owner row whose category is asked for; `cause` is its block as the log knows it."""

    id: str
    chain_id: int
    block_hash: str
    cause: str
    block_time: datetime
    type: str
    direction: str
    counterparty: str | None
    bucket: str | None
    usd: Decimal | None


async def people(tx: Tx | Pool, users: Iterable[Address]) -> list[PersonRow]:
    """The signed-in ones of these users."""
    rows = await tx.fetch(SQL["people"], list(users))
    return [PersonRow(row[0], row[1], tuple(row[2]), row[3], row[4], row[5] or {}, row[6]) for row in rows]


async def looks(tx: Tx | Pool, users: Sequence[Address]) -> tuple[list[CategoryRow], list[CustomRow]]:
    """Categories that these users may have, and what they made of them."""
    rows = await tx.fetch(SQL["category_looks"], users)
    customs = await tx.fetch(SQL["category_customs"], users)
    return (
        [CategoryRow(row[0], str(row[1]), row[2], row[3], row[4], row[5]) for row in rows],
        [CustomRow(row[0], str(row[1]), row[2], row[3], row[4], row[5]) for row in customs],
    )


async def rules(tx: Tx | Pool, users: Sequence[Address]) -> dict[Address, dict[tuple[str, str], str]]:
    """Rules of these users: (field, value) -> category."""
    found: dict[Address, dict[tuple[str, str], str]] = {}
    for row in await tx.fetch(SQL["rules"], users):
        found.setdefault(row[0], {})[row[1], row[2]] = str(row[3])
    return found


async def memory(tx: Tx | Pool, asked: Mapping[Address, Iterable[str]]) -> dict[Address, dict[str, dict[str, int]]]:
    """What history says about these features: user -> feature -> category -> count."""
    pairs = [(user, feature) for user, features in asked.items() for feature in features]
    found: dict[Address, dict[str, dict[str, int]]] = {}
    if pairs:
        for row in await tx.fetch(SQL["memory"], *map(list, zip(*pairs, strict=True))):
            found.setdefault(row[0], {}).setdefault(row[1], {})[str(row[2])] = row[3]
    return found


async def figures(
    tx: Tx | Pool, months: Mapping[Address, tuple[datetime, datetime]]
) -> dict[Address, dict[str | None, tuple[Decimal, int]]]:
    """Spent dollars and amounts without a price, by user and category (None: without one), in each user's month."""
    found: dict[Address, dict[str | None, tuple[Decimal, int]]] = {}
    if months:
        since, until = zip(*months.values(), strict=True)
        for row in await tx.fetch(SQL["figures"], list(months), list(since), list(until)):
            category = None if row[1] is None else str(row[1])
            found.setdefault(row[0], {})[category] = (row[2], row[3])
    return found


async def edges(tx: Tx | Pool, users: Sequence[Address], *, since: datetime) -> list[EdgeRow]:
    """Edges of these users in periods that began at or after `since`."""
    return [EdgeRow(*row) for row in await tx.fetch(SQL["edges"], users, since)]


async def save_edges(tx: Tx, rows: Sequence[EdgeRow]) -> None:
    """Write edges as they are now."""
    if rows:
        await tx.execute(SQL["save_edges"], *map(list, zip(*map(astuple, rows), strict=True)))


async def assigned(tx: Tx | Pool, asked: Sequence[tuple[Address, str]]) -> list[AssignedRow]:
    """Categories of these (user, transaction id) pairs."""
    if not asked:
        return []
    rows = await tx.fetch(SQL["assigned"], *map(list, zip(*asked, strict=True)))
    return [AssignedRow(row[0], row[1], str(row[2]), row[3], row[4], row[5], row[7]) for row in rows]


async def save_assigned(tx: Tx, rows: Sequence[AssignedRow]) -> None:
    """Write categories of transactions."""
    if rows:
        columns = zip(
            *(
                (r.user, r.transaction_id, UUID(r.category_id), str(r.confidence), r.source, r.reasoning, r.revision)
                for r in rows
            ),
            strict=True,
        )
        await tx.execute(SQL["save_assigned"], *map(list, columns))


async def save_memory(tx: Tx, user: Address, counts: Mapping[tuple[str, str], int]) -> None:
    """Set how often features had categories: (feature, category) -> count."""
    if counts:
        features, categories = zip(*counts, strict=True)
        await tx.execute(SQL["save_memory"], user, list(features), list(map(UUID, categories)), list(counts.values()))


async def subjects(tx: Tx | Pool, user: Address, ids: Sequence[str]) -> dict[str, SubjectRow]:
    """The user's canonical rows of these transaction ids; reverted ones are left out."""
    found: dict[str, SubjectRow] = {}
    for row in await tx.fetch(SQL["subjects"], user, ids):
        cause = f"{row['block_hash']}:{row['generation']}"
        found[row["id"]] = SubjectRow(
            id=row["id"],
            chain_id=row["chain_id"],
            block_hash=row["block_hash"],
            cause=cause,
            block_time=row["block_time"],
            type=row["type"],
            direction=row["direction"],
            counterparty=row["counterparty"],
            bucket=row["bucket"],
            usd=row["usd"],
        )
    return found


async def similar(tx: Tx | Pool, user: Address, counterparty: Address, *, but: str, limit: int) -> list[str]:
    """Ids of the user's other payments to the same payee without a manual choice, newest first."""
    return [row["id"] for row in await tx.fetch(SQL["similar"], user, counterparty, but, limit)]


async def set_total_budget(tx: Tx, user: Address, amount: Decimal | None) -> None:
    """Set or remove (None) the monthly budget over all categories in dollars."""
    await tx.execute(SQL["set_total_budget"], user, amount)


async def months_over(conn: Tx | Pool, now: datetime, *, limit: int) -> list[Address]:
    """Users with a budget whose month has ended since they were last told."""
    return [row["address"] for row in await conn.fetch(SQL["months_over"], now, limit)]


async def keep_history(tx: Tx, user: Address, *, at: datetime) -> None:
    """Keep how the user's budgets stand from now on: a month is judged by those that stood at its end."""
    await tx.execute(SQL["keep_history"], user, at)


async def tell_month(tx: Tx, user: Address, now: datetime) -> bool:
    """Note that the user is told of the month that it now is; False when that was done already."""
    return bool(await tx.fetchval(SQL["tell_month"], user, now))
