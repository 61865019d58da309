"""Notifications on the wire: the resource, and the bodies of the two events that tell of the inbox."""

from __future__ import annotations

from handlers.rules.periods import iso
from store.notifications import Notice


def notification(notice: Notice) -> dict[str, object]:
    """A notice as the resource of CONTRACT."""
    return {
        "id": str(notice.id),
        "kind": notice.kind,
        "title": notice.title,
        "body": notice.body,
        "severity": notice.severity,
        "eventId": notice.event_id,
        "transactionId": notice.transaction_id,
        "createdAt": iso(notice.created_at),
        "readAt": iso(notice.read_at) if notice.read_at else None,
    }


def notice_body(notice: Notice, unread: int) -> dict[str, object]:
    """Body of `notification`; `unread` counts this notice too."""
    return {"notification": notification(notice), "unreadCount": unread}


def unread_body(unread: int) -> dict[str, object]:
    """Body of `unread_count`."""
    return {"unreadCount": unread}
