"""Routes of the node and its workers: who is there, is it well, what are its numbers."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from grampus.api.answers import respond, worker_answer
from grampus.api.problems import HttpProblem, responses
from grampus.api.schemas import Health, WorkerList
from grampus.api.state import ThePorts, TheShared, settled

router = APIRouter()


@router.get(
    "/api/v1/workers",
    operation_id="listWorkers",
    summary="List workers",
    response_model=WorkerList,
    responses=responses("no-quorum", "invalid-input"),
    dependencies=[Depends(settled)],
    tags=["workers"],
)
async def list_workers(ports: ThePorts) -> Response:
    connected = ports.status.connected()
    views = await ports.reads.workers()
    return respond(WorkerList(items=[worker_answer(v, connected.get(v.session)) for v in views]))


@router.get(
    "/healthz",
    operation_id="isAlive",
    summary="Is the server alive?",
    description="Needs no token.",
    response_model=Health,
    responses=responses("invalid-input"),
    tags=["node"],
)
async def is_alive() -> Response:
    return respond(Health(status="ok"))


@router.get(
    "/readyz",
    operation_id="isReady",
    summary="Does the server take work?",
    description="Needs no token.",
    response_model=Health,
    responses=responses("not-ready", "invalid-input"),
    tags=["node"],
)
async def is_ready(ports: ThePorts) -> Response:
    if waiting_for := ports.status.waiting_for():
        raise HttpProblem("not-ready", waiting_for, {"Retry-After": "1"})
    return respond(Health(status="ok"))


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **responses("invalid-input"),
    },
    tags=["node"],
)
async def get_metrics(shared: TheShared) -> Response:
    counts = await shared.ports.reads.counts()
    text = shared.metrics.render(counts, shared.ports.status, shared.wakes.streams)
    return Response(text, media_type=shared.metrics.media_type)
