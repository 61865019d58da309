"""Categories as the resource of CONTRACT, where one may stand in the tree, and what a rule's value may be. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from handlers.events import CategoryUpdated
from handlers.rules.categorize import words
from handlers.rules.ids import event_id
from handlers.rules.pictures import link
from handlers.rules.texts import plain
from store.categories import CategoryRow
from store.records import Address, Draft

MAX_DEPTH = 3
"""Levels of the tree: a list that opens twice still fits a phone."""

_ADDRESS = re.compile(r"0x[0-9a-f]{40}")


def misplaced(parents: Mapping[str, str | None], category_id: str | None, parent_id: str | None) -> str | None:
    """Why a category can't be under this parent, None when it can. `parents`: the tree as the user sees it.

    `category_id` is None for one that is not in the tree yet.
    """
    if parent_id is None:
        return None
    if parent_id not in parents:
        return "is not one of your categories"
    above = _line(parents, parent_id)
    if category_id in above:
        return "would put the category under itself"
    if len(above) + (1 if category_id is None else _height(parents, category_id)) > MAX_DEPTH:
        return f"would be more than {MAX_DEPTH} levels deep"
    return None


def has_children(parents: Mapping[str, str | None], category_id: str) -> bool:
    """Whether anything is under this category."""
    return category_id in parents.values()


def _line(parents: Mapping[str, str | None], start: str) -> list[str]:
    """A category and everything it is under; ends where an ancestor was deleted."""
    line: list[str] = []
    here: str | None = start
    while here is not None and here in parents and here not in line:
        line.append(here)
        here = parents[here]
    return line


def _height(parents: Mapping[str, str | None], top: str) -> int:
    """Levels of what hangs on a category, itself included."""
    return max((line.index(top) + 1 for line in (_line(parents, each) for each in parents) if top in line), default=1)


def resource(row: CategoryRow, *, cdn_url: str) -> dict[str, object]:
    """A category as its user gets it; custom values fall back to the base."""
    return {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "iconUrl": link(row.icon_url, cdn_url),
        "colorHex": row.color_hex,
        "parentId": row.parent_id,
        "isDefault": row.is_default,
        "isActive": row.is_active,
        "sortOrder": row.sort_order,
        "customName": row.custom_name or row.name,
        "customIconUrl": link(row.custom_icon_url or row.icon_url, cdn_url),
        "customColorHex": row.custom_color_hex or row.color_hex,
        "isFavorite": row.is_favorite,
        "monthlyBudget": None if row.monthly_budget is None else f"{row.monthly_budget:.2f}",
    }


def updated(user: Address, shown: Mapping[str, object], *cause: object) -> Draft:
    """`category_updated` with the category as it is now; `cause` tells this change from every other."""
    return Draft(
        user=user,
        event_id=event_id(CategoryUpdated.name, user, shown["id"], *cause),
        event=CategoryUpdated.name,
        version=CategoryUpdated.version,
        body={"category": shown},
    )


def rule_value(field: str, value: str) -> str | None:
    """A rule's value as transactions are compared with it; None when none could ever be equal to it."""
    text = plain(value).casefold()
    if field == "counterparty":
        return text if _ADDRESS.fullmatch(text) else None
    if field == "memo":
        return text if words(text) == (text,) else None
    return text or None
