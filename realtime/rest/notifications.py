"""The inbox over REST: list, mark as read, preferences."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated
from uuid import UUID

from handlers import notifications
from handlers.errors import NotFound
from realtime.rest.api import Body, endpoint
from realtime.rest.call import Answer, Call
from realtime.rest.channels import Notifications as Listed
from realtime.rest.channels import Preferences, Read, SetPreferences, Unread
from realtime.rest.paging import DEFAULT_LIMIT, CursorText, Limit, cursor_of, page, place_of
from store.notifications import Position


@endpoint("GET", "/v1/notifications", tag="notifications", answers=Listed, tagged=True)
async def list_notifications(call: Call, *, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Answer:
    """List the user's notifications, newest first.

    One whose cause a reorg took back is not listed any more.
    """
    settings, below = call.deps.settings, None
    if cursor is not None:
        time, id_ = place_of(settings, "notifications", cursor)
        below = Position(datetime.fromisoformat(time), UUID(id_))
    found = await notifications.inbox(call.deps, call.me.user, below=below, limit=limit)
    following = None
    if found.next is not None:
        following = cursor_of(settings, "notifications", found.next.created_at.isoformat(), str(found.next.id))
    return page(call, found.resources, following)


@endpoint(
    "POST",
    "/v1/notifications/read",
    tag="notifications",
    answers=Unread,
    writes=True,
    once=True,
    problems=(NotFound,),
)
async def read_notifications(call: Call, *, body: Annotated[Read, Body()]) -> Mapping[str, object]:
    """Mark notifications as read on every device: those named, or one and all older ones.

    Every device is told by `unread_count`. An id that is not the user's is not found, and then nothing is marked.
    """
    unread = await notifications.mark_read(call.deps, call.me.user, ids=body.notification_ids, up_to=body.up_to)
    return {"unreadCount": unread}


@endpoint("GET", "/v1/notification-preferences", tag="notifications", answers=Preferences, tagged=True)
async def notification_preferences(call: Call) -> Mapping[str, object]:
    """Read what the user wants of every kind of notification on every channel."""
    return {"data": await notifications.preferences(call.deps, call.me.user)}


@endpoint("PUT", "/v1/notification-preferences", tag="notifications", answers=Preferences, writes=True)
async def set_notification_preferences(call: Call, *, body: Annotated[SetPreferences, Body()]) -> Mapping[str, object]:
    """Say what the user wants of some kinds on some channels; what is left out stays as it is."""
    said: dict[tuple[str, str], bool] = {
        (each.kind, channel): wanted
        for each in body.data
        for channel in notifications.CHANNELS
        if (wanted := getattr(each, channel)) is not None
    }
    return {"data": await notifications.prefer(call.deps, call.me.user, said)}


ROUTES = (list_notifications, read_notifications, notification_preferences, set_notification_preferences)
