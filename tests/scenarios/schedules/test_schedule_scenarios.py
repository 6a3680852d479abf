"""Plays the transcripts beside this file: what stands above `----` is done, what follows is what
came, in the ledger and in the next plan. It begins at 2026-11-21T00:00Z, on a clock that is right.

    schedule w cron="* * * * *" [missed=all] [overlap=queue] [tz=...] [end=...] [active=N]
    schedule w every=10m | no-schedule w | delete w
    until 00:03                 time passes; at each tick in between the master looks
    sleep 00:30                 time passes and nobody looks: node away, or asleep
    clock 00:05                 somebody sets the clock; the time since boot goes on
    clock-at-start 00:05        somebody set the clock while no node was there; then as `office`
    ntp on | ntp off | trust    what the kernel says of the clock; what a person says
    office                      another master, which knows only what the ledger has
    pause w | resume w | pause-workflow w | resume-workflow w
    submit w r1 | starts, ends, cancel, cancelled w@00:01: a run by its name or tick
    runs | ticks w              every run with its state; what the ledger keeps of the ticks

Times are of that day, `1d00:00` of the next. `pytest tests/scenarios --rewrite` writes down what
came; the diff is the review.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from grampus.ids import run_id_of_key
from grampus.ledger import Ledger
from grampus.master.almanac import Almanac
from grampus.master.core.steadiness import HOLD, Steadiness
from grampus.master.core.triggers import ScheduleLoaded, TickDeclined, Triggers
from grampus.model.duration import parse_duration
from grampus.model.run import AttemptState
from grampus.model.workflow import Schedule, Shell, Task, Workflow
from grampus.runs import events as facts
from grampus.runs.change import Graphs
from grampus.runs.commands import (
    ApplyWorkflow,
    CancelRun,
    Command,
    DeleteWorkflow,
    FireTick,
    OpenSession,
    PauseSchedule,
    PauseWorkflow,
    Refusal,
    ReportAttempt,
    StartAttempts,
    SubmitRun,
    TakeOffice,
    encode_command,
    pack_definition,
)
from grampus.runs.queries import Queries

FILES = sorted(Path(__file__).parent.glob("*.txt"))
MINUTE, DAY = 60_000, 86_400_000
#: 2026-11-21T00:00Z
START = 1_795_219_200_000
#: A master looks at its clock so often at least.
LOOK = MINUTE


def moment(text: str) -> int:
    """Of `00:03`, `00:03:10` or `1d00:03`."""
    day, _, clock = text.rpartition("d")
    hours, minutes, seconds = (*map(int, clock.split(":")), 0)[:3]
    return START + int(day or 0) * DAY + (hours * 60 + minutes) * MINUTE + seconds * 1000


def told(ms: int) -> str:
    day, rest = divmod(ms - START, DAY)
    hours, minutes, seconds = rest // 3_600_000, rest // MINUTE % 60, rest // 1000 % 60
    clock = f"{hours:02}:{minutes:02}" + (f":{seconds:02}" if seconds else "")
    return f"{day}d{clock}" if day else clock


class Stage:
    """A ledger, its triggers, a wall clock and the time since boot."""

    def __init__(self) -> None:
        self.ledger = Ledger(None)
        self.index = 0
        #: The wall clock, and how far the time since boot is behind it.
        self.now = START
        self.offset = START
        self.pending: list[Any] = []
        self.lines: list[str] = []
        #: Run ids by the name that a transcript has for them.
        self.ids: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        #: What is to be told of plans at the end of a block: only the last of each.
        self.planned: dict[str, str] = {}
        self.wake_at: int | None = None
        self.believed = True
        self.ntp = False
        self.session = self.do(OpenSession(self.now, "w1", "i1", "m", "b", True, "default", 99))[0]
        self.take_office()

    def take_office(self) -> None:
        self.steady = Steadiness(self.now, self.now - self.offset)
        self.steady.compare(self.queries.newest_time())
        (self.epoch,) = self.do(TakeOffice(self.now, "n1", 1))
        self.triggers = Triggers(self.epoch, Almanac())
        self.pending = [ScheduleLoaded(v.workflow, v) for v in self.queries.schedules(1_000)]

    @property
    def queries(self) -> Queries:
        return Queries(self.ledger.database, Graphs())

    def do(self, *commands: Command) -> list[Any]:
        self.index += 1
        for command in commands:
            if isinstance(command, FireTick):
                self.ids[f"{command.workflow}@{told(command.tick)}"] = command.run
        answers, came = self.ledger.apply(self.index, 1, [encode_command(c) for c in commands])
        self.pending += came
        for fact in came:
            if line := self.tell(fact):
                self.lines.append(line)
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(answer, Refusal):
                self.lines.append(f"refused {type(command).__name__}: {answer.reason}")
        return answers

    def tell(self, fact: Any) -> str:
        match fact:
            case facts.TickDone():
                span = self.span(fact.first, fact.last, fact.count)
                reason = f": {self.named(fact.reason)}" if fact.reason else ""
                return f"{told(self.now)} tick {fact.workflow} {span} {fact.outcome}{reason}"
            case facts.SchedulePlanned():
                tick = "never" if fact.next_tick is None else told(fact.next_tick)
                self.planned[fact.workflow] = f"next {fact.workflow} {tick}"
                return ""
            case facts.RunStarted():
                return f"{told(self.now)} run {self.named(fact.run)} RUNNING"
            case facts.RunCancelling():
                return f"{told(self.now)} run {self.named(fact.run)} CANCELLING"
            case facts.RunFinished():
                return f"{told(self.now)} run {self.named(fact.run)} {fact.state}"
            case _:
                return ""

    def span(self, first: int, last: int, count: int) -> str:
        return told(first) if count == 1 else f"{told(first)} to {told(last)} ({count})"

    def named(self, text: str) -> str:
        for name, id in self.ids.items():
            text = text.replace(id, name)
        return text

    # -- time -----------------------------------------------------------------------------------

    def look(self) -> None:
        """What a master does when it wakes: steps until nothing is left to react to."""
        self.steady.look(self.now, self.now - self.offset, self.ntp)
        believed = self.steady.believes(HOLD)
        if believed != self.believed:
            self.lines.append(f"{told(self.now)} the time is {'' if believed else 'not '}believed")
            self.believed = believed
        for _ in range(1_000):
            events, self.pending = self.pending, []
            turn = self.triggers.step(self.now, events, not believed)
            self.wake_at = turn.wake_at
            if turn.commands:
                for command, answer in zip(turn.commands, self.do(*turn.commands), strict=True):
                    if isinstance(answer, Refusal):
                        self.pending.append(TickDeclined(command.workflow, answer))
            for name in turn.reload:
                self.pending.append(ScheduleLoaded(name, self.queries.schedule(name)))
            due = turn.wake_at is not None and turn.wake_at <= self.now
            if not (self.pending or turn.commands or (believed and due)):
                return
        raise AssertionError("the triggers do not come to rest")

    def until(self, end: int) -> None:
        while self.now < end:
            planned = self.wake_at if self.believed and self.wake_at is not None else end
            self.now = min(end, max(planned, self.now), self.now + LOOK)
            self.look()

    # -- the verbs ------------------------------------------------------------------------------

    def play(self, line: str) -> None:
        verb, *words = shlex.split(line)
        options = dict(word.split("=", 1) for word in words if "=" in word)
        match verb:
            case "schedule":
                self.declare(words[0], options)
            case "no-schedule":
                self.apply(Workflow(words[0], (Task("a", Shell("true")),)))
            case "delete":
                self.do(DeleteWorkflow(self.now, words[0]))
            case "until":
                self.until(moment(words[0]))
            case "sleep":
                self.now = moment(words[0])
                return
            case "clock":
                to = moment(words[0])
                self.offset += to - self.now
                self.now = to
            case "clock-at-start":
                there = moment(words[0])
                self.offset += there - self.now
                self.now = there
                self.take_office()
                self.look()
            case "ntp":
                self.ntp = words[0] == "on"
                self.look()
            case "trust":
                self.steady.trust()
                self.look()
            case "office":
                self.take_office()
            case "pause" | "resume":
                self.do(PauseSchedule(self.now, words[0], verb == "pause", "ann"))
            case "pause-workflow" | "resume-workflow":
                self.do(PauseWorkflow(self.now, words[0], verb == "pause-workflow"))
            case "submit":
                self.ids[words[1]] = run_id_of_key(words[1])
                view = self.queries.workflow(words[0], None)
                assert view is not None
                self.do(
                    SubmitRun(self.now, self.ids[words[1]], words[0], view.version, b"{}",
                              words[1], 0, self.now)
                )  # fmt: skip
            case "starts":
                (n,) = self.do(
                    StartAttempts(self.now, self.epoch, self.session, self.ids[words[0]], [(0, 1)])
                )[0]
                self.numbers[words[0]] = n
            case "ends" | "cancelled":
                if words[0] not in self.numbers:
                    self.play(f"starts {words[0]}")
                state = AttemptState.SUCCEEDED if verb == "ends" else AttemptState.CANCELLED
                n = self.numbers[words[0]]
                self.do(
                    ReportAttempt(self.now, self.session, n, state, self.now, 0, "", (), None, 0, 0)
                )
            case "cancel":
                self.do(CancelRun(self.now, self.ids[words[0]], "ann"))
            case "ticks":
                for row in reversed(self.queries.ticks(words[0], 1_000)):
                    self.lines.append(
                        f"row {self.span(row.tick, row.last, row.count)} {row.outcome}"
                    )
            case "runs":
                for view in reversed(self.queries.runs(None, None, 1_000, None)):
                    self.lines.append(f"run {self.named(view.id)} {view.state}")
            case _:
                raise AssertionError(f"no such verb: {line}")
        self.look()

    def declare(self, name: str, options: dict[str, str]) -> None:
        every = options.pop("every", None)
        active = options.pop("active", None)
        schedule = Schedule(
            every=parse_duration(every) if every else None,
            **options,  # type: ignore[arg-type]
        )
        limit = int(active) if active else None
        task = (Task("a", Shell("true")),)
        self.apply(Workflow(name, task, schedule=schedule, max_active_runs=limit))

    def apply(self, workflow: Workflow) -> None:
        self.do(ApplyWorkflow(self.now, workflow.name, pack_definition(workflow.content())))


def play(text: str) -> str:
    """The transcript with what came in the place of what was expected."""
    stage, out = Stage(), []
    for block in text.strip().split("\n\n"):
        above = block.split("\n----")[0].rstrip()
        stage.lines = []
        lines = [line for line in above.splitlines() if line and not line.startswith("#")]
        for line in lines:
            stage.play(line)
        stage.lines += stage.planned.values()
        stage.planned = {}
        out.append("\n".join([above, "----", *stage.lines]) if lines else above)
    return "\n\n".join(out) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    played = play(text)
    if request.config.getoption("--rewrite", False):
        path.write_text(played)
    assert played == path.read_text()


def test_there_are_transcripts() -> None:
    assert len(FILES) >= 12
