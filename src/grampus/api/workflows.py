"""Routes of workflows and of the bundles that travel with them."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from grampus.api import paging
from grampus.api.answers import respond, workflow_answer
from grampus.api.bodies import BUNDLE_LIMIT, WORKFLOW_LIMIT, json_body, json_body_doc, pieces
from grampus.api.problems import WRITES, HttpProblem, accepted, problem_of_convert, responses
from grampus.api.schemas.base import PAGE
from grampus.api.schemas.workflows import (
    WORKFLOW_PAGE_LIMIT,
    WorkflowAnswer,
    WorkflowApplied,
    WorkflowPage,
    WorkflowPaused,
    WorkflowRequest,
)
from grampus.api.state import ThePorts, settled
from grampus.errors import InvalidInput, NotFound, Problem
from grampus.ids import is_name
from grampus.model import workflow as model
from grampus.model.check import check
from grampus.model.graph import canonical
from grampus.runs.commands import (
    COMMAND_LIMIT,
    ApplyWorkflow,
    DeleteWorkflow,
    PauseWorkflow,
    pack_definition,
)

router = APIRouter(prefix="/api/v1", dependencies=[Depends(settled)])

#: A definition's canonical bytes leave room in a command for the rest of it.
DEFINITION_LIMIT = COMMAND_LIMIT - 1024
_STRUCTS = (
    *(model.Workflow, model.Task, model.Param, model.Retry, model.Schedule),
    *(model.Shell, model.Python, model.Http, model.Sql, model.Sleep),
)
_FIELDS = sorted({name for struct in _STRUCTS for name in struct.__struct_fields__})

_TASK = re.compile(r"tasks\[(\d+)\](.*)\Z", re.DOTALL)

Name = Annotated[str, Path(description="Name of the workflow.", max_length=64, examples=["hello"])]
Hash = Annotated[
    str,
    Path(description="SHA-256 of the bundle in hexadecimal.", pattern="^[0-9a-f]{64}$"),
]


def read_definition(definition: dict[str, Any]) -> model.Workflow:
    """The workflow that a client sent, checked. Raises InvalidInput with all that is wrong."""
    try:
        workflow = canonical(msgspec.convert(definition, model.Workflow))
    except msgspec.ValidationError as error:
        raise InvalidInput([_named(problem_of_convert(error, _FIELDS), definition)]) from error
    if problems := check(workflow):
        raise InvalidInput(problems)
    return workflow


def _named(problem: Problem, definition: dict[str, Any]) -> Problem:
    """The problem with its task by name, as `check` and people call it: `tasks.load.retry`."""
    if match := _TASK.match(problem.field or ""):
        task = definition["tasks"][int(match[1])]
        name = task.get("name") if isinstance(task, dict) else None
        if isinstance(name, str) and is_name(name):
            field = f"tasks.{name}{match[2]}"
            return Problem(problem.message, field=field, found=problem.found)
    return problem


@router.post(
    "/workflows",
    operation_id="applyWorkflow",
    summary="Apply a workflow",
    description="Checks the definition and makes it the newest version; a definition equal to the "
    "newest version changes nothing. Its bundle, if any, has to be stored before.",
    response_model=WorkflowApplied,
    responses=responses(
        *WRITES,
        "malformed",
        "request-timeout",
        "conflict",
        "missing-bundle",
        "too-large",
        "unsupported-media-type",
        "invalid-input",
    ),
    openapi_extra=json_body_doc(WorkflowRequest),
    tags=["workflows"],
)
async def apply_workflow(
    ports: ThePorts,
    body: Annotated[WorkflowRequest, Depends(json_body(WorkflowRequest, WORKFLOW_LIMIT))],
) -> Response:
    workflow = await asyncio.to_thread(read_definition, body.definition)
    packed = await asyncio.to_thread(lambda: pack_definition(workflow.content()))
    if len(packed) > DEFINITION_LIMIT:
        raise HttpProblem(
            "too-large",
            f"compressed, the definition has {len(packed)} bytes, at most {DEFINITION_LIMIT} fit: "
            "let fewer tasks do more, or move text into files of the bundle",
        )
    if workflow.bundle is not None and not await ports.blobs.has(workflow.bundle):
        raise HttpProblem(
            "missing-bundle",
            f"bundle {workflow.bundle} is not stored here: PUT it to /api/v1/bundles first",
        )
    command = ApplyWorkflow(ports.clock.now(), workflow.name, packed)
    version, created = msgspec.convert(accepted(await ports.propose(command)), tuple[int, bool])
    return respond(WorkflowApplied(name=workflow.name, version=version, created=created, note=""))


@router.get(
    "/workflows",
    operation_id="listWorkflows",
    summary="List workflows by name",
    response_model=WorkflowPage,
    responses=responses("invalid-input"),
    tags=["workflows"],
)
async def list_workflows(
    ports: ThePorts,
    limit: Annotated[
        int, Query(ge=1, le=WORKFLOW_PAGE_LIMIT, description="Items on a page.")
    ] = PAGE,
    cursor: paging.Cursor = None,
) -> Response:
    after = paging.read_name(cursor)
    views = await ports.reads.workflows(limit + 1, after)
    more = paging.of_name(views[limit - 1].name) if len(views) > limit else None
    return respond(WorkflowPage(items=[workflow_answer(v) for v in views[:limit]], next=more))


@router.get(
    "/workflows/{name}",
    operation_id="getWorkflow",
    summary="Show a workflow",
    response_model=WorkflowAnswer,
    responses=responses("not-found", "invalid-input"),
    tags=["workflows"],
)
async def get_workflow(
    ports: ThePorts,
    name: Name,
    version: Annotated[
        int | None, Query(ge=1, le=2**31, description="Default: the newest.")
    ] = None,
) -> Response:
    view = await ports.reads.workflow(name, version)
    if view is None:
        which = f" of version {version}" if version else ""
        raise NotFound(f"there is no workflow {name}{which}")
    return respond(workflow_answer(view))


@router.post(
    "/workflows/{name}/pause",
    operation_id="pauseWorkflow",
    summary="Pause a workflow",
    description="New runs of it stay QUEUED until it is resumed.",
    response_model=WorkflowPaused,
    responses=responses(*WRITES, "not-found", "conflict", "invalid-input"),
    tags=["workflows"],
)
async def pause_workflow(ports: ThePorts, name: Name) -> Response:
    accepted(await ports.propose(PauseWorkflow(ports.clock.now(), name, paused=True)))
    return respond(WorkflowPaused(name=name, paused=True))


@router.post(
    "/workflows/{name}/resume",
    operation_id="resumeWorkflow",
    summary="Resume a workflow",
    description="Its queued runs start.",
    response_model=WorkflowPaused,
    responses=responses(*WRITES, "not-found", "conflict", "invalid-input"),
    tags=["workflows"],
)
async def resume_workflow(ports: ThePorts, name: Name) -> Response:
    accepted(await ports.propose(PauseWorkflow(ports.clock.now(), name, paused=False)))
    return respond(WorkflowPaused(name=name, paused=False))


@router.delete(
    "/workflows/{name}",
    operation_id="deleteWorkflow",
    summary="Delete a workflow",
    description="Refused while runs of it are active. Finished runs stay.",
    status_code=204,
    response_class=Response,
    responses=responses(*WRITES, "not-found", "conflict", "invalid-input"),
    tags=["workflows"],
)
async def delete_workflow(ports: ThePorts, name: Name) -> Response:
    accepted(await ports.propose(DeleteWorkflow(ports.clock.now(), name)))
    return Response(status_code=204)


@router.put(
    "/bundles/{hash}",
    operation_id="putBundle",
    summary="Store a bundle",
    description=f"The body is the bundle, at most {BUNDLE_LIMIT} bytes. It is durable when this "
    "answers; storing it again changes nothing.",
    status_code=204,
    response_class=Response,
    responses=responses("malformed", "request-timeout", "too-large", "invalid-input"),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
    tags=["workflows"],
)
async def put_bundle(ports: ThePorts, hash: Hash, request: Request) -> Response:
    await ports.blobs.put(hash, pieces(request, BUNDLE_LIMIT))
    return Response(status_code=204)


@router.head(
    "/bundles/{hash}",
    operation_id="hasBundle",
    summary="Ask whether a bundle is stored",
    response_class=Response,
    responses=responses("not-found", "invalid-input"),
    tags=["workflows"],
)
async def has_bundle(ports: ThePorts, hash: Hash) -> Response:
    if not await ports.blobs.has(hash):
        raise NotFound(f"bundle {hash} is not stored here")
    return Response(status_code=200)
