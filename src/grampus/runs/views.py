"""What queries answer: plain rows for people and for the driver. Times are wall milliseconds."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from grampus.model.run import AttemptState, RunState, TaskState, Value
from grampus.model.workflow import Param, Schedule, Workflow


class WorkflowView(Struct, frozen=True, kw_only=True):
    name: str
    #: The newest version.
    version: int
    paused: bool
    applied_at: int
    definition: Workflow
    #: Runs that are not final.
    active_runs: int


class RunView(Struct, frozen=True, kw_only=True):
    id: str
    #: Grows with every submit: the newest run has the highest.
    seq: int
    workflow: str
    version: int
    state: RunState
    #: Why it is queued, or why it failed.
    reason: str
    params: dict[str, Any]
    priority: int
    tick: int
    created: int
    started: int | None
    ended: int | None
    #: Number of tasks, in all and by state (states with none are absent).
    tasks: int
    counts: dict[str, int]


class AttemptView(Struct, frozen=True, kw_only=True):
    task: str
    attempt: int
    state: AttemptState
    session: int
    n: int
    worker: str
    started: int
    #: When the worker saw it running, on the worker's clock.
    running: int | None
    ended: int | None
    exit: int | None
    error: str
    stdout: int
    stderr: int
    #: How long its worker keeps it when nobody hears the worker, in ms, or KEEP.
    lease: int
    #: Since when nothing was heard of its worker, while it is UNREACHABLE.
    unreachable: int | None


class TaskView(Struct, frozen=True, kw_only=True):
    name: str
    index: int
    kind: str
    after: tuple[str, ...]
    state: TaskState
    #: Why it waits, or why it ended as it did.
    reason: str
    #: When it may start: its first start or its next try.
    due: int | None
    started: int | None
    ended: int | None
    #: Tries that a round of the run may have, and those of this round that count: that failed, and
    #: the one that is on or went well. What was lost or given back is charged to no try.
    max_attempts: int
    tries: int
    attempts: tuple[AttemptView, ...]
    #: There is a result to fetch.
    output: bool


class OutputView(Struct, frozen=True, kw_only=True):
    task: str
    state: TaskState
    #: None when the task returned nothing.
    value: Value | None


class WorkerView(Struct, frozen=True, kw_only=True):
    session: int
    name: str
    group: str
    slots: int
    #: Slots taken by attempts that are not final.
    busy: int
    #: `LIVE` or `ENDED`
    state: str
    since: int
    #: Since when nothing was heard of it, once that has lasted; None while it is heard.
    silent: int | None
    #: It gets no new attempts.
    draining: bool


class TickView(Struct, frozen=True, kw_only=True):
    """What became of a planned tick, or of all from `tick` to `last`."""

    tick: int
    last: int
    count: int
    #: `run`, `skipped`, `missed`, `paused`, `failed`
    outcome: str
    #: The run that was made, or "".
    run: str
    reason: str
    #: When that was decided.
    at: int


class ScheduleView(Struct, frozen=True, kw_only=True):
    workflow: str
    version: int
    schedule: Schedule
    params: tuple[Param, ...]
    paused: bool
    paused_by: str
    workflow_paused: bool
    #: Planned; None when there is none, or when it is not planned yet.
    next_tick: int | None
    #: Ticks after it are to be planned; None once they are.
    since: int | None
    #: The newest row of its ticks.
    last: TickView | None
    #: Of the ledger when this was read.
    revision: int


class EventView(Struct, frozen=True, kw_only=True):
    revision: int
    at: int
    #: Tag of the fact, e.g. `task.ready`.
    kind: str
    #: The fact as JSON, tag under `type`.
    data: bytes
