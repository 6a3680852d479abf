"""Facts: what an accepted command changed. Each has a revision, one higher than the fact before it.

The scheduler, the SSE streams and the story of a run are all fed from these and from nothing else.
`at` is the ledger time of the change in wall milliseconds. `run` is "" for facts of no run.
"""

from __future__ import annotations

from msgspec import Struct

from grampus.model.lease import KEEP
from grampus.model.run import AttemptState, RunState, TaskState


class Event(Struct, frozen=True, kw_only=True):
    revision: int
    at: int
    run: str = ""


class RunSubmitted(Event, frozen=True, tag="run.submitted", kw_only=True):
    workflow: str
    version: int
    priority: int
    #: QUEUED or RUNNING
    state: RunState
    #: Why it is queued.
    reason: str = ""
    #: The planned time that it was made for, by its schedule.
    tick: int | None = None


class RunStarted(Event, frozen=True, tag="run.started", kw_only=True):
    """QUEUED → RUNNING (a run that is submitted RUNNING has this event too)."""

    workflow: str
    version: int
    priority: int
    #: When the run's own timeout passes, or None.
    expires: int | None = None
    #: What let it out of the queue; "" when it was not held there.
    why: str = ""


class RunCancelling(Event, frozen=True, tag="run.cancelling", kw_only=True):
    by: str


class RunPaused(Event, frozen=True, tag="run.paused", kw_only=True):
    by: str


class RunResumed(Event, frozen=True, tag="run.resumed", kw_only=True):
    """Followed by `task.ready` of every task that may start."""

    by: str


class RunRetried(Event, frozen=True, tag="run.retried", kw_only=True):
    """A new round; followed by `task.reset` and `task.ready`."""

    by: str
    round: int
    workflow: str
    version: int
    priority: int


class TaskReset(Event, frozen=True, tag="task.reset", kw_only=True):
    """Back to WAITING in a new round."""

    task: str
    index: int


class RunFinished(Event, frozen=True, tag="run.finished", kw_only=True):
    state: RunState
    reason: str = ""


class RunDeleted(Event, frozen=True, tag="run.deleted", kw_only=True):
    """Told once, not kept: what is deleted has no story."""


class TaskReady(Event, frozen=True, tag="task.ready", kw_only=True):
    """May start from `due` on; also after a lost attempt, and with a later `due` for a retry."""

    task: str
    index: int
    #: Number of the attempt that comes next.
    attempt: int
    due: int
    #: READY or RETRYING
    state: TaskState
    #: What placement needs to know; `priority` is the run's and the task's together.
    group: str
    slots: int
    priority: int
    reason: str = ""
    #: No delay of its retries is longer: a later `due` was made by a wrong clock. In ms.
    longest: int = 0
    #: Nothing is new but that its run was resumed.
    again: bool = False


class TaskFinished(Event, frozen=True, tag="task.finished", kw_only=True):
    task: str
    index: int
    state: TaskState
    reason: str = ""
    #: When it was over, which may have been told late; `at` when None.
    ended: int | None = None


class AttemptStarted(Event, frozen=True, tag="attempt.started", kw_only=True):
    """Committed: the Assign may be sent. Its revision is the fencing token."""

    task: str
    index: int
    attempt: int
    session: int
    n: int
    worker: str
    slots: int
    #: In ms, or KEEP.
    lease: int = KEEP


class AttemptRunning(Event, frozen=True, tag="attempt.running", kw_only=True):
    task: str
    index: int
    attempt: int
    session: int
    n: int
    worker: str


class AttemptFinished(Event, frozen=True, tag="attempt.finished", kw_only=True):
    task: str
    index: int
    attempt: int
    session: int
    n: int
    worker: str
    state: AttemptState
    exit: int | None = None
    error: str = ""
    #: From its start to its end, in ms, as its worker measured it; None when that is not known.
    took: int | None = None


class WorkflowApplied(Event, frozen=True, tag="workflow.applied", kw_only=True):
    workflow: str
    version: int


class WorkflowPaused(Event, frozen=True, tag="workflow.paused", kw_only=True):
    workflow: str
    paused: bool


class WorkflowDeleted(Event, frozen=True, tag="workflow.deleted", kw_only=True):
    workflow: str


class SchedulePlanned(Event, frozen=True, tag="schedule.planned", kw_only=True):
    """The next tick of a workflow, or None."""

    workflow: str
    version: int
    next_tick: int | None
    paused: bool


class TickDone(Event, frozen=True, tag="schedule.tick", kw_only=True):
    """What became of planned ticks `first` to `last`."""

    workflow: str
    first: int
    last: int
    count: int
    #: `run`, `skipped`, `missed`, `paused`, `failed`
    outcome: str
    #: The run's id goes into `made`: this is no fact of the run's own history.
    made: str = ""
    reason: str = ""


class SessionOpened(Event, frozen=True, tag="session.opened", kw_only=True):
    session: int
    worker: str
    group: str
    slots: int
    draining: bool = False
    #: Index of the log entry.
    registered: int = 0
    #: See OpenSession.
    leased: bool = False


class SessionSeen(Event, frozen=True, tag="session.seen", kw_only=True):
    """The worker has registered again: it is not silent any more."""

    session: int
    worker: str
    registered: int


class SessionSilent(Event, frozen=True, tag="session.silent", kw_only=True):
    """What lives of it is UNREACHABLE."""

    session: int
    worker: str


class WorkerDraining(Event, frozen=True, tag="worker.draining", kw_only=True):
    """It gets no new attempts, or does again."""

    session: int
    worker: str
    draining: bool
    by: str


class SessionEnded(Event, frozen=True, tag="session.ended", kw_only=True):
    session: int
    worker: str
    reason: str


class OfficeTaken(Event, frozen=True, tag="office.taken", kw_only=True):
    epoch: int
    node: str


Fact = (
    RunSubmitted
    | RunStarted
    | RunCancelling
    | RunFinished
    | RunDeleted
    | TaskReady
    | TaskFinished
    | AttemptStarted
    | AttemptRunning
    | AttemptFinished
    | WorkflowApplied
    | WorkflowPaused
    | WorkflowDeleted
    | SessionOpened
    | SessionEnded
    | SessionSeen
    | SessionSilent
    | WorkerDraining
    | OfficeTaken
    | RunPaused
    | RunResumed
    | RunRetried
    | TaskReset
    | SchedulePlanned
    | TickDone
)
