"""Routes of the cluster: its members, and what a person does about them.

Rule: any server answers; what only the leader can do is done by the leader. A snapshot is a copy of
this server's ledger, whole, as of one moment.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from starlette.responses import StreamingResponse

from grampus.api.answers import respond, time_text
from grampus.api.ports import LedgerCheck
from grampus.api.problems import WRITES, responses
from grampus.api.schemas.cluster import (
    CheckAnswer,
    ClusterAnswer,
    LedgerLine,
    TokenAnswer,
    TokenLine,
    TokenList,
    TokenRequest,
)
from grampus.api.staleness import behind_if_unheard
from grampus.api.state import ThePorts, settled
from grampus.cluster.tokens import TokenRow

router = APIRouter(prefix="/api/v1")

Name = Annotated[str, Path(min_length=1, max_length=63, description="Name of a server.")]


class Action(StrEnum):
    remove = "remove"
    give_up = "replace"
    transfer = "transfer"


WhichAction = Annotated[Action, Path(description="What is to be done about it.")]


@router.get(
    "/cluster",
    operation_id="getCluster",
    summary="The servers, who leads, and what to do next",
    description="From the leader, where there is one; else what the server that is asked knows.",
    response_model=ClusterAnswer,
    responses=responses("invalid-input"),
    tags=["cluster"],
)
async def get_cluster(ports: ThePorts, request: Request) -> Response:
    behind_if_unheard(request, ports)
    return _json(await ports.cluster.ask("status", ""))


@router.post(
    "/cluster/members/{name}/{action}",
    operation_id="changeMember",
    summary="Remove or replace a server, or let it lead",
    description="`remove`: it is no member any more, and its folder is void. `replace`: its folder "
    "is lost, and the next server that joins under its name takes its place. `transfer`: it leads "
    "from now on.",
    response_model=ClusterAnswer,
    responses=responses(
        *WRITES, "not-found", "conflict", "no-quorum", "not-leader", "invalid-input"
    ),
    tags=["cluster"],
)
async def change_member(ports: ThePorts, name: Name, action: WhichAction) -> Response:
    return _json(await ports.cluster.ask(action.value, name))


@router.post(
    "/cluster/checks",
    operation_id="beginCheck",
    summary="Compare the ledgers of the servers now",
    description="All servers take a checksum of their ledger at one entry of the log, and tell it. "
    "Ask for the outcome under the entry's index, at the same server. A server whose ledger is not "
    "that of most stops for good. The servers compare by themselves every ten minutes.",
    response_model=CheckAnswer,
    responses=responses(*WRITES, "conflict", "no-quorum", "invalid-input"),
    tags=["cluster"],
)
async def begin_check(ports: ThePorts) -> Response:
    return _check(ports.cluster.check(await ports.cluster.begin_check()))


@router.get(
    "/cluster/checks/{index}",
    operation_id="getCheck",
    summary="The outcome of a comparison",
    response_model=CheckAnswer,
    responses=responses("not-found", "conflict", "invalid-input"),
    tags=["cluster"],
)
async def get_check(
    ports: ThePorts, index: Annotated[int, Path(ge=1, description="Of its entry in the log.")]
) -> Response:
    return _check(ports.cluster.check(index))


def _check(found: LedgerCheck) -> Response:
    rows = [LedgerLine(name=row.name, state=row.state, sum=row.sum) for row in found.servers]
    return respond(CheckAnswer(index=found.index, agreed=found.agreed, servers=rows))


@router.post(
    "/cluster/tokens",
    operation_id="makeToken",
    summary="Make a token with which one node may join",
    description="It works once, and not after it has expired. The text is in this answer only.",
    status_code=201,
    response_model=TokenAnswer,
    responses=responses(*WRITES, "conflict", "no-quorum", "invalid-input"),
    tags=["cluster"],
)
async def make_token(ports: ThePorts, asked: TokenRequest) -> Response:
    text, expires = await ports.cluster.make_token(asked.role, asked.name, asked.life)
    answer = TokenAnswer(token=text, role=asked.role, expires=time_text(expires))
    return respond(answer, 201, {"Cache-Control": "no-store"})


@router.get(
    "/cluster/tokens",
    operation_id="listTokens",
    summary="List join tokens",
    description="Also those that were used or have expired; their secrets are not kept.",
    response_model=TokenList,
    responses=responses("no-quorum", "invalid-input"),
    tags=["cluster"],
)
async def list_tokens(ports: ThePorts) -> Response:
    rows = await ports.cluster.list_tokens()
    return respond(TokenList(items=[_line(row) for row in rows]))


def _line(row: TokenRow) -> TokenLine:
    used = None if row.used is None else time_text(row.used)
    role: Literal["server", "worker"] = "server" if row.role == "server" else "worker"
    return TokenLine(
        id=row.id, role=role, name=row.name, created=time_text(row.created),
        expires=time_text(row.expires), used=used, used_by=row.used_by,
    )  # fmt: skip


@router.delete(
    "/cluster/tokens/{id}",
    operation_id="revokeToken",
    summary="Take a join token back",
    description="Who has joined with it stays.",
    status_code=204,
    response_class=Response,
    responses=responses(*WRITES, "not-found", "conflict", "no-quorum", "invalid-input"),
    tags=["cluster"],
)
async def revoke_token(
    ports: ThePorts, id: Annotated[str, Path(max_length=64, description="Id of the token.")]
) -> Response:
    await ports.cluster.revoke("token", id)
    return Response(status_code=204)


@router.get(
    "/cluster/snapshot",
    operation_id="getSnapshot",
    summary="The state of the cluster, as this server has it",
    description="A tar archive with the ledger, as of one moment, and the blobs that it names:"
    " what `grampus cluster restore` takes. Blobs that no server has are listed in `missing`.",
    response_class=Response,
    responses={
        200: {"content": {"application/x-tar": {"schema": {"type": "string"}}}},
        **responses("stopped", "no-quorum", "invalid-input"),
    },
    dependencies=[Depends(settled)],
    tags=["cluster"],
)
async def get_snapshot(ports: ThePorts) -> Response:
    size, pieces = await ports.cluster.snapshot()
    headers = {"Content-Length": str(size)}
    return StreamingResponse(pieces, media_type="application/x-tar", headers=headers)


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
