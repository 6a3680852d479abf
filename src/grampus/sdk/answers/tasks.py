"""The tasks of a run, their attempts, what they wrote and what they returned."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct

from grampus.model.run import AttemptState, TaskState


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
