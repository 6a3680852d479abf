"""What other servers say to this one: Raft's messages, proposals, read barriers, snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from grampus.consensus.asking import ROUND
from grampus.consensus.bearer import refusal
from grampus.consensus.members import LEFT_BEHIND, NoMember
from grampus.consensus.peers import FAREWELL
from grampus.consensus.pins import Pins
from grampus.consensus.port import Stopped
from grampus.consensus.replica import RaftReplica
from grampus.consensus.sender import is_between
from grampus.consensus.steward import Steward
from grampus.consensus.trail import Trail
from grampus.errors import NotLeader, OutcomeUnknown, Overloaded, ProtocolError, Refused
from grampus.protocol import (
    BULK_FRAME,
    CONTROL_FRAME,
    PROTOCOL_VERSION,
    ClusterAsk,
    Goodbye,
    Hello,
    Message,
    Propose,
    Proposed,
    PutSnapshot,
    RaftMessages,
    ReadIndex,
    ReadIndexed,
    Stamped,
    TookSnapshot,
    Welcome,
)
from grampus.rpc.connection import Connection
from grampus.rpc.subject import Subject

_OTHER_HISTORY = (
    "the cluster was recovered and has a history of its own since, and this server is of another"
    " one: empty the folder of the one that is not to go on, and let it join anew"
)
Encode = Callable[[list[object]], bytes]


class PeerDesk:
    """For connections whose Hello was that of a server; who it is has been looked at."""

    def __init__(
        self,
        replica: RaftReplica,
        encode: Encode,
        me: Hello,
        steward: Steward | None = None,
        *,
        apply_version: Callable[[], int] = lambda: 0,
        trail: Trail | None = None,
        left: Callable[[NoMember], None] = lambda error: None,
        pins: Pins | None = None,
    ) -> None:
        """`me` is what this server says to its peers: they must agree on the history.
        `apply_version` is that of the ledger. `left` is told when the cluster has gone on in a
        history that is newer than this server's."""
        self._replica = replica
        self._encode = encode
        self._me = me
        self._steward = steward
        self._apply_version = apply_version
        self._trail = trail
        self._left = left
        self._pins = pins
        #: Connections of servers that are none any more, until they are closed.
        self._leaving: set[Connection[Message]] = set()

    def too_old(self, hello: Hello) -> str:
        """Why a server, or one who wants to become it, is too old for this cluster, or "".

        A member is let in all the same: it takes part until it meets what it does not know, and
        says so itself. What it acknowledges before that counts."""
        version = self._apply_version()
        if not 0 < hello.apply < version or self._replica.members.find(hello.id) is not None:
            return ""
        return (
            f"this cluster is at apply version {version}, and {hello.node} knows {hello.apply} at"
            " most: install the Grampus of the other servers first"
        )

    def greet(self, hello: Hello, subject: Subject | None = None) -> tuple[Message, bool, int]:
        """For a Hello of a server that has been admitted: version, cluster and credential are
        right."""
        me = self._me
        if why := self.stranger(hello, subject):
            if why == _OTHER_HISTORY and 0 <= me.age < hello.age:
                self._left(NoMember(LEFT_BEHIND))
            return Goodbye(why, self.kind(hello)), False, 0
        if hello.id == me.id:
            return Goodbye("this server has the same id: one folder runs twice"), False, 0
        if why := self.too_old(hello):
            return Goodbye(why, "version-mismatch"), False, 0
        if self._pins is not None and (why := self._pins.refuses(hello)):
            return Goodbye(why), False, 0
        if hello.listens is not None and hello.listens.id == hello.id:
            self._replica.meet(hello.listens)
        limit = CONTROL_FRAME if hello.lane == "control" else BULK_FRAME
        answer = Welcome(PROTOCOL_VERSION, me.node, me.cluster, me.apply)
        if (trail := self._trail) is not None:
            term, peer = self._replica.term, self._replica.peers.get(hello.id)
            acknowledged = 0 if peer is None else peer[0]
            trail.greeted(hello, acknowledged if hello.term <= term else 0)
            answer = replace(
                answer, stamps=True, seen=trail.seen(hello.id), term=term,
                acknowledged=acknowledged,
            )  # fmt: skip
        return answer, True, limit

    def kind(self, hello: Hello) -> str:
        """Of the Goodbye to a stranger."""
        return "" if hello.history == self._me.history else "wrong-history"

    def stranger(self, hello: Hello, subject: Subject | None) -> str:
        """Why a server is not let in, whatever its credential; "" for one that may."""
        members, key = self._replica.members, "" if subject is None else subject.key
        if why := refusal(members, hello, key):
            # Whatever its history: by recovering alone, who was removed brings nobody to an end.
            return why
        if hello.history != self._me.history:
            return LEFT_BEHIND if 0 <= hello.age < self._me.age else _OTHER_HISTORY
        return ""

    def outsider(self, hello: Hello) -> str:
        """Why a server has nothing to ask for here; "" for a member, and for this one itself."""
        members, me = self._replica.members, self._me
        if why := members.void(hello.id):
            return why
        if hello.id == me.id or members.find(hello.id) is not None:
            return ""
        return f"server {hello.node} is no member of this cluster: it has to be admitted first"

    def leaves(self, connection: Connection[Message]) -> str:
        """Why nothing is heard any more from a server that was let in; "" for a member.

        It is closed a moment later: what it was asked before is answered first."""
        hello = connection.greeting
        assert isinstance(hello, Hello)
        why = self._replica.members.void(hello.id)
        if why and connection not in self._leaving:
            self._leaving.add(connection)
            asyncio.get_running_loop().call_later(FAREWELL, connection.close, why)
        return why

    def opened(self, connection: Connection[Message]) -> None:
        if self._pins is not None and isinstance(connection.greeting, Hello):
            self._pins.opened(connection, connection.greeting)

    def closed(self, connection: Connection[Message]) -> None:
        self._leaving.discard(connection)
        if self._pins is not None and isinstance(connection.greeting, Hello):
            self._pins.closed(connection, connection.greeting)

    def messages(self, hello: Hello, batch: list[Message]) -> None:
        if self._replica.members.void(hello.id):
            return
        trail = self._trail
        for message in batch:
            match message:
                case RaftMessages():
                    self._look_at_sender(hello, message.messages)
                    if trail is None or trail.hears(hello):
                        self._replica.waits(hello.id, message.keen)
                        if message.disk is not None:
                            self._replica.has_disk(hello.id, message.disk)
                        self._replica.step(message.messages)
                case Stamped() if trail is not None:
                    trail.told(hello.id, message.stamp)
                case Goodbye() if trail is not None:
                    trail.disowned(hello.id)
                case _:
                    raise ProtocolError(f"{type(message).__name__} is not for a peer")

    def _look_at_sender(self, hello: Hello, messages: list[bytes]) -> None:
        if not all(is_between(message, hello.id, self._me.id) for message in messages):
            raise ProtocolError(
                f"server {hello.node} says what is not from it, or not for this one"
            )

    async def request(self, hello: Hello, message: Message) -> Message:
        """Raises Refused. Nothing has happened then, nor when nobody is said to lead."""
        match message:
            case Propose():
                if why := self.outsider(hello):
                    return Proposed("not-leader", reason=why)
                return await self._propose(message.commands)
            case ReadIndex():
                return ReadIndexed(0) if self.outsider(hello) else await self._read_index()
            case PutSnapshot():
                # Maybe of a leader that joined while this server was away.
                return await self._snapshot(hello, message)
            case ClusterAsk() if self._steward is not None:
                if why := self._may_not(hello, message):
                    raise Refused(why)
                # A newcomer may ask any server; who asks as a peer has asked the leader.
                relay = message.action == "admit"
                return await (self._steward.relay if relay else self._steward.answer)(message)
            case _:
                raise ProtocolError(f"{type(message).__name__} is no request to a peer")

    async def _propose(self, commands: list[bytes]) -> Proposed:
        try:
            results = await self._replica.propose_here(commands)
        except NotLeader as error:
            return Proposed("not-leader", reason=str(error))
        except Overloaded as error:
            return Proposed("overloaded", reason=str(error))
        except OutcomeUnknown as error:
            return Proposed("unknown", reason=str(error))
        except Stopped as error:
            return Proposed("not-leader", reason=str(error))
        return Proposed("done", self._encode(results), index=self._replica.applied_index)

    async def _read_index(self) -> ReadIndexed:
        """0 for: ask again, and maybe another."""
        try:
            async with asyncio.timeout(ROUND):
                return ReadIndexed(await self._replica.confirm())
        except (NotLeader, Stopped, TimeoutError):
            return ReadIndexed(0)

    def _may_not(self, hello: Hello, asked: ClusterAsk) -> str:
        """Who is no member asks for himself, as his Hello has him; a member also for another, whom
        it has let in."""
        if asked.action == "admit" and asked.member is not None:
            for_itself = asked.member.id == hello.id
            if for_itself and asked.member != hello.listens:
                return "who asks to be admitted is not who has said Hello"
            if for_itself:
                return self._replica.members.void(hello.id)
        return self.outsider(hello)

    async def _snapshot(self, hello: Hello, piece: PutSnapshot) -> TookSnapshot:
        if self._replica.members.void(hello.id):
            return TookSnapshot(False)
        if self._trail is not None and not self._trail.hears(hello):
            return TookSnapshot(False)
        if piece.last:
            self._look_at_sender(hello, [piece.message])
        ok = await self._replica.incoming.take(piece.manifest, piece.offset, piece.data, piece.last)
        if ok and piece.last:
            self._replica.step([piece.message])
        return TookSnapshot(ok)
