"""What FastAPI calls for a request stays on the event loop."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from grampus.api.app import create_app
from grampus.api.wakes import Wakes


def every(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for below in dependant.dependencies:
        yield from every(below)


def test_no_request_waits_for_a_thread_that_only_calls_a_plain_function() -> None:
    app = create_app(None, Wakes(), token="x", listen="127.0.0.1")  # type: ignore[arg-type]
    plain = {
        f"{dependant.call.__module__}.{dependant.call.__qualname__}"
        for route in app.routes
        if isinstance(route, APIRoute)
        for dependant in every(route.dependant)
        if dependant.call is not None and not inspect.iscoroutinefunction(dependant.call)
    }
    assert plain == set()
