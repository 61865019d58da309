"""Notifications on the wire: the resource, and the bodies of the two events that tell of the inbox."""

from __future__ import annotations

from dataclasses import dataclass, field

from handlers.events import NotificationAdded
from handlers.rules.ids import event_id
from handlers.rules.periods import iso
from store.notifications import Notice, Preferences
from store.pushes import Intent
from store.records import Address, Draft


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


def told_id(user: Address, about: str) -> str:
    """Id of the `notification` event about another event."""
    return event_id(NotificationAdded.name, user, about)


@dataclass(slots=True)
class Inbox:
    """One user's inbox during a transaction: what is put into it, and the count that its events tell."""

    user: Address
    preferences: Preferences
    unread: int
    added: list[Notice] = field(default_factory=list)

    def add(self, notice: Notice, cause: str | None) -> list[Draft]:
        """Take a notice in; the `notification` to append, none for a kind that the user keeps out of the inbox."""
        self.added.append(notice)
        if not self.preferences.allows(notice.kind, "inbox"):
            return []
        self.unread += 1
        return [
            Draft(
                user=self.user,
                event_id=told_id(self.user, notice.event_id),
                event=NotificationAdded.name,
                version=NotificationAdded.version,
                body=notice_body(notice, self.unread),
                cause=cause,
                transaction_id=notice.transaction_id,
            )
        ]

    @property
    def intents(self) -> list[Intent]:
        """What phones are to be told of what was added; the same effect again is told at most once."""
        return [
            Intent(
                user=notice.user,
                subject=notice.subject or f"{notice.transaction_id}:{notice.kind}",
                event_id=told_id(notice.user, notice.event_id) if notice.alone else notice.event_id,
                kind=notice.kind,
                facts=notice.facts,
                severity=notice.severity,
                transaction_id=notice.transaction_id,
            )
            for notice in self.added
        ]

    @property
    def kept(self) -> list[Notice]:
        """What the inbox itself keeps of what was added."""
        return [notice for notice in self.added if self.preferences.allows(notice.kind, "inbox")]
