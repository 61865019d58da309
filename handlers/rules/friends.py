"""What one user is shown of another: a name and an avatar, never an address that they did not type. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from handlers.rules.ids import event_id
from handlers.rules.periods import iso
from handlers.rules.pictures import MEDIA, link
from store.friends import FriendRow, InvitationRow, ProfileRow, RequestRow
from store.notifications import Notice

SOMEONE = "Someone"
"""What a user without a name is called."""

TITLES = {"friend_request": "Friend request", "friend_accepted": "New friend"}
BODIES = {"friend_request": "{name} wants to be friends.", "friend_accepted": "You and {name} are friends now."}


def friend(row: FriendRow, profile: ProfileRow, cdn_url: str) -> dict[str, object]:
    """A friend, or someone who asked to be one, as a resource."""
    return {
        "id": str(row.id),
        "status": row.state,
        "displayName": profile.display_name,
        "avatarUrl": avatar(profile.avatar_url, cdn_url),
        "address": row.other if row.typed else None,
        "since": iso(row.changed_at),
    }


def avatar(url: str | None, cdn_url: str) -> str | None:
    """An avatar as others see it: one of our pictures. An address on the user's own server would tell who looks."""
    return link(url, cdn_url) if url is not None and url.startswith(f"/{MEDIA}") else None


def asked(row: RequestRow) -> dict[str, object]:
    """A request as its sender sees it: nothing but what they typed."""
    return {
        "id": str(row.id),
        "status": "requested",
        "displayName": None,
        "avatarUrl": None,
        "address": row.other,
        "since": iso(row.asked_at),
    }


def blocked(row: FriendRow) -> dict[str, object]:
    """Someone who is blocked, as they were called then."""
    return {
        "id": str(row.id),
        "displayName": row.called,
        "address": row.other if row.typed else None,
        "since": iso(row.changed_at),
    }


def invitation(row: InvitationRow) -> dict[str, object]:
    """An invitation without its token."""
    return {
        "id": str(row.id),
        "usesLeft": row.uses_left,
        "expiresAt": iso(row.expires_at),
        "createdAt": iso(row.created_at),
    }


def notice(
    row: FriendRow, kind: Literal["friend_request", "friend_accepted"], name: str | None, *, at: datetime
) -> Notice:
    """The inbox entry for the owner of a row.

    Its id comes from the row's, which is random: one made of addresses could be tried out, address by address.
    """
    shown = name or SOMEONE
    key = event_id(kind, row.id, iso(at))
    return Notice(
        user=row.user,
        event_id=key,
        kind=kind,
        title=TITLES[kind],
        body=BODIES[kind].replace("{name}", shown),
        severity="info",
        transaction_id=None,
        created_at=at,
        facts={"name": shown, "friend_id": str(row.id)},
        subject=f"{kind}:{key}",
        alone=True,
    )
