"""The OpenAPI document is complete, and the application does what it says, whatever is sent."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from api_node import BEARER, Node, a_node, json_value, shell
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS

from grampus.api.app import create_app, describe
from grampus.api.wakes import Wakes

APP = create_app(None, Wakes(), token="x", listen="127.0.0.1")  # type: ignore[arg-type]
DOCUMENT = describe(APP)
OPERATIONS = [
    (f"{method.upper()} {path}", operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
EXPECTED = {
    "POST /api/v1/workflows", "GET /api/v1/workflows", "GET /api/v1/workflows/{name}",
    "POST /api/v1/workflows/{name}/pause", "POST /api/v1/workflows/{name}/resume",
    "DELETE /api/v1/workflows/{name}", "PUT /api/v1/bundles/{hash}", "HEAD /api/v1/bundles/{hash}",
    "POST /api/v1/runs", "GET /api/v1/runs", "GET /api/v1/runs/{id}", "DELETE /api/v1/runs/{id}",
    "GET /api/v1/runs/{id}/tasks", "POST /api/v1/runs/{id}/cancel",
    "GET /api/v1/runs/{id}/tasks/{task}/result", "GET /api/v1/runs/{id}/logs",
    "GET /api/v1/runs/{id}/events", "GET /api/v1/workers",
    "POST /api/v1/workers/{name}/drain", "POST /api/v1/workers/{name}/undrain",
    "GET /api/v1/openapi.json", "DELETE /api/v1/workers/{name}",
    "GET /api/v1/cluster/tokens", "DELETE /api/v1/cluster/tokens/{id}",
    "POST /api/v1/runs:batch", "POST /api/v1/runs/{id}/pause", "POST /api/v1/runs/{id}/resume",
    "POST /api/v1/runs/{id}/retry", "POST /api/v1/runs/{id}/tasks/{task}/declare-lost",
    "GET /api/v1/runs/{id}/story", "GET /api/v1/runs/{id}/explain",
    "GET /healthz", "GET /readyz", "GET /metrics",
    "GET /api/v1/schedules", "GET /api/v1/schedules/{name}", "GET /api/v1/schedules/{name}/next",
    "GET /api/v1/schedules/{name}/ticks", "POST /api/v1/schedules/{name}/pause",
    "POST /api/v1/schedules/{name}/resume", "POST /api/v1/schedules:trust-clock",
    "GET /api/v1/cluster",
    "POST /api/v1/cluster/tokens", "GET /api/v1/cluster/snapshot",
    "POST /api/v1/cluster/members/{name}/{action}",
    "POST /api/v1/cluster/checks", "GET /api/v1/cluster/checks/{index}",
    "GET /api/v1/kv", "GET /api/v1/kv/{key}", "PUT /api/v1/kv/{key}", "DELETE /api/v1/kv/{key}",
    "POST /api/v1/kv:txn", "POST /api/v1/sessions", "DELETE /api/v1/sessions/{session}",
    "POST /api/v1/sessions/{session}/keep-alive", "POST /api/v1/locks/{name}",
    "DELETE /api/v1/locks/{name}",
}  # fmt: skip


def test_the_document_has_every_route_and_no_other() -> None:
    assert {name for name, _ in OPERATIONS} == EXPECTED


@pytest.mark.parametrize(("name", "operation"), OPERATIONS)
def test_every_operation_is_told_completely(name: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["tags"]
    assert operation["operationId"].isalnum()
    statuses = set(operation["responses"])
    assert [s for s in statuses if s.startswith("2")]
    assert "500" in statuses
    open_to_all = operation.get("security") == []
    assert ("401" in statuses) is not open_to_all
    for status, response in operation["responses"].items():
        assert response["description"]
        if status[0] in "45":
            assert list(response["content"]) == ["application/problem+json"], (name, status)
    for parameter in operation.get("parameters", ()):
        assert parameter["description"], (name, parameter["name"])


def test_operation_ids_are_unique_and_references_lead_somewhere() -> None:
    ids = [operation["operationId"] for _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)

    def references(part: object) -> Iterator[str]:
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]
            for value in part.values():
                yield from references(value)
        elif isinstance(part, list):
            for value in part:
                yield from references(value)

    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    used = set(references(DOCUMENT))
    assert used - known == set()
    assert "#/components/schemas/Workflow" in used


class Sideways:
    """ASGI: every request is answered on the node's own loop, from whatever loop it comes."""

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._loop = loop

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        here = asyncio.get_running_loop()

        def across(function: Any) -> Any:
            async def call(*args: Any) -> Any:
                future = asyncio.run_coroutine_threadsafe(function(*args), here)
                return await asyncio.wrap_future(future)

            return call

        job = self._app(scope, across(receive), across(send))
        future = asyncio.run_coroutine_threadsafe(job, self._loop)
        await asyncio.wrap_future(future)


async def furnish(node: Node) -> None:
    """Something to find: a workflow, a run that ended with a result, and one under way."""
    await node.apply(shell("hello", "greet"))
    await node.staff()
    done = await node.start("hello", id="aaaaaaaaaaaa")
    await node.finish(await node.begin(done), output=json_value({"n": 1}), stdout=3)
    node.shelf.write("greet", "hi\n")
    node.shelf.end("greet")
    await node.start("hello", id="bbbbbbbbbbbb")
    await node.client.put("/api/v1/kv/%2Fa", content=b"value")
    await node.apply(shell("nightly", "greet", schedule={"cron": "0 2 * * *"}))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The application of a furnished node that lives on a loop in a thread of its own."""
    started: list[Any] = []
    ready, over = threading.Event(), threading.Event()
    folder = tmp_path_factory.mktemp("api")

    async def go() -> None:
        async with a_node(folder) as node:
            await furnish(node)
            async with asyncio.TaskGroup() as tasks:
                keys = tasks.create_task(node.app.state.shared.ports.keys.run())
                started.append(Sideways(node.app, asyncio.get_running_loop()))
                ready.set()
                await asyncio.to_thread(over.wait)
                keys.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(go()))
    thread.start()
    assert ready.wait(10)
    yield started[0]
    over.set()
    thread.join(10)


#: A semantic check may refuse what the schema allows; its answers are in the document all the same.
LEFT_OUT = {"positive_data_acceptance"}
CHECKED = [check for check in CHECKS.get_all() if check.__name__ not in LEFT_OUT]
RUN = re.compile(r"([a-z2-7]{4,12}|last)\Z")
schema = schemathesis.openapi.from_dict(DOCUMENT)


@schema.parametrize()
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_the_application_does_what_its_document_says(case: Any, live: Any) -> None:
    live_stream = case.operation.label.endswith(("/events", "/logs"))
    if live_stream and RUN.match(str(case.path_parameters["id"])):
        # A run that goes on would hold the stream: its end is tested elsewhere.
        case.path_parameters["id"] = "aaaaaaaaaaaa"
    if case.operation.label == "GET /api/v1/kv" and case.query:
        # A watch has no end.
        case.query.pop("watch", None)
    response = case.call(app=live, headers=BEARER, base_url="http://localhost")
    case.validate_response(response, checks=CHECKED)
