"""Attempts: what the leader wants of a worker, and what the worker says became of them.

Rule: `Sync` is the truth, `Assign` and `Kill` are fast paths of it: any of the three may be lost,
doubled or late without harm, because an attempt's number `n` is dense per session and a number once
seen never starts again. Reports are repeated until they are acknowledged. Times are wall
milliseconds.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from grampus.model.number import Count, Int64, Time
from grampus.model.run import AttemptState, Value


class Invocation(Struct, frozen=True, array_like=True):
    """All that a worker needs to run one attempt, beside the bundle and blobs that it can fetch."""

    run: str
    workflow: str
    version: int
    task: str
    attempt: int
    #: Revision of the attempt's start: grows with every attempt of the cluster.
    fencing_token: int
    #: model.workflow.Task as JSON.
    spec: bytes
    #: Params of the run as one JSON object.
    params: bytes
    #: Planned tick in ms, or the time of submission for a run started by hand.
    tick: int
    tz: str
    bundle: str | None
    #: Outputs of upstream tasks that the task's templates mention, by task name.
    #: A task without output is absent.
    inputs: dict[str, Value]


class Assign(Struct, frozen=True, array_like=True, tag="assign"):
    session: int
    n: int
    invocation: Invocation


class Kill(Struct, frozen=True, array_like=True, tag="kill"):
    session: int
    n: int
    reason: str


class Sync(Struct, frozen=True, array_like=True, tag="sync"):
    """At `revision`, of all numbers below `next_n` exactly `live` may run; `stop` of those must
    end."""

    session: int
    revision: int
    next_n: int
    live: list[int]
    stop: list[int]


class Synced(Struct, frozen=True, array_like=True, tag="synced"):
    """The answer to Sync: what the worker has, and what of `live` it has never seen."""

    session: int
    revision: int
    running: list[int]
    missing: list[int]


#: Bounds of a report, well above what a worker of ours tells: with an inline output it fits into a
#: command, so that none is in the way of the others that are proposed with it.
ERROR_LIMIT = 8_000
_Name = Annotated[str, Meta(max_length=400)]
ExceptionNames = Annotated[tuple[_Name, ...], Meta(max_length=64)]


class Report(Struct, frozen=True, array_like=True, tag="report"):
    """An attempt's state moved up. Final states repeat until acknowledged."""

    session: Int64
    n: Int64
    state: AttemptState
    #: When it happened on the worker.
    at: Time
    #: Exit code; -signal when a signal ended it; None while it runs.
    exit: Int64 | None = None
    #: One or a few lines for people: why it failed.
    error: Annotated[str, Meta(max_length=ERROR_LIMIT)] = ""
    #: Class names of the exception that ended a Python task, most derived first.
    exception: ExceptionNames = ()
    output: Value | None = None
    #: Bytes of stdout and stderr.
    stdout: Count = 0
    stderr: Count = 0
    #: `at` on the steady clock of the worker's machine, in ms since boot; 0 when not known.
    ticks: Count = 0
    #: From its start to its end on that clock, in ms; None while it runs, and when it never ran.
    took: Count | None = None


class Reports(Struct, frozen=True, array_like=True, tag="reports"):
    reports: list[Report]
    #: When this was sent, by the clocks that `Report.at` and `Report.ticks` are of; 0: not known.
    at: Time = 0
    ticks: Count = 0

    def ago(self, report: Report) -> int:
        """How long before this was sent it happened, in ms. The steady clock is asked first: the
        other may have jumped, and is not the server's."""
        if self.ticks and report.ticks:
            return max(0, self.ticks - report.ticks)
        return max(0, self.at - report.at) if self.at else 0


class Ack(Struct, frozen=True, array_like=True, tag="ack"):
    """These final reports are committed (`done`) or came too late (`stale`): forget them."""

    session: int
    done: list[int]
    stale: list[int]


class Forget(Struct, frozen=True, array_like=True, tag="forget"):
    """These runs were deleted: remove their logs."""

    runs: list[str]
