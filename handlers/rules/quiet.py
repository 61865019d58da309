"""Quiet hours: whether a moment lies in them in the user's zone, and when they are over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

_NOT_ZONES = ("posix/", "right/", "posixrules", "localtime", "Factory")
"""What systems keep beside the zones: the same again with other seconds, and what is not a place."""


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `start` to before `end` on the clock on the wall; a start after the end spans midnight. Never equal."""

    start: time
    end: time

    def contains(self, clock: time) -> bool:
        """Whether the clock on the wall shows quiet hours."""
        if self.start < self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end


def is_zone(name: str) -> bool:
    """Whether this is a time zone of the IANA database, written as it is there."""
    if name.startswith(_NOT_ZONES) or not all(char.isalnum() or char in "/_+-" for char in name):
        return False
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):  # a folder of zones is an OSError, an unknown name a LookupError
        return False
    return True


def is_quiet(moment: datetime, hours: QuietHours | None, *, zone: str) -> bool:
    """Whether an aware moment lies in the quiet hours of someone in `zone`; None: nobody is ever disturbed."""
    return hours is not None and hours.contains(moment.astimezone(ZoneInfo(zone)).time())


def quiet_until(moment: datetime, hours: QuietHours | None, *, zone: str) -> datetime | None:
    """When the quiet hours that `moment` lies in are over (UTC); None outside of them.

    An end that the clock skips in spring comes when it would have; one that it shows twice in autumn, the first time
    after `moment`.
    """
    if hours is None or not is_quiet(moment, hours, zone=zone):
        return None
    here = moment.astimezone(ZoneInfo(zone))
    day = here.date() if here.time() < hours.end else here.date() + timedelta(days=1)
    end = datetime.combine(day, hours.end, tzinfo=here.tzinfo)
    ends = (end.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    return next(each for each in ends if each > moment)
