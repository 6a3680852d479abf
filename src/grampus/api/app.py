"""The application: its routes, its gate, its OpenAPI document. It serves; `server` listens.

Rule: the API turns requests into commands and views into answers. What a command means is decided
in `apply`, and it never calls the scheduler or a worker.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from grampus.api import (
    batch,
    cluster,
    control,
    kv,
    kv_sessions,
    kv_txn,
    problems,
    runs,
    schedules,
    story,
    stream,
    workers,
    workflows,
)
from grampus.api.auth import OPEN, Gate, hosts_of
from grampus.api.heads import Heads
from grampus.api.metrics import Metrics
from grampus.api.ports import Ports
from grampus.api.schemas.keys import KeyPage, RevisionAnswer, TxnRequest
from grampus.api.schemas.problems import ProblemDocument
from grampus.api.schemas.runs import BatchRequest, RunRequest
from grampus.api.schemas.sessions import SessionRequest
from grampus.api.schemas.story import EventAnswer, LogEntry
from grampus.api.schemas.workflows import WorkflowRequest
from grampus.api.state import Shared, only_known_parameters
from grampus.api.wakes import Wakes
from grampus.model.workflow import Workflow

OPENAPI = "/api/v1/openapi.json"
DESCRIPTION = (
    "Workflows, runs, schedules, workers. Every write answers only after its commit. Errors are "
    "problem documents (RFC 9457). Times are RFC 3339 in UTC."
)
TAGS = [
    {"name": "workflows", "description": "What was declared, by version, and its files."},
    {"name": "runs", "description": "What happens: runs, tasks, results, events, logs."},
    {
        "name": "schedules",
        "description": "When workflows start by themselves, and what became of it.",
    },
    {"name": "workers", "description": "Who runs attempts."},
    {"name": "cluster", "description": "The servers, and who leads them."},
    {"name": "keys", "description": "The metadata center: small values, by key, with revisions."},
    {"name": "sessions", "description": "Who holds keys and locks, and for how long."},
    {"name": "node", "description": "Health and numbers of this server."},
]
#: For whoever opens the address that `grampus up` prints.
START = """\
This is Grampus, and it answers. Its API is described in /api/v1/openapi.json, and needs the token
of this server. Is it alive: /healthz, does it take work: /readyz, its numbers: /metrics.

From a terminal:  grampus run list
"""
#: Models that are named in the document by hand.
_NAMED = (
    WorkflowRequest, RunRequest, BatchRequest, ProblemDocument, LogEntry, EventAnswer, KeyPage,
    RevisionAnswer, SessionRequest, TxnRequest,
)  # fmt: skip
_REF = "#/components/schemas/{model}"


def create_app(
    ports: Ports,
    wakes: Wakes,
    *,
    token: str,
    listen: str,
    token_file: str | None = None,
    cluster_id: str = "",
) -> FastAPI:
    """`listen` is the host it is reached at; `token_file` is told to those without the token.
    `cluster_id` is that of the cluster that is served."""
    app = FastAPI(
        title="Grampus",
        version="1",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(only_known_parameters)],
    )
    app.state.shared = Shared(ports, wakes, Metrics())
    for module in (
        workflows, batch, runs, control, story, schedules, stream, workers, cluster, kv_txn, kv,
        kv_sessions,
    ):  # fmt: skip
        app.include_router(module.router)
    problems.install(app)
    document: list[bytes] = []

    @app.get("/", include_in_schema=False)
    async def start() -> Response:
        return Response(START, media_type="text/plain")

    @app.get(
        OPENAPI,
        operation_id="getOpenAPI",
        summary="This document",
        description="Needs no token.",
        response_class=Response,
        responses={
            200: {"content": {"application/json": {"schema": {"type": "object"}}}},
            **problems.responses("invalid-input"),
        },
        tags=["node"],
    )
    async def get_document() -> Response:
        # Made when it is first asked for: it costs more than all the rest of the start.
        if not document:
            document.append(msgspec.json.encode(describe(app)))
        return Response(document[0], media_type="application/json")

    app.add_middleware(Heads)
    app.add_middleware(
        Gate, token=token, hosts=hosts_of(listen), token_file=token_file, cluster=cluster_id
    )
    return app


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the whole application."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=TAGS,
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    _, named = models_json_schema([(m, "validation") for m in _NAMED], ref_template=_REF)
    schemas.update(named["$defs"])
    # The definition's own schema is made from the very types that read it.
    (root,), parts = msgspec.json.schema_components(
        [Workflow], ref_template="#/components/schemas/{name}"
    )
    schemas.update(parts)
    schemas["WorkflowRequest"]["properties"]["definition"].update(root)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    for path in OPEN & document["paths"].keys():
        for operation in document["paths"][path].values():
            operation["security"] = []
            operation["responses"].pop("401", None)
    return document
