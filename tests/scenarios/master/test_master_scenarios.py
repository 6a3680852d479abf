"""Plays the transcripts beside this file: what stands above `----` is done, what follows is what
came.

    workflow w: a; b after a retry=1 delay=10s; c after a,b     tasks, `;` between them
    worker w1 slots=2 [group=g] [leased=yes] | worker-anew w1 slots=2
    worker-gone w1 | worker-back w1
    worker-troubled w1 disk full | worker-able w1 | worker-stuck w1 r1/a/1
    submit r1 [priority=N] | cancel r1 | wait 10s | clock-back 1s | clock-ahead 1d | office
    explain r1 [a] | story r1 [a] | pause-workflow w | resume-workflow w
    pause r1 | resume r1 | retry r1 [from=b] | declare-lost r1/a/1
    report r1/a/1 ok | failed | timeout | lost | cancelled | running
    start r1/a/1 r1/b/1 on w1                           whatever the scheduler thinks of it
    synced w1 missing r1/a/1 | drain w1 | undrain w1 | workers | attempts r1

`pytest tests/scenarios --rewrite` writes down what came; the diff is the review.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grampus.master.core.events import (
    WorkerConnected,
    WorkerGone,
    WorkerSynced,
    WorkerTroubled,
)
from grampus.master.core.explain import explain
from grampus.master.core.scheduler import Scheduler
from grampus.master.core.turn import SendAssign
from grampus.master.loading import Loading
from grampus.model.duration import parse_duration
from grampus.model.lease import KEEP
from grampus.model.run import AttemptState
from grampus.model.workflow import Retry, Shell, Task, Workflow
from grampus.protocol import Kill, Sync
from grampus.runs import events as facts
from grampus.runs.change import Graphs
from grampus.runs.commands import (
    ApplyWorkflow,
    CancelRun,
    DeclareLost,
    DrainWorker,
    OpenSession,
    PauseRun,
    PauseWorkflow,
    Refusal,
    ReportAttempt,
    ResumeRun,
    RetryRun,
    StartAttempts,
    SubmitRun,
    TakeOffice,
    pack_definition,
)
from tests.world import World

FILES = sorted(Path(__file__).parent.glob("*.txt"))
#: `lease=` of a task.
LEASES = {"10s": 10_000, "20s": 20_000, "keep": KEEP}
OUTCOMES = {
    "ok": AttemptState.SUCCEEDED,
    "failed": AttemptState.FAILED,
    "timeout": AttemptState.TIMED_OUT,
    "lost": AttemptState.LOST,
    "cancelled": AttemptState.CANCELLED,
    "running": AttemptState.RUNNING,
}


class Stage(World):
    """A World that writes down what it sees."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[int, str] = {}
        self.numbers: dict[str, tuple[int, int]] = {}
        self.opened: dict[str, OpenSession] = {}
        self.flow = ""
        super().__init__(slots=0)
        self.pending.clear()
        self.scheduler = Scheduler(self.scheduler.epoch)
        self.lines.clear()

    def worker(self, slots: int) -> None:
        """The stage starts empty."""

    def propose(self, *commands: Any) -> list[Any]:
        known = len(self.pending)
        answers = super().propose(*commands)
        for fact in self.pending[known:]:
            self.lines.append("  " + self.tell(fact))
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(answer, Refusal):
                what = type(command).__name__
                self.lines.append(f"refused {what}: {answer.code}: {answer.reason}")
            elif answer == "stale":
                self.lines.append("stale")
        return answers

    def tell(self, fact: Any) -> str:
        match fact:
            case facts.AttemptStarted():
                name = f"{fact.run}/{fact.task}/{fact.attempt}"
                self.numbers[name] = (fact.session, fact.n)
                return f"attempt {name} STARTING on {fact.worker} as {fact.n}"
            case facts.AttemptRunning():
                return f"attempt {fact.run}/{fact.task}/{fact.attempt} RUNNING"
            case facts.AttemptFinished():
                return f"attempt {fact.run}/{fact.task}/{fact.attempt} {fact.state}"
            case facts.TaskReady():
                wait = fact.due - self.now
                when = f" in {wait} ms" if wait > 0 else ""
                return f"task {fact.run}/{fact.task} {fact.state}{when} for try {fact.attempt}"
            case facts.TaskFinished():
                return f"task {fact.run}/{fact.task} {fact.state}"
            case facts.RunSubmitted():
                return f"run {fact.run} submitted {fact.state}"
            case facts.RunStarted():
                return f"run {fact.run} RUNNING"
            case facts.RunCancelling():
                return f"run {fact.run} CANCELLING"
            case facts.RunFinished():
                return f"run {fact.run} {fact.state}{f': {fact.reason}' if fact.reason else ''}"
            case facts.RunPaused():
                return f"run {fact.run} PAUSED by {fact.by}"
            case facts.RunResumed():
                return f"run {fact.run} resumed by {fact.by}"
            case facts.RunRetried():
                return f"run {fact.run} begins round {fact.round}"
            case facts.TaskReset():
                return f"task {fact.run}/{fact.task} WAITING"
            case facts.SessionOpened():
                return f"session of {fact.worker}: {fact.slots} slots"
            case facts.SessionEnded():
                return f"session of {fact.worker} ended: {fact.reason}"
            case facts.SessionSeen():
                return f"session of {fact.worker} goes on"
            case facts.SessionSilent():
                return f"session of {fact.worker} is silent"
            case facts.WorkerDraining():
                return f"{fact.worker} {'is drained' if fact.draining else 'is undrained'}"
            case facts.OfficeTaken():
                return "office taken"
            case _:
                return str(fact.__struct_config__.tag)

    def carry_out(self, messages: tuple[Any, ...]) -> None:
        for message in messages:
            to = self.names[message.session]
            match message:
                case SendAssign():
                    self.lines.append(f"send Assign {message.n} to {to}")
                case Kill():
                    self.lines.append(f"send Kill {message.n} to {to}")
                case Sync():
                    live = ",".join(map(str, message.live)) or "none"
                    stop = ",".join(map(str, message.stop)) or "none"
                    self.lines.append(
                        f"send Sync to {to}: next {message.next_n}, live {live}, stop {stop}"
                    )

    def do(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        words = rest.split()
        options = dict(word.split("=", 1) for word in words if "=" in word)
        match verb:
            case "workflow":
                self.declare(rest)
            case "worker" | "worker-anew":
                group, leased = options.get("group", "default"), "leased" in options
                self.open(words[0], int(options["slots"]), group, leased)
            case "worker-gone":
                self.pending.append(WorkerGone(self.session_of(words[0])))
            case "worker-back":
                self.propose(self.opened[words[0]])
                self.pending.append(WorkerConnected(self.session_of(words[0])))
            case "worker-troubled" | "worker-able":
                self.pending.append(WorkerTroubled(self.session_of(words[0]), " ".join(words[1:])))
            case "worker-stuck":
                session = self.session_of(words[0])
                stuck = frozenset(self.numbers[name][1] for name in words[1:])
                self.pending.append(WorkerTroubled(session, "", stuck))
            case "drain" | "undrain":
                self.propose(DrainWorker(self.now, words[0], verb == "drain", "ann"))
            case "submit":
                priority = int(options.get("priority", 0))
                self.propose(
                    SubmitRun(self.now, words[0], self.flow, 1, b"{}", "r", priority, self.now)
                )
            case "cancel":
                self.propose(CancelRun(self.now, words[0], "ann"))
            case "report":
                session, n = self.numbers[words[0]]
                state = OUTCOMES[words[1]]
                exit = 0 if words[1] == "ok" else 1
                self.propose(
                    ReportAttempt(self.now, session, n, state, self.now, exit, "", (), None, 0, 0)
                )
            case "pause":
                self.propose(PauseRun(self.now, words[0], "ann"))
            case "resume":
                self.propose(ResumeRun(self.now, words[0], "ann"))
            case "start":
                self.start(self.session_of(words[-1]), words[:-2])
            case "retry":
                self.propose(RetryRun(self.now, words[0], options.get("from", ""), "ann"))
            case "declare-lost":
                run, task, attempt = words[0].split("/")
                self.propose(DeclareLost(self.now, run, task, "ann", int(attempt)))
            case "pause-workflow" | "resume-workflow":
                self.propose(PauseWorkflow(self.now, words[0], verb == "pause-workflow"))
            case "explain":
                self.explain(*words)
            case "story":
                self.story(*words)
            case "synced":
                missing = tuple(self.numbers[word][1] for word in words[2:])
                self.pending.append(WorkerSynced(self.session_of(words[0]), missing))
            case "workers":
                for view in self.queries().workers():
                    silent = "" if view.silent is None else f", silent since {view.silent}"
                    draining = ", draining" if view.draining else ""
                    busy = f"{view.busy}/{view.slots}"
                    self.lines.append(f"  {view.name} {view.state} {busy}{silent}{draining}")
            case "attempts":
                self.lines += [
                    f"  {task.name}/{attempt.attempt} {attempt.state} on {attempt.worker}"
                    for task in self.queries().tasks(words[0])
                    for attempt in task.attempts
                ]
            case "wait":
                self.now += parse_duration(rest)
            case "clock-back":
                self.set_clock(-parse_duration(rest))
            case "clock-ahead":
                self.set_clock(parse_duration(rest))
            case "office":
                self.take_office()
            case _:
                raise AssertionError(f"no such verb: {line}")

    def set_clock(self, by: int) -> None:
        self.now, self.skew = self.now + by, self.skew - by

    def explain(self, run: str, task: str | None = None) -> None:
        standing = self.queries().standing(run, task)
        assert standing is not None
        found = explain(self.scheduler, standing, self.now)
        self.lines.append(f"run {run} {found.state}")
        self.lines += [f"  {reason.code}: {reason.text}" for reason in found.reasons]
        for each in found.tasks:
            self.lines.append(f"{each.task} {each.state}")
            self.lines += [f"  {reason.code}: {reason.text}" for reason in each.reasons]

    def story(self, run: str, task: str | None = None) -> None:
        """By pages of three lines: what the pages say together is the story."""
        after: tuple[int, int] | None = None
        while True:
            page = self.queries().story(run, task, after, 3)
            assert page is not None
            for line in page.lines:
                since = "" if line.since is None else f"+{line.since}"
                self.lines.append(f"  {line.at:>7} {since:>7}  {line.text}")
            after = page.after
            if after is None:
                return

    def declare(self, text: str) -> None:
        name, _, rest = text.partition(":")
        name, *options = name.split()
        tasks = []
        for part in rest.split(";"):
            task, *words = part.split()
            after = words[words.index("after") + 1].split(",") if "after" in words else []
            more = dict(word.split("=", 1) for word in words if "=" in word)
            retry = Retry(int(more.get("retry", 0)), parse_duration(more.get("delay", "0s")))
            tasks.append(
                Task(
                    task, Shell("true"), tuple(after), retry, slots=int(more.get("slots", 1)),
                    priority=int(more.get("priority", 0)), max_lost=int(more.get("max_lost", 3)),
                    group=more.get("group", "default"), lease=LEASES.get(more.get("lease")),
                    grace=parse_duration(more.get("grace", "10s")),
                    timeout=parse_duration(more["timeout"]) if "timeout" in more else None,
                )
            )  # fmt: skip
        how = dict(word.split("=", 1) for word in options)
        workflow = Workflow(
            name, tuple(tasks), on_failure=how.get("on_failure", "stop"),  # type: ignore[arg-type]
            timeout=parse_duration(how["timeout"]) if "timeout" in how else None,
            max_active_runs=int(how["active"]) if "active" in how else None,
        )  # fmt: skip
        self.flow = name
        self.propose(ApplyWorkflow(self.now, name, pack_definition(workflow.content())))

    def open(self, name: str, slots: int, group: str, leased: bool) -> None:
        instance = f"i{len(self.log)}"
        self.opened[name] = OpenSession(
            self.now, name, instance, "m", "b", True, group, slots, leased=leased
        )
        (session,) = self.propose(self.opened[name])
        self.names[session] = name
        self.pending.append(WorkerConnected(session))

    def start(self, session: int, names: list[str]) -> None:
        for name in names:
            run, task, attempt = name.split("/")
            index = next(each.index for each in self.queries().tasks(run) if each.name == task)
            epoch = self.scheduler.epoch
            self.propose(StartAttempts(self.now, epoch, session, run, [(index, int(attempt))]))

    def session_of(self, worker: str) -> int:
        return max(session for session, name in self.names.items() if name == worker)

    def take_office(self) -> None:
        """A new master: it knows only what the ledger has."""
        (epoch,) = self.propose(TakeOffice(self.now, "n2", 1))
        self.pending.clear()
        self.scheduler = Scheduler(epoch)
        self.pending.append(Loading(self.ledger.database, Graphs()).everything())
        self.pending.extend(WorkerConnected(session) for session in sorted(self.names))


def play(text: str) -> str:
    """The transcript with what came in the place of what was expected."""
    stage, out = Stage(), []
    for block in text.strip().split("\n\n"):
        above = block.split("\n----")[0].rstrip()
        stage.lines = []
        for line in above.splitlines():
            if line and not line.startswith("#"):
                stage.do(line)
        stage.turn()
        if all(line.startswith("#") for line in above.splitlines()):
            out.append(above)
        else:
            out.append("\n".join([above, "----", *stage.lines]))
    return "\n\n".join(out) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    played = play(text)
    if request.config.getoption("--rewrite", False):
        path.write_text(played)
    assert played == path.read_text()


def test_there_are_transcripts() -> None:
    assert len(FILES) >= 8
