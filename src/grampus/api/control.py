"""Routes that steer a run: pause, resume, run again, give an attempt up.

Rule: as for cancel, `apply` decides; doing again what is done already changes nothing. Only one
thing is looked at here, because no ledger can know it: whether a worker is connected.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from grampus.api.answers import respond
from grampus.api.problems import WRITES, accepted, responses
from grampus.api.runs import USER, TheRun
from grampus.api.schemas.runs import RetryAnswer, RunStateAnswer
from grampus.api.schemas.tasks import TaskStateAnswer
from grampus.api.state import ThePorts, settled
from grampus.errors import NotFound, Refused
from grampus.model.run import AttemptState, RunState, TaskState
from grampus.runs.commands import DeclareLost, PauseRun, ResumeRun, RetryRun

router = APIRouter(prefix="/api/v1", dependencies=[Depends(settled)])

_ENDS = responses(*WRITES, "not-found", "conflict", "ambiguous-id", "invalid-input")


@router.post(
    "/runs/{id}/pause",
    operation_id="pauseRun",
    summary="Pause a run",
    description="It starts nothing more; what runs goes on, and retry delays and the run's timeout "
    "go on too. Pausing again changes nothing.",
    status_code=202,
    response_model=RunStateAnswer,
    responses=_ENDS,
    tags=["runs"],
)
async def pause_run(ports: ThePorts, run: TheRun) -> Response:
    answer = accepted(await ports.propose(PauseRun(ports.clock.now(), run, USER)))
    return respond(RunStateAnswer(id=run, state=RunState(str(answer))), 202)


@router.post(
    "/runs/{id}/resume",
    operation_id="resumeRun",
    summary="Let a paused run go on",
    status_code=202,
    response_model=RunStateAnswer,
    responses=_ENDS,
    tags=["runs"],
)
async def resume_run(ports: ThePorts, run: TheRun) -> Response:
    answer = accepted(await ports.propose(ResumeRun(ports.clock.now(), run, USER)))
    return respond(RunStateAnswer(id=run, state=RunState(str(answer))), 202)


@router.post(
    "/runs/{id}/retry",
    operation_id="retryRun",
    summary="Run again what did not succeed",
    description="A new round of a finished run: what succeeded is kept, everything else starts "
    "anew; attempt numbers go on. With `from`, that task and all that is downstream of it start "
    "anew too. Not for cancelled runs. Waits in the queue like a new run.",
    status_code=202,
    response_model=RetryAnswer,
    responses=_ENDS,
    tags=["runs"],
)
async def retry_run(
    ports: ThePorts,
    run: TheRun,
    task: Annotated[
        str | None,
        Query(alias="from", min_length=1, max_length=64, description="Name of the task."),
    ] = None,
) -> Response:
    answer = accepted(await ports.propose(RetryRun(ports.clock.now(), run, task or "", USER)))
    assert isinstance(answer, tuple | list)
    number, tasks = answer
    return respond(RetryAnswer(id=run, round=number, tasks=tasks), 202)


@router.post(
    "/runs/{id}/tasks/{task}/declare-lost",
    operation_id="declareLost",
    summary="Say that nothing is left of a task's attempt",
    description="For an attempt whose worker does not come back: it is LOST, and the task starts "
    "again elsewhere. Refused while the worker is connected. If the attempt does live on, it runs "
    "beside the new one until its worker is heard again, which then ends it.",
    status_code=202,
    response_model=TaskStateAnswer,
    responses=_ENDS,
    tags=["runs"],
)
async def declare_lost(
    ports: ThePorts,
    run: TheRun,
    task: Annotated[str, Path(max_length=64, description="Name of the task.")],
) -> Response:
    view = await ports.reads.task(run, task)
    if view is None:
        raise NotFound(f"run {run} has no task {task}")
    if not view.attempts or view.state != TaskState.RUNNING:
        raise Refused(f"{task} of run {run} is {view.state}: it has no attempt that could be lost")
    last = view.attempts[-1]
    present = await ports.presence()
    heard = present is None or last.session in present
    if heard and last.state != AttemptState.UNREACHABLE:
        raise Refused(
            f"worker {last.worker} is connected and knows what becomes of {task}: "
            "cancel the run if it has to end"
        )
    command = DeclareLost(ports.clock.now(), run, task, USER, last.attempt)
    answer = accepted(await ports.propose(command))
    return respond(TaskStateAnswer(task=task, state=TaskState(str(answer))), 202)
