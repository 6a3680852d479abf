"""How a data folder becomes that of a worker of a cluster, and what it shows there from then on.

Rules: a folder belongs to one cluster for ever, for the numbers of its attempts do; so the cluster
is known, and written down, before the first session. What is asked of a server once is not asked
again: a worker that has joined starts whether a server is there or not. Whoever is interrupted
while joining joins again with the same token and gets the same answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from grampus import secret_file
from grampus.cluster.credentials import Credentials, read_credentials, write_credentials
from grampus.cluster.join_token import parse
from grampus.cluster.joining import Newcomer, join
from grampus.config import Listen
from grampus.consensus.folder import DataFolder
from grampus.errors import (
    FolderError,
    ProtocolError,
    Refused,
    ServerUnreachable,
    UsageError,
)
from grampus.protocol import (
    CONTROL_FRAME,
    HELLO_TIMEOUT,
    PROTOCOL_VERSION,
    Goodbye,
    Hello,
    Message,
    Welcome,
)
from grampus.rpc.client import connect
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.rpc.subject import WORKER
from grampus.rpc.tls import NodeTls
from grampus.rpc.tls_folder import TlsFolder
from grampus.worker.servers import Address

#: Says that the folder has joined, and under which name.
_JOINED = "joined"
_TOKEN = "grampus-join."


class Membership(Struct, frozen=True):
    """What a worker shows to servers: its credential, or, with `tls`, its certificate."""

    cluster: str
    credential: str
    tls: NodeTls | None

    def __repr__(self) -> str:
        return f"Membership(cluster={self.cluster!r})"


async def enter(
    folder: DataFolder, name: str, servers: Sequence[Address], shown: str, entropy: bytes
) -> Membership:
    """`shown` is a join token, or the credential that a server keeps for workers of its machine;
    "" when the folder has joined before. `entropy`: 32 random bytes.

    Raises UsageError, FolderError, Refused, ServerUnreachable."""
    marker = folder.path / _JOINED
    if marker.exists():
        known = secret_file.read(marker).decode("utf-8", "replace").strip()
        if known != name:
            raise FolderError(
                f"{folder.path} is the folder of worker {known}, not of {name}: choose another"
            )
    elif not shown:
        raise UsageError(
            f"{folder.path} belongs to no cluster yet: a token is needed. Say on a server: grampus"
            " cluster token --role worker > FILE, and here --token-file FILE (beside a grampus up,"
            " FILE is the worker-credential in its data folder)"
        )
    else:
        if shown.startswith(_TOKEN):
            newcomer = Newcomer(folder.path, WORKER, name)
            joined = await join(servers, parse(shown), newcomer, entropy)
            folder.adopt(joined.cluster, joined.history)
        else:
            cluster = await _cluster_of(servers, name, shown)
            write_credentials(folder.path, Credentials(worker=shown))
            folder.adopt(cluster, folder.identity.history)
        secret_file.write(marker, name.encode() + b"\n")
    if TlsFolder(folder.path).ready:
        return Membership(folder.cluster, "", NodeTls(TlsFolder(folder.path)))
    return Membership(folder.cluster, read_credentials(folder.path).worker, None)


async def _cluster_of(servers: Sequence[Address], name: str, credential: str) -> str:
    """The cluster of the first server that answers, if it takes the credential."""
    tried: list[str] = []
    for address in servers:
        try:
            async with asyncio.TaskGroup() as tasks:
                return await _knock(address, name, credential, tasks)
        except ExceptionGroup as group:
            # There is one: nothing else runs in these tasks.
            error = group.exceptions[0]
            if not isinstance(error, ServerUnreachable):
                raise error from None
            tried.append(f"{Listen.of_nodes(*address)}: {error}")
    raise ServerUnreachable("\n  ".join(["nobody lets this worker in:", *tried]))


async def _knock(address: Address, name: str, credential: str, tasks: asyncio.TaskGroup) -> str:
    hello = Hello(PROTOCOL_VERSION, "control", WORKER, name, "", credential)
    connection, answer = await connect(
        *address, Codec[Message](Message), _Deaf(), hello, _accept, HELLO_TIMEOUT, tasks=tasks
    )
    connection.close("this was all")
    await connection.wait_closed()
    assert isinstance(answer, Welcome)
    return answer.cluster


def _accept(answer: Message) -> int:
    if isinstance(answer, Goodbye):
        raise answer.error("the server does not let this worker in")
    if not isinstance(answer, Welcome):
        raise ProtocolError(f"Hello was answered by {type(answer).__name__}")
    return CONTROL_FRAME


class _Deaf:
    """The Handler of one who only knocks."""

    def messages(self, connection: Connection[Message], batch: list[Message]) -> None:
        return

    async def request(self, connection: Connection[Message], message: Message) -> Message:
        raise Refused("who knocks answers nothing")

    def closed(self, connection: Connection[Message], reason: str) -> None:
        return
