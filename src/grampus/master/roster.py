"""The workers that are connected: who they are, which session is theirs, and what they send.

A worker has two connections under one name: control (register, assign, report) and bulk (blobs,
logs). A session lives in the ledger; here is only whether somebody speaks for it now. What comes in
goes on as events to the office, as reports to the intake, or as questions to the blob desk.

Rule: only the server that holds office has workers on its control lane. Elsewhere a worker that
asks for its session is told where to go, and an office that ends sends its workers away. A
keep-alive is answered only when a majority has said, after it came, that this server still leads;
and only to a connection that this server still has: what it says of a worker that it has given up,
that worker never hears.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from grampus.clock import Clock
from grampus.errors import NoQuorum, ProtocolError, Refused, ServerUnreachable
from grampus.master.blob_desk import BlobDesk
from grampus.master.core.events import (
    Happening,
    WorkerConnected,
    WorkerGone,
    WorkerSynced,
    WorkerTroubled,
)
from grampus.master.core.pulse import BEAT, Pulse
from grampus.master.intake import Intake
from grampus.protocol import (
    BULK_FRAME,
    CONTROL_FRAME,
    PROTOCOL_VERSION,
    Elsewhere,
    GetBlob,
    Goodbye,
    HasBlob,
    Hello,
    Leave,
    Left,
    Load,
    Message,
    Ping,
    Pong,
    PutBlob,
    Register,
    Registered,
    Report,
    Reports,
    Synced,
    Welcome,
    not_spoken,
)
from grampus.rpc.connection import Connection
from grampus.rpc.subject import Subject
from grampus.runs.commands import EndSession, OpenSession, Refusal
from grampus.runs.proposer import Proposer

log = logging.getLogger("grampus.master")

#: A worker says something every few seconds; one that says nothing for so long is closed, in ms.
#: Of a worker with leases only a keep-alive that was confirmed counts.
MUTE = 8_000
#: How often that is looked at, in seconds.
LOOK = BEAT / 1000

Peer = Connection[Message]


class Door(Protocol):
    """The office, as far as workers come to it."""

    @property
    def is_open(self) -> bool: ...
    async def opens(self) -> bool: ...
    async def confirmed(self) -> bool: ...
    def happened(self, events: Iterable[Happening]) -> None: ...


class Directory(Protocol):
    """Where servers listen for nodes, as HOST:PORT."""

    def leader(self) -> str:
        """Empty when it is not known."""
        ...

    def servers(self) -> tuple[str, ...]: ...


class Alone:
    """The Directory of a node without others."""

    def leader(self) -> str:
        return ""

    def servers(self) -> tuple[str, ...]:
        return ()


class Roster:
    """The Handler of the node port. `admits` says whether a Hello shows a worker's credential."""

    def __init__(
        self,
        node: str,
        cluster: str,
        admits: Callable[[Hello], bool],
        proposer: Proposer,
        intake: Intake,
        desk: BlobDesk,
        clock: Clock,
        directory: Directory | None = None,
    ) -> None:
        self._directory = directory or Alone()
        self._node = node
        self._cluster = cluster
        self._admits = admits
        self._proposer = proposer
        self._intake = intake
        self._desk = desk
        self._clock = clock
        #: Set before anything comes: the office sends away who is here, and is told of who comes.
        self.office: Door
        #: By session: its control connection.
        self._control: dict[int, Peer] = {}
        self._sessions: dict[Peer, int] = {}
        #: By worker name.
        self._bulk: dict[str, Peer] = {}
        self._names: dict[int, str] = {}
        self._loads: dict[int, Load] = {}
        #: By control connection: when it was heard last, in ticks.
        self._heard: dict[Peer, int] = {}
        #: Those whose attempts have leases.
        self._leased: set[Peer] = set()
        self.pulse = Pulse(clock.ticks())
        #: How each contains its attempts, by session.
        self._containments: dict[int, str] = {}

    # -- the door -------------------------------------------------------------------------------

    def greet(
        self, hello: Message, peer: str, subject: Subject | None
    ) -> tuple[Message, bool, int]:
        """Version, credential and cluster are looked at before anything else is."""
        if not isinstance(hello, Hello):
            return Goodbye("say Hello first"), False, 0
        if why := not_spoken(hello.version):
            return Goodbye(why, "version-mismatch"), False, 0
        if hello.role != "worker" or hello.lane not in ("control", "bulk"):
            return Goodbye("only workers connect here, by control or bulk"), False, 0
        if not self._admits(hello):
            return Goodbye("wrong credential", "unauthorized"), False, 0
        if hello.cluster and hello.cluster != self._cluster:
            return Goodbye(f"this is cluster {self._cluster}", "wrong-cluster"), False, 0
        limit = CONTROL_FRAME if hello.lane == "control" else BULK_FRAME
        return Welcome(PROTOCOL_VERSION, self._node, self._cluster), True, limit

    def opened(self, connection: Peer) -> None:
        hello = connection.greeting
        if isinstance(hello, Hello) and hello.lane == "bulk":
            self._bulk[hello.node] = connection

    # -- the Handler ----------------------------------------------------------------------------

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        reports: list[tuple[Report, int]] = []
        session = self._sessions.get(connection)
        self._hear(connection)
        for message in batch:
            match message:
                case Reports():
                    reports.extend((each, message.ago(each)) for each in message.reports)
                case Report():
                    reports.append((message, 0))
                case Synced():
                    self.office.happened([WorkerSynced(message.session, tuple(message.missing))])
                case Load():
                    if session is not None:
                        self._load(session, message)
                case _:
                    raise ProtocolError(f"{type(message).__name__} is not for a server")
        if reports:
            # A worker speaks for its own attempts only.
            if any(report.session != session for report, _ in reports):
                raise ProtocolError("a report of another session")
            self._intake.put(connection, reports)

    def _load(self, session: int, load: Load) -> None:
        before = self._loads.get(session)
        self._loads[session] = load
        if before is None or (before.trouble, before.stuck) != (load.trouble, load.stuck):
            self.office.happened([WorkerTroubled(session, load.trouble, frozenset(load.stuck))])

    async def request(self, connection: Peer, message: Message) -> Message:
        self._hear(connection)
        match message:
            case Register():
                return await self._register(connection, message)
            case Ping():
                return await self._ping(connection, message)
            case Leave():
                return await self._leave(connection, message)
            case HasBlob() | GetBlob() | PutBlob():
                hello = connection.greeting
                worker = hello.node if isinstance(hello, Hello) else ""
                return await self._desk.answer(message, worker, self._clock.ticks())
            case _:
                raise ProtocolError(f"{type(message).__name__} is no request to a server")

    def closed(self, connection: Peer, reason: str) -> None:
        now = self._clock.ticks()
        self.pulse.look(now)
        heard = self._heard.pop(connection, now)
        if connection not in self._leased:
            heard = now
        self._leased.discard(connection)
        session = self._sessions.pop(connection, None)
        if session is not None and self._control.get(session) is connection:
            del self._control[session]
            self._loads.pop(session, None)
            self._containments.pop(session, None)
            self.office.happened([WorkerGone(session, heard)])
            log.info("worker %s is disconnected: %s", self._names.pop(session, None), reason)
        for name, bulk in list(self._bulk.items()):
            if bulk is connection:
                del self._bulk[name]

    async def _register(self, connection: Peer, message: Register) -> Message:
        """Raises Refused, or what `propose` raises."""
        hello = connection.greeting
        if not isinstance(hello, Hello) or hello.node != message.name or hello.lane != "control":
            raise Refused("a worker registers under the name of its Hello, on the control lane")
        if not await self.office.opens():
            return Elsewhere(self._directory.leader())
        (answer,) = await self._proposer.propose(
            OpenSession(
                self._clock.now(), message.name, message.instance, message.machine, message.boot,
                message.clean, message.group, message.slots, message.folder, message.leased,
            )
        )  # fmt: skip
        if isinstance(answer, Refusal):
            raise Refused(answer.reason)
        assert isinstance(answer, int)
        if not self.office.is_open:
            # Its office ended meanwhile. The session is there all the same, for the next one.
            return Elsewhere(self._directory.leader())
        old = self._control.get(answer)
        self._control[answer] = connection
        self._sessions[connection] = answer
        self._names[answer] = message.name
        self._heard[connection] = self._clock.ticks()
        if message.leased:
            self._leased.add(connection)
        self._containments[answer] = message.containment
        if old is not None and old is not connection:
            self._sessions.pop(old, None)
            old.close("the worker has connected anew")
        log.info(
            "worker %s is connected: group %s, %d slots, containment %s",
            message.name, message.group, message.slots, message.containment,
        )  # fmt: skip
        self.office.happened([WorkerConnected(answer)])
        return Registered(answer, self._directory.servers())

    async def _ping(self, connection: Peer, message: Ping) -> Message:
        """Raises Refused, NoQuorum."""
        self._must_speak_for(connection, message.session)
        if not await self.office.confirmed():
            raise NoQuorum("nobody confirms that this server leads: try another one")
        # It may have been given up meanwhile.
        self._must_speak_for(connection, message.session)
        self._heard[connection] = self._clock.ticks()
        return Pong()

    def _must_speak_for(self, connection: Peer, session: int) -> None:
        if self._sessions.get(connection) != session:
            raise Refused("register first")

    async def _leave(self, connection: Peer, message: Leave) -> Message:
        """Raises Refused, or what `propose` raises."""
        if self._sessions.get(connection) != message.session:
            raise Refused("a worker ends its own session only")
        command = EndSession(self._clock.now(), message.session, "its worker was stopped")
        (answer,) = await self._proposer.propose(command)
        if isinstance(answer, Refusal):
            raise Refused(answer.reason)
        return Left()

    def _hear(self, connection: Peer) -> None:
        if connection in self._sessions and connection not in self._leased:
            self._heard[connection] = self._clock.ticks()

    async def watch(self) -> None:
        """Until cancelled: closes the connections of workers that say nothing. Their machines may
        be gone, and nothing more must be placed there.

        A server that stood still itself has not listened: then nobody is blamed."""
        while True:
            await asyncio.sleep(LOOK)
            now = self._clock.ticks()
            awake = self.pulse.look(now)
            for connection, heard in list(self._heard.items()):
                if now - max(heard, awake) > MUTE:
                    connection.close(f"nothing was heard of it for {MUTE // 1000} s")
                    self.closed(connection, "it says nothing")

    # -- for the office and the API -------------------------------------------------------------

    def send(self, session: int, message: Message) -> None:
        """Lost when the worker is not connected: the next Sync says it again."""
        connection = self._control.get(session)
        if connection is None:
            return
        try:
            connection.send(message)
        except ProtocolError:
            # Limits on tasks, params and inputs keep messages far below a frame.
            log.exception("a message to worker %s cannot be sent", self._names.get(session))

    def send_all(self, message: Message) -> None:
        for connection in self._control.values():
            connection.send(message)

    def dismiss(self, reason: str) -> None:
        """Closes every control connection; the workers register elsewhere."""
        leaving, self._control = self._control, {}
        self._sessions.clear()
        self._names.clear()
        self._heard.clear()
        self._leased.clear()
        self._loads.clear()
        self._containments.clear()
        for connection in leaving.values():
            connection.send(Goodbye(reason))
            connection.close(reason)

    async def ask(self, worker: str, message: Message, within: float) -> Message:
        """A question over the bulk lane. Raises ServerUnreachable when that worker is not there."""
        connection = self._bulk.get(worker)
        if connection is None:
            raise ServerUnreachable(f"worker {worker} is not connected")
        return await connection.request(message, within)

    @property
    def loads(self) -> Mapping[int, Load | None]:
        """By session, for those that are connected."""
        return {session: self._loads.get(session) for session in self._control}

    @property
    def containments(self) -> Mapping[int, str]:
        """By session, for those that are connected: how they contain their attempts."""
        return self._containments
