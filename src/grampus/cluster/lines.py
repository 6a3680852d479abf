"""The connections of a client to servers: one to each that it talks to, opened when it is needed.

Rule: nothing is repeated here. Who asks for a line while one is being opened waits for that one,
and shares its failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from grampus.cluster.core.route import Address
from grampus.errors import NotAdmitted, ProtocolError, ServerUnreachable
from grampus.protocol import KEYS_FRAME, Goodbye, Hello, Message, Welcome
from grampus.rpc.client import connect
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.rpc.tls import Tls

Peer = Connection[Message]
#: Seconds for a connection and its greeting.
CONNECT = 1.5


class Lines:
    """Connections live in `tasks`; `opened` is asked for each new one, before anybody uses it."""

    def __init__(
        self,
        hello: Callable[[], Hello],
        opened: Callable[[Peer], Awaitable[None]],
        tasks: asyncio.TaskGroup,
        tls: Tls | None,
    ) -> None:
        self._hello = hello
        self._opened = opened
        self._tasks = tasks
        self._tls = tls
        self._codec: Codec[Message] = Codec(Message)
        self._lines: dict[Address, Peer] = {}
        self._locks: dict[Address, asyncio.Lock] = {}
        #: When, and how, opening one failed last.
        self._failures: dict[Address, tuple[float, Exception]] = {}
        self._closed = False

    async def to(self, address: Address) -> Peer:
        """Raises ServerUnreachable, or NotAdmitted."""
        line = self._lines.get(address)
        if line is not None and not line.closed:
            return line
        begun = asyncio.get_running_loop().time()
        async with self._locks.setdefault(address, asyncio.Lock()):
            line = self._lines.get(address)
            if line is not None and not line.closed:
                return line
            at, error = self._failures.get(address, (0.0, None))
            if error is not None and at > begun:
                again = type(error) if isinstance(error, NotAdmitted) else ServerUnreachable
                raise again(str(error)) from error
            return await self._open(address)

    async def _open(self, address: Address) -> Peer:
        if self._closed:
            raise ServerUnreachable("this client is closed")
        line: Peer | None = None
        try:
            line, _ = await connect(
                *address, self._codec, _Deaf(), self._hello(), _accept, CONNECT,
                tasks=self._tasks, tls=self._tls,
            )  # fmt: skip
            await self._opened(line)
        except BaseException as error:
            if line is not None:
                line.close("it was not used")
            if isinstance(error, Exception):
                self._failures[address] = (asyncio.get_running_loop().time(), error)
            raise
        self._lines[address] = line
        self._failures.pop(address, None)
        return line

    def keep_only(self, addresses: tuple[Address, ...]) -> None:
        """Others are servers no more."""
        for address in [each for each in self._lines if each not in addresses]:
            self._lines.pop(address).close("it is no server of the cluster any more")
            self._locks.pop(address, None)
            self._failures.pop(address, None)

    def close(self, reason: str) -> None:
        self._closed = True
        for line in self._lines.values():
            line.close(reason)


def _accept(answer: Message) -> int:
    if isinstance(answer, Goodbye):
        raise answer.error("the server does not let this client in", ServerUnreachable)
    if not isinstance(answer, Welcome):
        raise ProtocolError(f"Hello was answered by {type(answer).__name__}")
    return KEYS_FRAME


class _Deaf:
    """The Handler of one who only asks."""

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        for message in batch:
            if not isinstance(message, Goodbye):
                raise ProtocolError("on the lane for keys a server only answers")
            connection.close(f"the server says goodbye: {message.reason}")

    async def request(self, connection: Peer, message: Message) -> Message:
        raise ProtocolError("on the lane for keys a server only answers")

    def closed(self, connection: Peer, reason: str) -> None:
        return
