"""Whether a push is sent now, later or never. Pure: the push, its user's wishes and the clock are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Literal

from handlers.rules.quiet import QuietHours, quiet_until
from store.notifications import Preferences
from store.pushes import Audience, PushRow
from store.records import Address

EXPIRY = timedelta(days=1)
"""Age beyond which a push is not sent any more: it would tell of yesterday, and acks are kept for a day."""
FIRST_RETRY_S = 5.0
LONGEST_RETRY_S = 600.0
"""Pauses after a failed attempt (s): doubling from the first to the longest."""

ABOUT_A_TRANSACTION = frozenset({"transaction_received", "delegate_spend", "anomaly_alert"})
"""Kinds that fall with their transaction. An alert may stand without the spend that raised it: its own event falls."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`send`, `held` (a device has shown it), `dropped` for `reason`, or `later`, not before `until`."""

    action: Literal["send", "held", "dropped", "later"]
    reason: str | None = None
    until: datetime | None = None


SEND = Verdict("send")


def decide(push: PushRow, person: Audience | None, wishes: Preferences, *, shown: int | None, now: datetime) -> Verdict:
    """What to do with a due push; `shown` is the highest seq that a device of the user has shown (None: not known)."""
    if person is None:
        return Verdict("dropped", "no_user")
    if push.reverted_at is not None or (push.kind in ABOUT_A_TRANSACTION and not push.stands):
        return Verdict("dropped", "reverted")
    if now - push.created_at > EXPIRY:
        return Verdict("dropped", "expired")
    if push.silent:  # nobody is disturbed, and what the phone shows is wrong without it
        return SEND
    if not wishes.allows(push.kind, "push"):
        return Verdict("dropped", "unwanted")
    if shown is not None and shown >= push.seq:
        return Verdict("held", "shown")
    until = quiet_until(now, quiet_hours(person), zone=person.time_zone)
    return SEND if until is None else Verdict("later", "quiet_hours", until)


def quiet_hours(person: Audience) -> QuietHours | None:
    """The user's quiet hours; None without any."""
    if person.quiet_start is None or person.quiet_end is None or person.quiet_start == person.quiet_end:
        return None
    return QuietHours(person.quiet_start, person.quiet_end)


def collapse_key(user: Address, subject: str) -> str:
    """One key per effect: phones and providers keep only the newest push of a key. 32 characters fit all of them."""
    return sha256(f"{user}\0{subject}".encode()).hexdigest()[:32]


def retry_s(attempts: int, *, asked_s: float | None) -> float:
    """Pause after the `attempts`th attempt (s); what the provider asked for counts when it is longer."""
    return max(min(FIRST_RETRY_S * 2.0 ** min(attempts - 1, 12), LONGEST_RETRY_S), asked_s or 0.0)
