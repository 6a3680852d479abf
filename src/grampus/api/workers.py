"""Routes of the node and its workers: who is there, is it well, what are its numbers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response

from grampus.api.answers import respond, worker_answer
from grampus.api.ports import Ports
from grampus.api.problems import WRITES, HttpProblem, accepted, responses
from grampus.api.runs import USER
from grampus.api.schemas.workers import Health, Readiness, WorkerAnswer, WorkerList
from grampus.api.state import ThePorts, TheShared, settled
from grampus.errors import NotFound
from grampus.runs.commands import DrainWorker

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
    views = await ports.reads.workers()
    present = await ports.presence()
    return respond(WorkerList(items=[worker_answer(view, present) for view in views]))


_DRAINS: dict[str, Any] = {
    "response_model": WorkerAnswer,
    "responses": responses("invalid-input", "not-found", *WRITES),
    "tags": ["workers"],
}
WorkerName = Annotated[str, Path(max_length=64, description="Name of the worker.")]


@router.post(
    "/api/v1/workers/{name}/drain",
    operation_id="drainWorker",
    summary="Give a worker no new attempts",
    description="What it has goes on to its end. It stays so when the worker is started anew.",
    **_DRAINS,
)
async def drain_worker(ports: ThePorts, name: WorkerName) -> Response:
    return await _drain(ports, name, True)


@router.post(
    "/api/v1/workers/{name}/undrain",
    operation_id="undrainWorker",
    summary="Give a worker attempts again",
    **_DRAINS,
)
async def undrain_worker(ports: ThePorts, name: WorkerName) -> Response:
    return await _drain(ports, name, False)


@router.delete(
    "/api/v1/workers/{name}",
    operation_id="removeWorker",
    summary="Take the key of a worker back",
    description="It gets no new attempts, is sent away within seconds, and comes in again with a "
    "join token only. What it was doing is given to others once its leases are over.",
    status_code=204,
    response_class=Response,
    responses=responses("invalid-input", "not-found", "conflict", "no-quorum", *WRITES),
    tags=["workers"],
)
async def remove_worker(ports: ThePorts, name: WorkerName) -> Response:
    await ports.cluster.revoke("worker", name)
    return Response(status_code=204)


async def _drain(ports: Ports, name: str, draining: bool) -> Response:
    accepted(await ports.propose(DrainWorker(ports.clock.now(), name, draining, USER)))
    found = [view for view in await ports.reads.workers() if view.name == name]
    if not found:
        raise NotFound(f"there is no worker {name}")
    return respond(worker_answer(found[0], await ports.presence()))


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
    description="Needs no token. `alarms` tell what needs a person.",
    response_model=Readiness,
    responses=responses("not-ready", "invalid-input"),
    tags=["node"],
)
async def is_ready(ports: ThePorts) -> Response:
    if waiting_for := ports.status.waiting_for():
        raise HttpProblem("not-ready", waiting_for, {"Retry-After": "1"})
    alarms = [f"schedules are held back: {held}"] if (held := ports.clock.doubt) else []
    loads = ports.status.connected().values()
    alarms += [f"a worker starts nothing: {load.trouble}" for load in loads if load.trouble]
    if stuck := sum(load.stuck for load in loads):
        alarms.append(f"attempts that cannot be killed, and keep their slots: {stuck}")
    return respond(Readiness(status="ok", alarms=alarms))


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
