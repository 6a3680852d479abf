"""The connections of a server to its peers: one for control, one for bulk, to each of them.

Rules: only connections that this server has opened carry its messages, so each pair has two of a
kind; nothing is repeated here, and nothing waits: what cannot be sent now is dropped, and Raft says
it again. Large messages take the bulk lane, so that heartbeats and votes never wait behind them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from grampus.consensus.members import FOR_GOOD, LEFT_BEHIND, MOST, Members, NoMember
from grampus.consensus.pins import TWICE
from grampus.consensus.snapshots import PIECE
from grampus.consensus.trail import OLDER, Trail
from grampus.errors import (
    GrampusError,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    Refused,
    ServerUnreachable,
)
from grampus.model.member import Member
from grampus.protocol import (
    BULK_FRAME,
    CONTROL_FRAME,
    HELLO_TIMEOUT,
    Goodbye,
    Hello,
    Message,
    Propose,
    Proposed,
    PutSnapshot,
    RaftMessages,
    ReadIndex,
    ReadIndexed,
    Stamp,
    Stamped,
    TookSnapshot,
    Welcome,
)
from grampus.rpc.client import connect
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.rpc.failures import RemoteError
from grampus.rpc.tls import Tls

log = logging.getLogger("grampus.peers")

#: Raft messages of more bytes than this, taken together, take the bulk lane.
SMALL = 64 * 1024
#: Requests of one lane under way at a time. Who is asked works on 256, then reads no more of that
#: lane: Raft's messages must not wait there for what they would bring about.
ASKED = 192
#: Bytes of messages in one frame at most.
FRAME = BULK_FRAME - 64 * 1024
#: Between two tries to connect, in seconds; a random part up to half is taken off.
FIRST_WAIT, LAST_WAIT = 0.05, 1.0
#: Seconds for which a connection to a server that is no peer any more stays, for its answers.
FAREWELL = 2.0
#: Seconds that one piece of a snapshot may take.
PIECE_TIMEOUT = 20.0

Peer = Connection[Message]
Answers = Callable[[bytes], list[object]]


class Peers:
    """Implements `Transport`. `run` keeps the connections up; `handler` hears what comes in."""

    def __init__(
        self,
        id: int,
        hello: Callable[[str], Hello],
        decode: Answers,
        group: asyncio.TaskGroup,
        tls: Tls | None = None,
        trail: Trail | None = None,
    ) -> None:
        self._tls = tls
        self._trail = trail
        self._id = id
        self._hello = hello
        self._decode = decode
        self._group = group
        self._links: dict[int, PeerLink] = {}
        #: Why this server is no member any more, once a peer has said so.
        self.void: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._members = Members()
        #: Who has said Hello and is not known: a leader, maybe, that was elected while this server
        #: was away, and can bring it up to date only if it is answered.
        self._met: dict[int, Member] = {}

    def refused(self, error: NoMember) -> None:
        """This server is told why it is no member any more."""
        if str(error) == LEFT_BEHIND and self._trail is not None:
            # Nothing may be said from now on, or those that were left would elect a leader.
            self._trail.give_up(LEFT_BEHIND)
        if not self.void.done():
            self.void.set_result(str(error))

    def meet(self, member: Member) -> None:
        if member.id == self._id or self._members.find(member.id) or member.id in self._met:
            return
        if len(self._met) == MOST:
            del self._met[next(iter(self._met))]
        self._met[member.id] = member
        self.know(self._members)

    def know(self, members: Members) -> None:
        self._members = members
        gone = (*members.removed, *members.lost)
        self._met = {
            id: member
            for id, member in self._met.items()
            if id not in gone and members.find(id) is None
        }
        # Whose folder is lost never comes back, and its successor may listen where it did.
        there = {
            member.id: member
            for member in (*members.known, *self._met.values())
            if member.id != self._id and member.id not in members.lost
        }
        for id, link in list(self._links.items()):
            if there.get(id) != link.member:
                # A moment later: the one that goes may have been asked to let it go.
                asyncio.get_running_loop().call_later(FAREWELL, link.close)
                del self._links[id]
        for id, member in there.items():
            if id not in self._links:
                self._links[id] = PeerLink(
                    member, self._hello, self._group, self._tls, self.refused, self._trail
                )

    def send(self, to: int, messages: Sequence[bytes], keen: bool = False) -> bool:
        link = self._links.get(to)
        if link is None or (self._trail is not None and self._trail.lost):
            return False
        if self.void.done():
            # Of two processes that run under one id, nobody may hear the one that was sent away.
            return False
        return link.send(messages, keen)

    def say(self, disk: int, keen: bool) -> None:
        for link in self._links.values():
            link.say(disk, keen)

    def stamp(self, stamp: Stamp) -> None:
        """Tells all peers."""
        for link in self._links.values():
            link.stamp(stamp)

    async def ask(self, to: int, message: Message, within: float, *, bulk: bool = False) -> Message:
        """Raises NotLeader or Overloaded when it certainly was not asked; else what `request`
        raises."""
        link = self._links.get(to)
        if link is None:
            raise NotLeader("the leader is not connected")
        return await link.ask(message, within, bulk)

    async def propose(
        self, to: int, commands: Sequence[bytes], within: float
    ) -> tuple[list[object], int]:
        bulk = sum(map(len, commands)) > SMALL
        try:
            answer = await self.ask(to, Propose(list(commands)), within, bulk=bulk)
        except (NotLeader, Overloaded, ProtocolError, Refused):
            raise  # it was not sent, or not taken
        except GrampusError as error:
            raise OutcomeUnknown(
                f"the leader has not answered; it may happen yet: {error}"
            ) from error
        if not isinstance(answer, Proposed):
            raise ProtocolError(f"Propose was answered by {type(answer).__name__}")
        match answer.outcome:
            case "done":
                return self._decode(answer.results), answer.index
            case "not-leader":
                raise NotLeader(answer.reason)
            case "overloaded":
                raise Overloaded(answer.reason)
            case _:
                raise OutcomeUnknown(answer.reason)

    async def read_index(self, to: int, within: float) -> int:
        try:
            answer = await self.ask(to, ReadIndex(), within)
        except (ServerUnreachable, RemoteError) as error:
            raise NotLeader(str(error)) from error
        if not isinstance(answer, ReadIndexed):
            raise ProtocolError(f"ReadIndex was answered by {type(answer).__name__}")
        if not answer.index:
            raise NotLeader("the server that was asked leads no longer")
        return answer.index

    async def deliver(self, to: int, manifest: bytes, path: Path, message: bytes) -> None:
        offset, last = 0, False
        with await asyncio.to_thread(path.open, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            while not last:
                data = await asyncio.to_thread(file.read, PIECE)
                last = not data or offset + len(data) >= size
                piece = PutSnapshot(manifest, offset, data, last, message if last else b"")
                answer = await self.ask(to, piece, PIECE_TIMEOUT, bulk=True)
                if not isinstance(answer, TookSnapshot) or not answer.ok:
                    raise Refused("it arrived damaged")
                offset += len(data)

    def connected(self, id: int) -> bool:
        link = self._links.get(id)
        return link is not None and link.control is not None and not link.control.closed

    def knows(self, id: int) -> int:
        """The newest apply version of a server that is connected; 0 when it is not, or has not
        said."""
        link = self._links.get(id)
        return link.apply if link is not None and self.connected(id) else 0

    def complaint(self, id: int) -> str:
        """Why the newest try to connect failed, or ""."""
        link = self._links.get(id)
        older = "" if self._trail is None else self._trail.complaint(id)
        return older or ("" if link is None else link.complaint)

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()


class PeerLink:
    """Both lanes to one peer, until it is closed."""

    def __init__(
        self,
        member: Member,
        hello: Callable[[str], Hello],
        group: asyncio.TaskGroup,
        tls: Tls | None,
        refused: Callable[[NoMember], None],
        trail: Trail | None = None,
    ) -> None:
        self._tls = tls
        self._trail = trail
        #: Whether it is to be told the stamps of this server.
        self._stamps = False
        self._refused = refused
        self.member = member
        self.control: Peer | None = None
        self.bulk: Peer | None = None
        self.complaint = ""
        #: What it has said of itself: see `knows`.
        self.apply = 0
        self._hello = hello
        self._group = group
        self._codec: Codec[Message] = Codec(Message)
        self._gates = (asyncio.Semaphore(ASKED), asyncio.Semaphore(ASKED))
        self._tasks: list[asyncio.Task[None]] = []
        for lane in ("control", "bulk"):
            keeping = self._keep(lane)
            try:
                self._tasks.append(group.create_task(keeping))
            except RuntimeError:  # the group is closing: this server ends, and needs no link
                keeping.close()

    def send(self, messages: Sequence[bytes], keen: bool) -> bool:
        """Small ones by control; all of them by bulk when one is large, to keep their order."""
        size = sum(map(len, messages))
        connection = self.control if size <= SMALL else self.bulk
        if connection is None or connection.closed or not connection.writable:
            return False
        part: list[bytes] = []
        room = FRAME if size > SMALL else SMALL
        for message in messages:
            if part and room < len(message):
                connection.send(RaftMessages(part, keen))
                part, room = [], FRAME
            part.append(message)
            room -= len(message) + 8
        connection.send(RaftMessages(part, keen))
        connection.flush()  # before the sync that follows, which may be waited for on the loop
        return True

    def say(self, disk: int, keen: bool) -> None:
        control = self.control
        if control is not None and not control.closed and control.writable:
            control.send(RaftMessages([], keen, disk))

    def stamp(self, stamp: Stamp) -> None:
        if self._stamps and self.control is not None and not self.control.closed:
            self.control.send(Stamped(stamp))

    async def ask(self, message: Message, within: float, bulk: bool) -> Message:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        gate = self._gates[bulk]
        try:
            async with asyncio.timeout_at(deadline):
                await gate.acquire()
        except TimeoutError:
            raise Overloaded(f"too much waits for server {self.member.name}") from None
        try:
            connection = self.bulk if bulk else self.control
            if connection is None or connection.closed:
                raise NotLeader("the leader is not connected")
            return await connection.request(message, deadline - loop.time())
        finally:
            gate.release()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for connection in (self.control, self.bulk):
            if connection is not None:
                connection.close("it is no peer any more")

    async def _keep(self, lane: str) -> None:
        wait = FIRST_WAIT
        while True:
            try:
                connection = await self._open(lane)
                setattr(self, lane, connection)
                wait, self.complaint = FIRST_WAIT, ""
                reason = await connection.wait_closed()
                log.info(
                    "the %s connection to server %s is lost: %s", lane, self.member.name, reason
                )
            except GrampusError as error:
                if isinstance(error, NoMember):
                    self._refused(error)
                if str(error) != self.complaint:
                    self.complaint = str(error)
                    log.info("server %s is not reached: %s", self.member.name, error)
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, LAST_WAIT)

    async def _open(self, lane: str) -> Peer:
        frame = CONTROL_FRAME if lane == "control" else BULK_FRAME
        connection, answer = await connect(
            self.member.host,
            self.member.node_port,
            self._codec,
            _Deaf(),
            self._hello(lane),
            lambda answer: _accept(answer, frame),
            HELLO_TIMEOUT,
            tasks=self._group,
            tls=self._tls,
        )
        if isinstance(answer, Welcome):
            self._look(connection, answer, lane)
        return connection

    def _look(self, connection: Peer, answer: Welcome, lane: str) -> None:
        """Before anything is said. Raises NoMember when this folder was put back."""
        trail = self._trail
        if trail is not None and not trail.looked(self.member.id, answer, self._hello(lane)):
            connection.send(Goodbye(OLDER))
            connection.flush()
            connection.close(OLDER)
            raise NoMember(OLDER)
        if lane == "control":
            self.apply = answer.apply
            self._stamps = trail is not None and answer.stamps
        if trail is not None and answer.stamps:
            connection.send(Stamped(trail.newest))


class _Deaf:
    """The Handler of a connection to a peer: whoever is connected to says nothing but answers."""

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        raise ProtocolError("a server speaks over connections of its own only")

    async def request(self, connection: Peer, message: Message) -> Message:
        raise ProtocolError("a server asks over connections of its own only")

    def closed(self, connection: Peer, reason: str) -> None:
        return


def _accept(answer: Message, frame: int) -> int:
    if isinstance(answer, Goodbye):
        if answer.reason in (*FOR_GOOD, TWICE):
            raise NoMember(answer.reason)
        raise answer.error("it refuses this server")
    if not isinstance(answer, Welcome):
        raise ProtocolError(f"Hello was answered by {type(answer).__name__}")
    return frame
