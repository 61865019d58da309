"""Categories: the defaults, each user's own, what the user makes of them, and the rules that lead to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import asyncpg

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("categories")

FIRST_ID = "00000000-0000-0000-0000-000000000000"
LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """A category as one user has it; custom values are None where the user made none. Budget in dollars, None: none."""

    id: str
    owner: Address | None
    name: str
    description: str
    icon_url: str | None
    color_hex: str
    parent_id: str | None
    is_default: bool
    is_active: bool
    sort_order: int
    custom_name: str | None
    custom_icon_url: str | None
    custom_color_hex: str | None
    is_favorite: bool
    monthly_budget: Decimal | None


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the list of a user's categories: what follows comes after it."""

    own: bool = False
    sort_order: int = -(2**31)
    id: str = FIRST_ID


@dataclass(frozen=True, slots=True)
class RuleRow:
    """A rule of a user: transactions whose `field` is `value` belong to the category."""

    id: str
    field: str
    value: str
    category_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class RulePlace:
    """A place in the list of a user's rules, newest first: what follows is older."""

    created_at: datetime = datetime(9999, 12, 31, tzinfo=UTC)
    id: str = LAST_ID


async def page(conn: Tx | Pool, user: Address, *, inactive: bool, after: Place, limit: int) -> list[CategoryRow]:
    """A user's categories after a place, defaults first; `inactive`: those that were deleted too."""
    rows = await conn.fetch(SQL["page"], user, inactive, after.own, after.sort_order, UUID(after.id), limit)
    return [_row(row) for row in rows]


async def one(conn: Tx | Pool, user: Address, category_id: str) -> CategoryRow | None:
    """A category of a user, a deleted one too; None for anything else, other people's too."""
    row = await conn.fetchrow(SQL["one"], user, UUID(category_id))
    return None if row is None else _row(row)


async def parents(conn: Tx | Pool, user: Address) -> dict[str, str | None]:
    """Every active category that a user sees, and the one it is under."""
    rows = await conn.fetch(SQL["parents"], user)
    return {str(row["id"]): None if row["parent_id"] is None else str(row["parent_id"]) for row in rows}


async def count_own(conn: Tx | Pool, user: Address) -> int:
    """How many active categories of their own a user has."""
    return int(await conn.fetchval(SQL["count_own"], user))


async def name_taken(conn: Tx | Pool, user: Address, name: str, *, but: str) -> bool:
    """Whether another active category of the user's own has this name, in any letter case."""
    return bool(await conn.fetchval(SQL["name_taken"], user, name, UUID(but)))


async def insert(tx: Tx, user: Address, row: CategoryRow) -> None:
    """Make a category of the user's own."""
    parent = None if row.parent_id is None else UUID(row.parent_id)
    await tx.execute(
        SQL["insert"], UUID(row.id), user, row.name, row.description, row.color_hex, parent, row.sort_order
    )


async def update(tx: Tx, user: Address, row: CategoryRow) -> None:
    """Change the base values of a category of the user's own."""
    parent = None if row.parent_id is None else UUID(row.parent_id)
    await tx.execute(
        SQL["update"], user, UUID(row.id), row.name, row.description, row.color_hex, parent, row.sort_order
    )


async def deactivate(tx: Tx, user: Address, category_id: str) -> None:
    """Delete a category of the user's own: transactions keep it, its rules and what history learned of it go."""
    await tx.execute(SQL["deactivate"], user, UUID(category_id))
    await tx.execute(SQL["forget_rules"], user, UUID(category_id))
    await tx.execute(SQL["forget_memory"], user, UUID(category_id))


async def set_preferences(tx: Tx, user: Address, row: CategoryRow) -> None:
    """Keep what a user makes of a category: name, colour, favourite, budget."""
    await tx.execute(
        SQL["set_preferences"],
        user,
        UUID(row.id),
        row.custom_name,
        row.custom_color_hex,
        row.is_favorite,
        row.monthly_budget,
    )


async def set_icon(tx: Tx, user: Address, category_id: str, path: str | None) -> None:
    """Give a category an icon of the user's own, or take it away."""
    await tx.execute(SQL["set_icon"], user, UUID(category_id), path)


async def rules(conn: Tx | Pool, user: Address, *, after: RulePlace, limit: int) -> list[RuleRow]:
    """A user's rules after a place, newest first."""
    return [_rule(row) for row in await conn.fetch(SQL["rules_page"], user, after.created_at, UUID(after.id), limit)]


async def count_rules(conn: Tx | Pool, user: Address) -> int:
    """How many rules a user has."""
    return int(await conn.fetchval(SQL["count_rules"], user))


async def rule_exists(conn: Tx | Pool, user: Address, field: str, value: str) -> bool:
    """Whether a user has a rule for this value."""
    return bool(await conn.fetchval(SQL["rule_exists"], user, field, value))


async def save_rule(tx: Tx, user: Address, field: str, value: str, category_id: str, *, at: datetime) -> RuleRow:
    """Make a rule, or let the one that there is lead to this category."""
    return _rule(await tx.fetchrow(SQL["save_rule"], user, field, value, UUID(category_id), at))


async def delete_rule(tx: Tx, user: Address, rule_id: str) -> bool:
    """Delete a rule of a user; False when there is none."""
    return bool(await tx.fetchval(SQL["delete_rule"], user, UUID(rule_id)))


def _row(row: asyncpg.Record) -> CategoryRow:
    facts: Mapping[str, object] = dict(row)
    parent = row["parent_id"]
    return CategoryRow(**{**facts, "id": str(row["id"]), "parent_id": None if parent is None else str(parent)})  # type: ignore[arg-type]  # the statement's columns are the row's fields


def _rule(row: asyncpg.Record | None) -> RuleRow:
    assert row is not None
    return RuleRow(str(row["id"]), row["field"], row["value"], str(row["category_id"]), row["created_at"])
