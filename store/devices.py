"""Devices that are told by push. Tokens are sealed; a hash finds one; it belongs to one user at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal
from uuid import UUID

import asyncpg

from store.postgres import Pool, Tx
from store.records import Address
from store.sealed import KeyRing
from store.statements import load

SQL = load("devices")

Platform = Literal["android", "ios", "web"]

MAX_DEVICES = 20
"""Devices of one user; the one longest unheard of makes room. Each costs a request per push."""


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A registered device, without its token."""

    id: UUID
    user: Address
    platform: Platform
    locale: str
    app_version: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Reachable:
    """A device as a push needs it; `sealed` opens for its user alone."""

    id: UUID
    user: Address
    sealed: bytes
    locale: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a device says of itself."""

    token: str
    platform: Platform
    locale: str
    app_version: str
    replaces: str | None = None


def token_hash(token: str) -> bytes:
    """What a token is found by: tokens are long and random, so a plain hash gives nothing away."""
    return sha256(token.encode()).digest()


async def register(tx: Tx, ring: KeyRing, user: Address, device: Registration, *, at: datetime) -> DeviceRow:
    """Register a device, or bring it up to date; a token that someone else had moves here."""
    if device.replaces is not None and device.replaces != device.token:
        await tx.execute(SQL["forget_token"], user, token_hash(device.replaces))
    row = await tx.fetchrow(
        SQL["register"],
        user,
        token_hash(device.token),
        ring.seal(device.token, purpose="push_token", owner=user),
        device.platform,
        device.locale,
        device.app_version,
        at,
    )
    assert row is not None
    await tx.execute(SQL["trim"], user, MAX_DEVICES)
    return _row(row)


async def listed(conn: Tx | Pool, user: Address) -> list[DeviceRow]:
    """A user's devices, the last registered first."""
    return list(map(_row, await conn.fetch(SQL["listed"], user)))


async def remove(conn: Tx | Pool, user: Address, id_: UUID) -> bool:
    """Forget a device; False when the user has none of this id."""
    return bool(await conn.fetchval(SQL["remove"], user, id_))


async def reachable(conn: Tx | Pool, users: Sequence[Address]) -> list[Reachable]:
    """Every device of these users."""
    rows = await conn.fetch(SQL["reachable"], list(users))
    return [Reachable(row["id"], row["user_address"], row["token"], row["locale"]) for row in rows]


async def prune_token(conn: Tx | Pool, device: Reachable) -> bool:
    """Forget a device whose token the provider refuses for good; False when it has another one meanwhile."""
    return bool(await conn.fetchval(SQL["prune_token"], device.id, device.sealed))


def _row(row: asyncpg.Record) -> DeviceRow:
    return DeviceRow(
        id=row["id"],
        user=row["user_address"],
        platform=row["platform"],
        locale=row["locale"],
        app_version=row["app_version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
