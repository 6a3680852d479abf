"""A cron line on a calendar: which days it names, and which times of day. Knows no time zone.

The line is read by cronsim. Days are looked for month by month, so that a line that comes once in
four years costs little, and one that never comes is given up after `YEARS`.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterator

import cronsim

#: 29 February on a given weekday comes every 28 years, or after 40 around 2100.
YEARS = 50
_DAY = datetime.timedelta(days=1)


class Cron:
    """`line`: five fields, checked. Raises cronsim.CronSimError."""

    def __init__(self, line: str) -> None:
        self._fields = cronsim.CronSim(line, datetime.datetime(2000, 1, 1))
        #: Ascending.
        self.times = tuple(
            datetime.time(hour, minute)
            for hour in sorted(self._fields.hours)
            for minute in sorted(self._fields.minutes)
        )

    def days(self, first: datetime.date) -> Iterator[datetime.date]:
        """From `first` on, ascending; ends after YEARS without one, and with the calendar."""
        months, day, end = self._fields.months, first, _later(first)
        try:
            while day < end:
                if day.month not in months:
                    day = (day.replace(day=1) + 32 * _DAY).replace(day=1)
                    continue
                if self._fields.match_day(day):
                    yield day
                    end = _later(day)
                day += _DAY
        except OverflowError:
            return


def _later(day: datetime.date) -> datetime.date:
    return datetime.date(min(day.year + YEARS, datetime.MAXYEAR), 12, 31)


@functools.lru_cache(maxsize=4096)
def read_cron(line: str) -> Cron:
    return Cron(line)
