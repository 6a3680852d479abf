"""What the API reads and answers, as pydantic models: the OpenAPI document is made from these.

Rule: names are those of `runs.views`; a time is RFC 3339 UTC text with milliseconds, or null when
it has not come. Unknown fields in a request are errors. How a view becomes an answer is in
`answers`, how a body is read in `bodies`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from grampus.ids import RUN_ID
from grampus.model.run import AttemptState, RunState, TaskState
from grampus.runs.explanation import Code

Time = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
        examples=["2026-11-21T03:52:49.123Z"],
        json_schema_extra={"format": "date-time"},
    ),
]
RunIdText = Annotated[str, Field(pattern=f"^{RUN_ID.pattern[:-2]}$", examples=["k3v9x2m4q7ab"])]
PRIORITY = 1000
PAGE = 100
PAGE_LIMIT = 1000
#: Runs in one batch.
BATCH = 500
#: Of workflows, which come with their definitions.
WORKFLOW_PAGE_LIMIT = 100
#: A JSON result up to this many bytes is decoded into `value`.
INLINE_RESULT = 1024 * 1024


class Request(BaseModel):
    """A body that a client sends."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(BaseModel):
    """A body that the server sends."""

    model_config = ConfigDict(frozen=True)


# Problems (RFC 9457)


class FieldProblem(Answer):
    """One thing that is wrong with an input, and how to mend it."""

    message: str = Field(examples=["there is no such field; did you mean `params`?"])
    file: str | None = None
    line: int | None = None
    field: str | None = Field(default=None, examples=["tasks.load.retry.max"])
    found: str | None = None
    allowed: str | None = None


class KeyAnswer(Answer):
    """A key of the metadata center as it stands."""

    key: str = Field(examples=["/servers/n1"])
    value: str = Field(description="In base64.", examples=["aGVsbG8="])
    create_revision: int = Field(description="In which it was made.")
    mod_revision: int = Field(description="Of its newest put; also its `ETag`.")
    version: int = Field(description="1, and one more with every put.")
    session: int = Field(description="Whose end deletes it; 0 is nobody's.")


class ProblemDocument(Answer):
    """Why a request was not done, as `application/problem+json`."""

    type: str = Field(examples=["urn:grampus:problem:not-found"])
    title: str = Field(examples=["There is no such thing"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["there is no run k3v9x2m4q7ab"])
    instance: str = Field(examples=["/api/v1/runs/k3v9x2m4q7ab"])
    problems: list[FieldProblem] | None = Field(
        default=None, description="All that is wrong with the input, not only the first."
    )
    revision: int | None = Field(
        default=None, description="Of `precondition-failed`: the ledger's at that time."
    )
    current: KeyAnswer | None = Field(
        default=None, description="Of `precondition-failed`: the key as it is; absent if it is not."
    )
    first: int | None = Field(
        default=None, description="Of `compacted`: the first revision that can be watched from."
    )


# Workflows


class WorkflowRequest(Request):
    """Makes a definition the newest version of its workflow."""

    definition: dict[str, Any] = Field(
        description="The canonical workflow, as `grampus workflow show -o json` prints it.",
        examples=[
            {
                "name": "hello",
                "tasks": [{"name": "greet", "action": {"type": "shell", "command": "echo hello"}}],
            }
        ],
    )


class WorkflowApplied(Answer):
    name: str = Field(examples=["hello"])
    version: int = Field(examples=[1])
    created: bool = Field(description="False when that was the newest version already.")
    note: str = Field(description="What the user should know; empty when there is nothing.")


class WorkflowAnswer(Answer):
    name: str = Field(examples=["hello"])
    version: int = Field(description="The newest version, or the one asked for.", examples=[1])
    paused: bool
    applied_at: Time
    definition: dict[str, Any]
    active_runs: int = Field(description="Runs that are not final.")


class WorkflowPage(Answer):
    """Workflows by name."""

    items: list[WorkflowAnswer]
    next: str | None = Field(description="`cursor` of the next page; null on the last.")


class WorkflowPaused(Answer):
    name: str
    paused: bool


# Runs


class RunRequest(Request):
    """Starts a workflow."""

    workflow: str = Field(min_length=1, max_length=64, examples=["hello"])
    params: dict[str, Any] = Field(
        default_factory=dict, description="Values by name; others get their default."
    )
    version: int | None = Field(default=None, ge=1, le=2**31, description="Default: the newest.")
    priority: int = Field(default=0, ge=-PRIORITY, le=PRIORITY, description="Higher starts first.")
    id: RunIdText | None = Field(
        default=None,
        description="The run's id, made by the client: asking again with it is safe. "
        "Not together with `Idempotency-Key`; with neither, the server makes one.",
    )


class RunAccepted(Answer):
    id: RunIdText
    created: bool = Field(description="False when the same request had made that run before.")


class BatchRequest(Request):
    """Starts several workflows, or one several times."""

    items: list[RunRequest] = Field(min_length=1, max_length=BATCH)


class BatchItem(Answer):
    id: RunIdText
    created: bool = Field(description="False when there was a problem, or when it was there.")
    problem: ProblemDocument | None = Field(description="Why this one was not started.")


class BatchAccepted(Answer):
    """In the order of the request."""

    items: list[BatchItem]


class RunAnswer(Answer):
    id: RunIdText
    seq: int = Field(description="Grows with every submitted run.")
    workflow: str
    version: int
    state: RunState
    reason: str = Field(description="Why it is queued, or why it failed.")
    params: dict[str, Any]
    priority: int
    tick: Time
    created: Time
    started: Time | None
    ended: Time | None
    tasks: int = Field(description="Number of tasks.")
    counts: dict[str, int] = Field(
        description="Number of tasks by state; states with none are absent.",
        examples=[{"SUCCEEDED": 11, "RUNNING": 1}],
    )


class RunPage(Answer):
    """Runs, newest first."""

    items: list[RunAnswer]
    next: str | None = Field(description="`cursor` of the next page; null on the last.")


class RunStateAnswer(Answer):
    id: RunIdText
    state: RunState


class RetryAnswer(Answer):
    id: RunIdText
    round: int = Field(description="1 was the first; every retry is one more.", examples=[2])
    tasks: list[str] = Field(description="What starts anew, in the order of declaration.")


class TaskStateAnswer(Answer):
    task: str
    state: TaskState


class AttemptAnswer(Answer):
    task: str
    attempt: int
    state: AttemptState
    session: int
    n: int
    worker: str
    started: Time
    running: Time | None = Field(description="On the worker's clock.")
    ended: Time | None
    exit: int | None = Field(description="-signal when a signal ended it.")
    error: str
    stdout: int = Field(description="Bytes written.")
    stderr: int = Field(description="Bytes written.")
    lease: int | None = Field(
        description="In ms: when its worker is not heard for so long, it is LOST and starts "
        "elsewhere; null when it is kept."
    )
    unreachable_since: Time | None = Field(
        description="Since when its worker counts as silent, while it is UNREACHABLE."
    )


class TaskAnswer(Answer):
    name: str
    index: int
    kind: str = Field(examples=["shell"])
    after: list[str]
    state: TaskState
    reason: str = Field(description="Why it waits, or why it ended as it did.")
    due: Time | None = Field(description="When it may start: first start or next try.")
    started: Time | None
    ended: Time | None
    max_attempts: int = Field(description="Tries that each round of the run may have.")
    tries: int = Field(
        description="Tries of this round that count: those that failed, and the one that is on or "
        "went well. Attempts that were lost or given back do not count."
    )
    attempts: list[AttemptAnswer] = Field(description="Of all rounds.")
    output: bool = Field(description="There is a result to fetch.")


class TaskList(Answer):
    """The tasks of a run, in the order of their declaration."""

    items: list[TaskAnswer]


class ResultAnswer(Answer):
    task: str
    state: TaskState
    encoding: Literal["json", "pickle", "none"] = Field(
        description="`pickle` is read by tasks of the same workflow only; `none`: no result."
    )
    value: Any = Field(
        description="The decoded JSON; null for `pickle`, and when it is not `inline`."
    )
    inline: bool = Field(
        description="`value` is the result. Otherwise `Accept: application/octet-stream` has it."
    )
    size: int = Field(description="Bytes of the encoded result.")


class LogEntry(Answer):
    """A piece of one stream of one attempt, cut between characters."""

    task: str
    attempt: int
    stream: Literal["stdout", "stderr"]
    offset: int = Field(description="Where the piece starts in its stream, in bytes.")
    next: int = Field(description="Where the next piece starts: `offset` to go on from here.")
    text: str = Field(description="UTF-8, with U+FFFD for bytes that are not.")
    skipped: int = Field(description="Bytes before the piece that were cut: the log was too long.")
    note: str = Field(description="For people: why there is nothing to show. Mostly empty.")


class StoryLineAnswer(Answer):
    revision: int
    at: Time
    since: int | None = Field(description="Milliseconds since the line before.")
    type: str = Field(description="As in the run's events.", examples=["attempt.finished"])
    task: str = Field(description="Empty for what happened to the run itself.")
    attempt: int = Field(description="0 for what happened to no attempt.")
    state: str = Field(description="That it has now; empty when it is no change of state.")
    took: int | None = Field(description="Milliseconds that lasted what ended.")
    text: str = Field(examples=["b/2 FAILED on vm after 3.2s: exit code 75"])


class StoryPage(Answer):
    """What happened, oldest first."""

    items: list[StoryLineAnswer]
    next: str | None = Field(description="`cursor` of the next page; null on the last.")


class ReasonAnswer(Answer):
    code: Code = Field(description="Stays the same from version to version.")
    text: str = Field(examples=["no free slot in group etl: 4 of 4 busy with k3v9x2m4q7ab/load"])
    until: Time | None = Field(description="When it is over by itself, if that is known.")
    since: Time | None = Field(description="Since when it is so, if that is known.")
    names: list[str] = Field(description="What it names: tasks, workers, groups, runs.")


class TaskExplanationAnswer(Answer):
    task: str
    state: TaskState
    reasons: list[ReasonAnswer] = Field(description="The first is the one that decides.")
    written: int | None = Field(
        description="Bytes that its live attempt wrote so far; null when that is not known."
    )


class ExplanationAnswer(Answer):
    run: RunIdText
    workflow: str
    state: RunState
    reasons: list[ReasonAnswer] = Field(description="Of the run as a whole.")
    tasks: list[TaskExplanationAnswer]
    tasks_left: int = Field(description="Tasks that are not over and not in `tasks`.")


class EventAnswer(Answer):
    """`data` of one server-sent event: the fact; more fields by `type`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = Field(examples=["task.finished"])
    revision: int
    at: Time
    run: str


# Schedules


class TickAnswer(Answer):
    """What became of a planned tick, or of all from `tick` to `last`."""

    tick: Time
    local: str = Field(
        description="`tick` on the clock of the schedule's zone.",
        examples=["2026-11-21T06:00:00+01:00"],
    )
    last: Time
    count: int = Field(description="Ticks from `tick` to `last`.")
    outcome: Literal["run", "skipped", "missed", "paused", "failed"] = Field(
        description="`skipped`: by the overlap policy. `failed`: its params could not be resolved."
    )
    run: RunIdText | None = Field(description="The run that was made.")
    reason: str
    at: Time = Field(description="When that was decided.")


class TickPage(Answer):
    """Ticks, newest first."""

    items: list[TickAnswer]
    next: str | None = Field(description="`cursor` of the next page; null on the last.")


class PlannedTick(Answer):
    tick: Time
    local: str = Field(examples=["2026-11-21T06:00:00+01:00"])


class TickList(Answer):
    items: list[PlannedTick]


class ScheduleAnswer(Answer):
    name: str = Field(description="Of the workflow.", examples=["hello"])
    version: int
    schedule: dict[str, Any] = Field(examples=[{"cron": "0 6 * * *", "tz": "Europe/Paris"}])
    tz: str = Field(examples=["Europe/Paris"])
    paused: bool
    paused_by: str
    workflow_paused: bool = Field(description="Then ticks pass without a run too.")
    next: Time | None = Field(description="Null when there is none, or when it is not known yet.")
    next_local: str | None = Field(description="`next` on the clock of the schedule's zone.")
    last: TickAnswer | None = Field(description="The newest tick that came.")
    held: str = Field(
        description="Why no schedule fires now: the clock is in doubt; empty when they fire."
    )


class ClockTrusted(Answer):
    held: str = Field(description="What was doubted until now; empty when nothing was.")


class SchedulePage(Answer):
    """Schedules by name of their workflow."""

    items: list[ScheduleAnswer]
    next: str | None = Field(description="`cursor` of the next page; null on the last.")


class SchedulePaused(Answer):
    name: str
    paused: bool


# Workers


class WorkerAnswer(Answer):
    session: int
    name: str
    group: str
    slots: int
    busy: int = Field(description="Slots taken by attempts that are not final.")
    state: Literal["LIVE", "ENDED"]
    since: Time
    connected: bool = Field(description="It talks to the server that leads.")
    silent_since: Time | None = Field(
        description="Since when nothing is heard of it, once that has lasted: what lives there is"
        " UNREACHABLE, and starts elsewhere when its lease ends."
    )
    draining: bool = Field(description="It gets no new attempts, until it is undrained.")
    cpu: int | None = Field(description="Percent of the machine; null when not known.")
    memory: int | None = Field(description="Free bytes; null when not known.")
    containment: str | None = Field(
        description="What holds the processes of an attempt together there: `pid-namespace`,"
        " `cgroup` or `subreaper`; null when it is not connected."
    )
    trouble: str = Field(description="Why it can start nothing now; empty when it can.")
    stuck: int = Field(description="Its attempts that cannot be killed, and keep their slots.")


class WorkerList(Answer):
    items: list[WorkerAnswer]


class Health(Answer):
    status: Literal["ok"]


class Readiness(Answer):
    status: Literal["ok"]
    alarms: list[str] = Field(
        description="What needs a person: it goes on, but not as it should.", examples=[[]]
    )


# The cluster


class MemberAnswer(Answer):
    name: str
    id: str = Field(description="Changes when the server gets a new folder.")
    address: str
    role: Literal["voter", "learner", "lost"]
    state: Literal["leads", "follows", "behind", "silent", "waits", "unknown"]
    behind: int | None = Field(description="Entries that it lacks; null when not known.")
    complaint: str = Field(description="Why it is not reached, or empty.")
    apply_version: int = Field(
        description="The newest apply version that it knows; 0 when it does not answer."
    )
    cpu: int | None = Field(
        description="Percent of its machine, over the last minute; null while it does not say."
    )
    memory: int | None = Field(description="Free bytes, over the last minute; or null.")
    lacks: int = Field(
        description="Bundles and results that it has still to fetch from other servers."
    )


class ClusterAnswer(Answer):
    cluster: str
    history: str = Field(description="Changes when a cluster is recovered or restored.")
    server: str = Field(description="The one that answers.")
    leader: str | None
    led: int = Field(description="For how long there is this leader, or none, in ms.")
    term: int
    commit: int
    applied: int
    members: list[MemberAnswer]
    can_lose: int | None = Field(
        description="Voters that may still be lost; -1 when the majority is gone; null: not known."
    )
    advice: list[str]
    apply_version: int = Field(
        description="Of the ledger: which rules count. Raised when every server knows a newer one."
    )
    held_back: list[str] = Field(
        description="Servers that hold it back, while others know a newer one."
    )


class LedgerLine(Answer):
    name: str
    state: Literal["same", "differs", "waits", "unclear"] = Field(
        description="`waits`: not told yet. `unclear`: no majority has the same."
    )
    sum: str = Field(description="SHA-256 over all rows, or empty.")


class CheckAnswer(Answer):
    index: int = Field(description="Of the entry in the log after which all took their checksum.")
    agreed: str | None = Field(description="What most voters have; null while it is not known.")
    servers: list[LedgerLine]


class TokenRequest(BaseModel):
    """What a join token is for."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["server", "worker"] = "server"
    name: str = Field("", max_length=63, description="Only for that node; empty: any.")
    life: int = Field(3_600_000, ge=1_000, le=604_800_000, description="In ms.")


class TokenAnswer(Answer):
    token: str = Field(description="Told this once, and kept nowhere.")
    role: Literal["server", "worker"]
    expires: Time


class TokenLine(Answer):
    """A join token, without its secret."""

    id: str
    role: Literal["server", "worker"]
    name: str = Field(description="Only for that node; empty: any.")
    created: Time
    expires: Time
    used: Time | None
    used_by: str = Field(description="Name of the node that joined with it, or empty.")


class TokenList(Answer):
    items: list[TokenLine]
