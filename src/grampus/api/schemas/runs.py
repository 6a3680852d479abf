"""Runs: how they are asked for, one or many at a time, and how they are."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from grampus.api.schemas.base import Answer, Request, RunIdText, Time
from grampus.api.schemas.problems import ProblemDocument
from grampus.model.run import RunState

PRIORITY = 1000
#: Runs in one batch.
BATCH = 500


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
