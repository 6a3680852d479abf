"""What the client answers: the documents of the HTTP API as frozen values.

Rule: names are those of the API. A field that an older server does not send has a default; one that
a newer server adds is ignored. Times are aware datetimes in UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct, field

from grampus.model.run import FINAL_RUN, AttemptState, RunState, TaskState


class Applied(Struct, frozen=True, kw_only=True):
    """A workflow was applied; `created` is False when that was the newest version already."""

    name: str
    version: int
    created: bool
    #: What the user should know; mostly empty.
    note: str = ""


class WorkflowInfo(Struct, frozen=True, kw_only=True):
    name: str
    version: int
    paused: bool
    applied_at: datetime
    #: The canonical workflow, as `model.workflow.Workflow` spells it.
    definition: dict[str, Any]
    #: Runs that are not final.
    active_runs: int


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


class BatchProblem(Struct, frozen=True, kw_only=True):
    """Why one run of a batch was not started."""

    type: str
    detail: str


class Submitted(Struct, frozen=True, kw_only=True):
    """What became of one run of a batch."""

    id: str
    created: bool = False
    problem: BatchProblem | None = None


class Attempt(Struct, frozen=True, kw_only=True):
    task: str
    attempt: int
    state: AttemptState
    worker: str
    started: datetime
    running: datetime | None = None
    ended: datetime | None = None
    #: -signal when a signal ended it.
    exit: int | None = None
    error: str = ""
    #: Bytes written.
    stdout: int = 0
    stderr: int = 0
    #: In ms: how long a worker that is not heard keeps it; None: until it is back.
    lease: int | None = None
    #: Since when its worker counts as silent, while it is UNREACHABLE.
    unreachable_since: datetime | None = None


class TaskRun(Struct, frozen=True, kw_only=True):
    name: str
    index: int
    kind: str
    after: tuple[str, ...] = ()
    state: TaskState
    #: Why it waits, or why it ended as it did.
    reason: str = ""
    #: When it may start: its first start or its next try.
    due: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    #: Tries that each round of the run may have, and those of this round that count.
    max_attempts: int = 1
    tries: int = 0
    #: Of all rounds, those that were lost or given back too.
    attempts: tuple[Attempt, ...] = ()
    #: There is a result to fetch.
    output: bool = False


class LogPiece(Struct, frozen=True, kw_only=True):
    """A piece of one stream of one attempt, cut between characters."""

    task: str
    attempt: int
    stream: str = "stdout"
    #: Bytes: where the piece starts in its stream, and where the one after it does.
    offset: int = 0
    next: int = 0
    text: str = ""
    #: Bytes before the piece that were cut, because the log was too long.
    skipped: int = 0
    #: For people: why there is nothing to show.
    note: str = ""


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


class Tick(Struct, frozen=True, kw_only=True):
    """What became of a planned tick, or of all `count` from `tick` to `last`."""

    tick: datetime
    #: `tick` on the clock of the schedule's zone, with its offset.
    local: str
    last: datetime
    count: int = 1
    #: `run`, `skipped`, `missed`, `paused` or `failed`
    outcome: str
    #: The run that was made.
    run: str | None = None
    reason: str = ""
    #: When that was decided.
    at: datetime


class PlannedTick(Struct, frozen=True, kw_only=True):
    tick: datetime
    local: str


class ScheduleInfo(Struct, frozen=True, kw_only=True):
    """The schedule of the workflow `name`."""

    name: str
    version: int
    #: As `model.workflow.Schedule` spells it.
    schedule: dict[str, Any]
    tz: str = "UTC"
    paused: bool = False
    paused_by: str = ""
    workflow_paused: bool = False
    next: datetime | None = None
    next_local: str | None = None
    #: The newest tick that came.
    last: Tick | None = None
    #: Why no schedule fires now, or "".
    held: str = ""


class Worker(Struct, frozen=True, kw_only=True):
    session: int
    name: str
    group: str
    slots: int
    #: Slots taken by attempts that are not final.
    busy: int
    #: `LIVE` or `ENDED`
    state: str
    since: datetime
    #: It talks to the server that leads.
    connected: bool = False
    #: Since when nothing is heard of it, once that has lasted.
    silent_since: datetime | None = None
    #: It gets no new attempts.
    draining: bool = False
    #: Percent of the machine.
    cpu: int | None = None
    #: Free bytes.
    memory: int | None = None
    #: What holds the processes of an attempt together there; None when it is not connected.
    containment: str | None = None
    #: Why it can start nothing now, or "".
    trouble: str = ""
    #: Its attempts that cannot be killed, and keep their slots.
    stuck: int = 0


class TaskResult(Struct, frozen=True, kw_only=True):
    """What the API says of a result; `value` is the decoded JSON when `inline`."""

    task: str
    state: TaskState
    #: `json`, `pickle` or `none`
    encoding: str
    value: Any = None
    inline: bool = False
    #: Bytes of the encoded result.
    size: int = 0


class ClusterMember(Struct, frozen=True, kw_only=True):
    name: str
    id: str
    address: str
    #: `voter`, `learner` or `lost`.
    role: str
    #: `leads`, `follows`, `behind`, `silent`, `waits` or `unknown`.
    state: str
    #: Entries that it lacks; None when not known.
    behind: int | None = None
    complaint: str = ""
    #: The newest that it knows; 0 when it does not answer.
    apply_version: int = 0
    #: Percent of its machine, and free bytes, over the last minute; None while it does not say.
    cpu: int | None = None
    memory: int | None = None
    #: Bundles and results that it has still to fetch from other servers.
    lacks: int = 0


class ClusterInfo(Struct, frozen=True, kw_only=True):
    cluster: str
    history: str
    #: The server that answers.
    server: str
    leader: str | None
    #: For how long there is this leader, or none, in ms.
    led: int
    term: int
    commit: int
    applied: int
    members: list[ClusterMember]
    #: Voters that may still be lost; -1: the majority is gone; None: not known.
    can_lose: int | None
    advice: list[str]
    #: Of the ledger.
    apply_version: int = 0
    #: Servers that hold it back, while others know a newer one.
    held_back: list[str] = []


class LedgerSum(Struct, frozen=True, kw_only=True):
    name: str
    #: `same` as most, `differs`, `waits` (not told yet), or `unclear`: no majority has the same.
    state: str
    sum: str = ""


class LedgerCheck(Struct, frozen=True, kw_only=True):
    """A comparison of the servers' ledgers at entry `index`."""

    index: int
    agreed: str | None = None
    servers: list[LedgerSum]

    @property
    def complete(self) -> bool:
        return all(each.state != "waits" for each in self.servers)


class JoinToken(Struct, frozen=True, kw_only=True):
    #: A secret: it is told this once.
    token: str
    role: str
    expires: datetime

    def __repr__(self) -> str:
        return f"JoinToken(role={self.role!r})"


class TokenLine(Struct, frozen=True, kw_only=True):
    """A join token, without its secret."""

    id: str
    role: str
    #: The one node that it is for, or "".
    name: str
    created: datetime
    expires: datetime
    used: datetime | None
    #: Name of the node that joined with it, or "".
    used_by: str


class Key(Struct, frozen=True, kw_only=True):
    """A key of the metadata center as it stands."""

    key: str
    value: bytes
    create_revision: int
    #: Of its newest put.
    mod_revision: int
    version: int
    #: Whose end deletes it; 0 is nobody's.
    session: int = 0


class KeyChange(Struct, frozen=True, kw_only=True):
    """`type` is `put`, or `delete`: then there is only the key."""

    type: str
    key: str
    value: bytes | None = None
    create_revision: int = 0
    version: int = 0
    session: int = 0


class KeysChanged(Struct, frozen=True, kw_only=True):
    """All changes of one revision, in their order."""

    revision: int
    changes: list[KeyChange]
