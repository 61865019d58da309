"""User records and what users call other addresses. An e-mail address is sealed before it comes here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Decimal
from typing import Literal

import asyncpg

from store.postgres import Pool, Tx
from store.records import Address
from store.statements import load

SQL = load("people")

RiskProfile = Literal["conservative", "moderate", "aggressive"]
Digest = Literal["off", "daily", "weekly"]


@dataclass(frozen=True, slots=True)
class PersonRow:
    """A registered user's record. `revision` grows with every change; quiet hours are clock times of their zone."""

    address: Address
    display_name: str | None
    avatar_url: str | None
    time_zone: str
    locale: str
    risk_profile: RiskProfile
    ai_consent: bool
    monthly_budget: Decimal | None
    """Dollars a month over all categories."""
    alert_thresholds: tuple[int, ...]
    """Percent of a budget, ascending."""
    quiet_start: time | None
    quiet_end: time | None
    hide_amounts: bool
    digest: Digest
    email: bytes | None
    """Sealed for purpose `email` and this address."""
    revision: int
    compare_consent: bool
    """Whether the user is compared with friends, and they with the user."""


@dataclass(frozen=True, slots=True)
class ContactRow:
    """What a user calls an address."""

    address: Address
    label: str
    created_at: datetime
    updated_at: datetime


async def person(conn: Tx | Pool, address: Address) -> PersonRow | None:
    """The record of a registered user."""
    row = await conn.fetchrow(SQL["person"], address)
    return None if row is None else _person(row)


async def lock_person(tx: Tx, address: Address) -> PersonRow | None:
    """The record of a registered user, locked against other changes."""
    row = await tx.fetchrow(SQL["lock_person"], address)
    return None if row is None else _person(row)


def _person(row: asyncpg.Record) -> PersonRow:
    fields = dict(row)
    return PersonRow(**{**fields, "alert_thresholds": tuple(fields["alert_thresholds"])})


async def save_person(tx: Tx, row: PersonRow, *, at: datetime) -> None:
    """Write a record that `lock_person` gave, as it is now."""
    await tx.execute(
        SQL["save_person"],
        row.address,
        row.display_name,
        row.avatar_url,
        row.time_zone,
        row.locale,
        row.risk_profile,
        row.ai_consent,
        row.monthly_budget,
        list(row.alert_thresholds),
        row.quiet_start,
        row.quiet_end,
        row.hide_amounts,
        row.digest,
        row.email,
        row.revision,
        at,
        row.compare_consent,
    )


async def set_avatar(tx: Tx, address: Address, path: str | None, *, at: datetime) -> None:
    """Show this picture of ours as a user's avatar, or none."""
    await tx.execute(SQL["set_avatar"], address, path, at)


async def contacts(conn: Tx | Pool, user: Address, *, after: Address, limit: int) -> list[ContactRow]:
    """A user's contacts in the order of their addresses, beyond `after` ('' is before all)."""
    return [ContactRow(*row) for row in await conn.fetch(SQL["contacts"], user, after, limit)]


async def contact(conn: Tx | Pool, user: Address, address: Address) -> ContactRow | None:
    """What a user calls an address."""
    row = await conn.fetchrow(SQL["contact"], user, address)
    return None if row is None else ContactRow(*row)


async def count_contacts(tx: Tx, user: Address, *, beside: Address) -> int:
    """How many contacts a user has beside this one."""
    return int(await tx.fetchval(SQL["count_contacts"], user, beside))


async def put_contact(tx: Tx, user: Address, address: Address, label: str, *, at: datetime) -> ContactRow:
    """Name an address, or name it anew."""
    row = await tx.fetchrow(SQL["put_contact"], user, address, label, at)
    assert row is not None  # RETURNING after an upsert
    return ContactRow(*row)


async def delete_contact(conn: Tx | Pool, user: Address, address: Address) -> bool:
    """Forget what a user calls an address; False when it had no name."""
    return bool(await conn.fetchval(SQL["delete_contact"], user, address))


async def labels(conn: Tx | Pool, pairs: Iterable[tuple[Address, Address]]) -> dict[tuple[Address, Address], str]:
    """What users call addresses: (user, address) -> label, those that have one, in one query."""
    wanted = list(dict.fromkeys(pairs))
    if not wanted:
        return {}
    users, addresses = zip(*wanted, strict=True)
    rows = await conn.fetch(SQL["labels"], list(users), list(addresses))
    return {(row["user_address"], row["address"]): row["label"] for row in rows}
