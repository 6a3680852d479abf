"""Routes of the metadata center: keys one by one, lists, and the watch.

Rule: a key is the rest of the path, percent-decoded, byte for byte: `/api/v1/kv/%2Fa` and
`/api/v1/kv//a` are the key `/a`. Reads are linearizable unless they may be stale. Conditions are
those of HTTP: the `ETag` of a key is its `mod_revision`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from grampus.api.answers import respond
from grampus.api.bodies import pieces
from grampus.api.problems import WRITES, HttpProblem, responses
from grampus.api.schemas.base import PAGE, PAGE_LIMIT
from grampus.api.schemas.keys import (
    NUMBER,
    KeyAnswer,
    KeyDeleted,
    KeyPage,
    KeyWritten,
    RevisionAnswer,
    key_answer,
    key_bytes,
    revision_answer,
)
from grampus.api.staleness import may_be_behind
from grampus.api.state import ThePorts, TheShared
from grampus.api.stream import SSE, admit, sse
from grampus.api.wakes import MOST_STREAMS
from grampus.cluster.commands import Compare, DeleteOp, GetDone, GetOp, Origin, PutOp, TxnDone
from grampus.cluster.limits import VALUE_LIMIT
from grampus.cluster.queries import Piece
from grampus.cluster.requests import Seen, View
from grampus.cluster.server import ClusterServer
from grampus.consensus.port import Stopped
from grampus.errors import Compacted, InvalidInput, NoQuorum, NotFound, Overloaded, Problem

router = APIRouter(prefix="/api/v1")

RAW = "application/octet-stream"
SEEN = "Grampus-Seen"
_KEYS = b"/api/v1/kv/"
_ETAG = re.compile(r'"(\d{1,19})"\Z')
#: What any read of keys may answer besides.
READS = ("invalid-input", "too-large", "wrong-history", "no-quorum", "lagging", "stopped")
KEY_WRITES = (*WRITES, "invalid-input", "too-large", "conflict", "no-quorum")


async def key_of(
    request: Request,
    key: Annotated[
        str, Path(description="The key, percent-encoded; at most 512 bytes.", examples=["%2Fa"])
    ],
) -> bytes:
    """From the path as it was spelled: frameworks decode it into something else."""
    raw: bytes = request.scope.get("raw_path") or b""
    if raw.startswith(_KEYS):
        return unquote_to_bytes(raw.partition(b"?")[0][len(_KEYS) :])
    return key_bytes(key, "path.key")


async def view_of(
    request: Request,
    ports: ThePorts,
    stale: Annotated[
        bool,
        Query(
            description="Whatever this server has, without asking the others; `Grampus-Stale` in "
            "the answer says for how many ms it has not heard the leader."
        ),
    ] = False,
    seen: Annotated[
        str | None,
        Header(
            alias=SEEN,
            max_length=100,
            description="That header of an earlier answer: this one will not be older.",
        ),
    ] = None,
) -> View:
    if stale:
        may_be_behind(request, ports)
    if seen is None:
        return View(stale)
    history, _, revision = seen.rpartition(":")
    if not (history and revision.isascii() and revision.isdecimal() and len(revision) < 20):
        message = "it has to be that header of an earlier answer"
        raise InvalidInput([Problem(message, field=f"header.{SEEN}", found=repr(seen))])
    return View(stale, Seen(history, int(revision)))


TheKey = Annotated[bytes, Depends(key_of)]
TheView = Annotated[View, Depends(view_of)]
IfMatch = Annotated[
    str | None,
    Header(max_length=64, description='Only if the key is at `"<mod_revision>"`; `*`: if it is.'),
]
IfNoneMatch = Annotated[
    str | None, Header(max_length=64, description="`*`: only if the key does not exist.")
]


def _headers(keys: ClusterServer, revision: int, etag: int | None = None) -> dict[str, str]:
    headers = {SEEN: f"{keys.history}:{revision}"}
    return headers if etag is None else {**headers, "ETag": f'"{etag}"'}


@router.get(
    "/kv",
    operation_id="listKeys",
    summary="List or watch keys by prefix",
    description="Keys in the order of their bytes. With `watch`, server-sent events instead: `id` "
    "is the revision, `event` is `change`, `data` has all changes of that one revision under the "
    "prefix. It begins with revision `from`, or behind `Last-Event-ID`, or with what happens from "
    "now on. In silence a comment comes every 15 s, and the `id` moves on; the stream ends when no "
    "majority of servers answers then, unless it may be `stale`. If the history is forgotten "
    "meanwhile the last event is `compacted`: list the keys, then watch from the "
    "revision after that of the list.",
    response_class=Response,
    responses={
        200: {
            "content": {
                "application/json": {
                    "schema": {"$ref": f"#/components/schemas/{KeyPage.__name__}"}
                },
                SSE: {"schema": {"$ref": f"#/components/schemas/{RevisionAnswer.__name__}"}},
            },
            "description": "A page, or the changes.",
        },
        **responses(*READS, "compacted"),
    },
    tags=["keys"],
)
async def list_keys(
    shared: TheShared,
    view: TheView,
    prefix: Annotated[str, Query(description="What the keys begin with; all by default.")] = "",
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT, description="Items on a page.")] = PAGE,
    after: Annotated[str, Query(description="Keys beyond this one: `next` of a page.")] = "",
    watch: Annotated[bool, Query(description="Follow changes instead.")] = False,
    first: Annotated[
        int | None,
        Query(alias="from", ge=0, le=NUMBER, description="First revision of a watch."),
    ] = None,
    last_event_id: Annotated[
        str | None, Header(max_length=20, description="Of a watch; wins over `from`.")
    ] = None,
) -> Response:
    keys = shared.ports.keys
    start = key_bytes(prefix, "query.prefix")
    if not watch:
        page = await keys.range(start, limit, key_bytes(after, "query.after"), view)
        items = [key_answer(item) for item in page.items]
        more = items[-1].key if page.more and items else None
        answer = KeyPage(revision=page.revision, items=items, next=more)
        return respond(answer, headers=_headers(keys, page.revision))
    if last_event_id:
        if not (last_event_id.isascii() and last_event_id.isdecimal()):
            message = "it has to be the id of an event of this stream"
            raise InvalidInput([Problem(message, field="header.last-event-id")])
        first = min(int(last_event_id), NUMBER) + 1
    admit(shared)
    if keys.feed.watchers >= MOST_STREAMS:
        raise Overloaded(f"{MOST_STREAMS} watches are open", retry_after=5)
    pieces = keys.watch(start, first, view)
    # The first one here, so that a history that is forgotten is an answer of its own.
    begun = await anext(pieces)
    return StreamingResponse(_events(pieces, begun), media_type=SSE)


async def _events(pieces: AsyncGenerator[Piece, None], begun: Piece) -> AsyncIterator[bytes]:
    yield _progress(begun.until)
    async with aclosing(pieces):
        try:
            async for piece in pieces:
                if not piece.facts:
                    yield _progress(piece.until)
                    continue
                yield b"".join(
                    sse(
                        revision_answer(fact).model_dump_json(exclude_none=True).encode(),
                        "change",
                        str(fact.revision),
                    )
                    for fact in piece.facts
                )
        except Compacted as told:
            yield sse(b'{"first":%d}' % told.first, "compacted")
        except (NoQuorum, Stopped):
            yield b": this server knows of no more: watch on at another one\n\n"


def _progress(revision: int) -> bytes:
    """No event, but clients that resume begin behind it."""
    return b": told up to revision %d\nid: %d\n\n" % (revision, revision)


@router.get(
    "/kv/{key:path}",
    operation_id="getKey",
    summary="Read a key",
    description=f"With `Accept: {RAW}` the value alone, as it is.",
    response_model=KeyAnswer,
    responses={
        200: {"content": {RAW: {"schema": {"type": "string", "format": "binary"}}}},
        **responses(*READS, "not-found"),
    },
    tags=["keys"],
)
async def get_key(ports: ThePorts, key: TheKey, view: TheView, request: Request) -> Response:
    got = await ports.keys.get(key, view)
    if got.item is None:
        raise NotFound(f"there is no key {key.decode()}")
    headers = _headers(ports.keys, got.revision, got.item.modified)
    if RAW in request.headers.get("accept", ""):
        return Response(got.item.value, headers=headers, media_type=RAW)
    return respond(key_answer(got.item), headers=headers)


@router.put(
    "/kv/{key:path}",
    operation_id="putKey",
    summary="Write a key",
    description="The body is the value: any bytes, at most 64 KiB. Answers after the commit.",
    response_model=KeyWritten,
    responses=responses(
        *KEY_WRITES, "precondition-failed", "malformed", "request-timeout", "session-unknown"
    ),
    openapi_extra={
        "requestBody": {
            "required": False,
            "content": {RAW: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    tags=["keys"],
)
async def put_key(
    ports: ThePorts,
    key: TheKey,
    request: Request,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
    session: Annotated[
        int | None,
        Query(ge=1, le=NUMBER, description="Then the key is gone when that session is over."),
    ] = None,
) -> Response:
    value = b"".join([piece async for piece in pieces(request, VALUE_LIMIT, "a value")])
    compare = conditions(key, if_match, if_none_match)
    origin, ephemeral = (None, False) if session is None else (Origin(session), True)
    if compare:
        put = PutOp(key, value, ephemeral)
        done = await ports.keys.txn(compare, (put,), (GetOp(key),), origin=origin)
        revision = _met(key, done).revision
    else:
        revision = (await ports.keys.put(key, value, origin=origin, ephemeral=ephemeral)).revision
    return respond(KeyWritten(revision=revision), headers=_headers(ports.keys, revision, revision))


@router.delete(
    "/kv/{key:path}",
    operation_id="deleteKey",
    summary="Delete a key",
    response_model=KeyDeleted,
    responses=responses(*KEY_WRITES, "precondition-failed", "not-found"),
    tags=["keys"],
)
async def delete_key(
    ports: ThePorts, key: TheKey, if_match: IfMatch = None, if_none_match: IfNoneMatch = None
) -> Response:
    compare = conditions(key, if_match, if_none_match)
    if compare:
        done = await ports.keys.txn(compare, (DeleteOp(key),), (GetOp(key),))
        revision, count = _met(key, done).revision, 1
    else:
        deleted = await ports.keys.delete(key)
        revision, count = deleted.revision, deleted.count
        if not count:
            raise NotFound(f"there is no key {key.decode()}")
    return respond(
        KeyDeleted(revision=revision, deleted=count), headers=_headers(ports.keys, revision)
    )


def conditions(key: bytes, if_match: str | None, if_none_match: str | None) -> list[Compare]:
    """What must hold. Raises InvalidInput for conditions that no key of ours can meet."""
    compare: list[Compare] = []
    if if_match is not None:
        if if_match.strip() == "*":
            compare.append(Compare(key, "version", ">", 0))
        elif match := _ETAG.match(if_match.strip()):
            compare.append(Compare(key, "modified", "=", int(match[1])))
        else:
            raise _no_condition("If-Match", if_match, '"<mod_revision>" in quotes, or *')
    if if_none_match is not None:
        if if_none_match.strip() != "*":
            raise _no_condition("If-None-Match", if_none_match, "*")
        compare.append(Compare(key, "version", "=", 0))
    return compare


def _no_condition(name: str, found: str, allowed: str) -> InvalidInput:
    message = "this condition is not known here"
    return InvalidInput(
        [Problem(message, field=f"header.{name}", found=repr(found), allowed=allowed)]
    )


def _met(key: bytes, done: TxnDone) -> TxnDone:
    """The transaction whose conditions were met. Raises HttpProblem with the key as it is."""
    if done.succeeded:
        return done
    (got,) = done.results
    assert isinstance(got, GetDone)
    name = key.decode()
    if not got.items:
        detail, current = f"{name} does not exist", None
    else:
        current = key_answer(got.items[0])
        detail = f"{name} exists, at revision {current.mod_revision}"
    more = {"revision": done.revision, "current": current}
    raise HttpProblem("precondition-failed", detail, more=more)
