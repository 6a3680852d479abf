"""The tasks of a run, their attempts, and what they returned."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from grampus.api.schemas.base import Answer, Time
from grampus.model.run import AttemptState, TaskState

#: A JSON result up to this many bytes is decoded into `value`.
INLINE_RESULT = 1024 * 1024


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
