"""Who issues the new certificate of a node: the authority that a server holds, or any server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from grampus.clock import Clock
from grampus.errors import ProtocolError
from grampus.protocol import Message, Renew, Renewed
from grampus.rpc.subject import SERVER
from grampus.rpc.tls_folder import TlsFolder

#: For the answer of a server, in seconds.
TIMEOUT = 10.0

Issue = Callable[[bytes], Awaitable[bytes]]


def by_own_authority(folder: TlsFolder, hosts: Sequence[str], clock: Clock) -> Issue:
    """For a server: `hosts` are the names and addresses by which it is called."""

    async def issue(request: bytes) -> bytes:
        own = folder.subject()
        return folder.authority().issue(request, own.cluster, SERVER, own.name, hosts, clock.now())

    return issue


def by_server(ask: Callable[[Message, float], Awaitable[Message]]) -> Issue:
    """For a worker: `ask` puts a request to a server over a connection made with the old one."""

    async def issue(request: bytes) -> bytes:
        answer = await ask(Renew(request), TIMEOUT)
        if not isinstance(answer, Renewed):
            raise ProtocolError(f"Renew was answered by {type(answer).__name__}")
        return answer.certificate

    return issue
