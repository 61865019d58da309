from __future__ import annotations

from decimal import Decimal

import pytest

from handlers.resources import Category
from handlers.rules.category_tree import has_children, misplaced, resource, rule_value, updated
from store.categories import CategoryRow

TREE: dict[str, str | None] = {"a": None, "b": "a", "c": "b", "d": None, "e": "d", "lost": "deleted"}


@pytest.mark.parametrize(
    ("category", "parent", "wrong"),
    [
        (None, None, None),
        (None, "a", None),
        (None, "b", None),
        (None, "c", "3 levels"),
        (None, "nobody", "not one of your categories"),
        (None, "deleted", "not one of your categories"),
        (None, "lost", None),
        ("a", None, None),
        ("a", "a", "under itself"),
        ("a", "c", "under itself"),
        ("b", "c", "under itself"),
        ("c", "e", None),
        ("b", "d", None),
        ("b", "e", "3 levels"),
        ("a", "d", "3 levels"),
        ("d", "a", None),
        ("d", "b", "3 levels"),
    ],
)
def test_a_place_in_the_tree(category: str | None, parent: str | None, wrong: str | None) -> None:
    found = misplaced(TREE, category, parent)
    assert (found is None) == (wrong is None)
    assert (wrong or "") in (found or "")


def test_a_circle_in_the_database_ends() -> None:
    assert misplaced({"a": "b", "b": "a"}, "c", "a") is None


def test_children() -> None:
    assert [each for each in TREE if has_children(TREE, each)] == ["a", "b", "d"]


def row(**changes: object) -> CategoryRow:
    facts = {
        "id": "x",
        "owner": None,
        "name": "Food",
        "description": "",
        "icon_url": "/icons/food.svg",
        "color_hex": "#FF6B6B",
        "parent_id": None,
        "is_default": True,
        "is_active": True,
        "sort_order": 1,
        "custom_name": None,
        "custom_icon_url": None,
        "custom_color_hex": None,
        "is_favorite": False,
        "monthly_budget": None,
    }
    return CategoryRow(**{**facts, **changes})  # type: ignore[arg-type]  # the row's own fields


def test_custom_values_fall_back_to_the_base() -> None:
    plain = resource(row(), cdn_url="https://cdn.example")
    assert (plain["customName"], plain["customIconUrl"], plain["customColorHex"]) == (
        "Food",
        "/icons/food.svg",
        "#FF6B6B",
    )
    custom = row(
        custom_name="Meals", custom_icon_url="/media/y", custom_color_hex="#000000", monthly_budget=Decimal("0")
    )
    shown = resource(custom, cdn_url="https://cdn.example")
    assert (shown["name"], shown["customName"], shown["customColorHex"]) == ("Food", "Meals", "#000000")
    assert (shown["customIconUrl"], shown["monthlyBudget"]) == ("https://cdn.example/media/y", "0.00")
    for each in (plain, shown):
        Category.model_validate(each)


def test_each_change_has_an_event_of_its_own() -> None:
    shown = resource(row(), cdn_url="")
    ids = {updated(user, shown, *cause).event_id for user, *cause in (("a", "e", 1), ("a", "e", 2), ("b", "e", 1))}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("field", "value", "compared"),
    [
        ("counterparty", " 0x" + "AB" * 20, "0x" + "ab" * 20),
        ("counterparty", "0x12", None),
        ("counterparty", "shop.eth", None),
        ("bucket", " Groceries\u202e  and\nMore ", "groceries and more"),
        ("bucket", "Straße", "strasse"),
        ("bucket", "\u200b", None),
        ("memo", "Taxi", "taxi"),
        ("memo", "ab", None),
        ("memo", "two words", None),
        ("memo", "taxi!", None),
    ],
)
def test_a_rule_holds_for_what_transactions_are_compared_with(field: str, value: str, compared: str | None) -> None:
    assert rule_value(field, value) == compared
