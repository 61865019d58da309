"""The signed-in user over REST: record, names for other addresses, and what was noted about the account."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import time
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictBool, StrictInt, StringConstraints, model_validator

from handlers import audit, budgets, people
from handlers.errors import Conflict, FieldError, Invalid, NotFound, PreconditionFailed
from handlers.resources import AddressText, Money, Resource, Time
from handlers.rules.periods import iso
from handlers.rules.quiet import is_zone
from handlers.rules.texts import plain
from realtime.rest import shapes
from realtime.rest.api import Body, Header, Path, endpoint
from realtime.rest.call import Answer, Call
from realtime.rest.changes import Changes, given
from realtime.rest.paging import DEFAULT_LIMIT, CursorText, Limit, cursor_of, page, place_of
from store.people import ContactRow, Digest, RiskProfile
from store.records import Address

NAME_MAX = 64
"""Characters of a name that is shown."""
THRESHOLD_MAX = 200
"""Percent: an alert at twice the budget is the last that says something."""

_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{40}")
_CLOCK = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
_EMAIL = (
    r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~\-]{1,64}@([A-Za-z0-9]([A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.)+"
    r"[A-Za-z0-9]([A-Za-z0-9\-]{0,61}[A-Za-z0-9])?$"
)


def _name(text: str) -> str:
    shown = plain(text)
    if len(shown) > NAME_MAX:
        raise ValueError(f"should have at most {NAME_MAX} characters")
    return shown


def _label(text: str) -> str:
    if not (shown := _name(text)):
        raise ValueError("should have something to show")
    return shown


def _zone(name: str) -> str:
    if not is_zone(name):
        raise ValueError("should be a time zone of the IANA database, like Europe/Berlin")
    return name


def _locale(tag: str) -> str:
    """A tag in its usual letter case: `de-Latn-DE`."""
    first, *rest = tag.split("-")
    shapes_ = {2: str.upper, 4: str.title}
    return "-".join([first.lower(), *(shapes_.get(len(part), str.lower)(part) for part in rest)])


def _ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError("should be ascending, each once")
    return values


Clock = Annotated[str, Field(pattern=_CLOCK, description="Clock time in the user's zone.", examples=["22:00"])]
Percent = Annotated[StrictInt, Field(ge=1, le=THRESHOLD_MAX)]
Dollars = Annotated[str, Field(pattern=r"^[0-9]{1,18}(\.[0-9]{1,2})?$", description="US dollars; 0 is a budget too.")]
Locale = Annotated[str, Field(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$", max_length=35), AfterValidator(_locale)]
AvatarUrl = Annotated[str, Field(pattern=r"^https://[\x21-\x7e]+$", max_length=512)]
Email = Annotated[str, StringConstraints(pattern=_EMAIL, max_length=254)]


class QuietHours(Resource):
    """When no push is sent; a start after the end spans midnight."""

    start: Clock
    end: Clock

    @model_validator(mode="after")
    def _differ(self) -> QuietHours:
        if self.start == self.end:
            raise ValueError("start and end should differ; null means no quiet hours")
        return self


class Me(shapes.User):
    """The record of the signed-in user."""

    monthly_budget: Money | None = Field(description="Over all categories; null: their own budgets count.")
    alert_thresholds: list[int] = Field(description="Percent of a budget at which an alert comes, ascending.")
    quiet_hours: QuietHours | None
    compare_consent: bool = Field(description="Whether the user is compared with friends, and friends with the user.")
    hide_amounts: bool = Field(description="Whether pushes leave amounts out.")
    digest: Digest
    email: str | None = Field(description="Masked; the address itself is never given back.", examples=["a***@x.org"])


class MePatch(Changes):
    """Fields to change; those left out stay as they are."""

    display_name: Annotated[str, Field(max_length=4 * NAME_MAX), AfterValidator(_name)] | None = None
    avatar_url: AvatarUrl | None = None
    time_zone: Annotated[str, Field(max_length=64, description="IANA name."), AfterValidator(_zone)] = "UTC"
    locale: Annotated[Locale, Field(description="BCP 47 tag.")] = "en"
    risk_profile: RiskProfile = "moderate"
    ai_consent: StrictBool = False
    monthly_budget: Dollars | None = None
    alert_thresholds: Annotated[
        tuple[Percent, ...], Field(min_length=1, max_length=10), AfterValidator(_ascending)
    ] = ()
    quiet_hours: QuietHours | None = None
    compare_consent: StrictBool = False
    hide_amounts: StrictBool = False
    digest: Digest = "weekly"
    email: Email | None = None


class Contact(Resource):
    """What the user calls an address."""

    address: AddressText
    label: str
    created_at: Time
    updated_at: Time


class Contacts(shapes.Listed):
    """Contacts in the order of their addresses."""

    data: list[Contact]


class Naming(Resource):
    """A name for an address."""

    label: Annotated[str, Field(max_length=4 * NAME_MAX), AfterValidator(_label)]


@endpoint("GET", "/v1/me", tag="me", answers=Me, tagged=True)
async def me(call: Call) -> Answer:
    """Read the user's record.

    Its ETag is what a change of it may name in If-Match.
    """
    return _answer(await people.profile(call.deps, call.me.user))


@endpoint(
    "PATCH", "/v1/me", tag="me", answers=Me, scope="write", writes=True, tagged=True, problems=(PreconditionFailed,)
)
async def change_me(
    call: Call,
    *,
    body: Annotated[MePatch, Body()],
    if_match: Annotated[str | None, Header("If-Match", "ETag of the record that the change was made for.")] = None,
) -> Answer:
    """Change some of the user's record.

    Without If-Match the last writer wins, field by field; with it a record that has changed meanwhile is left alone.
    A change of time zone or of the monthly budget moves the budgets: `budget_update` tells them anew.
    """
    changed = await people.change(
        call.deps,
        call.me.user,
        _fields(body),
        if_match=if_match,
        caller=call.caller,
        budgets_told=budgets.told,
    )
    return _answer(changed)


def _answer(profile: people.Profile) -> Answer:
    return Answer(body=profile.resource, headers={"ETag": profile.tag})


def _fields(patch: MePatch) -> dict[str, Any]:
    """The fields that were sent, as the store has them."""
    sent = given(patch)
    if "display_name" in sent:
        sent["display_name"] = sent["display_name"] or None
    if sent.get("monthly_budget") is not None:
        sent["monthly_budget"] = Decimal(sent["monthly_budget"])
    if "quiet_hours" in sent:
        hours = sent.pop("quiet_hours")
        sent["quiet_start"] = None if hours is None else time.fromisoformat(hours.start)
        sent["quiet_end"] = None if hours is None else time.fromisoformat(hours.end)
    return sent


@endpoint("GET", "/v1/contacts", tag="me", answers=Contacts, tagged=True)
async def contacts(call: Call, *, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Answer:
    """List the names that the user gave to addresses."""
    settings = call.deps.settings
    after = None if cursor is None else str(place_of(settings, "contacts", cursor)[0])
    found = await people.contacts(call.deps, call.me.user, after=after, limit=limit)
    following = None if found.next is None else cursor_of(settings, "contacts", found.next)
    return page(call, [_contact(row) for row in found.resources], following)


NamedAddress = Annotated[str, Path("Address, in any letter case.")]


@endpoint("GET", "/v1/contacts/{address}", tag="me", answers=Contact, tagged=True, problems=(NotFound,))
async def contact(call: Call, *, address: NamedAddress) -> Mapping[str, object]:
    """Read the name that the user gave to an address."""
    return _contact(await people.contact(call.deps, call.me.user, _address(address)))


@endpoint("PUT", "/v1/contacts/{address}", tag="me", answers=Contact, scope="write", writes=True, problems=(Conflict,))
async def name_contact(call: Call, *, address: NamedAddress, body: Annotated[Naming, Body()]) -> Mapping[str, object]:
    """Name an address, or name it anew; only the user sees it."""
    return _contact(await people.name_contact(call.deps, call.me.user, _address(address), body.label))


@endpoint("DELETE", "/v1/contacts/{address}", tag="me", scope="write", writes=True, problems=(NotFound,))
async def forget_contact(call: Call, *, address: NamedAddress) -> None:
    """Forget the name of an address."""
    await people.forget_contact(call.deps, call.me.user, _address(address))


def _address(text: str) -> Address:
    if not _ADDRESS.fullmatch(text):
        words = "should be 0x and 40 hex digits"
        raise Invalid(f"The address in the path {words}.", errors=[FieldError("/path/address", words)])
    return text.lower()


def _contact(row: ContactRow) -> Mapping[str, object]:
    return {
        "address": row.address,
        "label": row.label,
        "createdAt": iso(row.created_at),
        "updatedAt": iso(row.updated_at),
    }


@endpoint("GET", "/v1/me/audit", tag="me", answers=shapes.AuditEntries, tagged=True, problems=(Invalid,))
async def audit_log(call: Call, *, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Answer:
    """List what happened to the account, newest first.

    Sign-ins (refused ones that named this address too), refreshes, sessions that were ended, rooms that were refused,
    changes of the record (which fields, not what they hold).
    """
    before = None if cursor is None else int(place_of(call.deps.settings, "audit", cursor)[0])
    entries = await audit.entries(call.deps, call.me.user, before=before, limit=limit + 1)
    data = [
        {
            "id": entry.id,
            "action": entry.action,
            "metadata": entry.metadata,
            "ipAddress": entry.ip_address,
            "userAgent": entry.user_agent,
            "timestamp": iso(entry.at),
        }
        for entry in entries[:limit]
    ]
    following = cursor_of(call.deps.settings, "audit", entries[limit - 1].id) if len(entries) > limit else None
    return page(call, data, following)


ROUTES = (me, change_me, audit_log, contacts, contact, name_contact, forget_contact)
