"""Two peers of the rpc package over a real loopback socket, and a stranger who speaks raw bytes."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from msgspec import Struct

from grampus.errors import Refused
from grampus.rpc.client import connect
from grampus.rpc.codec import Codec, OneWay
from grampus.rpc.connection import Connection, Limits
from grampus.rpc.frames import frame
from grampus.rpc.server import Server
from grampus.rpc.subject import Subject
from grampus.rpc.tls import Tls


class Hi(Struct, frozen=True, array_like=True, tag="hi"):
    token: str


class Come(Struct, frozen=True, array_like=True, tag="come"):
    name: str


class Go(Struct, frozen=True, array_like=True, tag="go"):
    reason: str


class Number(Struct, frozen=True, array_like=True, tag="number"):
    n: int


class Bytes(Struct, frozen=True, array_like=True, tag="bytes"):
    data: bytes


Spoken = Hi | Come | Go | Number | Bytes
CODEC = Codec[Spoken](Spoken)
TOKEN = "correct-horse"
FRAME_LIMIT = 1024 * 1024
#: No test waits longer than this for anything, in seconds.
PATIENCE = 10.0


class Ear:
    """A handler that keeps what it hears. Requests are answered by `reply`, an echo at first."""

    def __init__(self) -> None:
        self.heard: list[Spoken] = []
        self.batches: list[int] = []
        self.ends: list[str] = []
        self.connections: list[Connection[Spoken]] = []
        self.reply: Callable[[Spoken], Awaitable[Spoken]] = self._echo
        self._changed = asyncio.Event()

    def messages(self, connection: Connection[Spoken], batch: list[Spoken]) -> None:
        self.heard += batch
        self.batches.append(len(batch))
        self._note(connection)

    async def request(self, connection: Connection[Spoken], message: Spoken) -> Spoken:
        self._note(connection)
        return await self.reply(message)

    def closed(self, connection: Connection[Spoken], reason: str) -> None:
        self.ends.append(reason)
        self._note(connection)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something that this handler sees."""
        async with asyncio.timeout(PATIENCE):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    def _note(self, connection: Connection[Spoken]) -> None:
        if connection not in self.connections:
            self.connections.append(connection)
        self._changed.set()

    async def _echo(self, message: Spoken) -> Spoken:
        return message


class Line:
    """A listening server with its ear, and ways to call it."""

    def __init__(
        self, tasks: asyncio.TaskGroup, server: Server[Spoken], ear: Ear, caller: Tls | None = None
    ) -> None:
        self.tasks = tasks
        #: The TLS of those who call.
        self.caller = caller
        self.server = server
        self.ear = ear

    async def call(
        self,
        ear: Ear | None = None,
        token: str = TOKEN,
        frame_limit: int = FRAME_LIMIT,
        limits: Limits | None = None,
        tls: Tls | None = None,
    ) -> Connection[Spoken]:
        def accept(answer: Spoken) -> int:
            if not isinstance(answer, Come):
                raise Refused(getattr(answer, "reason", "no reason"))
            return frame_limit

        connection, _ = await connect(
            "127.0.0.1",
            self.server.port,
            CODEC,
            ear or Ear(),
            Hi(token),
            accept,
            PATIENCE,
            tasks=self.tasks,
            limits=limits or Limits(),
            tls=tls or self.caller,
        )
        return connection

    async def stranger(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw TCP connection that has said nothing."""
        return await asyncio.open_connection("127.0.0.1", self.server.port)

    async def raw_friend(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw TCP connection that has been greeted."""
        reader, writer = await self.stranger()
        writer.write(spoken(Hi(TOKEN)))
        assert await heard(reader) == OneWay(0, Come("ear"))
        return reader, writer


def greet(hello: Spoken, peer: str, subject: Subject | None) -> tuple[Spoken, bool, int]:
    if isinstance(hello, Hi) and hmac.compare_digest(hello.token, TOKEN):
        return Come("ear"), True, FRAME_LIMIT
    return Go("wrong token"), False, 0


@asynccontextmanager
async def line(
    limits: Limits | None = None,
    greet: Callable[[Spoken, str, Subject | None], tuple[Spoken, bool, int]] = greet,
    opened: Callable[[Connection[Spoken]], None] | None = None,
    hello_timeout: float = PATIENCE,
    most: int = 1024,
    most_strangers: int = 64,
    tls: Tls | None = None,
    caller: Tls | None = None,
    ear: Ear | None = None,
) -> AsyncIterator[Line]:
    """A server on a free port; everything on it is closed at the end."""
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        ear = ear or Ear()
        server = Server(
            CODEC,
            ear,
            greet,
            tasks,
            opened=opened,
            hello_timeout=hello_timeout,
            limits=limits or Limits(),
            most=most,
            most_strangers=most_strangers,
            tls=tls,
        )
        await server.start("127.0.0.1", 0)
        yield Line(tasks, server, ear, caller)
        await server.close()


@asynccontextmanager
async def someone_else(
    conversation: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    calls: int,
) -> AsyncIterator[int]:
    """A listener that is no Grampus; gives its port. Waits at the end for so many conversations."""
    over = asyncio.Semaphore(0)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await conversation(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            over.release()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as listener:
        yield listener.sockets[0].getsockname()[1]
        async with asyncio.timeout(PATIENCE):
            for _ in range(calls):
                await over.acquire()


def spoken(message: Spoken) -> bytes:
    """The bytes of a one-way message on the wire."""
    return frame(CODEC.encode(OneWay(0, message)))


async def heard(reader: asyncio.StreamReader) -> object:
    """The next envelope that a raw connection gets."""
    async with asyncio.timeout(PATIENCE):
        length = int.from_bytes(await reader.readexactly(4), "big")
        return CODEC.decode(await reader.readexactly(length))


async def hung_up(reader: asyncio.StreamReader) -> bytes:
    """What still comes before the other side closes."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


def said(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged, without asyncio's remarks in debug mode on how slow this machine is."""
    return [r for r in caplog.records if r.name != "asyncio" or r.levelno >= logging.ERROR]
