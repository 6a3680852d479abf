"""Routes of runs: start, list, look, cancel, delete, results. Their streams are in `stream`.

Rule: a run's id is made by the client, by its idempotency key, or here; asking again with the same
id and the same request is always safe. An id in an address may be a unique prefix or `last`, but
not where something is deleted; answers carry the whole id.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from grampus.api import paging
from grampus.api.answers import respond, run_answer, task_answer
from grampus.api.bodies import JSON_LIMIT, json_body, json_body_doc
from grampus.api.ports import Ports
from grampus.api.problems import WRITES, HttpProblem, accepted, responses
from grampus.api.schemas.base import PAGE, PAGE_LIMIT
from grampus.api.schemas.runs import RunAccepted, RunAnswer, RunPage, RunRequest, RunStateAnswer
from grampus.api.schemas.tasks import INLINE_RESULT, ResultAnswer, TaskList
from grampus.api.state import ThePorts, settled
from grampus.errors import InvalidInput, NotFound, Problem
from grampus.ids import KEY_LIMIT, content_hash, is_run_id, run_id, run_id_of_key
from grampus.model.params import resolve
from grampus.model.run import RunState, Value
from grampus.model.template import tick_scope
from grampus.runs.commands import CancelRun, DeleteRun, SubmitRun
from grampus.runs.views import WorkflowView

router = APIRouter(prefix="/api/v1", dependencies=[Depends(settled)])

RAW = "application/octet-stream"
_MEANT = re.compile(r"([a-z2-7]{4,12}|last)\Z")
#: Who cancelled, for the story of the run: there are no users yet, only whoever has the token.
USER = "user"


async def find_run(
    ports: ThePorts,
    id: Annotated[
        str,
        Path(
            description="The run's id, a prefix of it that is unique (4 at least), or `last`.",
            json_schema_extra={"pattern": "^([a-z2-7]{4,12}|last)$"},
            examples=["k3v9x2m4q7ab"],
        ),
    ],
) -> str:
    """The whole id. Raises NotFound, or HttpProblem when several runs are meant."""
    if not _MEANT.match(id):
        raise NotFound(
            f"there is no run {id[:60]}: an id has 12 characters of a-z and 2-7, of which the "
            "first 4 are enough when no other begins so; or say `last`"
        )
    found = await ports.reads.resolve_run(id)
    if len(found) > 1:
        raise HttpProblem("ambiguous-id", f"{id} is the beginning of {found[0]} and {found[1]}")
    if not found:
        raise NotFound("there is no run yet" if id == "last" else f"there is no run {id}")
    return found[0]


TheRun = Annotated[str, Depends(find_run)]


def request_hash(body: RunRequest) -> str:
    """Equal for equal requests, whatever they resolve to: defaults may depend on the time."""
    asked = (body.workflow, body.params, body.version, body.priority)
    return content_hash(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode())


async def submission(ports: Ports, id: str, body: RunRequest) -> SubmitRun:
    """The command that makes the run. Raises NotFound, or InvalidInput with all wrong params."""
    at = ports.clock.now()
    workflow: WorkflowView | None = await ports.reads.workflow(body.workflow, body.version)
    if workflow is None:
        which = f" of version {body.version}" if body.version else ""
        raise NotFound(f"there is no workflow {body.workflow}{which}")
    schedule = workflow.definition.schedule
    tick = tick_scope(at, schedule.tz if schedule else "UTC")
    params: dict[str, Any] = {}
    if workflow.definition.params or body.params:
        params = await asyncio.to_thread(resolve, workflow.definition.params, body.params, tick)
    return SubmitRun(
        at=at,
        run=id,
        workflow=body.workflow,
        version=workflow.version,
        params=msgspec.json.encode(params),
        request=request_hash(body),
        priority=body.priority,
        tick=at,
    )


@router.post(
    "/runs",
    operation_id="startRun",
    summary="Start a run",
    description="Answers once the run is committed. With `Idempotency-Key`, or with `id`, the same "
    "request may be sent again without making a second run; another request is a conflict.",
    status_code=202,
    response_model=RunAccepted,
    responses=responses(
        *WRITES,
        "malformed",
        "not-found",
        "request-timeout",
        "conflict",
        "too-large",
        "unsupported-media-type",
        "invalid-input",
    ),
    openapi_extra=json_body_doc(RunRequest),
    tags=["runs"],
)
async def start_run(
    ports: ThePorts,
    body: Annotated[RunRequest, Depends(json_body(RunRequest, JSON_LIMIT))],
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=KEY_LIMIT,
            description="The same key is always the same run.",
        ),
    ] = None,
) -> Response:
    if idempotency_key is not None and body.id is not None:
        message = "give it, or the header Idempotency-Key, not both"
        raise InvalidInput([Problem(message, field="id", found=body.id)])
    command = None
    if idempotency_key is not None or body.id is not None:
        id = str(run_id_of_key(idempotency_key)) if idempotency_key is not None else str(body.id)
        if existing := await ports.reads.run(id):
            # Its workflow may have changed since; only the request decides whether it is the same.
            command = SubmitRun(
                at=ports.clock.now(),
                run=id,
                workflow=existing.workflow,
                version=existing.version,
                params=msgspec.json.encode(existing.params),
                request=request_hash(body),
                priority=existing.priority,
                tick=existing.tick,
            )
    else:
        id = str(run_id(ports.entropy(8)))
    answer = accepted(await ports.propose(command or await submission(ports, id, body)))
    return respond(
        RunAccepted(id=id, created=answer == "created"), 202, {"Location": f"/api/v1/runs/{id}"}
    )


@router.get(
    "/runs",
    operation_id="listRuns",
    summary="List runs, newest first",
    response_model=RunPage,
    responses=responses("invalid-input"),
    tags=["runs"],
)
async def list_runs(
    ports: ThePorts,
    workflow: Annotated[
        str | None, Query(max_length=64, description="Only runs of this workflow.")
    ] = None,
    state: Annotated[RunState | None, Query(description="Only runs in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT, description="Items on a page.")] = PAGE,
    cursor: paging.Cursor = None,
) -> Response:
    before = paging.read_seq(cursor)
    wanted = state.value if state else None
    views = await ports.reads.runs(workflow, wanted, limit + 1, before)
    more = paging.of_seq(views[limit - 1].seq) if len(views) > limit else None
    return respond(RunPage(items=[run_answer(v) for v in views[:limit]], next=more))


@router.get(
    "/runs/{id}",
    operation_id="getRun",
    summary="Show a run",
    response_model=RunAnswer,
    responses=responses("not-found", "ambiguous-id", "invalid-input"),
    tags=["runs"],
)
async def get_run(ports: ThePorts, run: TheRun) -> Response:
    view = await ports.reads.run(run)
    if view is None:
        raise NotFound(f"there is no run {run}")
    return respond(run_answer(view))


@router.get(
    "/runs/{id}/tasks",
    operation_id="listTasks",
    summary="Show the tasks of a run with their attempts",
    response_model=TaskList,
    responses=responses("not-found", "ambiguous-id", "invalid-input"),
    tags=["runs"],
)
async def list_tasks(ports: ThePorts, run: TheRun) -> Response:
    views = await ports.reads.tasks(run)
    # A run may have thousands: not on the event loop.
    return await asyncio.to_thread(
        lambda: respond(TaskList(items=[task_answer(view) for view in views]))
    )


@router.post(
    "/runs/{id}/cancel",
    operation_id="cancelRun",
    summary="Cancel a run",
    description="It starts no further attempt; those that run are ended. Cancelling again changes "
    "nothing.",
    status_code=202,
    response_model=RunStateAnswer,
    responses=responses(*WRITES, "not-found", "conflict", "ambiguous-id", "invalid-input"),
    tags=["runs"],
)
async def cancel_run(ports: ThePorts, run: TheRun) -> Response:
    answer = accepted(await ports.propose(CancelRun(ports.clock.now(), run, USER)))
    return respond(RunStateAnswer(id=run, state=RunState(str(answer))), 202)


@router.delete(
    "/runs/{id}",
    operation_id="deleteRun",
    summary="Delete a finished run",
    description="With its results, logs and events. The whole id is needed.",
    status_code=204,
    response_class=Response,
    responses=responses(*WRITES, "not-found", "conflict", "invalid-input"),
    tags=["runs"],
)
async def delete_run(
    ports: ThePorts,
    id: Annotated[str, Path(description="The run's whole id.", examples=["k3v9x2m4q7ab"])],
) -> Response:
    if not is_run_id(id):
        message = "what deletes needs the whole id of the run"
        raise InvalidInput(
            [
                Problem(
                    message, field="path.id", found=id[:60], allowed="12 characters of a-z and 2-7"
                )
            ]
        )
    accepted(await ports.propose(DeleteRun(ports.clock.now(), id)))
    return Response(status_code=204)


@router.get(
    "/runs/{id}/tasks/{task}/result",
    operation_id="getResult",
    summary="Fetch what a task returned",
    description=f"JSON up to {INLINE_RESULT} bytes is decoded into `value`. With "
    f"`Accept: {RAW}` the encoded bytes are streamed as they are, however large, and the header "
    "`Grampus-Encoding` says what they are; a task without result gives none (204).",
    response_model=ResultAnswer,
    responses={
        200: {"content": {RAW: {"schema": {"type": "string", "format": "binary"}}}},
        204: {"description": "There is no result (only when bytes were asked for)."},
        **responses("not-found", "ambiguous-id", "invalid-input"),
    },
    tags=["runs"],
)
async def get_result(
    ports: ThePorts,
    run: TheRun,
    task: Annotated[str, Path(max_length=64, description="Name of the task.")],
    request: Request,
) -> Response:
    output = await ports.reads.output(run, task)
    if output is None:
        raise NotFound(f"run {run} has no task {task}")
    value = output.value
    if RAW in request.headers.get("accept", ""):
        return await raw_result(ports, value)
    decoded, inline = None, value is None
    if value is not None and value.encoding == "json" and value.size <= INLINE_RESULT:
        decoded, inline = msgspec.json.decode(await read_value(ports, value)), True
    return respond(
        ResultAnswer(
            task=output.task,
            state=output.state,
            encoding="none" if value is None else value.encoding,
            value=decoded,
            inline=inline,
            size=0 if value is None else value.size,
        )
    )


async def read_value(ports: Ports, value: Value) -> bytes:
    """All bytes of a value. Raises NotFound when its blob is gone."""
    if value.data is not None:
        return value.data
    assert value.blob is not None
    return b"".join([piece async for piece in ports.blobs.open(value.blob)])


async def raw_result(ports: Ports, value: Value | None) -> Response:
    if value is None:
        return Response(status_code=204)
    headers = {"Grampus-Encoding": value.encoding, "Content-Length": str(value.size)}
    if value.data is not None:
        return Response(value.data, headers=headers, media_type=RAW)
    assert value.blob is not None
    stream = ports.blobs.open(value.blob)
    # The first piece decides between 200 and 404: after it the status is sent.
    first = await anext(stream, b"")
    return StreamingResponse(_after(first, stream), headers=headers, media_type=RAW)


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
