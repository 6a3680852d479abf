"""What happened: states of runs, task runs and attempts, and the values that tasks hand on."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

from grampus.model.number import Count


class RunState(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class TaskState(StrEnum):
    """FAILED is the user's code, CANCELLED is a person, SKIPPED is the system."""

    WAITING = "WAITING"
    READY = "READY"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"
    UPSTREAM_FAILED = "UPSTREAM_FAILED"


class AttemptState(StrEnum):
    """LOST is the infrastructure."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    UNREACHABLE = "UNREACHABLE"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    CANCELLED = "CANCELLED"
    LOST = "LOST"


FINAL_RUN = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})
FINAL_TASK = frozenset(
    {
        TaskState.SUCCEEDED,
        TaskState.FAILED,
        TaskState.TIMED_OUT,
        TaskState.CANCELLED,
        TaskState.SKIPPED,
        TaskState.UPSTREAM_FAILED,
    }
)
FINAL_ATTEMPT = frozenset(
    {
        AttemptState.SUCCEEDED,
        AttemptState.FAILED,
        AttemptState.TIMED_OUT,
        AttemptState.CANCELLED,
        AttemptState.LOST,
    }
)
#: The order in which an attempt's state may move: only up.
ATTEMPT_RANK = {
    state: (0 if state == AttemptState.STARTING else 2 if state in FINAL_ATTEMPT else 1)
    for state in AttemptState
}

INLINE_LIMIT = 16 * 1024
BLOB_LIMIT = 256 * 1024 * 1024


class Value(Struct, frozen=True, array_like=True):
    """What a task returned. Exactly one of `data` and `blob` holds the bytes."""

    #: `json` is shown everywhere; `pickle` is read by task processes of the same workflow only.
    encoding: Literal["json", "pickle"]
    #: The encoded bytes, when at most INLINE_LIMIT.
    data: Annotated[bytes, Meta(max_length=INLINE_LIMIT)] | None
    #: Content hash of the encoded bytes, when larger.
    blob: Annotated[str, Meta(max_length=64)] | None
    #: Length of the encoded bytes.
    size: Count
