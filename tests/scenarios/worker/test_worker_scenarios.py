"""Reads the worker's transcripts: blocks of events, `----`, and what the core said to them.

A block is one step. Its lines are events (see `_event`), or `+MS`, which lets time pass and rings
the alarm if it is due, or `-MS`, which sets the clock back. Lines that start with `#` are remarks.
`core SLOTS` starts with a new core, `killed` with one that knows what the one before has written
down.
`pytest tests/scenarios --rewrite` writes down what came; the diff is the review.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from grampus.model.run import AttemptState, Value
from grampus.protocol import Invocation, Report, Reports, Synced
from grampus.worker.core import events as e
from grampus.worker.core import instructions as i
from grampus.worker.core.check import Watch
from grampus.worker.core.core import WorkerCore
from grampus.worker.core.memory import Closed, Entry, Gone, Launched, Memory, Opened, Wish
from grampus.worker.orders import Ended, Running

START = 1_000_000
FILES = sorted(Path(__file__).parent.glob("*.txt"))


def invocation(run: str = "r1", task: str = "a", attempt: int = 1) -> Invocation:
    return Invocation(
        run=run,
        workflow="w",
        version=1,
        task=task,
        attempt=attempt,
        fencing_token=1,
        spec=b"{}",
        params=b"{}",
        tick=0,
        tz="UTC",
        bundle=None,
        inputs={},
    )


def replay(text: str) -> str:
    """The transcript with the answers that the core gives now."""
    player = _Player()
    return "\n\n".join(player.block(block) for block in text.strip().split("\n\n")) + "\n"


class _Player:
    def __init__(self) -> None:
        self._new(2)

    def _new(self, slots: int) -> None:
        self._core, self._watch = WorkerCore(slots), Watch()
        self._now, self._alarm_at = START, None

    def _inherit(self) -> None:
        left = Memory()
        left.add(self._watch.written.entries())
        self._core, self._alarm_at = WorkerCore(self._core.attempts.slots.total, left), None

    def block(self, block: str) -> str:
        asked = block.split("\n----", 1)[0].split("\n")
        events: list[e.Event] = []
        fresh = False
        for line in asked:
            if line.startswith("#") or not line.strip():
                continue
            if line.startswith("core "):
                self._new(int(line.split()[1]))
                fresh = True
            elif line == "killed":
                self._inherit()
                fresh = True
            elif line[0] in "+-":
                self._now += int(line)
                if self._alarm_at is not None and self._alarm_at <= self._now:
                    self._alarm_at = None
                    events.append(e.Alarm())
            else:
                events.append(_event(line, self._now))
        if not events and (fresh or all(line.startswith("#") for line in asked)):
            return "\n".join(asked)
        out = self._core.step(self._now, events)
        self._watch.look(self._core, out)
        for instruction in out:
            if isinstance(instruction, i.SetAlarm):
                after = instruction.after
                self._alarm_at = None if after is None else self._now + after
        return "\n".join([*asked, "----", *(_spell(o, self._now) for o in out)])


def _event(line: str, now: int) -> e.Event:
    name, *words = line.split()
    given = dict(word.split("=", 1) for word in words if "=" in word)
    plain = [word for word in words if "=" not in word]
    return _EVENTS[name](plain, given, now)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def _assign(w: list[str], g: dict[str, str], _: int) -> e.Event:
    run, task, attempt = re.split(r"[/.]", w[2])
    work, lease = invocation(run, task, int(attempt)), int(g["lease"]) if "lease" in g else None
    return e.Assigned(int(w[0]), int(w[1]), int(g.get("slots", "1")), True, work, lease)


def _ended(w: list[str], g: dict[str, str], now: int) -> e.Event:
    code = int(g["exit"]) if "exit" in g else None
    stderr = int(g.get("stderr", "0"))
    error = g.get("error", "").replace("_", " ")
    return e.WardenEnded(Ended(int(w[0]), now, w[1], code, error, 0, stderr, "output" in w))


def _result(w: list[str], g: dict[str, str], _: int) -> e.Event:
    value = None
    if "json" in g:
        value = Value("json", g["json"].encode(), None, len(g["json"]))
    error = g.get("error", "").replace("_", " ")
    names = tuple(name for name in g.get("exception", "").split(",") if name)
    return e.ResultRead(int(w[0]), value, error, names, "broken" in w)


_EVENTS: dict[str, Callable[[list[str], dict[str, str], int], e.Event]] = {
    "connected": lambda w, g, t: e.Connected(int(w[0])),
    "disconnected": lambda w, g, t: e.Disconnected(),
    "assign": _assign,
    "kill": lambda w, g, t: e.KillAsked(int(w[0]), int(w[1]), " ".join(w[2:])),
    "sync": lambda w, g, t: e.SyncAsked(
        int(w[0]),
        int(g["revision"]),
        int(g["next"]),
        _numbers(g.get("live", "")),
        _numbers(g.get("stop", "")),
    ),
    "ack": lambda w, g, t: e.Acked(
        int(w[0]), _numbers(g.get("done", "")), _numbers(g.get("stale", ""))
    ),
    "prepared": lambda w, g, t: e.Prepared(int(w[0])),
    "prepare-failed": lambda w, g, t: e.PrepareFailed(
        int(w[0]), AttemptState(w[1]), " ".join(w[2:])
    ),
    "result": _result,
    "warden": lambda w, g, t: e.WardenReady(
        w[0],
        (
            *(Running(n, 0, t, False) for n in _numbers(g.get("running", ""))),
            *(Running(n, None, 0, False) for n in _numbers(g.get("waiting", ""))),
            *(Running(n, None, 0, True) for n in _numbers(g.get("ended", ""))),
        ),
    ),
    "unheard": lambda w, g, t: e.Unheard(int(w[0])),
    "warden-lost": lambda w, g, t: e.WardenLost(),
    "started": lambda w, g, t: e.WardenStarted(int(w[0]), t),
    "ended": _ended,
    "stuck": lambda w, g, t: e.WardenStuck(int(w[0]), _numbers(w[1])),
    "stopping": lambda w, g, t: e.Stopping(),
}


def _spell(instruction: i.Instruction, now: int) -> str:
    match instruction:
        case i.Record(entries):
            return f"record   {' | '.join(map(_entry, entries))}"
        case i.Forgo(numbers):
            return f"forgo    {_list(list(numbers))}"
        case i.Renew():
            return "renew    the warden"
        case i.Prepare(n, work):
            return f"prepare  {n} {work.run}/{work.task}.{work.attempt}"
        case i.Launch(n):
            return f"launch   {n}"
        case i.End(n):
            return f"end      {n}"
        case i.Recall(n):
            return f"recall   {n}"
        case i.ReadResult(n, _):
            return f"read     {n}"
        case i.Drop(n):
            return f"drop     {n}"
        case i.SetAlarm(after):
            return f"alarm    {'never' if after is None else f'+{after}'}"
        case i.LogLine(level, text):
            return f"{level:8} {text}"
        case i.Send(Synced() as synced):
            return (
                f"send     Synced {synced.session} revision={synced.revision} "
                f"running={_list(synced.running)} missing={_list(synced.missing)}"
            )
        case i.Send(Reports(reports)):
            return f"send     {' | '.join(_report(report) for report in reports)}"
    raise AssertionError(instruction)


def _entry(entry: Entry) -> str:
    match entry:
        case Opened(session, instance):
            return f"opened {session} {instance}"
        case Launched():
            return f"launched {entry.n} {entry.stem}"
        case Wish(n, reason):
            return f"wish {n} ({reason})"
        case Closed(next_n, live):
            return f"closed {next_n} live={_list(live)}"
        case Gone(numbers):
            return f"gone {_list(numbers)}"
        case Report():
            return f"final {_report(entry)}"
    raise AssertionError(entry)


def _report(report: Report) -> str:
    parts = [f"{report.session}/{report.n} {report.state}"]
    if report.exit is not None:
        parts.append(f"exit={report.exit}")
    if report.output is not None and report.output.data is not None:
        parts.append(report.output.data.decode())
    if report.error:
        parts.append(f"({report.error})")
    if report.exception:
        parts.append(",".join(report.exception))
    return " ".join(parts)


def _list(numbers: list[int]) -> str:
    return ",".join(str(n) for n in numbers)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_worker_core_says_what_the_transcript_says(
    path: Path, request: pytest.FixtureRequest
) -> None:
    text = path.read_text()
    now = replay(text)
    if request.config.getoption("--rewrite", False):
        path.write_text(now)
        return
    assert now == text
