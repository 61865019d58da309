"""The user record: what a signed-in user reads and changes of it, and their names for other addresses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any, Protocol

import orjson
from pydantic.alias_generators import to_camel

from config import keys
from handlers.deps import Deps
from handlers.errors import Conflict, NotFound, PreconditionFailed, Unauthenticated
from handlers.rules.money import dollars
from handlers.rules.pictures import link
from handlers.rules.texts import masked_email
from store import audit, log, outbox, people, sharing
from store.audit import AuditEntry, Caller
from store.people import ContactRow, PersonRow
from store.postgres import Tx, in_transaction
from store.records import Address, Draft, Frame
from store.sealed import KeyRing

CONTACTS_MAX = 1000
"""Contacts of one user: far more than anyone names by hand."""

MOVES_BUDGETS = frozenset({"time_zone", "monthly_budget"})
"""What of the record budgets depend on: the month begins at another moment, or has another total."""


class BudgetsTold(Protocol):
    """How a user's budgets are told anew after a change of the record (handlers/budgets.py `told`)."""

    async def __call__(self, tx: Tx, user: Address, *cause: object, at: datetime) -> Draft:
        """`budget_update` with everything as it is now in this transaction; `cause` makes its id."""
        ...


@dataclass(frozen=True, slots=True)
class Profile:
    """A record as its user reads it, and the ETag that a change of it may name."""

    resource: Mapping[str, object]
    tag: str


@dataclass(frozen=True, slots=True)
class ContactPage:
    """Some contacts, and the address after which the next page begins (None: there is none)."""

    resources: Sequence[ContactRow]
    next: Address | None


async def profile(deps: Deps, user: Address) -> Profile:
    """A user's own record; raises Unauthenticated when there is none any more."""
    return _profile(_known(await people.person(deps.pool, user)), KeyRing.of(deps.settings), deps.settings.cdn_url)


async def change(
    deps: Deps,
    user: Address,
    changes: Mapping[str, Any],
    *,
    if_match: str | None,
    caller: Caller,
    budgets_told: BudgetsTold,
) -> Profile:
    """Change fields of PersonRow, `email` in clear; raises PreconditionFailed when `if_match` names an older record.

    Whoever's budgets move with it is told in the same transaction.
    """
    body = partial(_change, deps, user, changes, if_match=if_match, caller=caller, budgets_told=budgets_told)
    changed, frames = await in_transaction(deps.pool, body)
    await deps.publisher.publish([(frame.user, frame.text) for frame in frames])
    if "display_name" in changes:
        await deps.publisher.wake(keys.JOBS_WAKE)
    return changed


async def _change(
    deps: Deps,
    user: Address,
    changes: Mapping[str, Any],
    tx: Tx,
    *,
    if_match: str | None,
    caller: Caller,
    budgets_told: BudgetsTold,
) -> tuple[Profile, list[Frame]]:
    ring, now = KeyRing.of(deps.settings), deps.now()
    counters = await log.lock(tx, [user])
    before = _known(await people.lock_person(tx, user))
    current = _profile(before, ring, deps.settings.cdn_url)
    if if_match is not None and not _names(if_match, current.tag):
        raise PreconditionFailed("The record changed since you read it; read it again and repeat what you change.")
    after = _changed(before, changes, ring)
    fields = [name for name in PersonRow.__slots__ if getattr(before, name) != getattr(after, name)]
    if not fields:
        return current, []
    after = replace(after, revision=before.revision + 1)
    await people.save_person(tx, after, at=now)
    await audit.record(tx, AuditEntry(user, "profile_changed", caller, now, {"fields": _told(fields)}))
    if "display_name" in fields and await sharing.bucket_ids(tx, user, limit=1):
        await outbox.request(tx, "quick", "tell_members", {"user": user})
    drafts = []
    if MOVES_BUDGETS.intersection(fields):
        drafts.append(await budgets_told(tx, user, "profile", after.revision, at=now))
    return _profile(after, ring, deps.settings.cdn_url), await log.append(tx, counters, drafts, at=now)


def _changed(row: PersonRow, changes: Mapping[str, Any], ring: KeyRing) -> PersonRow:
    """The record with these fields; an e-mail address that is the same stays sealed as it is."""
    fields = dict(changes)
    if "email" in fields:
        email = fields["email"]
        if email is not None and row.email is not None and email == _email(row, ring):
            fields["email"] = row.email
        elif email is not None:
            fields["email"] = ring.seal(email, purpose="email", owner=row.address)
    return replace(row, **fields)


def _told(fields: Iterable[str]) -> list[str]:
    """Fields by their names on the wire; values stay out of the audit log."""
    return sorted({"quietHours" if name.startswith("quiet_") else to_camel(name) for name in fields})


def _known(row: PersonRow | None) -> PersonRow:
    if row is None:
        raise Unauthenticated("This account is gone; sign in again.")
    return row


def _names(if_match: str, tag: str) -> bool:
    """Whether an If-Match header names this tag (strong comparison), or any."""
    return if_match.strip() == "*" or tag in (each.strip() for each in if_match.split(","))


def _profile(row: PersonRow, ring: KeyRing, cdn_url: str) -> Profile:
    quiet = None
    if row.quiet_start is not None and row.quiet_end is not None:
        quiet = {"start": f"{row.quiet_start:%H:%M}", "end": f"{row.quiet_end:%H:%M}"}
    resource: dict[str, object] = {
        "address": row.address,
        "displayName": row.display_name,
        "avatarUrl": link(row.avatar_url, cdn_url),
        "timeZone": row.time_zone,
        "locale": row.locale,
        "riskProfile": row.risk_profile,
        "aiConsent": row.ai_consent,
        "compareConsent": row.compare_consent,
        "monthlyBudget": None if row.monthly_budget is None else dollars(row.monthly_budget),
        "alertThresholds": list(row.alert_thresholds),
        "quietHours": quiet,
        "hideAmounts": row.hide_amounts,
        "digest": row.digest,
        "email": _masked(row, ring),
    }
    # The revision tells apart what looks the same (another e-mail address, masked), the body whose record it is: a
    # browser shared by two users must not take one's record for the other's.
    digest = sha256(orjson.dumps(resource)).hexdigest()[:16]
    return Profile(resource, f'"{row.revision}-{digest}"')


def _masked(row: PersonRow, ring: KeyRing) -> str | None:
    """The address as its owner recognises it; one that does not open is there all the same."""
    if row.email is None:
        return None
    email = _email(row, ring)
    return "***" if email is None else masked_email(email)


def _email(row: PersonRow, ring: KeyRing) -> str | None:
    return None if row.email is None else ring.readable(row.email, purpose="email", owner=row.address)


# Contacts ----------------------------------------------------------------------------------------------------------


async def contacts(deps: Deps, user: Address, *, after: Address | None, limit: int) -> ContactPage:
    """A user's contacts in the order of their addresses."""
    rows = await people.contacts(deps.pool, user, after=after or "", limit=limit + 1)
    page = rows[:limit]
    return ContactPage(page, page[-1].address if len(rows) > limit else None)


async def contact(deps: Deps, user: Address, address: Address) -> ContactRow:
    """What a user calls an address; raises NotFound."""
    return _named(await people.contact(deps.pool, user, address))


async def name_contact(deps: Deps, user: Address, address: Address, label: str) -> ContactRow:
    """Name an address, or name it anew; raises Conflict beyond CONTACTS_MAX."""

    async def body(tx: Tx) -> ContactRow:
        _known(await people.lock_person(tx, user))  # one at a time, so that counting them counts
        if await people.count_contacts(tx, user, beside=address) >= CONTACTS_MAX:
            raise Conflict(f"You have {CONTACTS_MAX} contacts, which is the most; remove one first.")
        row = await people.put_contact(tx, user, address, label, at=deps.now())
        await _index(tx, user, payee=address)
        return row

    named = await in_transaction(deps.pool, body)
    await deps.publisher.wake(keys.JOBS_WAKE)
    return named


async def forget_contact(deps: Deps, user: Address, address: Address) -> None:
    """Forget what a user calls an address; raises NotFound when it had no name."""

    async def body(tx: Tx) -> None:
        if not await people.delete_contact(tx, user, address):
            raise NotFound("You have no contact of this address.")
        await _index(tx, user, payee=address)

    await in_transaction(deps.pool, body)
    await deps.publisher.wake(keys.JOBS_WAKE)


async def _index(tx: Tx, user: Address, *, payee: Address) -> None:
    """Let search find the payee's transactions by what it is called now."""
    await outbox.request(tx, "quick", "index_rows", {"user": user, "payee": payee})


def _named(row: ContactRow | None) -> ContactRow:
    if row is None:
        raise NotFound("You have no contact of this address.")
    return row
