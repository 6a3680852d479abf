"""Routes of sessions and locks: who holds something, and for how long.

Rules: a session lives as long as the leader confirms its keep-alives; any server passes them on to
it. The holder counts its time from when it *sent* the newest keep-alive that was confirmed. A place
in the line for a lock stays until it is given up, or the session is over: so asking again, at any
server, changes nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from grampus.api.answers import respond
from grampus.api.bodies import JSON_LIMIT, json_body, json_body_doc
from grampus.api.kv import KEY_WRITES
from grampus.api.problems import responses
from grampus.api.schemas.keys import NUMBER
from grampus.api.schemas.sessions import LockAnswer, SessionAnswer, SessionRequest
from grampus.api.state import ThePorts, TheShared

router = APIRouter(prefix="/api/v1")

#: Milliseconds for which one request waits for a lock at most; then it is asked again.
LONGEST_WAIT = 20_000
#: Who waits here is in nobody's way; others are answered after their first look.
MOST_WAITING = 128
#: Seconds for the first look, which is a write and a read.
LOOK = 0.5
#: Seconds that a place in line may be waited for by the server itself: the request ends before.
_PATIENCE = 7 * 86_400.0

TheSession = Annotated[int, Path(ge=1, le=NUMBER, description="Id of the session.")]
OfSession = Annotated[int, Query(ge=1, le=NUMBER, description="Id of the session.")]
LockName = Annotated[str, Path(description="Name of the lock: at most 128 bytes, without `/`.")]


@router.post(
    "/sessions",
    operation_id="openSession",
    summary="Begin a session",
    description="Keys that are put with it, and its locks, are gone when it is over. Keep it alive "
    "several times within its `ttl`.",
    status_code=201,
    response_model=SessionAnswer,
    responses=responses(*KEY_WRITES, "malformed", "request-timeout", "unsupported-media-type"),
    openapi_extra=json_body_doc(SessionRequest),
    tags=["sessions"],
)
async def open_session(
    ports: ThePorts, body: Annotated[SessionRequest, Depends(json_body(SessionRequest, JSON_LIMIT))]
) -> Response:
    session = await ports.keys.open_session(body.name, body.ttl, body.instance)
    return respond(SessionAnswer(session=session, ttl=body.ttl), 201)


@router.post(
    "/sessions/{session}/keep-alive",
    operation_id="keepAlive",
    summary="Keep a session alive",
    description="The answer says that no other server leads that could have ended it meanwhile: "
    "its time begins anew when this was sent. `no-quorum` says nothing of it; ask another server.",
    status_code=204,
    response_class=Response,
    responses=responses("invalid-input", "session-unknown", "unknown-outcome", "stopped"),
    tags=["sessions"],
)
async def keep_alive(ports: ThePorts, session: TheSession) -> Response:
    await ports.keep_alive(session)
    return Response(status_code=204)


@router.delete(
    "/sessions/{session}",
    operation_id="closeSession",
    summary="End a session",
    description="Its keys and its locks are gone when this is answered.",
    status_code=204,
    response_class=Response,
    responses=responses(*KEY_WRITES, "session-unknown"),
    tags=["sessions"],
)
async def close_session(ports: ThePorts, session: TheSession) -> Response:
    await ports.keys.close_session(session)
    return Response(status_code=204)


@router.post(
    "/locks/{name:path}",
    operation_id="takeLock",
    summary="Take a lock, or stand in line for it",
    description="First come, first served. While it is not held ask again: the place in line stays "
    "until it is given up or the session is over. Asked again by its holder it is the same token.",
    response_model=LockAnswer,
    responses=responses(*KEY_WRITES, "session-unknown", "lock-lost", "lagging"),
    tags=["sessions"],
)
async def take_lock(
    shared: TheShared,
    name: LockName,
    session: OfSession,
    wait: Annotated[
        int, Query(ge=0, le=LONGEST_WAIT, description="Milliseconds until the answer at most.")
    ] = 0,
) -> Response:
    token, me = None, object()
    seconds = LOOK if len(shared.waiting) >= MOST_WAITING else max(wait / 1000, LOOK)
    shared.waiting.add(me)
    try:
        # Who is cut off keeps the place.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                token = await shared.ports.keys.lock(name, session, _PATIENCE)
    finally:
        shared.waiting.discard(me)
    return respond(LockAnswer(held=token is not None, token=token))


@router.delete(
    "/locks/{name:path}",
    operation_id="giveUpLock",
    summary="Give a lock up, or the place in line for it",
    status_code=204,
    response_class=Response,
    responses=responses(*KEY_WRITES, "session-unknown", "lock-lost"),
    tags=["sessions"],
)
async def give_up_lock(ports: ThePorts, name: LockName, session: OfSession) -> Response:
    await ports.keys.unlock(name, session)
    return Response(status_code=204)
