"""The connections to a server: one for control, one for bulk, kept up for ever.

Rule: it repeats nothing and remembers nothing; what must not be lost is repeated by the core.
After each new control connection the worker registers, and only then hears what the server says.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from grampus.errors import GrampusError, ProtocolError, Refused, ServerUnreachable
from grampus.protocol import (
    BULK_FRAME,
    CONTROL_FRAME,
    HELLO_TIMEOUT,
    PROTOCOL_VERSION,
    Goodbye,
    Hello,
    Message,
    Register,
    Registered,
    Welcome,
)
from grampus.rpc.client import connect
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection

log = logging.getLogger("grampus.worker")

#: Between two tries to connect, in seconds: it doubles, and a random part up to half is taken off.
FIRST_WAIT, LAST_WAIT = 0.1, 5.0
REGISTER_TIMEOUT = 10.0
#: Messages that may come before the answer to Register.
EARLY_LIMIT = 1_000

Peer = Connection[Message]


class Receiver(Protocol):
    """Who is told what happens on the connections."""

    def registered_as(self, session: int) -> None: ...
    def heard(self, batch: list[Message]) -> None: ...
    async def asked(self, message: Message) -> Message: ...
    def disconnected(self) -> None: ...


class Link:
    """`register` is called for each registration. Everything runs in `tasks`."""

    def __init__(
        self,
        addresses: Sequence[tuple[str, int]],
        name: str,
        cluster: str,
        credential: str,
        register: Callable[[], Register],
        receiver: Receiver,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._addresses = addresses
        self._name = name
        self._cluster = cluster
        self._credential = credential
        self._register = register
        self._receiver = receiver
        self._tasks = tasks
        self._codec: Codec[Message] = Codec(Message)
        self._control: Peer | None = None
        self._bulk: Peer | None = None
        self._has_bulk = asyncio.Event()

    async def keep_control(self) -> None:
        """Until cancelled."""
        await self._keep("control")

    async def keep_bulk(self) -> None:
        """Until cancelled."""
        await self._keep("bulk")

    def send(self, message: Message) -> None:
        """Over the control connection; lost when there is none."""
        if self._control is not None:
            self._control.send(message)

    async def ask(self, message: Message, within: float) -> Message:
        """Over the bulk connection, which is waited for. Raises GrampusError."""
        try:
            async with asyncio.timeout(within):
                await self._has_bulk.wait()
        except TimeoutError:
            raise ServerUnreachable("no server is connected") from None
        if self._bulk is None:
            raise ServerUnreachable("no server is connected")
        return await self._bulk.request(message, within)

    def renew(self, reason: str) -> None:
        """Ends the control connection, so that the worker registers anew."""
        if self._control is not None:
            self._control.close(reason)

    def close(self, reason: str) -> None:
        for connection in (self._control, self._bulk):
            if connection is not None:
                connection.close(reason)

    async def _keep(self, lane: str) -> None:
        wait, turn, told = FIRST_WAIT, 0, False
        while True:
            host, port = self._addresses[turn % len(self._addresses)]
            turn += 1
            try:
                connection = await self._open(lane, host, port)
                wait, told = FIRST_WAIT, False
                reason = await connection.wait_closed()
            except GrampusError as error:
                reason = str(error)
            if not told:
                log.warning("%s connection: %s", lane, reason)
                told = True
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, LAST_WAIT)

    async def _open(self, lane: str, host: str, port: int) -> Peer:
        ears = Ears(self, lane)
        hello = Hello(PROTOCOL_VERSION, lane, "worker", self._name, self._cluster, self._credential)
        frame = CONTROL_FRAME if lane == "control" else BULK_FRAME
        connection, _ = await connect(
            host,
            port,
            self._codec,
            ears,
            hello,
            lambda answer: _accept(answer, frame),
            HELLO_TIMEOUT,
            tasks=self._tasks,
        )
        if lane == "bulk":
            self._bulk = connection
            self._has_bulk.set()
            return connection
        try:
            answer = await connection.request(self._register(), REGISTER_TIMEOUT)
            if not isinstance(answer, Registered):
                raise ProtocolError(f"Register was answered by {type(answer).__name__}")
        except BaseException:
            connection.close("not registered")
            raise
        if not connection.closed:
            self._control = connection
            self._receiver.registered_as(answer.session)
            ears.open()
        return connection

    def hear(self, batch: list[Message]) -> None:
        self._receiver.heard(batch)

    async def answer(self, message: Message) -> Message:
        return await self._receiver.asked(message)

    def lost(self, connection: Peer) -> None:
        if connection is self._control:
            self._control = None
            self._receiver.disconnected()
        elif connection is self._bulk:
            self._bulk = None
            self._has_bulk.clear()


class Ears:
    """The Handler of one connection."""

    def __init__(self, link: Link, lane: str) -> None:
        self._link = link
        #: What came before the registration was answered; None once it was.
        self._early: list[Message] | None = [] if lane == "control" else None

    def open(self) -> None:
        early, self._early = self._early, None
        if early:
            self._link.hear(early)

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        if self._early is None:
            self._link.hear(batch)
        elif len(self._early) + len(batch) > EARLY_LIMIT:
            raise ProtocolError("too much is said before the registration is answered")
        else:
            self._early.extend(batch)

    async def request(self, connection: Peer, message: Message) -> Message:
        return await self._link.answer(message)

    def closed(self, connection: Peer, reason: str) -> None:
        self._link.lost(connection)


def _accept(answer: Message, frame: int) -> int:
    if isinstance(answer, Goodbye):
        raise Refused(f"the server refuses this worker: {answer.reason}")
    if not isinstance(answer, Welcome):
        raise ProtocolError(f"Hello was answered by {type(answer).__name__}")
    return frame
