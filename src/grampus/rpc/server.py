"""The side that listens. Nobody is heard before a Hello that the owner's `greet` accepts.

Rule: a stranger costs little and disturbs nobody. His Hello is short and in time; few strangers
stand at the door at once, and for one too many he goes who has stood there longest, of those from
where most come; and whoever breaks a rule goes with one line in the log. Who is a friend is for
`greet`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from grampus.errors import GrampusError, ProtocolError, UsageError
from grampus.rpc.address import address, resolve
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection, Limits
from grampus.rpc.crowd import Crowd
from grampus.rpc.handshakes import Handshakes
from grampus.rpc.outgoing import LINGER
from grampus.rpc.ports import Handler
from grampus.rpc.subject import Subject

if TYPE_CHECKING:
    from grampus.rpc.tls import Tls

M = TypeVar("M")

#: Connections that asyncio takes from the kernel in one turn of the loop: fewer than may stand at
#: the door, or of a crowd of friends some would go before anyone has read their Hellos.
_ACCEPTED_PER_TURN = 16
#: Connections that wait in the kernel.
_BACKLOG = 512


class CannotListen(GrampusError):
    """The address cannot be listened on."""

    exit_code = 4


class Door(Generic[M]):
    """The Owner of a server's connections: which there are, and who has been greeted."""

    def __init__(
        self,
        greet: Callable[[M, str, Subject | None], tuple[M, bool, int]],
        opened: Callable[[Connection[M]], None] | None,
        hello_timeout: float,
        most: int,
        most_strangers: int,
    ) -> None:
        self._greet = greet
        self._opened = opened
        self._hello_timeout = hello_timeout
        self._most = most
        self._most_strangers = most_strangers
        self._everyone: dict[Connection[M], None] = {}
        self._strangers: dict[Connection[M], asyncio.TimerHandle] = {}
        self._crowd: Crowd[Connection[M]] = Crowd()
        self._shut = False
        #: Somebody was turned away for want of room, and nobody let in since.
        self._crowded = False

    @property
    def friends(self) -> list[Connection[M]]:
        return [c for c in self._everyone if c.opened and not c.closed]

    def shut(self, reason: str) -> list[Connection[M]]:
        """Close every connection, and every one that still comes; gives those that have to end."""
        self._shut = True
        everyone = list(self._everyone)
        for connection in everyone:
            connection.close(reason)
        return everyone

    def made(self, connection: Connection[M]) -> None:
        if self._shut:
            connection.close("the server stops")
        elif len(self._everyone) >= self._most:
            self._turn_away(connection, f"there are {self._most} connections already")
        else:
            self._stand(connection)

    def _stand(self, connection: Connection[M]) -> None:
        """At the door, until it has said Hello."""
        loop = asyncio.get_running_loop()
        self._everyone[connection] = None
        self._strangers[connection] = loop.call_later(
            self._hello_timeout, connection.fail, f"no Hello within {self._hello_timeout:g} s"
        )
        self._crowd.come(connection, connection.host, loop.time())
        if len(self._crowd) > self._most_strangers:
            others = f"{self._most_strangers} others have not said Hello yet either"
            self._turn_away(self._crowd.who_goes(), others)
        else:
            self._crowded = False

    def _turn_away(self, connection: Connection[M], reason: str) -> None:
        """One line in the log for a whole crowd."""
        self._crowd.gone(connection)
        connection.drop(reason, told=not self._crowded)
        self._crowded = True

    def first(self, connection: Connection[M], message: M) -> None:
        self._strangers.pop(connection).cancel()
        self._crowd.gone(connection)
        if connection.unread:
            raise ProtocolError("it went on before its Hello was answered")
        answer, accepted, frame_limit = self._greet(message, connection.peer, connection.subject)
        connection.send(answer)
        if not accepted:
            connection.fail(f"refused: {getattr(answer, 'reason', answer)}")
            return
        connection.open(frame_limit)
        if self._opened is not None:
            self._opened(connection)

    def lost(self, connection: Connection[M], reason: str) -> None:
        self._everyone.pop(connection, None)
        if (timer := self._strangers.pop(connection, None)) is not None:
            timer.cancel()
        self._crowd.gone(connection)


class Server(Generic[M]):
    """Listens on one address, without `tls` a loopback one, and gives what comes to a Handler.

    `greet(hello, peer, subject)` gives the answer, whether the connection is accepted, and the
    longest frame in bytes that may go over it from then on, in both directions. `subject` is who
    the caller is by his certificate: None when he has shown none, or there is no TLS. It is called
    once per connection, must not block, and compares secrets with hmac.compare_digest. The answer
    to a refused Hello is logged. `opened` is told of each accepted connection; its `greeting` is
    the Hello. Request handlers run in `tasks`, which has to outlive the server. Times in seconds,
    limits in bytes.
    """

    def __init__(
        self,
        codec: Codec[M],
        handler: Handler[M],
        greet: Callable[[M, str, Subject | None], tuple[M, bool, int]],
        tasks: asyncio.TaskGroup,
        *,
        opened: Callable[[Connection[M]], None] | None = None,
        hello_limit: int = 1024,
        hello_timeout: float = 5.0,
        limits: Limits = Limits(),  # noqa: B008, a frozen value
        most: int = 1024,
        most_strangers: int = 64,
        tls: Tls | None = None,
    ) -> None:
        self._codec = codec
        self._handler = handler
        self._tasks = tasks
        self._hello_limit = hello_limit
        self._limits = limits
        self._door = Door(greet, opened, hello_timeout, most, most_strangers)
        self._hello_timeout = hello_timeout
        self._most_strangers = most_strangers
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self._handshakes: Handshakes | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port listened on; 0 before `start`."""
        return self._port

    @property
    def connections(self) -> list[Connection[M]]:
        """Those that have said Hello, oldest first."""
        return self._door.friends

    async def start(self, host: str, port: int) -> None:
        """Listen; `port` 0 takes a free one. UsageError unless on loopback or with TLS;
        CannotListen."""
        sock = _listen((await resolve(host, encrypted=self._tls is not None))[0], port)
        try:
            if self._tls is not None:
                self._encrypt(sock, self._tls)
            else:
                self._server = await asyncio.get_running_loop().create_server(
                    self._connection, sock=sock, backlog=_ACCEPTED_PER_TURN
                )
        except BaseException:
            sock.close()
            raise
        # asyncio takes one number for its turns and for the kernel's queue; the queue may be longer
        sock.listen(_BACKLOG)
        self._port = sock.getsockname()[1]

    def _encrypt(self, sock: socket.socket, tls: Tls) -> None:
        if tls.server is None:
            raise UsageError("a worker's certificate is not for a server")
        self._socket = sock
        self._handshakes = Handshakes(
            sock, tls.server, self._connection, self._tasks,
            timeout=self._hello_timeout, linger=LINGER, most=self._most_strangers,
        )  # fmt: skip
        self._handshakes.start()

    async def close(self, reason: str = "the server stops") -> None:
        """Stop listening and close every connection; returns when their sockets are closed."""
        async with asyncio.timeout(2 * LINGER):
            if self._server is not None:
                self._server.close()
            if self._handshakes is not None and self._socket is not None:
                await self._handshakes.close()
                self._socket.close()
            for connection in self._door.shut(reason):
                await connection.wait_closed()
            if self._server is not None:
                await self._server.wait_closed()

    def _connection(self) -> Connection[M]:
        return Connection(
            self._codec, self._handler, self._door, self._tasks, self._limits, self._hello_limit,
            self._tls.caller if self._tls is not None else None,
        )  # fmt: skip


def _listen(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        # Two sockets may be bound to one port until one of them listens: this is where it shows.
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise CannotListen(f"cannot listen on {address(host, port)}: {_advice(error)}") from error
    return sock


async def look_at_port(host: str, port: int) -> None:
    """Raises CannotListen unless one could listen there at this moment."""
    _listen((await resolve(host, encrypted=True))[0], port).close()


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another process has this port; stop that process, or take another port"
        case errno.EACCES | errno.EPERM:
            return "ports below 1024 are for root; take a higher port"
        case errno.EADDRNOTAVAIL:
            return "this machine does not have that address; use 127.0.0.1"
        case _:
            return str(error)
