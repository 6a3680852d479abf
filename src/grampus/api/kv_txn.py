"""The route of transactions of the metadata center: several keys in one revision, or none."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from grampus.api.bodies import JSON_LIMIT, json_body, json_body_doc
from grampus.api.kv import KEY_WRITES, SEEN
from grampus.api.problems import responses
from grampus.api.schemas.keys import (
    CompareBody,
    DeleteBody,
    GetBody,
    OpAnswer,
    OpBody,
    TxnAnswer,
    TxnRequest,
    key_answer,
    key_bytes,
    value_bytes,
)
from grampus.api.state import ThePorts
from grampus.cluster.commands import (
    Compare,
    Deleted,
    DeleteOp,
    GetOp,
    Op,
    Origin,
    PutOp,
    Target,
    TxnDone,
    Written,
)
from grampus.cluster.limits import check_key, check_prefix, end_of
from grampus.errors import InvalidInput, Problem

router = APIRouter(prefix="/api/v1")

#: Names of what is compared, here and in the ledger.
_TARGETS: dict[str, Target] = {
    "create_revision": "created",
    "mod_revision": "modified",
    "version": "version",
    "session": "session",
}


@router.post(
    "/kv:txn",
    operation_id="changeKeys",
    summary="Compare and change several keys",
    description="If all comparisons hold, `then` is done, else `else`; in one revision. A key may "
    "be put once in it. Keys that are read are as the operations before left them; in all at most "
    "128 KiB are read.",
    response_model=TxnAnswer,
    response_model_exclude_none=True,
    responses=responses(
        *KEY_WRITES, "session-unknown", "malformed", "request-timeout", "unsupported-media-type"
    ),
    openapi_extra=json_body_doc(TxnRequest),
    tags=["keys"],
)
async def change_keys(
    ports: ThePorts, body: Annotated[TxnRequest, Depends(json_body(TxnRequest, JSON_LIMIT))]
) -> Response:
    compare = [_compare(each, f"compare.{n}") for n, each in enumerate(body.compare)]
    then = [_op(each, f"then.{n}") for n, each in enumerate(body.then)]
    orelse = [_op(each, f"else.{n}") for n, each in enumerate(body.orelse)]
    origin = None if body.session is None else Origin(body.session)
    done = await ports.keys.txn(compare, then, orelse, origin=origin)
    answer = txn_answer(done).model_dump_json(exclude_none=True)
    headers = {SEEN: f"{ports.keys.history}:{done.revision}"}
    return Response(answer, headers=headers, media_type="application/json")


def txn_answer(done: TxnDone) -> TxnAnswer:
    results: list[OpAnswer] = []
    for result in done.results:
        match result:
            case Written():
                results.append(OpAnswer(type="put"))
            case Deleted():
                results.append(OpAnswer(type="delete", deleted=result.count))
            case _:
                items = [key_answer(item) for item in result.items]
                results.append(OpAnswer(type="get", items=items, more=result.more))
    return TxnAnswer(revision=done.revision, succeeded=done.succeeded, results=results)


def _compare(body: CompareBody, field: str) -> Compare:
    key = key_bytes(body.key, f"{field}.key")
    given = {name: getattr(body, name) for name in ("value", *_TARGETS)}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        allowed = ", ".join(given)
        message = "a comparison has exactly one of these"
        raise InvalidInput([Problem(message, field=field, found=", ".join(named) or "none",
                                    allowed=allowed)])  # fmt: skip
    (name,) = named
    if name == "value":
        return Compare(key, "value", body.op, value_bytes(given[name], f"{field}.value"))
    return Compare(key, _TARGETS[name], body.op, given[name])


def _op(body: OpBody, field: str) -> Op:
    given = [op for op in (body.put, body.delete, body.get) if op is not None]
    if len(given) != 1:
        message = "an operation is exactly one of put, delete, get"
        raise InvalidInput([Problem(message, field=field)])
    if body.put is not None:
        value = value_bytes(body.put.value, f"{field}.put.value")
        key = key_bytes(body.put.key, f"{field}.put.key")
        return PutOp(key, value, body.put.ephemeral)
    if body.delete is not None:
        return DeleteOp(*_span(body.delete, f"{field}.delete"))
    assert body.get is not None
    return GetOp(*_span(body.get, f"{field}.get"), body.get.limit)


def _span(body: DeleteBody | GetBody, field: str) -> tuple[bytes, bytes]:
    """(start, end) of a range; end is empty for one key."""
    if (body.key is None) is (body.prefix is None):
        raise InvalidInput([Problem("give either key or prefix", field=field)])
    if body.key is not None:
        key = key_bytes(body.key, f"{field}.key")
        check_key(key)
        return key, b""
    prefix = key_bytes(body.prefix or "", f"{field}.prefix")
    if isinstance(body, DeleteBody):
        check_key(prefix, "prefix")
    check_prefix(prefix)
    return prefix, end_of(prefix)
