"""Calendar months in a user's time zone. Pure: the zone and the moment are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month of one zone as instants: from its first local midnight up to the next month's (UTC)."""

    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        """Its real length: a change of the clock is in it."""
        return self.end - self.start

    def days_left(self, now: datetime) -> int:
        """Days that may still be spent in, today included; at least 1."""
        return max(1, -((now - self.end) // DAY))

    def __contains__(self, moment: datetime) -> bool:
        """Whether the instant lies in the month; its end belongs to the next."""
        return self.start <= moment < self.end


def month_of(moment: datetime, zone: ZoneInfo) -> Month:
    """The month that an instant lies in, as the user's calendar has it."""
    local = moment.astimezone(zone)
    start = datetime(local.year, local.month, 1, tzinfo=zone)
    year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)
    end = datetime(year, month, 1, tzinfo=zone)
    return Month(start.astimezone(UTC), end.astimezone(UTC))
