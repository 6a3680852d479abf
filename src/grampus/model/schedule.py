"""Whether a schedule makes sense, and which ticks it plans. Pure: the time is an argument.

Rule: a cron line names local times, and each is one tick. A local time that the clock jumps over is
due at the jump; one that comes twice is due the first time. An interval is counted in real time
from `start` or the epoch. `start` and `end` are included, a date alone as `end` with its whole day.
"""

from __future__ import annotations

import bisect
import collections
import datetime
import functools
import zoneinfo
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import cronsim

from grampus.errors import Problem
from grampus.model.cron import Cron, read_cron
from grampus.model.duration import UNITS, format_duration
from grampus.model.spelling import nearest
from grampus.model.workflow import Schedule

CRON = "five fields: minute hour day month weekday, such as `0 6 * * 1-5`"
SHORTEST = UNITS["s"]
LONGEST = 366 * UNITS["d"]
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MS = datetime.timedelta(milliseconds=1)
_DAY = datetime.timedelta(days=1)
#: Ticks are planned from the year 1900 to the year 9000.
_FIRST = -2_208_988_800_000
_LAST = 221_845_392_000_000


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
    if start and end and schedule.end and _end_of(schedule.end) <= start:
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


def next_tick(schedule: Schedule, after_ms: int) -> int | None:
    """The first tick later than `after_ms`; None when there is none. For a checked schedule."""
    bounds = _bounds(schedule)
    after = max(after_ms, bounds.start - 1)
    if after >= bounds.end:
        return None
    if schedule.every is not None:
        tick: int | None = after + schedule.every - (after - bounds.base) % schedule.every
    else:
        tick = _next_cron(schedule, after)
    return tick if tick is not None and tick <= bounds.end else None


def ticks_between(
    schedule: Schedule, first: int, until: int, limit: int
) -> tuple[int, tuple[int, ...]]:
    """How many ticks there are from `first` to `until`, both included, and the newest of them.

    At most `limit` newest, ascending. The effort grows with the days in between, not the ticks.
    """
    bounds = _bounds(schedule)
    first, until = max(first, bounds.start), min(until, bounds.end)
    if first > until:
        return 0, ()
    if schedule.every is not None:
        every, base = schedule.every, bounds.base
        low, high = -(-(first - base) // every), (until - base) // every
        ticks = range(base + max(low, high - limit + 1) * every, base + high * every + 1, every)
        return max(high - low + 1, 0), tuple(ticks)
    return _cron_between(schedule, first, until, limit)


class _Bounds(NamedTuple):
    start: int
    #: Included.
    end: int
    #: Intervals are counted from here.
    base: int


@functools.lru_cache(maxsize=4096)
def _bounds(schedule: Schedule) -> _Bounds:
    zone = zoneinfo.ZoneInfo(schedule.tz)
    start, base, end = _FIRST, 0, _LAST
    if schedule.start is not None:
        start = base = _instant(datetime.datetime.fromisoformat(schedule.start), zone)
    if schedule.end is not None:
        end = min(_instant(_end_of(schedule.end), zone), _LAST)
    return _Bounds(max(start, _FIRST), end, base)


def _end_of(text: str) -> datetime.datetime:
    """A date alone means all of that day."""
    when = datetime.datetime.fromisoformat(text)
    if len(text) <= len("2026-W47-6"):
        when += datetime.timedelta(days=1, milliseconds=-1)
    return when


def _next_cron(schedule: Schedule, after: int) -> int | None:
    assert schedule.cron is not None
    zone = zoneinfo.ZoneInfo(schedule.tz)
    cron, local = read_cron(schedule.cron), _local(after, zone)
    for day in cron.days(local.date()):
        for time in _times(cron, day, local):
            tick = _instant(datetime.datetime.combine(day, time), zone)
            if tick > after:
                return tick
    return None


def _times(cron: Cron, day: datetime.date, local: datetime.datetime) -> Sequence[datetime.time]:
    """Those of `day` that may come when the wall clock has shown `local`.

    Local times in order are instants in order, so those up to `local` are over. Of the rest, the
    caller leaves out what comes for the second time."""
    if day > local.date():
        return cron.times
    return cron.times[bisect.bisect_right(cron.times, local.time()) :]


def _cron_between(
    schedule: Schedule, first: int, until: int, limit: int
) -> tuple[int, tuple[int, ...]]:
    assert schedule.cron is not None
    zone = zoneinfo.ZoneInfo(schedule.tz)
    cron, local, last_day = read_cron(schedule.cron), _local(first - 1, zone), _local(until, zone)
    count, newest, known = 0, collections.deque[int](maxlen=limit), first - 1
    uneven: datetime.date | None = None
    for day in cron.days(local.date()):
        if day > last_day.date() + _DAY:
            break
        begin = _instant(datetime.datetime.combine(day, datetime.time()), zone)
        end = _instant(datetime.datetime.combine(day + _DAY, datetime.time()), zone)
        even = end - begin == UNITS["d"] and known < begin and end <= until
        if even and (uneven is None or day - uneven > _DAY):
            # A day like most: its ticks need not be looked at to be counted.
            count += len(cron.times)
            newest.extend(_of_day(begin, time) for time in cron.times[-limit:])
            known = end - 1
            continue
        if end - begin != UNITS["d"]:
            uneven = day
        for time in _times(cron, day, local):
            tick = _instant(datetime.datetime.combine(day, time), zone)
            if tick > until:
                break
            if tick > known:
                known = tick
                count += 1
                newest.append(tick)
    return count, tuple(newest)


def _of_day(begin: int, time: datetime.time) -> int:
    return begin + (time.hour * 60 + time.minute) * UNITS["m"]


def _local(ms: int, zone: zoneinfo.ZoneInfo) -> datetime.datetime:
    """What a clock on the wall shows, without its zone."""
    return (_EPOCH + datetime.timedelta(milliseconds=ms)).astimezone(zone).replace(tzinfo=None)


def _instant(local: datetime.datetime, zone: zoneinfo.ZoneInfo) -> int:
    """When a clock on the wall shows `local`: the first time when it does twice, the shift when it
    never does."""
    aware = local.replace(tzinfo=zone, fold=0)
    ms = (aware - _EPOCH) // _MS
    if _local(ms, zone) == local:
        return ms
    # The clock jumped over it: the shift lies between the readings by its two offsets.
    low, high = (local.replace(tzinfo=zone, fold=1) - _EPOCH) // _MS, ms
    before = (_EPOCH + low * _MS).astimezone(zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if (_EPOCH + middle * _MS).astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high
