from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from uuid import uuid4

import pytest

from store import categories, idempotency, images
from store.categories import CategoryRow, Place, RulePlace
from store.postgres import Pool
from tests.factories import TIME, make_address

ME, YOU = make_address("me"), make_address("you")
FOOD = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(autouse=True)
async def people(pool: Pool) -> None:
    await pool.execute("INSERT INTO users (address) VALUES ($1), ($2)", ME, YOU)


async def make(pool: Pool, name: str, *, owner: str = ME, parent: str | None = None, order: int = 0) -> CategoryRow:
    food = await categories.one(pool, owner, FOOD)
    assert food is not None
    row = replace(food, id=str(uuid4()), owner=owner, name=name, icon_url=None, parent_id=parent, sort_order=order)
    row = replace(row, is_default=False)
    async with pool.acquire() as conn, conn.transaction():
        await categories.insert(conn, owner, row)
    return row


async def test_what_was_written_is_read_by_its_owner_alone(pool: Pool) -> None:
    row = await make(pool, "Dogs", parent=FOOD)
    assert await categories.one(pool, ME, row.id) == row
    assert await categories.one(pool, YOU, row.id) is None
    changed = replace(row, name="Cats", color_hex="#000000", parent_id=None, sort_order=7, description="d")
    async with pool.acquire() as conn:
        await categories.update(conn, YOU, replace(changed, name="stolen"))
        await categories.deactivate(conn, YOU, row.id)
        await categories.update(conn, ME, changed)
        await categories.update(conn, ME, replace(changed, id=FOOD))  # a default is nobody's to change
    assert await categories.one(pool, ME, row.id) == changed
    assert (await categories.one(pool, ME, FOOD) or row).name == "Food & Dining"


async def test_pages_go_on_where_the_last_ended(pool: Pool) -> None:
    made = [await make(pool, f"c{n}", order=n % 2) for n in range(5)]
    await make(pool, "other", owner=YOU)
    found: list[CategoryRow] = []
    place = Place()
    while page := await categories.page(pool, ME, inactive=False, after=place, limit=3):
        found += page
        place = Place(not page[-1].is_default, page[-1].sort_order, page[-1].id)
    assert [row.is_default for row in found] == [True] * 8 + [False] * 5
    assert [row.id for row in found[8:]] == [row.id for row in sorted(made, key=lambda row: (row.sort_order, row.id))]


async def test_preferences_and_icon_are_kept_apart(pool: Pool) -> None:
    food = await categories.one(pool, ME, FOOD)
    assert food is not None
    mine = replace(food, custom_name="Meals", is_favorite=True, monthly_budget=Decimal("12.50"))
    async with pool.acquire() as conn:
        await categories.set_icon(conn, ME, FOOD, "/media/x")
        await categories.set_preferences(conn, ME, mine)
    assert await categories.one(pool, ME, FOOD) == replace(mine, custom_icon_url="/media/x")
    assert await categories.one(pool, YOU, FOOD) == food


async def test_parents_show_what_a_user_may_hang_something_on(pool: Pool) -> None:
    top = await make(pool, "Top")
    leaf = await make(pool, "Leaf", parent=top.id)
    gone = await make(pool, "Gone")
    other = await make(pool, "Other", owner=YOU)
    async with pool.acquire() as conn:
        await categories.deactivate(conn, ME, gone.id)
    found = await categories.parents(pool, ME)
    assert (found[top.id], found[leaf.id], FOOD in found) == (None, top.id, True)
    assert not {gone.id, other.id} & found.keys()
    assert await categories.count_own(pool, ME) == 2
    assert [await categories.name_taken(pool, ME, name, but=top.id) for name in ("leaf", "TOP", "gone", "other")] == [
        True,
        False,
        False,
        False,
    ]


async def test_a_rule_for_the_same_value_is_the_same_rule(pool: Pool) -> None:
    row = await make(pool, "Dogs")
    async with pool.acquire() as conn:
        first = await categories.save_rule(conn, ME, "memo", "vet", FOOD, at=TIME)
        second = await categories.save_rule(conn, ME, "memo", "vet", row.id, at=TIME)
        await categories.save_rule(conn, YOU, "memo", "vet", FOOD, at=TIME)
        assert (second.id, second.category_id) == (first.id, row.id)
        assert await categories.rules(conn, ME, after=RulePlace(), limit=9) == [second]
        assert not await categories.delete_rule(conn, YOU, first.id)
        assert await categories.delete_rule(conn, ME, first.id)


async def test_only_the_last_upload_can_end(pool: Pool) -> None:
    async with pool.acquire() as conn:
        await images.ask(conn, ME, FOOD, "uploads/a", at=TIME)
        await images.ask(conn, ME, FOOD, "uploads/b", at=TIME)
        assert await images.start(conn, ME, FOOD, "uploads/a", at=TIME) is None
        assert [await images.start(conn, ME, FOOD, "uploads/b", at=TIME) for _ in range(2)] == [1, 2]
        assert not await images.finish(conn, ME, FOOD, "uploads/a", status="done", picture="x", at=TIME)
        assert await images.finish(conn, ME, FOOD, "uploads/b", status="done", picture="y", at=TIME)
        assert not await images.finish(conn, ME, FOOD, "uploads/b", status="refused", reason="late", at=TIME)
        assert [await images.is_used(conn, picture) for picture in "xy"] == [False, True]
        await images.ask(conn, ME, FOOD, "uploads/c", at=TIME)
        assert await images.is_used(conn, "y")  # shown until another one is
        assert await images.pending(conn, ["uploads/b", "uploads/c"]) == {"uploads/c"}


async def test_a_key_belongs_to_the_claim_that_has_it(pool: Pool) -> None:
    first, second = uuid4(), uuid4()
    assert await idempotency.claim(pool, ME, "k", fingerprint=b"f", claim=first) is None
    kept = await idempotency.claim(pool, ME, "k", fingerprint=b"f", claim=second)
    assert kept is not None
    assert (kept.fingerprint, kept.status) == (b"f", None)
    await idempotency.release(pool, ME, "k", claim=second)
    await idempotency.keep(pool, ME, "k", claim=second, status=500, body=b"", headers={})
    await idempotency.keep(pool, ME, "k", claim=first, status=201, body=b"{}", headers={"a": "b"})
    await idempotency.release(pool, ME, "k", claim=first)  # an answer that is kept stays
    kept = await idempotency.claim(pool, ME, "k", fingerprint=b"g", claim=second)
    assert kept == idempotency.Kept(b"f", 201, b"{}", {"a": "b"})
