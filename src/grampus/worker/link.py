"""The connections to a server: one for control, one for bulk, kept up for ever.

Which server is said by `servers`: the control lane finds the one that leads, the bulk lane follows.
From each pause a random part, up to half, is taken off.

Rule: it repeats nothing and remembers nothing; what must not be lost is repeated by the core.
After each new control connection the worker registers, and only then hears what the server says.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from grampus.cluster.core.histories import BEHIND, Histories
from grampus.errors import GrampusError, NotLeader, ProtocolError, Refused, ServerUnreachable
from grampus.protocol import (
    BULK_FRAME,
    CONTROL_FRAME,
    HELLO_TIMEOUT,
    PROTOCOL_VERSION,
    Elsewhere,
    Goodbye,
    Hello,
    Leave,
    Message,
    Ping,
    Register,
    Registered,
    Welcome,
)
from grampus.rpc.address import host_and_port
from grampus.rpc.client import connect
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.worker.servers import FIRST_PAUSE, LAST_PAUSE, Address, Servers

if TYPE_CHECKING:
    from grampus.rpc.tls import Tls

log = logging.getLogger("grampus.worker")

REGISTER_TIMEOUT = 10.0
#: With leases, or where there are several servers: how often one is asked whether it is there, and
#: how long it may take to answer, in seconds.
PING_EVERY, ANSWERS = 1.0, 1.5
#: A control connection that ends sooner, in seconds, has failed: else two could chase each other.
HELD = 1.0
#: Reasons that are logged between two registrations.
MOST_TOLD = 10
#: Messages that may come before the answer to Register.
EARLY_LIMIT = 1_000

Peer = Connection[Message]


class Receiver(Protocol):
    """Who is told what happens on the connections."""

    def confirmed(self, sent: int) -> None: ...
    def registered_as(self, session: int) -> None: ...
    def heard(self, batch: list[Message]) -> None: ...
    async def asked(self, message: Message) -> Message: ...
    def disconnected(self) -> None: ...


class Link:
    """`register` is called for each registration. Everything runs in `tasks`."""

    def __init__(
        self,
        addresses: Sequence[Address],
        name: str,
        cluster: str,
        credential: str,
        register: Callable[[], Register],
        receiver: Receiver,
        tasks: asyncio.TaskGroup,
        tls: Tls | None = None,
        *,
        ticks: Callable[[], int],
        leased: bool = False,
        histories: Histories | None = None,
    ) -> None:
        """`ticks` is the time since boot, in ms. A worker that is `leased` is kept alive by what is
        `confirmed`: the moment at which it sent what a server has answered. `histories` says which
        servers it goes with."""
        self._ticks, self._leased = ticks, leased
        self._tls = tls
        self._servers = Servers(addresses)
        self._name = name
        self._cluster = cluster
        self._credential = credential
        self._register = register
        self._receiver = receiver
        self._tasks = tasks
        self._codec: Codec[Message] = Codec(Message)
        self._histories = histories or Histories()
        self._control: Peer | None = None
        self._bulk: Peer | None = None
        self._has_bulk = asyncio.Event()
        #: Where the worker is registered, or was last; `_moved` is set when that changes.
        self._home: Address | None = None
        self._moved = asyncio.Event()
        self._renewing = False
        #: Of the newest registration.
        self._session = 0

    async def keep_control(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        told: set[str] = set()
        while True:
            address = self._servers.next()
            try:
                connection = await self._open_control(address)
                told.clear()
                begun = loop.time()
                reason = await self._accompany(connection)
                self._lost(address, loop.time() - begun)
            except GrampusError as error:
                reason = str(error)
                self._servers.failed(address, answered=isinstance(error, NotLeader))
            if reason not in told and len(told) < MOST_TOLD:
                log.warning("control connection: %s", reason)
                told.add(reason)
            if pause := self._servers.pause():
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _accompany(self, connection: Peer) -> str:
        """Until it ends, or the server does not answer while it has to; the reason."""
        while (self._leased or self._servers.several) and not connection.closed:
            if not self._histories.counts(_history(connection.greeting)):
                connection.close(BEHIND)
                break
            try:
                async with asyncio.timeout(PING_EVERY):
                    return await connection.wait_closed()
            except TimeoutError:
                pass
            sent = self._ticks()
            try:
                await connection.request(Ping(self._session), ANSWERS)
                if connection is self._control:
                    self._receiver.confirmed(sent)
            except GrampusError as error:
                reason = f"the server does not answer: {error}"
                connection.close(reason)
                # A server that stands still may keep its end open for long.
                self.lost(connection)
                return reason
        return await connection.wait_closed()

    def _lost(self, address: Address, lasted: float) -> None:
        if self._renewing or lasted >= HELD:
            self._servers.held(address)
        else:
            self._servers.failed(address)
        if self._renewing:
            self._renewing = False
            self._servers.named(address)

    async def keep_bulk(self) -> None:
        """Until cancelled: to the server that the worker is registered with."""
        wait, told = FIRST_PAUSE, False
        await self._moved.wait()
        while True:
            self._moved.clear()
            home = self._home
            assert home is not None
            try:
                connection = await self._open_bulk(home)
                wait, told = FIRST_PAUSE, False
                if home != self._home:
                    connection.close("the worker has registered elsewhere meanwhile")
                reason = await connection.wait_closed()
            except GrampusError as error:
                reason = str(error)
            if not told:
                log.warning("bulk connection: %s", reason)
                told = True
            try:
                async with asyncio.timeout(wait * random.uniform(0.5, 1.0)):
                    await self._moved.wait()
                wait = FIRST_PAUSE
            except TimeoutError:
                wait = min(2 * wait, LAST_PAUSE)

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

    async def leave(self, session: int, within: float) -> None:
        """Ends the session, for a worker that has nothing left. Raises GrampusError."""
        if self._control is None:
            raise ServerUnreachable("no server is connected")
        await self._control.request(Leave(session), within)

    def renew(self, reason: str) -> None:
        """Ends the control connection, so that the worker registers anew, with the same server."""
        if self._control is not None:
            self._renewing = True
            self._control.close(reason)

    def close(self, reason: str) -> None:
        for connection in (self._control, self._bulk):
            if connection is not None:
                connection.close(reason)

    async def _open_control(self, address: Address) -> Peer:
        """Registered. Raises NotLeader where the worker has to go elsewhere."""
        ears = Ears(self, early=True)
        connection = await self._connect("control", address, ears)
        sent = self._ticks()
        try:
            answer = await connection.request(self._register(), REGISTER_TIMEOUT)
            if isinstance(answer, Elsewhere):
                if answer.leader:
                    self._servers.named(host_and_port(answer.leader))
                known = f", {answer.leader} does" if answer.leader else ""
                raise NotLeader(f"{connection.peer} does not lead{known}")
            if not isinstance(answer, Registered):
                raise ProtocolError(f"Register was answered by {type(answer).__name__}")
            self._servers.know([host_and_port(text) for text in answer.servers])
        except BaseException:
            connection.close("not registered")
            raise
        if not connection.closed:
            self._control, self._session = connection, answer.session
            self._move(address)
            self._receiver.confirmed(sent)
            self._receiver.registered_as(answer.session)
            ears.open()
        return connection

    async def _open_bulk(self, address: Address) -> Peer:
        connection = await self._connect("bulk", address, Ears(self, early=False))
        self._bulk = connection
        self._has_bulk.set()
        return connection

    async def _connect(self, lane: str, address: Address, ears: Ears) -> Peer:
        hello = Hello(PROTOCOL_VERSION, lane, "worker", self._name, self._cluster, self._credential)
        frame = CONTROL_FRAME if lane == "control" else BULK_FRAME
        connection, welcome = await connect(
            *address,
            self._codec,
            ears,
            hello,
            lambda answer: _accept(answer, frame),
            ANSWERS if self._servers.several else HELLO_TIMEOUT,
            tasks=self._tasks,
            tls=self._tls,
        )
        try:
            if isinstance(welcome, Welcome) and not self._histories.goes_with(
                welcome.history, welcome.revision
            ):
                raise Refused(f"{connection.peer}: {BEHIND}")
        except GrampusError:
            connection.close("it is of another history")
            raise
        return connection

    def _move(self, home: Address) -> None:
        """The bulk lane goes to the same server."""
        if home != self._home:
            self._home = home
            if self._bulk is not None:
                self._bulk.close("the worker has registered elsewhere")
            self._moved.set()

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

    def __init__(self, link: Link, *, early: bool) -> None:
        self._link = link
        #: What came before the registration was answered; None once it was.
        self._early: list[Message] | None = [] if early else None

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


def _history(greeting: Message | None) -> str:
    return greeting.history if isinstance(greeting, Welcome) else ""


def _accept(answer: Message, frame: int) -> int:
    if isinstance(answer, Goodbye):
        raise answer.error("the server refuses this worker")
    if not isinstance(answer, Welcome):
        raise ProtocolError(f"Hello was answered by {type(answer).__name__}")
    return frame
