"""Ticks against a walk over every minute of real time, which knows cron and zones on its own."""

from __future__ import annotations

import datetime
import time
import zoneinfo
from collections.abc import Iterator

import pytest

from grampus.model.schedule import check_schedule, next_tick, ticks_between
from grampus.model.workflow import Schedule

UTC = datetime.UTC
MINUTE = 60_000
DAY = 24 * 60 * MINUTE


def at(text: str, tz: str = "UTC") -> int:
    """Of `2026-11-21T06:00`, or with its own offset."""
    when = datetime.datetime.fromisoformat(text)
    if when.tzinfo is None:
        when = when.replace(tzinfo=zoneinfo.ZoneInfo(tz))
    return round(when.timestamp() * 1000)


def text(ms: int, tz: str) -> str:
    when = datetime.datetime.fromtimestamp(ms / 1000, zoneinfo.ZoneInfo(tz))
    return when.strftime("%m-%d %H:%M %z")


def member(value: int, field: str, low: int, high: int) -> bool:
    """One field of numbers, lists, ranges and steps, read anew here."""
    for part in field.split(","):
        span, _, step = part.partition("/")
        begin, _, end = ("", "", "") if span == "*" else span.partition("-")
        first = int(begin) if begin else low
        last = int(end) if end else high if step or span == "*" else first
        if value in range(first, last + 1, int(step or 1)):
            return True
    return False


def matches(line: str, local: datetime.datetime) -> bool:
    minute, hour, day, month, weekday = line.split()
    by_day = member(local.day, day, 1, 31)
    number = local.isoweekday()
    by_weekday = member(number, weekday, 0, 7) or (number == 7 and member(0, weekday, 0, 7))
    either = not day.startswith("*") and not weekday.startswith("*")
    return (
        member(local.minute, minute, 0, 59)
        and member(local.hour, hour, 0, 23)
        and member(local.month, month, 1, 12)
        and (by_day or by_weekday if either else by_day and by_weekday)
    )


def walk(line: str, tz: str, first: int, until: int) -> Iterator[int]:
    """Every minute of real time: what the wall clock shows for the first time is looked at, and so
    is, at a jump, all that it leaves out."""
    zone, minute = zoneinfo.ZoneInfo(tz), datetime.timedelta(minutes=1)
    start = datetime.datetime.fromtimestamp((first - 2 * DAY) / 1000, UTC)
    highest: datetime.datetime | None = None
    for number in range((until - first + 2 * DAY) // MINUTE + 1):
        now = start + number * minute
        local = now.astimezone(zone).replace(tzinfo=None)
        shown = highest + minute if highest else local
        fires = False
        while shown <= local:
            fires = fires or matches(line, shown)
            shown += minute
        highest = max(highest or local, local)
        ms = round(now.timestamp() * 1000)
        if fires and first <= ms <= until:
            yield ms


SHIFTS = [
    ("Europe/Paris", "2026-03-28T00:00", "2026-03-30T12:00"),
    ("Europe/Paris", "2026-10-24T00:00", "2026-10-26T12:00"),
    ("America/New_York", "2026-03-07T00:00", "2026-03-09T12:00"),
    ("America/New_York", "2026-10-31T00:00", "2026-11-02T12:00"),
    ("Australia/Lord_Howe", "2026-04-04T00:00", "2026-04-06T12:00"),
    ("Australia/Lord_Howe", "2026-10-03T00:00", "2026-10-05T12:00"),
    ("Asia/Kathmandu", "2026-06-01T00:00", "2026-06-03T12:00"),
    # The jump is at midnight; a whole day is left out; the clock falls back over midnight.
    ("America/Sao_Paulo", "2017-10-14T00:00", "2017-10-16T12:00"),
    ("Pacific/Apia", "2011-12-28T12:00", "2012-01-01T12:00"),
    ("America/Sao_Paulo", "2018-02-16T12:00", "2018-02-19T12:00"),
    ("America/St_Johns", "2010-11-06T00:00", "2010-11-08T12:00"),
    ("UTC", "2024-02-28T00:00", "2024-03-01T12:00"),
]
LINES = ["30 2 * * *", "*/15 * * * *", "0 * * * *", "7,37 0-3 * * *", "59 23 * * *", "0 0 29 2 1"]


@pytest.mark.parametrize(("tz", "begin", "end"), SHIFTS)
@pytest.mark.parametrize("line", LINES)
def test_every_tick_around_a_shift_is_what_a_clock_on_the_wall_shows(
    line: str, tz: str, begin: str, end: str
) -> None:
    first, until = at(begin, tz), at(end, tz)
    expected = list(walk(line, tz, first, until))
    schedule = Schedule(cron=line, tz=tz)
    found, after = [], first - 1
    while (tick := next_tick(schedule, after)) is not None and tick <= until:
        assert tick > after
        found.append(tick)
        after = tick
    assert [text(t, tz) for t in found] == [text(t, tz) for t in expected]
    # The same, asked from anywhere and counted.
    for point in range(first, until, 91 * MINUTE + 1):
        ahead = [tick for tick in expected if tick > point]
        if ahead:
            assert next_tick(schedule, point) == ahead[0]
        assert ticks_between(schedule, first, point, 3) == (
            len(expected) - len(ahead),
            tuple(expected[: len(expected) - len(ahead)][-3:]),
        )


def test_shifts_by_hand() -> None:
    paris = Schedule(cron="30 2 * * *", tz="Europe/Paris")
    # 02:30 does not exist: it fires when the clock jumps from 02:00 to 03:00.
    assert next_tick(paris, at("2026-03-28T12:00", "Europe/Paris")) == at("2026-03-29T03:00+02:00")
    # 02:30 comes twice: the first.
    first = at("2026-10-25T02:30+02:00")
    assert next_tick(paris, at("2026-10-24T12:00", "Europe/Paris")) == first
    assert next_tick(paris, first) == at("2026-10-26T02:30+01:00")
    howe = Schedule(cron="15 2 * * *", tz="Australia/Lord_Howe")
    assert next_tick(howe, at("2026-10-04T01:00+10:30")) == at("2026-10-04T02:30+11:00")
    kathmandu = Schedule(cron="0 6 * * *", tz="Asia/Kathmandu")
    assert next_tick(kathmandu, at("2026-06-01T00:00")) == at("2026-06-01T00:15")


def test_leap_days() -> None:
    leap = Schedule(cron="0 0 29 2 *")
    assert next_tick(leap, at("2024-02-28T23:59")) == at("2024-02-29T00:00")
    assert next_tick(leap, at("2024-02-29T00:00")) == at("2028-02-29T00:00")
    assert next_tick(leap, at("2096-03-01T00:00")) == at("2104-02-29T00:00")
    # A Monday that is a leap day, with what reads as "and" in cron.
    monday = Schedule(cron="0 0 * 2 1#5")
    assert next_tick(monday, at("2024-03-01T00:00")) == at("2044-02-29T00:00")


def test_intervals_count_from_the_start_or_the_epoch() -> None:
    assert next_tick(Schedule(every=7_000), 20_999) == 21_000
    assert next_tick(Schedule(every=7_000), 21_000) == 28_000
    start = "2026-03-28T12:00"
    daily = Schedule(every=DAY, tz="Europe/Paris", start=start)
    begin = at(start, "Europe/Paris")
    assert next_tick(daily, 0) == begin
    # A day is 24 hours, also over a shift.
    assert next_tick(daily, begin) == begin + DAY == at("2026-03-29T13:00", "Europe/Paris")
    assert ticks_between(daily, 0, begin + 3 * DAY, 2) == (4, (begin + 2 * DAY, begin + 3 * DAY))
    assert ticks_between(daily, 0, begin - 1, 2) == (0, ())


def test_start_and_end_are_included_and_a_last_day_is_whole() -> None:
    whole = Schedule(cron="0 12 * * *", start="2026-01-02T12:00", end="2026-01-04")
    ticks = [at(f"2026-01-0{day}T12:00") for day in (2, 3, 4)]
    assert ticks_between(whole, 0, at("2027-01-01T00:00"), 9) == (3, tuple(ticks))
    assert next_tick(whole, 0) == ticks[0]
    assert next_tick(whole, ticks[-1]) is None
    cut = Schedule(cron="0 12 * * *", end="2026-01-04T12:00")
    assert next_tick(cut, ticks[-2]) == ticks[-1]
    assert next_tick(cut, ticks[-1]) is None


def test_the_effort_is_bounded() -> None:
    begun = time.process_time()
    # The first of a month is never its fifth Monday.
    never = Schedule(cron="0 0 */31 * 1#5")
    assert [p.message for p in check_schedule(never)] == ["never comes"]
    assert next_tick(never, at("2026-01-01T00:00")) is None
    assert ticks_between(never, 0, at("2026-01-01T00:00"), 5) == (0, ())
    count, newest = ticks_between(
        Schedule(cron="* * * * *", tz="Europe/Paris"), at("2016-01-01T00:00"),
        at("2026-01-01T00:00"), 100,
    )  # fmt: skip
    # Ten hours are left out; ten come twice, and count once.
    assert count == 3653 * 1440 + 1 - 10 * 60
    assert len(newest) == 100
    assert next_tick(Schedule(every=1_000), 10**16) is None
    # What is asked when a minute has come costs as much as the ticks that came, not their day.
    busy, noon = Schedule(cron="* * * * *", tz="Europe/Paris"), at("2026-11-21T12:00")
    for _ in range(500):
        assert ticks_between(busy, noon, noon + MINUTE, 100)[0] == 2
    assert time.process_time() - begun < 2
