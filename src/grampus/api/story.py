"""Routes that answer questions about a run: what happened, and why something waits."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from grampus.api import paging
from grampus.api.answers import respond, time_text
from grampus.api.problems import responses
from grampus.api.runs import TheRun
from grampus.api.schemas.base import PAGE_LIMIT
from grampus.api.schemas.story import (
    ExplanationAnswer,
    ReasonAnswer,
    StoryLineAnswer,
    StoryPage,
    TaskExplanationAnswer,
)
from grampus.api.state import ThePorts, settled
from grampus.errors import NotFound
from grampus.model.run import RunState, TaskState
from grampus.runs.explanation import Reason, TaskExplanation
from grampus.runs.story import StoryLine

router = APIRouter(prefix="/api/v1", dependencies=[Depends(settled)])

STORY_PAGE = 500
TaskName = Annotated[
    str | None, Query(min_length=1, max_length=64, description="Only this task of the run.")
]


@router.get(
    "/runs/{id}/story",
    operation_id="getStory",
    summary="Tell what happened to a run",
    description="Everything, in order, one line each, with times, durations and causes. With "
    "`task`, what happened to it and to the whole run.",
    response_model=StoryPage,
    responses=responses("not-found", "ambiguous-id", "invalid-input"),
    tags=["runs"],
)
async def get_story(
    ports: ThePorts,
    run: TheRun,
    task: TaskName = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT, description="Lines on a page.")] = STORY_PAGE,
    cursor: paging.Cursor = None,
) -> Response:
    page = await ports.reads.story(run, task, paging.read_moment(cursor), limit)
    if page is None:
        raise _no_such(run, task)
    more = None if page.after is None else paging.of_moment(*page.after)
    return await asyncio.to_thread(
        lambda: respond(StoryPage(items=[story_line(line) for line in page.lines], next=more))
    )


@router.get(
    "/runs/{id}/explain",
    operation_id="explainRun",
    summary="Explain why a run or a task waits",
    description="Every reason that there is now, with a code that stays. Without `task`, the run's "
    "own reasons and those of the tasks that are not over: running ones first, at most 50.",
    response_model=ExplanationAnswer,
    responses=responses("not-found", "ambiguous-id", "invalid-input"),
    tags=["runs"],
)
async def explain_run(ports: ThePorts, run: TheRun, task: TaskName = None) -> Response:
    found = await ports.explain(run, task)
    if found is None:
        raise _no_such(run, task)
    return respond(
        ExplanationAnswer(
            run=found.run,
            workflow=found.workflow,
            state=RunState(found.state),
            reasons=[reason_answer(reason) for reason in found.reasons],
            tasks=[_task(each) for each in found.tasks],
            tasks_left=found.tasks_left,
        )
    )


def story_line(line: StoryLine) -> StoryLineAnswer:
    return StoryLineAnswer(
        revision=line.revision,
        at=time_text(line.at),
        since=line.since,
        type=line.kind,
        task=line.task,
        attempt=line.attempt,
        state=line.state,
        took=line.took,
        text=line.text,
    )


def _task(each: TaskExplanation) -> TaskExplanationAnswer:
    reasons = [reason_answer(reason) for reason in each.reasons]
    return TaskExplanationAnswer(
        task=each.task, state=TaskState(each.state), reasons=reasons, written=each.written
    )


def reason_answer(reason: Reason) -> ReasonAnswer:
    return ReasonAnswer(
        code=reason.code,
        text=reason.text,
        until=time_text(reason.until),
        since=time_text(reason.since),
        names=list(reason.names),
    )


def _no_such(run: str, task: str | None) -> NotFound:
    return NotFound(f"there is no run {run}" if task is None else f"run {run} has no task {task}")
