"""The contract's rolling month, and times as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

PERIOD = timedelta(days=30)
"""The contract's month: 2,592,000 s from the bucket's last reset."""


def period_end(start: datetime | None) -> datetime | None:
    """End of the rolling period that began at `start`."""
    return None if start is None else start + PERIOD


def is_due(start: datetime | None, now: datetime) -> bool:
    """Whether the rolling period is over at `now`; the contract resets at the end itself, not after it."""
    return start is not None and now >= start + PERIOD


def iso(moment: datetime) -> str:
    """ISO-8601 UTC with milliseconds and `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
