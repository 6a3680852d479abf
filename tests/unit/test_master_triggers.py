"""The triggers on a ledger in memory, with real calendars: what fires, what is left out, once."""

from __future__ import annotations

from typing import Any

import pytest

from grampus.ledger import Ledger
from grampus.master.almanac import Almanac
from grampus.master.core.triggers import (
    CATCH_UP,
    COMMANDS_PER_TURN,
    LATE,
    ScheduleLoaded,
    TickDeclined,
    Triggers,
)
from grampus.model.workflow import Param, Schedule, Shell, Task, Workflow
from grampus.runs.change import Graphs
from grampus.runs.commands import (
    ApplyWorkflow,
    Command,
    DeleteWorkflow,
    PauseSchedule,
    Refusal,
    TakeOffice,
    encode_command,
    pack_definition,
)
from grampus.runs.queries import Queries

MINUTE = 60_000
#: 2026-11-21T00:00Z
START = 1_795_219_200_000


class Office:
    """A ledger and its triggers; `go` steps until nothing is left to react to."""

    def __init__(self) -> None:
        self.ledger = Ledger(None)
        self.queries = Queries(self.ledger.database, Graphs())
        self.index = 0
        self.now = START
        self.pending: list[Any] = []
        self.turns: list[int] = []
        self.refusals: list[Refusal] = []
        self.wake_at: int | None = None
        self.take()

    def take(self) -> None:
        """Another master, with what the ledger has."""
        epoch = self.do(TakeOffice(self.now, "n1", 1))
        self.triggers = Triggers(epoch, Almanac())
        self.pending = [
            ScheduleLoaded(view.workflow, view) for view in self.queries.schedules(10_000)
        ]

    def do(self, *commands: Command) -> Any:
        self.index += 1
        answers, facts = self.ledger.apply(self.index, 1, [encode_command(c) for c in commands])
        self.pending += facts
        return answers[0] if len(answers) == 1 else answers

    def apply(self, name: str, schedule: Schedule | None, *params: Param) -> None:
        workflow = Workflow(name, (Task("a", Shell("true")),), params, schedule)
        self.do(ApplyWorkflow(self.now, name, pack_definition(workflow.content())))

    def go(self, now: int | None = None, held: bool = False) -> None:
        self.now = self.now if now is None else now
        for _ in range(1_000):
            events, self.pending = self.pending, []
            turn = self.triggers.step(self.now, events, held)
            self.wake_at = turn.wake_at
            if turn.commands:
                self.turns.append(len(turn.commands))
                answers = self.do(*turn.commands)
                answers = answers if isinstance(answers, list) else [answers]
                refused = [
                    TickDeclined(command.workflow, answer)
                    for command, answer in zip(turn.commands, answers, strict=True)
                    if isinstance(answer, Refusal)
                ]
                self.refusals += [declined.refusal for declined in refused]
                self.pending += refused
            for name in turn.reload:
                self.pending.append(ScheduleLoaded(name, self.queries.schedule(name)))
            if not (self.pending or turn.commands) and (held or (turn.wake_at or 2**62) > self.now):
                return
        raise AssertionError("the triggers do not come to rest")

    def ticks(self, name: str = "w") -> list[str]:
        """`2 run`: minutes after START, and what became of it; `3-9 missed`."""
        told = []
        for row in reversed(self.queries.ticks(name, 10_000)):
            first, last = ((ms - START) / MINUTE for ms in (row.tick, row.last))
            span = f"{first:g}" if row.count == 1 else f"{first:g}-{last:g} ({row.count})"
            told.append(f"{span} {row.outcome}")
        return told


def every_minute(**options: Any) -> Schedule:
    return Schedule(cron="* * * * *", **({"overlap": "allow"} | options))


def at(minutes: float) -> int:
    return START + round(minutes * MINUTE)


def test_each_tick_fires_when_it_is_due_and_the_loop_sleeps_until_then() -> None:
    office = Office()
    office.apply("w", every_minute())
    office.go()
    assert office.wake_at == at(1)
    office.go(at(1) - 1)
    assert office.ticks() == []
    for minute in (1, 2, 3):
        office.go(at(minute))
    assert office.ticks() == ["1 run", "2 run", "3 run"]
    assert office.refusals == []
    assert office.wake_at == at(4)


def test_a_short_stop_leaves_no_tick_out() -> None:
    office = Office()
    office.apply("w", Schedule(every=10_000, overlap="allow", missed="none"))
    office.go()
    office.take()
    office.go(START + LATE)
    assert office.ticks() == [f"{n / 6:g} run" for n in range(1, 7)]


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("latest", ["1-179 (179) missed", "180 run"]),
        ("none", ["1-178 (178) missed", "179 run", "180 run"]),
        ("all", ["1-80 (80) missed", *(f"{n} run" for n in range(81, 181))]),
    ],
)
def test_what_was_missed_follows_the_schedule(missed: Any, expected: list[str]) -> None:
    assert CATCH_UP == 100
    office = Office()
    office.apply("w", every_minute(missed=missed))
    office.go()
    office.take()
    office.go(at(180))
    assert office.ticks() == expected
    office.go(at(181))
    assert office.ticks() == [*expected, "181 run"]
    assert office.refusals == []


def test_a_single_tick_that_is_hours_late_is_the_latest_one() -> None:
    office = Office()
    office.apply("w", Schedule(cron="30 2 * * *", tz="Europe/Paris"))
    office.apply("n", Schedule(cron="30 2 * * *", tz="Europe/Paris", missed="none"))
    office.go()
    office.go(at(10 * 60))
    assert office.ticks() == ["90 run"]
    assert office.ticks("n") == ["90 missed"]


def test_pause_and_resume() -> None:
    office = Office()
    office.apply("w", every_minute())
    office.go()
    office.go(at(1))
    office.do(PauseSchedule(office.now, "w", True, "ann"))
    for minute in range(2, 7):
        office.go(at(minute))
    # The node was away meanwhile.
    office.take()
    office.go(at(50))
    assert office.ticks() == ["1 run", "2-50 (49) paused"]
    office.do(PauseSchedule(at(50.5), "w", False, "ann"))
    office.go(at(50.6))
    office.go(at(51))
    assert office.ticks() == ["1 run", "2-50 (49) paused", "51 run"]


def test_a_clock_that_goes_back_fires_nothing_twice() -> None:
    office = Office()
    office.apply("w", every_minute())
    office.go()
    for minute in (1, 2, 3):
        office.go(at(minute))
    office.go(at(0))
    office.take()
    office.go(at(0))
    # Not even with a new version, which is planned from the new time on.
    office.apply("w", every_minute(missed="all"))
    for minute in range(1, 6):
        office.go(at(minute))
    assert office.ticks() == [f"{n} run" for n in range(1, 6)]
    assert len(office.queries.runs(None, None, 100, None)) == 5


def test_nothing_is_proposed_while_the_time_is_in_doubt() -> None:
    office = Office()
    office.apply("w", every_minute())
    office.go()
    office.go(at(525_600), held=True)
    assert office.ticks() == []
    office.go(at(1))
    assert office.ticks() == ["1 run"]


def test_versions_come_and_go() -> None:
    office = Office()
    office.apply("w", every_minute())
    office.go()
    office.go(at(1))
    office.apply("w", Schedule(every=5 * MINUTE, overlap="allow"))
    office.go()
    assert office.wake_at == at(5)
    office.go(at(5))
    office.apply("w", None)
    office.go(at(20))
    assert office.ticks() == ["1 run", "5 run"]
    assert office.wake_at is None
    office.apply("x", every_minute())
    office.go()
    office.do(DeleteWorkflow(office.now, "x"))
    office.go(at(30))
    assert office.ticks("x") == []
    assert office.refusals == []


def test_a_schedule_that_has_ended_is_at_rest() -> None:
    office = Office()
    office.apply("w", every_minute(end="2026-11-21T00:02"))
    office.go()
    for minute in (1, 2, 3):
        office.go(at(minute))
    assert office.ticks() == ["1 run", "2 run"]
    assert office.wake_at is None
    turns = len(office.turns)
    office.take()
    office.go(at(5))
    assert len(office.turns) == turns


def test_params_are_those_of_the_tick_on_the_calendar_of_the_zone() -> None:
    office = Office()
    day = Param("day", "date", "{{ tick.date }}")
    office.apply("w", Schedule(cron="30 23 * * *", tz="America/New_York"), day)
    broken = Param("n", "int", "{{ tick.time }}")
    office.apply("b", every_minute(), broken)
    office.go()
    office.go(at(1))
    office.go(at(4 * 60 + 30))
    (run,) = office.queries.runs("w", None, 9, None)
    assert run.params == {"day": "2026-11-20"}
    assert office.queries.ticks("b", 1)[0].outcome == "failed"
    assert "params.n" in office.queries.ticks("b", 1)[0].reason


def test_a_thousand_schedules_of_one_minute_come_in_short_turns() -> None:
    office = Office()
    for number in range(1_000):
        office.apply(f"w{number:03}", every_minute())
    office.go()
    office.turns.clear()
    office.go(at(1))
    assert office.turns == [COMMANDS_PER_TURN] * 10
    assert all(office.ticks(f"w{number:03}") == ["1 run"] for number in range(1_000))


def test_another_master_deposes_this_one() -> None:
    office = Office()
    office.apply("w", every_minute())
    office.go()
    old, seen = office.triggers, list(office.pending)
    office.take()
    turn = old.step(at(1), seen)
    answer = office.do(*turn.commands)
    assert isinstance(answer, Refusal)
    assert old.step(at(1), [TickDeclined("w", answer)]).deposed
    office.go(at(1))
    assert office.ticks() == ["1 run"]


def test_a_fact_between_the_reading_and_its_arrival_is_not_forgotten() -> None:
    office = Office()
    office.apply("w", every_minute())
    office.go()
    office.go(at(1))
    read = office.queries.schedule("w")
    office.do(PauseSchedule(office.now, "w", True, "ann"))
    office.pending.append(ScheduleLoaded("w", read))
    office.go(at(2))
    assert office.refusals == []
    assert office.ticks() == ["1 run", "2 paused"]


def test_a_planned_tick_that_the_rules_no_longer_have_fires_all_the_same() -> None:
    office = Office()
    office.apply("w", every_minute())
    office.go()
    # As after an update of the zones: what is planned is none of its minutes.
    office.ledger.database.execute("UPDATE schedule SET next_tick = ?", (at(1.5),))
    office.take()
    office.go(at(2))
    assert office.ticks() == ["1.5 run", "2 run"]
