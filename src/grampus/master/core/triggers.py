"""When schedules fire: pure. It plans new versions and proposes what is due; `apply` decides.

Rules. A tick that is at most LATE overdue is on time, and each such tick is fired. When the oldest
due tick is later than that, `missed` decides: `latest` fires the newest due tick, `all` the newest
CATCH_UP, `none` only those that are on time; the rest is one row. Ticks of a paused schedule are
recorded when they come. Every command is a compare-and-set on the planned tick, so what is proposed
twice, or by two masters, happens once.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from grampus.ids import run_id_of_key
from grampus.model.workflow import Schedule
from grampus.runs.commands import FireTick, PlanSchedule, Refusal, SkipTicks
from grampus.runs.events import Event, Fact, SchedulePlanned, WorkflowApplied, WorkflowDeleted
from grampus.runs.views import ScheduleView

#: A tick that is overdue by more was missed, in ms.
LATE = 60_000
#: Ticks that `missed: all` makes up for at most.
CATCH_UP = 100
#: Commands after which a turn ends (a schedule's own are not torn apart): a turn stays short.
COMMANDS_PER_TURN = 100

ScheduleCommand = PlanSchedule | FireTick | SkipTicks


class Calendar(Protocol):
    """What only time zones and templates know. Answers are the same for ever."""

    def after(self, schedule: Schedule, ms: int) -> int | None:
        """The first tick later than `ms`."""
        ...

    def between(
        self, schedule: Schedule, first: int, until: int, limit: int
    ) -> tuple[int, tuple[int, ...]]:
        """How many ticks from `first` to `until`, and the newest `limit`, ascending."""
        ...

    def params(self, view: ScheduleView, tick: int) -> tuple[bytes | None, str]:
        """All params of the run at that tick as JSON; None and why, when they cannot be had."""
        ...


class ScheduleLoaded(Struct, frozen=True):
    """A schedule as the ledger has it; `view` is None when there is none."""

    workflow: str
    view: ScheduleView | None


class TickDeclined(Struct, frozen=True):
    """A command was refused: the ledger knew more."""

    workflow: str
    refusal: Refusal


class Firing(Struct, frozen=True):
    """The answer of one step."""

    #: In this order: each of a schedule builds on the one before.
    commands: tuple[ScheduleCommand, ...] = ()
    #: Schedules to be read anew and handed back as ScheduleLoaded.
    reload: tuple[str, ...] = ()
    #: When `step` wants to be called again, at the latest; None is never.
    wake_at: int | None = None
    #: Another master is in office: stop.
    deposed: bool = False


class _Entry:
    def __init__(self, view: ScheduleView) -> None:
        self.version = view.version
        self.view = view
        self.next_tick = view.next_tick
        self.paused = view.paused
        #: Of the newest fact, or of the reading.
        self.revision = view.revision
        #: Proposed and not answered: nothing more until this is the planned tick.
        self.expected: int | None = None


class Triggers:
    def __init__(self, epoch: int, calendar: Calendar) -> None:
        self.epoch = epoch
        self._calendar = calendar
        self._entries: dict[str, _Entry] = {}
        self._unplanned: dict[str, None] = {}
        #: (due, workflow); stale pairs are skipped.
        self._due: list[tuple[int, str]] = []
        self._reload: dict[str, None] = {}
        self._deposed = False

    def step(
        self,
        now: int,
        events: Iterable[Fact | ScheduleLoaded | TickDeclined],
        held: bool = False,
    ) -> Firing:
        """`held`: the time is in doubt, so nothing is proposed that depends on it."""
        for event in events:
            self._react(event)
        commands: list[ScheduleCommand] = []
        if not (held or self._deposed):
            self._plan(now, commands)
            self._fire(now, commands)
        reload, self._reload = tuple(self._reload), {}
        return Firing(tuple(commands), reload, self._wake_at(now), self._deposed)

    def _wake_at(self, now: int) -> int | None:
        if self._unplanned:
            return now
        while self._due and self._is_stale(*self._due[0]):
            heapq.heappop(self._due)
        return max(now, self._due[0][0]) if self._due else None

    def _is_stale(self, tick: int, workflow: str) -> bool:
        entry = self._entries.get(workflow)
        return entry is None or entry.next_tick != tick or entry.expected is not None

    # -- reactions ------------------------------------------------------------------------------

    def _react(self, event: Fact | ScheduleLoaded | TickDeclined) -> None:
        match event:
            case ScheduleLoaded():
                self._loaded(event)
            case TickDeclined():
                self._deposed = self._deposed or event.refusal.code == "stale-epoch"
                self._reload[event.workflow] = None
            case WorkflowApplied() | WorkflowDeleted():
                entry = self._entries.get(event.workflow)
                if entry is None or event.revision > entry.revision:
                    # What was known of it is of an older version.
                    self._forget(event.workflow)
                    self._reload[event.workflow] = None
            case SchedulePlanned():
                self._planned(event)
            case Event():
                pass  # schedules do not depend on it

    def _loaded(self, event: ScheduleLoaded) -> None:
        view = event.view
        if view is None:
            self._forget(event.workflow)
            return
        known = self._entries.get(event.workflow)
        if known is not None and known.revision > view.revision:
            # A fact came in between: what was read is old already.
            self._reload[event.workflow] = None
            return
        entry = self._entries[event.workflow] = _Entry(view)
        if view.since is None:
            self._unplanned.pop(event.workflow, None)
            self._wait_for(event.workflow, entry)
        else:
            self._unplanned[event.workflow] = None

    def _forget(self, workflow: str) -> None:
        self._entries.pop(workflow, None)
        self._unplanned.pop(workflow, None)

    def _planned(self, event: SchedulePlanned) -> None:
        entry = self._entries.get(event.workflow)
        if entry is None or event.revision <= entry.revision:
            return
        entry.revision = event.revision
        if event.version != entry.version or event.next_tick is None:
            self._reload[event.workflow] = None
            return
        entry.next_tick, entry.paused = event.next_tick, event.paused
        if entry.expected is None or entry.expected == event.next_tick:
            entry.expected = None
            self._wait_for(event.workflow, entry)

    def _wait_for(self, workflow: str, entry: _Entry) -> None:
        if entry.next_tick is not None:
            heapq.heappush(self._due, (entry.next_tick, workflow))

    # -- what is due ----------------------------------------------------------------------------

    def _plan(self, now: int, commands: list[ScheduleCommand]) -> None:
        for workflow in list(self._unplanned)[:COMMANDS_PER_TURN]:
            del self._unplanned[workflow]
            view = self._entries[workflow].view
            assert view.since is not None
            tick = self._calendar.after(view.schedule, view.since)
            commands.append(PlanSchedule(now, self.epoch, workflow, view.version, tick))

    def _fire(self, now: int, commands: list[ScheduleCommand]) -> None:
        while self._due and self._due[0][0] <= now and len(commands) < COMMANDS_PER_TURN:
            tick, workflow = heapq.heappop(self._due)
            if self._is_stale(tick, workflow):
                continue
            entry = self._entries[workflow]
            made = self._decide(now, workflow, entry, tick)
            commands += made
            # With None the schedule is read anew when the fact comes.
            entry.expected = made[-1].next_tick or -1

    def _decide(
        self, now: int, workflow: str, entry: _Entry, first: int
    ) -> Sequence[FireTick | SkipTicks]:
        """What becomes of the ticks from `first` to `now`."""
        schedule = entry.view.schedule
        after = self._calendar.after(schedule, now)
        if entry.paused:
            count, newest = self._ticks(schedule, first, now, 1)
            return [self._skip(now, workflow, entry, first, newest[0], count, after, "paused")]
        late = first < now - LATE
        count, ticks = self._ticks(
            schedule, first, now, 1 if late and schedule.missed == "latest" else CATCH_UP
        )
        if late and schedule.missed == "none":
            ticks = tuple(tick for tick in ticks if tick >= now - LATE)
        commands: list[FireTick | SkipTicks] = []
        if left_out := count - len(ticks):
            until, following = (ticks[0] - 1, ticks[0]) if ticks else (now, after)
            (last,) = self._ticks(schedule, first, until, 1)[1]
            commands.append(
                self._skip(now, workflow, entry, first, last, left_out, following, "missed")
            )
        for tick, following in zip(ticks, (*ticks[1:], after), strict=False):
            params, reason = self._calendar.params(entry.view, tick)
            run = run_id_of_key(f"schedule:{workflow}:{tick}")
            commands.append(
                FireTick(
                    now, self.epoch, workflow, entry.version, tick, following, run, params, reason
                )
            )
        return commands

    def _ticks(
        self, schedule: Schedule, first: int, until: int, limit: int
    ) -> tuple[int, tuple[int, ...]]:
        """As `Calendar.between`. What was planned is a tick, also by rules that changed since."""
        count, newest = self._calendar.between(schedule, first + 1, until, limit)
        return count + 1, (first, *newest) if len(newest) < limit else newest

    def _skip(
        self,
        now: int,
        workflow: str,
        entry: _Entry,
        first: int,
        last: int,
        count: int,
        following: int | None,
        reason: str,
    ) -> SkipTicks:
        return SkipTicks(
            now, self.epoch, workflow, entry.version, first, last, count, following, reason
        )
