"""The inbox as its user reads it, and what they want to hear where; a read on one device is told to all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args
from uuid import UUID

from handlers.deps import Deps
from handlers.errors import NotFound
from handlers.events import UnreadCount
from handlers.resources import NoticeKind
from handlers.rules.ids import event_id
from handlers.rules.inbox import notification, unread_body
from store import log, notifications
from store.notifications import Channel, Position, Preferences
from store.postgres import Tx, in_transaction
from store.records import Address, Draft, Frame

KINDS: tuple[str, ...] = get_args(NoticeKind)
CHANNELS: tuple[Channel, ...] = get_args(Channel)


@dataclass(frozen=True, slots=True)
class Page:
    """Some of an inbox, newest first, and where the next page begins (None: there is none)."""

    resources: Sequence[Mapping[str, object]]
    next: Position | None


async def inbox(deps: Deps, user: Address, *, below: Position | None, limit: int) -> Page:
    """A user's notifications, newest first; what was taken back is not among them."""
    found = await notifications.listed(deps.pool, user, below=below or notifications.TOP, limit=limit + 1)
    shown = found[:limit]
    more = shown[-1].position if len(found) > limit else None
    return Page([notification(notice) for notice in shown], more)


async def mark_read(deps: Deps, user: Address, *, ids: Sequence[UUID] | None = None, up_to: UUID | None = None) -> int:
    """Mark these notifications as read, or one and all older ones; returns how many are unread then.

    What is read already stays as it is. Raises NotFound for an id that is none of the user's own.
    """
    named = [*(ids or ()), *((up_to,) if up_to else ())]

    async def body(tx: Tx) -> tuple[int, list[Frame]]:
        counters = await log.lock(tx, [user])
        if set(named) - await notifications.known(tx, user, named):
            raise NotFound("You have no notification of this id.")
        now = deps.now()
        read = await notifications.read_ids(tx, user, ids, at=now) if ids else []
        read += await notifications.read_up_to(tx, user, up_to, at=now) if up_to else []
        unread = (await notifications.unread(tx, [user]))[user]
        # A notification is read once, so what was read names the cause.
        drafts = [_unread_draft(user, unread, sorted(read))] if read else []
        return unread, await log.append(tx, counters, drafts, at=now)

    unread, frames = await in_transaction(deps.pool, body)
    await deps.publisher.publish([(frame.user, frame.text) for frame in frames])
    return unread


def _unread_draft(user: Address, unread: int, read: Sequence[UUID]) -> Draft:
    return Draft(
        user=user,
        event_id=event_id(UnreadCount.name, user, *read),
        event=UnreadCount.name,
        version=UnreadCount.version,
        body=unread_body(unread),
    )


async def preferences(deps: Deps, user: Address) -> list[dict[str, object]]:
    """What a user wants of every kind on every channel."""
    return _shown((await notifications.allowed(deps.pool, [user]))[user])


async def prefer(deps: Deps, user: Address, said: Mapping[tuple[str, str], bool]) -> list[dict[str, object]]:
    """Keep what a user says of (kind, channel) and return all; what is not said stays as it was."""

    async def body(tx: Tx) -> list[dict[str, object]]:
        await notifications.set_preferences(tx, user, said)
        return _shown((await notifications.allowed(tx, [user]))[user])

    return await in_transaction(deps.pool, body)


def _shown(said: Preferences) -> list[dict[str, object]]:
    return [{"kind": kind, **{channel: said.allows(kind, channel) for channel in CHANNELS}} for kind in KINDS]
