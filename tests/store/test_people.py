from __future__ import annotations

from dataclasses import replace
from datetime import time
from decimal import Decimal

import pytest

from store import people
from store.postgres import Pool
from tests.factories import TIME, make_address

ANN, BOB, SHOP = make_address("ann"), make_address("bob"), make_address("shop")


@pytest.fixture(autouse=True)
async def registered(pool: Pool) -> None:
    await pool.executemany("INSERT INTO users (address) VALUES ($1)", [(ANN,), (BOB,)])


async def test_a_new_record_has_the_defaults(pool: Pool) -> None:
    row = await people.person(pool, ANN)
    assert row is not None
    assert (row.time_zone, row.locale, row.risk_profile, row.ai_consent) == ("UTC", "en", "moderate", False)
    assert (row.monthly_budget, row.alert_thresholds, row.quiet_start) == (None, (50, 80, 100), None)
    assert (row.digest, row.email, row.revision) == ("weekly", None, 1)
    assert await people.person(pool, SHOP) is None


async def test_a_saved_record_comes_back_and_no_other_changes(pool: Pool) -> None:
    async with pool.acquire() as conn, conn.transaction():
        row = await people.lock_person(conn, ANN)
        assert row is not None
        changed = replace(
            row,
            display_name="Ann",
            avatar_url="https://a.example/a.png",
            time_zone="Asia/Tokyo",
            locale="ja-JP",
            risk_profile="aggressive",
            ai_consent=True,
            monthly_budget=Decimal("999999999999999999.99"),
            alert_thresholds=(1, 200),
            quiet_start=time(22),
            quiet_end=time(7, 30),
            hide_amounts=True,
            digest="off",
            email=b"sealed",
            revision=2,
            compare_consent=True,
        )
        assert all(getattr(row, name) != getattr(changed, name) for name in row.__slots__ if name != "address")
        await people.save_person(conn, changed, at=TIME)
    assert await people.person(pool, ANN) == changed
    assert await people.person(pool, BOB) == replace(row, address=BOB)


async def test_contacts_are_each_users_own(pool: Pool) -> None:
    async with pool.acquire() as conn:
        first = await people.put_contact(conn, ANN, SHOP, "Corner shop", at=TIME)
        again = await people.put_contact(conn, ANN, SHOP, "Grocer", at=TIME)
        await people.put_contact(conn, BOB, SHOP, "Landlord", at=TIME)
        assert (first.label, again.label, again.created_at) == ("Corner shop", "Grocer", TIME)
        assert await people.contact(conn, ANN, SHOP) == again
        assert await people.count_contacts(conn, ANN, beside=SHOP) == 0
        assert await people.count_contacts(conn, ANN, beside=BOB) == 1
        pairs = [(ANN, SHOP), (BOB, SHOP), (ANN, BOB), (ANN, SHOP)]
        assert await people.labels(conn, pairs) == {(ANN, SHOP): "Grocer", (BOB, SHOP): "Landlord"}
        assert await people.labels(conn, []) == {}
        assert await people.delete_contact(conn, ANN, SHOP)
        assert not await people.delete_contact(conn, ANN, SHOP)
        assert await people.contact(conn, BOB, SHOP) is not None


async def test_contacts_page_by_address(pool: Pool) -> None:
    addresses = sorted(make_address(number) for number in range(5))
    async with pool.acquire() as conn:
        for address in reversed(addresses):
            await people.put_contact(conn, ANN, address, "x", at=TIME)
    assert [row.address for row in await people.contacts(pool, ANN, after="", limit=3)] == addresses[:3]
    assert [row.address for row in await people.contacts(pool, ANN, after=addresses[2], limit=3)] == addresses[3:]
