"""Runs: how they were started, how they are, and what happened to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct, field

from grampus.model.run import FINAL_RUN, RunState, TaskState


class Started(Struct, frozen=True, kw_only=True):
    """`created` is False when the same request had made that run before."""

    id: str
    created: bool = True


class Run(Struct, frozen=True, kw_only=True):
    id: str
    workflow: str
    version: int
    state: RunState
    #: Why it is queued, or why it failed.
    reason: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    priority: int = 0
    #: The planned tick, or when it was submitted.
    tick: datetime
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    #: Number of tasks, in all and by state.
    tasks: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    seq: int = 0

    @property
    def final(self) -> bool:
        return self.state in FINAL_RUN


class BatchProblem(Struct, frozen=True, kw_only=True):
    """Why one run of a batch was not started."""

    type: str
    detail: str


class Submitted(Struct, frozen=True, kw_only=True):
    """What became of one run of a batch."""

    id: str
    created: bool = False
    problem: BatchProblem | None = None


class Retried(Struct, frozen=True, kw_only=True):
    """A new round has begun, or waits in the queue."""

    id: str
    round: int
    #: What starts anew.
    tasks: tuple[str, ...] = ()


class StoryLine(Struct, frozen=True, kw_only=True):
    """One thing that happened to a run; `text` tells it."""

    revision: int
    at: datetime
    #: Milliseconds since the line before.
    since: int | None = None
    #: As in `RunEvent`.
    type: str
    task: str = ""
    attempt: int = 0
    state: str = ""
    #: Milliseconds that lasted what ended.
    took: int | None = None
    text: str


class RunEvent(Struct, frozen=True, kw_only=True):
    """A fact of a run; `type` is the tag of `runs.events`, e.g. `task.finished`."""

    type: str
    revision: int
    at: datetime
    run: str = ""
    task: str = ""
    index: int = 0
    attempt: int = 0
    worker: str = ""
    #: Of the run, the task or the attempt, by `type`.
    state: str = ""
    reason: str = ""
    exit: int | None = None
    error: str = ""
    due: datetime | int | None = None
    by: str = ""
    #: Of a task that is over: when it was, if that was told later than it happened.
    ended: datetime | None = None
    #: Of an attempt that is over: how long it took, in ms, where its worker said so.
    took: int | None = None


class Reason(Struct, frozen=True, kw_only=True):
    """Why something waits: `code` stays the same, `text` is for people."""

    code: str
    text: str
    until: datetime | None = None
    since: datetime | None = None
    #: What it names: tasks, workers, groups, runs.
    names: tuple[str, ...] = ()


class TaskExplanation(Struct, frozen=True, kw_only=True):
    task: str
    state: TaskState
    #: The first is the one that decides.
    reasons: tuple[Reason, ...] = ()
    #: Bytes that its live attempt wrote so far; None when that is not known.
    written: int | None = None


class Explanation(Struct, frozen=True, kw_only=True):
    run: str
    workflow: str
    state: RunState
    #: Of the run as a whole.
    reasons: tuple[Reason, ...] = ()
    tasks: tuple[TaskExplanation, ...] = ()
    #: Tasks that are not over and not in `tasks`.
    tasks_left: int = 0
