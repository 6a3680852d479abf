"""Why something waits, as values: what `master.core.explain` answers and the API shows.

Codes are stable: scripts may rely on them. Texts are for people, and may change.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Code = Literal[
    # of a run
    "workflow-paused",  # the workflow is paused: its new runs stay queued
    "queue-limit",  # as many runs of the workflow are active as may be
    "overlap",  # its schedule lets one run at a time begin
    "run-paused",  # somebody paused the run
    "cancelling",  # it ends when its workers say that nothing of it is left
    "run-timeout",  # when the run's own timeout passes; it waits for nothing because of that
    "run-finished",
    # of a task
    "upstream",  # tasks that it comes after have not succeeded yet
    "retry-due",  # a later try waits for its moment
    "run-waits",  # the run has not begun, or is paused: see the run's own reasons
    "no-worker",  # no worker is in its group
    "worker-troubled",  # workers of its group cannot start anything now: a full disk, no process
    "worker-silent",  # workers of its group, or the one that runs it, do not answer
    "worker-draining",  # workers of its group get nothing new until somebody says so
    "too-big",  # no worker of its group has so many slots
    "no-free-slot",  # all slots of its group are taken, or too few are free
    "behind-others",  # others in its group's line come first
    "unkillable",  # KILL was sent to it long ago, and its processes are still there
    "given-ahead",  # its worker has it, and no free slot for it yet
    "starting",  # its start is being committed, or its worker has not begun it yet
    "ending",  # it was asked to end, and has its grace before it is killed
    "running",
    "task-finished",
    # of the server
    "no-master",  # this server does not schedule now
    "stopping",  # this server is being stopped
]


class Reason(Struct, frozen=True, kw_only=True):
    code: Code
    text: str
    #: When it is over by itself, or since when it is so: wall ms; None when that is not known.
    until: int | None = None
    since: int | None = None
    #: What it names, by code: tasks, workers, groups, runs, or `run/task`s. Bounded.
    names: tuple[str, ...] = ()


class TaskExplanation(Struct, frozen=True, kw_only=True):
    task: str
    state: str
    #: The first one is the one that decides; more may stand behind it.
    reasons: tuple[Reason, ...]
    #: Bytes that its live attempt wrote so far; None when that is not known.
    written: int | None = None


class Explanation(Struct, frozen=True, kw_only=True):
    run: str
    workflow: str
    state: str
    reasons: tuple[Reason, ...]
    tasks: tuple[TaskExplanation, ...]
    #: Tasks that are not final and not among `tasks`.
    tasks_left: int
