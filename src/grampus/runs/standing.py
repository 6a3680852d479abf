"""Where a run stands, as the ledger has it: what `master.core.explain` starts from. `read_standing`
reads it."""

from __future__ import annotations

from msgspec import Struct

from grampus.model.run import AttemptState, RunState, TaskState
from grampus.runs.gate import Gate
from grampus.runs.views import RunView


class Upstream(Struct, frozen=True):
    """A task that is waited for, and has not succeeded."""

    task: str
    state: TaskState


class Tried(Struct, frozen=True):
    """A task's last attempt."""

    attempt: int
    state: AttemptState
    session: int
    n: int
    worker: str
    started: int
    #: When its process was seen running, or None.
    running: int | None


class TaskStanding(Struct, frozen=True, kw_only=True):
    name: str
    index: int
    state: TaskState
    reason: str
    #: Of the attempt that comes next.
    attempt: int
    due: int | None
    started: int | None
    ended: int | None
    group: str
    slots: int
    priority: int
    #: Of each attempt: how long it may run, and then between TERM and KILL, in ms.
    timeout: int | None
    grace: int
    #: As declared.
    lease: int | None
    #: Tasks that it waits for: some of them, and how many in all.
    ups: tuple[Upstream, ...]
    waits: int
    last: Tried | None


class Occupant(Struct, frozen=True):
    """A live attempt of any run: it takes slots of its session."""

    session: int
    n: int
    run: str
    task: str
    attempt: int
    slots: int
    started: int


class Standing(Struct, frozen=True, kw_only=True):
    run: RunView
    tasks: tuple[TaskStanding, ...]
    tasks_left: int
    #: Live attempts of all runs, the oldest sessions first, at most MOST_LIVE.
    occupants: tuple[Occupant, ...]
    #: What its workflow lets begin.
    gate: Gate
    #: From the queue it begins only when no other run of its workflow is active.
    alone: bool
    #: Runs of its workflow that are active, the oldest first, at most MOST_RUNS.
    active: tuple[tuple[str, RunState], ...]
    #: Runs of its workflow that are queued before it.
    queued_before: int
    #: When its own timeout passes.
    expires: int | None
    #: Since when its attempts are asked to end, while it is CANCELLING.
    ending: int | None
