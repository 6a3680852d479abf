"""Whether a schedule makes sense. Which ticks it plans is decided elsewhere, with a clock."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Generator, Iterator

import cronsim

from grampus.errors import Problem
from grampus.model.duration import UNITS, format_duration
from grampus.model.spelling import nearest
from grampus.model.workflow import Schedule

CRON = "five fields: minute hour day month weekday, such as `0 6 * * 1-5`"
SHORTEST = UNITS["s"]
LONGEST = 366 * UNITS["d"]


def check_schedule(schedule: Schedule) -> Iterator[Problem]:
    """All that is wrong with `schedule`; fields start with `schedule`."""
    if (schedule.cron is None) == (schedule.every is None):
        text = "a schedule has either `cron` or `every`"
        yield Problem(text, field="schedule", found="both" if schedule.cron else "neither")
    if schedule.cron is not None:
        yield from _check_cron(schedule.cron)
    if schedule.every is not None and not SHORTEST <= schedule.every <= LONGEST:
        found = format_duration(max(schedule.every, 0))
        yield Problem("out of range", field="schedule.every", found=found, allowed="1s to 366d")
    if not is_zone(schedule.tz):
        hint = nearest(schedule.tz, zoneinfo.available_timezones())
        text = f"unknown time zone{hint}"
        allowed = "a name such as UTC or Europe/Paris"
        yield Problem(text, field="schedule.tz", found=repr(schedule.tz), allowed=allowed)
    start = yield from _check_time("start", schedule.start)
    end = yield from _check_time("end", schedule.end)
    if start and end and end <= start:
        yield Problem("the end is not after the start", field="schedule.end", found=schedule.end)


def is_zone(name: str) -> bool:
    """Whether `name` is a time zone of the IANA data base."""
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return False
    return bool(name)


def _check_cron(text: str) -> Iterator[Problem]:
    try:
        if len(text.split()) != 5:
            raise cronsim.CronSimError("not five fields")
        next(cronsim.CronSim(text, datetime.datetime(2026, 1, 1)))
    except cronsim.CronSimError as error:
        reason = str(error) or "cannot be read"
        reason = reason[0].lower() + reason[1:]
        yield Problem(reason, field="schedule.cron", found=repr(text), allowed=CRON)
    except StopIteration:
        yield Problem("never comes", field="schedule.cron", found=repr(text), allowed=CRON)


def _check_time(name: str, text: str | None) -> Generator[Problem, None, datetime.datetime | None]:
    """Yields what is wrong, returns the time when nothing is."""
    if text is None:
        return None
    try:
        when = datetime.datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is not None:
        allowed = "a date or a date-time in the zone of `tz`, such as 2026-11-21T06:00"
        yield Problem("no local time", field=f"schedule.{name}", found=repr(text), allowed=allowed)
        return None
    return when
