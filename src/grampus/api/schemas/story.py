"""What is told of a run: its logs, its events, its story, and why it waits."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from grampus.api.schemas.base import Answer, RunIdText, Time
from grampus.model.run import RunState, TaskState
from grampus.runs.explanation import Code


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


class EventAnswer(Answer):
    """`data` of one server-sent event: the fact; more fields by `type`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = Field(examples=["task.finished"])
    revision: int
    at: Time
    run: str


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
