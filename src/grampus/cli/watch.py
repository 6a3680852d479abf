"""A run as it is watched: its tasks, moved on by events, and the line that tells each change.

Rule: it starts from what the server said of the tasks and takes every event of the run; an event
that says no more than is known changes nothing and gives no line, so events may be told twice. How
it is drawn on a terminal is in `live`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from grampus.cli.output import clean, ms_of, span
from grampus.model.run import FINAL_TASK, AttemptState, TaskState
from grampus.sdk.answers import Run, RunEvent, TaskRun

FAILED = frozenset({TaskState.FAILED, TaskState.TIMED_OUT})
#: Of one attempt: nothing, ready, started, running, ended; a task that is over is beyond all.
READY, STARTED, RUNNING, ENDED, OVER = range(1, 6)


class WatchedTask:
    """One task: where it stands. Times are wall milliseconds of the server."""

    def __init__(self, task: TaskRun) -> None:
        self.name = task.name
        self.index = task.index
        self.after = task.after
        self.state = task.state
        self.reason = task.reason
        self.max_attempts = task.max_attempts
        #: As in `TaskRun`.
        self.tries = task.tries
        on = task.state in (TaskState.RUNNING, TaskState.SUCCEEDED)
        self._failed = task.tries - 1 if on else task.tries
        self.due = ms_of(task.due)
        self.ended = ms_of(task.ended)
        last = task.attempts[-1] if task.attempts else None
        self.attempt = last.attempt if last else 0
        self.worker = last.worker if last else ""
        self.error = last.error if last else ""
        #: Of the first attempt.
        self.started = ms_of(task.started)
        #: How far it is: (attempt, one of READY to OVER).
        self.mark = (0, 0)
        if task.state in FINAL_TASK:
            self.mark = (1 << 31, OVER)
        elif last is not None:
            self.mark = (last.attempt, _step(last.state))
        if task.state in (TaskState.READY, TaskState.RETRYING):
            self.mark = (self.attempt + 1, READY)

    def move(self, event: RunEvent) -> str | None:
        """The news for people: "" when there is none worth a line, None when it was known."""
        match event.type:
            case "task.ready":
                mark = (event.attempt, READY)
            case "attempt.started":
                mark = (event.attempt, STARTED)
            case "attempt.running":
                mark = (event.attempt, RUNNING)
            case "attempt.finished":
                mark = (event.attempt, ENDED)
            case "task.finished":
                mark = (1 << 31, OVER)
            case "task.reset":
                self.mark, self.state, self.reason = (self.attempt, ENDED), TaskState.WAITING, ""
                self.started = self.ended = None
                self.tries = self._failed = 0
                return ""
            case _:
                return None
        if mark <= self.mark:
            return None
        self.mark = mark
        return self._take(event)

    def _take(self, event: RunEvent) -> str:
        at = ms_of(event.at) or 0
        match event.type:
            case "task.ready":
                self.state, self.reason, self.due = TaskState(event.state), event.reason, due(event)
                if event.attempt <= 1:
                    return ""
                pause = (self.due or 0) - at
                soon = f" in {span(pause)}" if pause > 0 else ""
                return f"attempt {event.attempt}{soon}: {self.error or event.reason}"
            case "attempt.started" | "attempt.running":
                self.state, self.attempt, self.worker = (
                    TaskState.RUNNING,
                    event.attempt,
                    event.worker,
                )
                self.started = self.started or at
                self.error = ""
                self.tries = self._failed + 1
                return self._on() if event.type == "attempt.running" else ""
            case "attempt.finished":
                ok = event.state == AttemptState.SUCCEEDED
                if event.state in (AttemptState.FAILED, AttemptState.TIMED_OUT):
                    self._failed += 1
                if not ok:
                    self.tries = self._failed
                self.error = "" if ok else event.error or _ending(event)
                return ""
        self.state, self.reason = TaskState(event.state), event.reason
        self.ended = ms_of(event.ended) or at
        lasted = f"after {span(max(0, self.ended - self.started))}" if self.started else ""
        why = (self.error or event.reason) if self.state in FAILED else event.reason
        return ": ".join(part for part in (lasted, why) if part)

    def _on(self) -> str:
        number = f"attempt {self.attempt}, " if self.attempt > 1 else ""
        return f"{number}on {self.worker}"


class Watched:
    """The run and its tasks."""

    def __init__(self, run: Run, tasks: Sequence[TaskRun], *, whole: bool = False) -> None:
        """`whole` forgets what is known: the events tell it all, from the first on."""
        self.id = run.id
        self.workflow = run.workflow
        self.state = str(run.state)
        self.reason = run.reason
        self.created = ms_of(run.created) or 0
        self.started = ms_of(run.started)
        self.ended = ms_of(run.ended)
        #: Nothing more will happen, and nothing is left to be told.
        self.over = run.ended is not None and not whole
        if whole:
            self.state = "QUEUED" if self.started is None else "RUNNING"
            self.reason, self.ended = "", None
            tasks = [_before(task) for task in tasks]
        self.tasks = [WatchedTask(task) for task in tasks]
        self._by_name = {task.name: task for task in self.tasks}

    def move(self, event: RunEvent) -> str | None:
        """One line that tells the change; None when there is nothing to tell."""
        if event.task:
            task = self._by_name.get(event.task)
            text = None if task is None else task.move(event)
            if task is None or not text:
                # An end is told even when there is nothing to add.
                if task is None or text is None or event.type != "task.finished":
                    return None
            return line(event.at, task.name, task.state, text or "")
        before = self.state
        match event.type:
            case "run.submitted":
                if self.state != "QUEUED" or event.state != "QUEUED":
                    return None
                self.reason = event.reason
                return line(event.at, "run", self.state, event.reason)
            case "run.started":
                if self.ended is None and self.state in ("QUEUED", "RUNNING", "PAUSED"):
                    self.state, self.started = "RUNNING", ms_of(event.at)
            case "run.cancelling":
                if self.ended is None:
                    self.state = "CANCELLING"
            case "run.paused" | "run.resumed":
                if self.ended is None:
                    self.state = "PAUSED" if event.type == "run.paused" else "RUNNING"
            case "run.retried":
                self.state, self.reason, self.started, self.ended = "QUEUED", "", None, None
            case "run.finished":
                self.state, self.reason, self.ended = event.state, event.reason, ms_of(event.at)
        return None if self.state == before else line(event.at, "run", self.state, event.reason)

    def counts(self) -> dict[TaskState, int]:
        found: dict[TaskState, int] = {}
        for task in self.tasks:
            found[task.state] = found.get(task.state, 0) + 1
        return found


def _before(task: TaskRun) -> TaskRun:
    """The task as it was when its run began."""
    return msgspec.structs.replace(
        task,
        state=TaskState.WAITING,
        reason="",
        due=None,
        started=None,
        ended=None,
        attempts=(),
        tries=0,
    )


def line(at: datetime, what: str, state: str, text: str) -> str:
    return f"{at.astimezone():%H:%M:%S}  {what:<16}  {state:<10}  {clean(text)}".rstrip()


def due(event: RunEvent) -> int | None:
    return ms_of(event.due) if isinstance(event.due, datetime) else event.due


def _step(state: AttemptState) -> int:
    if state == AttemptState.STARTING:
        return STARTED
    return RUNNING if state in (AttemptState.RUNNING, AttemptState.UNREACHABLE) else ENDED


def _ending(event: RunEvent) -> str:
    if event.exit is None:
        return event.state.lower()
    return f"signal {-event.exit}" if event.exit < 0 else f"exit code {event.exit}"
