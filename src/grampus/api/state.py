"""What the routes share: the ports, the bells of the streams, and the metrics, found on the app.

Rule: every dependency of a route is `async`, even where it awaits nothing: FastAPI gives a plain
function to a thread, and the way there and back takes longer than all that it does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Query, Request

from grampus.api.metrics import Metrics
from grampus.api.ports import Ports
from grampus.api.problems import unknown_name
from grampus.api.staleness import may_be_behind
from grampus.api.wakes import Wakes
from grampus.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Shared:
    ports: Ports
    wakes: Wakes
    metrics: Metrics
    #: Those who wait for a lock.
    waiting: set[object] = field(default_factory=set)


def _shared(request: Request) -> Shared:
    return cast(Shared, request.app.state.shared)


async def shared_of(request: Request) -> Shared:
    return _shared(request)


async def ports_of(request: Request) -> Ports:
    return _shared(request).ports


async def only_known_parameters(request: Request) -> None:
    """A query parameter that the route does not have is an error: it would change the meaning."""
    route = request.scope["route"]
    known = sorted(field.alias for field in route.dependant.query_params)
    for dependant in route.dependant.dependencies:
        known += [field.alias for field in dependant.query_params]
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        raise InvalidInput(
            [
                unknown_name(name, known, "query parameter", f"query.{name[:100]}")
                for name in unknown
            ]
        )


async def settled(
    request: Request,
    stale: Annotated[
        bool,
        Query(
            description="What this server has now, as it may be without a majority, and the answer "
            "says so by `Grampus-Stale`; else the read sees everything that was answered before "
            "it was asked for."
        ),
    ] = False,
) -> bool:
    """Waits until this server has what others have answered. Raises NoQuorum. Returns `stale`."""
    ports = _shared(request).ports
    if stale:
        may_be_behind(request, ports)
    else:
        await ports.barrier()
    return stale


#: The read may be stale.
Stale = Annotated[bool, Depends(settled)]
TheShared = Annotated[Shared, Depends(shared_of)]
ThePorts = Annotated[Ports, Depends(ports_of)]
