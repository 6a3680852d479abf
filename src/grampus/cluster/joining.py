"""The side that joins: from a join token to what a node needs to come in by itself.

Rule: the token's secret is told only to a server that is proved to be of the token's cluster. With
TLS: ask any server for its authority's certificate, without trust and without telling anything;
compare with the hash in the token; then connect anew, trusting that authority alone. Key and
credential are written down before they are used: whoever is interrupted joins again with the same.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from grampus.cluster.admission import JOIN
from grampus.cluster.credentials import Credentials, read_credentials, write_credentials
from grampus.cluster.join_desk import JOIN_FRAME
from grampus.cluster.join_token import JoinToken, new_secret, secret_hash
from grampus.config import Listen
from grampus.errors import ProtocolError, Refused, ServerUnreachable
from grampus.protocol import (
    HELLO_FRAME,
    HELLO_TIMEOUT,
    PROTOCOL_VERSION,
    AuthorityIs,
    GetAuthority,
    Goodbye,
    Hello,
    Join,
    Joined,
    Message,
    Welcome,
)
from grampus.rpc.certificates import BadCertificate, authority_hash, only_first, request_key
from grampus.rpc.client import connect
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.rpc.subject import SERVER, Subject
from grampus.rpc.tls import Tls, Untrusted, pinned_tls, unverified_tls
from grampus.rpc.tls_folder import TlsFolder

#: For the answer to one request, in seconds: a proposal may wait for an election.
ANSWER_TIMEOUT = 10.0


class Newcomer(Struct, frozen=True):
    """Who wants to join. A worker has no address."""

    data: Path
    role: str
    name: str
    address: str = ""
    #: By what else a server is called.
    hosts: tuple[str, ...] = ()
    #: Of a server: the newest apply version that it knows.
    apply: int = 0


async def join(
    servers: Sequence[tuple[str, int]], token: JoinToken, newcomer: Newcomer, entropy: bytes
) -> Joined:
    """Joins by the first server that answers, and writes certificate or credential to the folder.

    `entropy`: 32 random bytes. Raises Refused when a server declines, Untrusted when one is not of
    the token's cluster, ServerUnreachable when none answers, FolderError."""
    tried: list[str] = []
    for host, port in servers:
        try:
            async with asyncio.TaskGroup() as tasks:
                return await _join_at(host, port, token, newcomer, entropy, tasks)
        except ExceptionGroup as group:
            # There is one: nothing else runs in these tasks.
            error = group.exceptions[0]
            if not isinstance(error, ServerUnreachable):
                raise error from None
            tried.append(f"{Listen.of_nodes(host, port)}: {error}")
    raise ServerUnreachable("\n  ".join(["nobody lets this node join:", *tried]))


async def _join_at(
    host: str,
    port: int,
    token: JoinToken,
    newcomer: Newcomer,
    entropy: bytes,
    tasks: asyncio.TaskGroup,
) -> Joined:
    if not token.encrypted:
        own = _own_credentials(newcomer.data, entropy)
        request = _join(token, newcomer, b"", secret_hash(own.worker))
        joined = _joined(await _ask(host, port, newcomer, None, request, tasks))
        if newcomer.role == SERVER:
            write_credentials(newcomer.data, Credentials(joined.credential, own.worker))
        return joined
    answer = await _ask(host, port, newcomer, unverified_tls(), GetAuthority(), tasks)
    authority = _trusted(answer, token, f"{host}:{port}")
    folder = TlsFolder(newcomer.data)
    asked = folder.request()
    request = _join(token, newcomer, asked, request_key(asked))
    joined = _joined(await _ask(host, port, newcomer, pinned_tls(authority), request, tasks))
    expected = Subject(joined.cluster, newcomer.role, newcomer.name, request.key)
    folder.install(joined.certificate, authority, expected, joined.ca_key)
    return joined


def _trusted(answer: Message, token: JoinToken, where: str) -> bytes:
    """The certificate of the authority that the token names. Raises Untrusted."""
    if not isinstance(answer, AuthorityIs):
        raise ProtocolError(f"GetAuthority was answered by {type(answer).__name__}")
    try:
        # Nothing may be trusted that the hash is not of.
        certificate = only_first(answer.certificate)
        found = authority_hash(certificate)
    except BadCertificate as error:
        raise Untrusted(f"the server at {where} shows no authority: {error}") from error
    if not hmac.compare_digest(found, token.authority):
        raise Untrusted(
            f"the server at {where} is not of the cluster that the join token is for: its"
            f" authority is {found[:16]}..., the token's is {token.authority[:16]}...; the token"
            " was not told to it"
        )
    return certificate


def _own_credentials(data: Path, entropy: bytes) -> Credentials:
    """Those of the folder, made if it has none: a node that joins again is the same one."""
    own = read_credentials(data)
    if not own.worker:
        own = Credentials(own.server, new_secret(entropy))
        write_credentials(data, own)
    return own


def _join(token: JoinToken, newcomer: Newcomer, request: bytes, key: str) -> Join:
    return Join(
        PROTOCOL_VERSION, token.id, token.secret, newcomer.role, newcomer.name,
        newcomer.address, newcomer.hosts, request, key,
    )  # fmt: skip


def _joined(answer: Message) -> Joined:
    if not isinstance(answer, Joined):
        raise ProtocolError(f"Join was answered by {type(answer).__name__}")
    return answer


async def _ask(
    host: str,
    port: int,
    newcomer: Newcomer,
    tls: Tls | None,
    question: Message,
    tasks: asyncio.TaskGroup,
) -> Message:
    """One question over a connection of its own."""
    hello = Hello(PROTOCOL_VERSION, "control", JOIN, newcomer.name, "", "", apply=newcomer.apply)
    connection, _ = await connect(
        host, port, Codec[Message](Message), _Deaf(), hello, _accept, HELLO_TIMEOUT,
        tasks=tasks, hello_limit=HELLO_FRAME, tls=tls,
    )  # fmt: skip
    try:
        return await connection.request(question, ANSWER_TIMEOUT)
    finally:
        connection.close("this was all")
        await connection.wait_closed()


def _accept(answer: Message) -> int:
    if isinstance(answer, Goodbye):
        raise answer.error("the server does not let anybody join")
    if not isinstance(answer, Welcome):
        raise ProtocolError(f"Hello was answered by {type(answer).__name__}")
    return JOIN_FRAME


class _Deaf:
    """The Handler of one who only asks."""

    def messages(self, connection: Connection[Message], batch: list[Message]) -> None:
        raise ProtocolError("nothing was to be said here but an answer")

    async def request(self, connection: Connection[Message], message: Message) -> Message:
        raise Refused("who joins answers nothing")

    def closed(self, connection: Connection[Message], reason: str) -> None:
        pass
