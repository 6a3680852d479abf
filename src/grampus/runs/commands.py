"""What the ledger can be asked to change. A command carries its own time and ids: apply adds none.

Stored and applied as the bytes that were proposed; unknown fields and unknown tags are errors. A
command that was released never changes: one more field is a new command, of a new `apply_version`.
`at` is wall milliseconds, given by the proposer.
"""

from __future__ import annotations

import zlib

import msgspec
from msgspec import Struct

from grampus.cluster.refusal import Refusal as Refusal
from grampus.model.run import AttemptState, Value
from grampus.model.workflow import CONTENT_LIMIT

#: A command is at most this long when encoded.
COMMAND_LIMIT = 256 * 1024
#: Attempts that one command loses.
MOST_LOST = 500


class ApplyWorkflow(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="apply"):
    """Makes the definition the newest version; the version there is when it is the same already.

    Accepted: (version, created: bool)."""

    at: int
    name: str
    #: `pack_definition` of `model.workflow.Workflow.content()`.
    packed: bytes


class PauseWorkflow(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="pause"):
    """Paused: new runs stay QUEUED. Resumed: they start."""

    at: int
    name: str
    paused: bool


class DeleteWorkflow(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="delete-workflow"
):
    """Refused while runs of it are active. Finished runs stay."""

    at: int
    name: str


class SubmitRun(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="submit"):
    """Accepted: "created", or "exists" when the same request made that run before."""

    at: int
    run: str
    workflow: str
    version: int
    #: One JSON object with every param of the version, checked and complete.
    params: bytes
    #: Hash of what was asked: same id and same request is the same run.
    request: str
    priority: int
    #: Planned tick, or `at`.
    tick: int


class StartAttempts(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="start"):
    """Starts one attempt for each (task index, attempt number) of one run, or none of them.

    Accepted: list of n."""

    at: int
    epoch: int
    session: int
    run: str
    tasks: list[tuple[int, int]]


class ReportAttempt(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="report"):
    """What a worker says of its attempt. Accepted: "done" or "stale"."""

    at: int
    session: int
    n: int
    state: AttemptState
    #: When it happened, on the clock of `at`: a report may come late.
    when: int
    exit: int | None
    error: str
    exception: tuple[str, ...]
    output: Value | None
    stdout: int
    stderr: int
    #: From its start to its end, in ms, as its worker measured it.
    took: int | None = None


class CancelRun(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="cancel"):
    """Accepted: the run's state afterwards."""

    at: int
    run: str
    by: str


class DeleteRun(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="delete-run"):
    """Only finished runs."""

    at: int
    run: str


class Retain(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="retain"):
    """Deletes the oldest runs that ended before `before`, at most `limit`. Accepted: their ids.

    Rows of ticks as old as that go too, the oldest first, a bounded number."""

    at: int
    before: int
    limit: int
    #: Only runs that were submitted before this one (its `seq`): the first that is known to be
    #: younger. What a clock that was behind has dated back is not older than its neighbours.
    below: int | None = None


class OpenSession(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="open-session"
):
    """A worker's incarnation asks for its session. Accepted: the session's id.

    The same instance gets its session back. Another instance of the name is refused while the old
    session lives, unless nothing of it can live: it is `clean` and of the same folder, or its
    machine has rebooted, or the old one is silent and without attempts. Then the old session ends
    and its attempts are LOST."""

    at: int
    name: str
    instance: str
    machine: str
    boot: str
    #: Every containment of earlier incarnations in that folder was seen empty.
    clean: bool
    group: str
    slots: int
    #: Random id of the worker's data folder.
    folder: str = ""
    #: Its attempts have leases, for somebody watches over them where it is; else it keeps them all.
    leased: bool = False


class SilenceSession(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="silence-session"
):
    """Its worker has not been heard for a while: its attempts are UNREACHABLE until it registers.

    Compare-and-set: refused when it has registered since `registered`."""

    at: int
    epoch: int
    session: int
    registered: int


class LoseAttempts(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="lose-attempts"
):
    """Their leases are over, and whoever had them has ended them: they are LOST.

    The leader has counted; `apply` looks at no clock. Compare-and-set: refused when the worker has
    registered since `registered`, or is not silent. Accepted: how many were lost. What has no lease
    is not touched, what is final neither."""

    at: int
    epoch: int
    session: int
    registered: int
    #: Numbers of the session, at most MOST_LOST.
    numbers: tuple[int, ...]
    reason: str


class DrainWorker(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="drain-worker"
):
    """A draining worker gets no new attempts, under its next sessions too. Accepted: whether that
    was a change."""

    at: int
    name: str
    draining: bool
    by: str


class EndSession(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="end-session"
):
    """Every attempt of the session that is not final is LOST."""

    at: int
    session: int
    reason: str


class TakeOffice(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="office"):
    """The leader's first command. Accepted: the epoch, which is the index of this command.

    Refused in another term than the one that its proposer led in: it came too late."""

    at: int
    node: str
    term: int


class PauseRun(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="pause-run"):
    """RUNNING → PAUSED: nothing more starts, what lives goes on. Accepted: the state afterwards."""

    at: int
    run: str
    by: str


class ResumeRun(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="resume-run"):
    """PAUSED → RUNNING. Accepted: the state afterwards."""

    at: int
    run: str
    by: str


class RetryRun(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="retry-run"):
    """A new round of a FAILED run, or from a task on of a SUCCEEDED one too.

    Of every task that did not succeed; with `task`, of it and all that is downstream as well.
    Attempt numbers go on, failures and losses count anew. Accepted: (round, names of the tasks).
    A CANCELLED run is never run again."""

    at: int
    run: str
    #: "" is none.
    task: str
    by: str


class ExpireRun(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="expire-run"):
    """The run's own timeout has passed: it ends as FAILED, like a cancel by nobody."""

    at: int
    epoch: int
    run: str


class DeclareLost(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="declare-lost"
):
    """A person says that nothing is left of the task's live attempt: it is LOST.

    Refused unless that attempt is there and not final. Accepted: the task's state afterwards."""

    at: int
    run: str
    task: str
    by: str
    #: The attempt that the person looked at.
    attempt: int


class PlanSchedule(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="plan-schedule"
):
    """The first planned tick of a version; refused when that version has one already.

    `next_tick` None: there will be none. Only the proposer knows time zones."""

    at: int
    epoch: int
    workflow: str
    version: int
    next_tick: int | None


class FireTick(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="fire-tick"):
    """Compare-and-set: the planned tick becomes a run, or a row that says why not.

    Accepted when the schedule's version and next tick are these and it is not paused; the run id is
    made from (workflow, tick), so that a tick is one run for ever. Accepted: the outcome, or
    "known" when there was a row of that tick already: then it is only passed."""

    at: int
    epoch: int
    workflow: str
    version: int
    tick: int
    next_tick: int | None
    run: str
    #: Resolved with this tick; None when they cannot be resolved: then `reason` says why.
    params: bytes | None
    reason: str


class SkipTicks(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="skip-ticks"):
    """Compare-and-set on `first`: planned ticks up to `last` become one row with the reason."""

    at: int
    epoch: int
    workflow: str
    version: int
    first: int
    last: int
    count: int
    next_tick: int | None
    #: `missed` or `paused`
    reason: str


class PauseSchedule(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="pause-schedule"
):
    """Paused: ticks are skipped and recorded. Accepted: "paused" or "active"."""

    at: int
    workflow: str
    paused: bool
    by: str


Command = (
    ApplyWorkflow
    | PauseWorkflow
    | DeleteWorkflow
    | SubmitRun
    | StartAttempts
    | ReportAttempt
    | CancelRun
    | DeleteRun
    | Retain
    | OpenSession
    | EndSession
    | TakeOffice
    | PauseRun
    | ResumeRun
    | RetryRun
    | ExpireRun
    | DeclareLost
    | PlanSchedule
    | FireTick
    | SkipTicks
    | PauseSchedule
    | SilenceSession
    | LoseAttempts
    | DrainWorker
)


def pack_definition(content: bytes) -> bytes:
    """A definition as it travels in the log: thousands of tasks that look alike become short."""
    return zlib.compress(content, 6)


def unpack_definition(packed: bytes) -> bytes:
    """The reverse. Raises ValueError for more than CONTENT_LIMIT bytes, zlib.error for garbage."""
    reader = zlib.decompressobj()
    content = reader.decompress(packed, CONTENT_LIMIT + 1)
    if len(content) > CONTENT_LIMIT or not reader.eof:
        raise ValueError(f"a definition has at most {CONTENT_LIMIT} bytes")
    return content


_ENCODER = msgspec.msgpack.Encoder()


def encode_command(command: Command) -> bytes:
    return _ENCODER.encode(command)


def is_of_attempts(data: bytes) -> bool:
    """Whether the encoded command is a StartAttempts or a ReportAttempt, by a look at its tag."""
    return data[1:7] == b"\xa5start" or data[1:8] == b"\xa6report"


def is_submit(data: bytes) -> bool:
    """Whether the encoded command is a SubmitRun, by a look at its tag."""
    return data[1:8] == b"\xa6submit"
