"""What goes on, as streams: the routes of a run's events and logs.

Rule: events are numbered by revision, and a stream that goes on after one misses none and repeats
none. Both streams end by themselves once what they follow is final.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.responses import StreamingResponse

from grampus.api.answers import time_text
from grampus.api.logs import Selection, Stream, Word, followed_log, stored_log
from grampus.api.ports import Reads
from grampus.api.problems import responses
from grampus.api.runs import TheRun
from grampus.api.schemas.story import EventAnswer, LogEntry
from grampus.api.state import Shared, Stale, TheShared, settled
from grampus.api.wakes import HEARTBEAT, MOST_STREAMS, PROBE, Barrier, Wakes, is_cut_off
from grampus.errors import InvalidInput, NotFound, Overloaded, Problem
from grampus.model.run import FINAL_RUN
from grampus.runs.views import EventView

router = APIRouter(prefix="/api/v1", dependencies=[Depends(settled)])

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
SSE_COMMENT = b": still here\n\n"
#: Events read at once.
PAGE = 200
_TIMES = ("at", "due", "ended")
Revision = Annotated[int, Query(ge=0, le=2**53, description="Only events beyond this revision.")]


def admit(shared: Shared) -> None:
    if shared.wakes.streams >= MOST_STREAMS:
        raise Overloaded(f"{MOST_STREAMS} streams are open", retry_after=5)


def _doc(media: str, component: str) -> dict[str, object]:
    return {media: {"schema": {"$ref": f"#/components/schemas/{component}"}}}


@router.get(
    "/runs/{id}/events",
    operation_id="streamEvents",
    summary="Follow the events of a run",
    description="Server-sent events: `id` is the revision, `event` the kind, `data` the fact as "
    "JSON. It begins with the first event, or after `Last-Event-ID`, or after `after`; goes on as "
    "things happen, with a comment every 15 s of silence; and ends when the run is final, "
    "or without its last event where this server stops or hears no majority any more: go on "
    "elsewhere.",
    response_class=StreamingResponse,
    responses={
        200: {"content": _doc(SSE, EventAnswer.__name__), "description": "The events."},
        **responses("not-found", "ambiguous-id", "invalid-input"),
    },
    tags=["runs"],
)
async def stream_events(
    shared: TheShared,
    run: TheRun,
    stale: Stale,
    after: Revision = 0,
    last_event_id: Annotated[
        str | None, Header(max_length=20, description="Wins over `after`.")
    ] = None,
) -> Response:
    if last_event_id:
        if not (last_event_id.isascii() and last_event_id.isdecimal()):
            message = "it has to be the id of an event of this stream"
            raise InvalidInput([Problem(message, "header.last-event-id", found=last_event_id)])
        after = min(int(last_event_id), 2**53)
    admit(shared)
    barrier = None if stale else shared.ports.barrier
    events = run_events(shared.ports.reads, shared.wakes, run, after, barrier)
    return StreamingResponse(events, media_type=SSE)


@router.get(
    "/runs/{id}/logs",
    operation_id="readLogs",
    summary="Read or follow what the tasks wrote",
    description=f"One JSON object per piece: as lines ({NDJSON}), or with `Accept: {SSE}` as "
    "server-sent events named `log`, and one `end` when there will be no more. Attempts come in "
    "the order of their start, stdout before stderr. With `follow` it goes on until the run, or "
    "the task, is final; empty lines and comments keep the connection alive. A server that stops "
    "or hears no majority any more ends it too, without an `end`: go on elsewhere.",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {**_doc(NDJSON, LogEntry.__name__), **_doc(SSE, LogEntry.__name__)},
            "description": "The pieces.",
        },
        **responses("not-found", "ambiguous-id", "invalid-input"),
    },
    tags=["runs"],
)
async def read_logs(
    shared: TheShared,
    run: TheRun,
    request: Request,
    stale: Stale,
    task: Annotated[str | None, Query(max_length=64, description="Default: all tasks.")] = None,
    attempt: Annotated[
        int | None, Query(ge=1, le=2**31, description="Default: all attempts.")
    ] = None,
    stream: Annotated[Stream | None, Query(description="Default: both.")] = None,
    offset: Annotated[
        int,
        Query(ge=0, le=2**53, description="Bytes of each stream to leave out."),
    ] = 0,
    follow: Annotated[bool, Query(description="Go on until it is final.")] = False,
) -> Response:
    selection = Selection(task, attempt, stream, offset)
    if task is not None:
        tasks = {view.name: view for view in await shared.ports.reads.tasks(run)}
        if task not in tasks:
            raise NotFound(f"run {run} has no task {task}")
        known = [a.attempt for a in tasks[task].attempts]
        if attempt is not None and attempt not in known and not follow:
            raise NotFound(f"task {task} of run {run} has no attempt {attempt}")
    admit(shared)
    wanted_sse = SSE in request.headers.get("accept", "")
    return StreamingResponse(
        _written(shared, run, selection, follow, wanted_sse, stale),
        media_type=SSE if wanted_sse else NDJSON,
    )


async def _written(
    shared: Shared, run: str, selection: Selection, follow: bool, as_sse: bool, stale: bool
) -> AsyncIterator[bytes]:
    entries: AsyncIterator[LogEntry | Word] = (
        followed_log(shared.ports, shared.wakes, run, selection, stale)
        if follow
        else stored_log(shared.ports, run, selection)
    )
    ended = not follow
    async for entry in entries:
        if entry is Word.END:
            ended = True
        elif entry is Word.SILENCE:
            yield SSE_COMMENT if as_sse else b"\n"
        elif as_sse:
            yield sse(entry.model_dump_json().encode(), "log")
        else:
            yield entry.model_dump_json().encode() + b"\n"
    if as_sse and ended:
        yield sse(b"{}", "end")


def sse(data: bytes, event: str = "", id: str = "") -> bytes:
    """One server-sent event. `data` is JSON, so it has no line breaks."""
    head = (f"id: {id}\n" if id else "") + (f"event: {event}\n" if event else "")
    return head.encode() + b"data: " + data + b"\n\n"


async def run_events(
    reads: Reads, wakes: Wakes, run: str, after: int, barrier: Barrier
) -> AsyncIterator[bytes]:
    """The facts of a run beyond revision `after`, as they are committed, until the run is final, or
    this server is cut off."""
    silent = 0.0
    with wakes.watch(run) as woken:
        while not woken.closed:
            woken.clear()
            # The state first: when it is final, the page after it has the last fact.
            view = await reads.run(run)
            page = await reads.events(run, after, PAGE)
            for event in page:
                after = event.revision
                yield sse(event_data(event), event.kind, str(event.revision))
            if len(page) == PAGE:
                continue
            if view is None or view.state in FINAL_RUN:
                return
            pause = min(PROBE, HEARTBEAT)
            if await woken.wait(pause):
                silent = 0.0
                continue
            if await is_cut_off(barrier):
                return
            silent += pause
            if silent >= HEARTBEAT:
                silent = 0.0
                yield SSE_COMMENT


def event_data(event: EventView) -> bytes:
    """The fact as JSON, its times as text."""
    fact = msgspec.json.decode(event.data)
    for name in _TIMES:
        if isinstance(fact.get(name), int):
            fact[name] = time_text(fact[name])
    return msgspec.json.encode(fact)
