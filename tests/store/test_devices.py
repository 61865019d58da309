"""Devices in PostgreSQL: sealed tokens that move, rotate, are trimmed and pruned."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from store import devices
from store.devices import DeviceRow, Reachable, Registration
from store.postgres import Pool
from store.sealed import BrokenSeal, KeyRing
from tests.conftest import MakeSettings
from tests.factories import TIME, make_address
from tests.handlers.ledger import sign_in

ANN, BOB = make_address("ann"), make_address("bob")


@pytest.fixture
async def ring(pool: Pool, make_settings: MakeSettings) -> KeyRing:
    await sign_in(pool, ANN, BOB)
    return KeyRing.of(make_settings(seal_keys=(SecretStr("k1:" + base64.b64encode(b"k" * 32).decode()),)))


async def register(pool: Pool, ring: KeyRing, user: str, token: str, *, after_s: int = 0, **facts: Any) -> DeviceRow:
    device = Registration(**{"token": token, "platform": "ios", "locale": "en", "app_version": "1", **facts})
    async with pool.acquire() as conn, conn.transaction():
        return await devices.register(conn, ring, user, device, at=TIME + timedelta(seconds=after_s))


def opened(ring: KeyRing, device: Reachable) -> str:
    return ring.unseal(device.sealed, purpose="push_token", owner=device.user)


async def test_token_opens_for_its_user_alone_also_after_it_moved(pool: Pool, ring: KeyRing) -> None:
    was = await register(pool, ring, ANN, "t1")
    now = await register(pool, ring, BOB, "t1", after_s=1)
    assert now.id != was.id
    [device] = await devices.reachable(pool, [ANN, BOB])
    assert (device.user, opened(ring, device)) == (BOB, "t1")
    with pytest.raises(BrokenSeal):
        ring.unseal(device.sealed, purpose="push_token", owner=ANN)


async def test_same_token_again_keeps_its_row(pool: Pool, ring: KeyRing) -> None:
    was = await register(pool, ring, ANN, "t1")
    now = await register(pool, ring, ANN, "t1", after_s=5, locale="fr")
    assert (now.id, now.created_at, now.locale) == (was.id, TIME, "fr")
    assert now.updated_at > was.updated_at


async def test_rotated_token_takes_the_place_of_the_old_one_of_the_same_user(pool: Pool, ring: KeyRing) -> None:
    await register(pool, ring, ANN, "old")
    await register(pool, ring, BOB, "theirs")
    await register(pool, ring, ANN, "new", replaces="old")
    await register(pool, ring, ANN, "newest", replaces="theirs")
    tokens = {opened(ring, each) for each in await devices.reachable(pool, [ANN, BOB])}
    assert tokens == {"new", "newest", "theirs"}


async def test_the_device_longest_unheard_of_makes_room(
    pool: Pool, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "MAX_DEVICES", 3)
    for n in range(5):
        await register(pool, ring, ANN, f"t{n}", after_s=n)
    assert {opened(ring, each) for each in await devices.reachable(pool, [ANN])} == {"t2", "t3", "t4"}
    assert len(await devices.listed(pool, ANN)) == 3


async def test_refused_token_is_pruned_unless_the_device_registered_anew(pool: Pool, ring: KeyRing) -> None:
    await register(pool, ring, ANN, "t1")
    [seen] = await devices.reachable(pool, [ANN])
    await register(pool, ring, ANN, "t1", after_s=1)
    assert not await devices.prune_token(pool, seen)
    [now] = await devices.reachable(pool, [ANN])
    assert await devices.prune_token(pool, now)
    assert await devices.listed(pool, ANN) == []
