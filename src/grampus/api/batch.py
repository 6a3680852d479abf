"""`POST /runs:batch`: many runs with one request, in one proposal.

Rule: each run is answered alone, in the order of the request: started, or why not. The whole is
refused only for what is about the whole: it cannot be read, it is too much at once, or the server
has too much to do (429); then none was started. With ids made by the client the same batch may be
sent again.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Response

from grampus.api.answers import respond
from grampus.api.bodies import WORKFLOW_LIMIT, json_body, json_body_doc
from grampus.api.ports import Ports
from grampus.api.problems import WRITES, document_of, responses
from grampus.api.runs import request_hash
from grampus.api.schemas.runs import BATCH, BatchAccepted, BatchItem, BatchRequest, RunRequest
from grampus.api.state import ThePorts, settled
from grampus.errors import GrampusError, InvalidInput, NotFound, Problem, Refused
from grampus.ids import run_id
from grampus.model.params import resolve
from grampus.model.template import tick_scope
from grampus.runs.commands import Refusal, SubmitRun
from grampus.runs.views import WorkflowView

router = APIRouter(prefix="/api/v1", dependencies=[Depends(settled)])

#: Task runs of all runs of a batch together: they are written at once.
TASKS_LIMIT = 20_000
Prepared = SubmitRun | GrampusError
Views = dict[tuple[str, int | None], WorkflowView | None]


@router.post(
    "/runs:batch",
    operation_id="startRuns",
    summary="Start many runs",
    description=f"At most {BATCH}, of at most {TASKS_LIMIT} tasks in all. Each is answered alone, "
    "in their order: `problem` says why it was not started. With ids made by the client, the same "
    "batch may be sent again. After 429 none was started.",
    status_code=202,
    response_model=BatchAccepted,
    responses=responses(
        *WRITES,
        "malformed",
        "request-timeout",
        "too-large",
        "unsupported-media-type",
        "invalid-input",
    ),
    openapi_extra=json_body_doc(BatchRequest),
    tags=["runs"],
)
async def start_runs(
    ports: ThePorts,
    body: Annotated[BatchRequest, Depends(json_body(BatchRequest, WORKFLOW_LIMIT))],
) -> Response:
    ids = [asked.id or str(run_id(ports.entropy(8))) for asked in body.items]
    views = await look_up(ports, body.items)
    at = ports.clock.now()
    # Params are rendered: not on the event loop.
    prepared = await asyncio.to_thread(
        lambda: [
            prepare(views[asked.workflow, asked.version], asked, id, at)
            for asked, id in zip(body.items, ids, strict=True)
        ]
    )
    prepared = [
        await asked_before(ports, each, asked, id)
        for each, asked, id in zip(prepared, body.items, ids, strict=True)
    ]
    commands = [each for each in prepared if isinstance(each, SubmitRun)]
    answers = iter(await ports.propose(*commands) if commands else [])
    items = [
        item(id, next(answers) if isinstance(each, SubmitRun) else each)
        for id, each in zip(ids, prepared, strict=True)
    ]
    return respond(BatchAccepted(items=items), 202)


async def look_up(ports: Ports, items: list[RunRequest]) -> Views:
    """Each workflow once. Raises InvalidInput when all the runs together are too much."""
    views: Views = {}
    tasks = 0
    for asked in items:
        which = (asked.workflow, asked.version)
        if which not in views:
            views[which] = await ports.reads.workflow(*which)
        view = views[which]
        tasks += 0 if view is None else len(view.definition.tasks)
    if tasks > TASKS_LIMIT:
        message = "too many tasks for one batch"
        raise InvalidInput(
            [Problem(message, field="items", found=str(tasks), allowed=str(TASKS_LIMIT))]
        )
    return views


def prepare(view: WorkflowView | None, asked: RunRequest, id: str, at: int) -> Prepared:
    """The command that makes the run, or why there is none."""
    if view is None:
        which = f" of version {asked.version}" if asked.version else ""
        return NotFound(f"there is no workflow {asked.workflow}{which}")
    schedule = view.definition.schedule
    try:
        tick = tick_scope(at, schedule.tz if schedule else "UTC")
        params = msgspec.json.encode(resolve(view.definition.params, asked.params, tick))
    except InvalidInput as error:
        return error
    return SubmitRun(
        at=at,
        run=id,
        workflow=asked.workflow,
        version=view.version,
        params=params,
        request=request_hash(asked),
        priority=asked.priority,
        tick=at,
    )


async def asked_before(ports: Ports, prepared: Prepared, asked: RunRequest, id: str) -> Prepared:
    """A run that is there stays what it is, even if its workflow would not take it now."""
    if isinstance(prepared, SubmitRun) or asked.id is None:
        return prepared
    there = await ports.reads.run(id)
    if there is None:
        return prepared
    return SubmitRun(
        at=ports.clock.now(),
        run=id,
        workflow=there.workflow,
        version=there.version,
        params=msgspec.json.encode(there.params),
        request=request_hash(asked),
        priority=there.priority,
        tick=there.tick,
    )


def item(id: str, answer: object) -> BatchItem:
    if isinstance(answer, Refusal):
        kind = NotFound if answer.code == "not-found" else Refused
        answer = kind(answer.reason)
    if isinstance(answer, GrampusError):
        return BatchItem(id=id, created=False, problem=document_of(answer, "/api/v1/runs:batch"))
    return BatchItem(id=id, created=answer == "created", problem=None)
