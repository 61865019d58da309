"""Categories as each user sees them: the defaults, their own, and what they made of either. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from handlers.rules.categorize import Assignment
from handlers.rules.pictures import link
from store.budgets import CategoryRow, CustomRow
from store.records import Address


@dataclass(frozen=True, slots=True)
class Look:
    """A category as its user sees it."""

    id: str
    name: str
    icon_url: str | None
    color_hex: str
    is_active: bool = True
    """Whether a transaction or a budget may still be given it; those that have it keep it."""


def looks_of(
    users: Sequence[Address], rows: Iterable[CategoryRow], customs: Iterable[CustomRow], *, cdn_url: str
) -> dict[Address, Mapping[str, Look]]:
    """Categories of each of these users by id; who changed nothing shares the defaults."""
    known = list(rows)
    shared = {row.id: _look(row, cdn_url) for row in known if row.owner is None}
    own: dict[Address, dict[str, Look]] = {}
    for row in known:
        if row.owner is not None:
            own.setdefault(row.owner, dict(shared))[row.id] = _look(row, cdn_url)
    for custom in customs:
        looks = own.setdefault(custom.user, dict(shared))
        base = looks.get(custom.category_id)
        if base is not None:
            looks[base.id] = replace(
                base,
                name=custom.name or base.name,
                icon_url=link(custom.icon_url, cdn_url) or base.icon_url,
                color_hex=custom.color_hex or base.color_hex,
            )
    return {user: own.get(user, shared) for user in users}


def amounts_of(customs: Iterable[CustomRow]) -> dict[Address, list[tuple[str, Decimal]]]:
    """Category budgets of each user, in dollars."""
    found: dict[Address, list[tuple[str, Decimal]]] = {}
    for custom in customs:
        if custom.budget is not None:
            found.setdefault(custom.user, []).append((custom.category_id, custom.budget))
    return found


def category_resource(looks: Mapping[str, Look], made: Assignment) -> dict[str, object] | None:
    """`transaction.category` as it goes on the wire; None for a category that its user no longer sees."""
    look = looks.get(made.category_id)
    if look is None:
        return None
    return {
        "id": look.id,
        "name": look.name,
        "iconUrl": look.icon_url,
        "colorHex": look.color_hex,
        "confidence": f"{made.confidence:.2f}",
        "source": made.source,
        "isManualOverride": made.source == "manual",
    }


def _look(row: CategoryRow, cdn_url: str) -> Look:
    return Look(row.id, row.name, link(row.icon_url, cdn_url), row.color_hex, row.is_active)
