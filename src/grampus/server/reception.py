"""The node port: who comes in, and to whom each of them talks.

Rule: version, cluster and credential are looked at before anything else is; then the role decides.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Protocol

from msgspec.structs import replace

from grampus.cluster.admission import JOIN, Admission
from grampus.cluster.desk import KEYS, KeyDesk
from grampus.cluster.join_desk import JOIN_FRAME, JoinDesk
from grampus.consensus.peer_desk import PeerDesk
from grampus.errors import ProtocolError, Refused
from grampus.master.blob_desk import BlobDesk
from grampus.master.roster import Roster
from grampus.protocol import (
    KEYS_FRAME,
    PROTOCOL_VERSION,
    AskClock,
    AskExplanation,
    AskPresence,
    GetBlob,
    Goodbye,
    HasBlob,
    Hello,
    Message,
    PutBlob,
    ReadLog,
    Renew,
    Welcome,
    not_spoken,
)
from grampus.relay import LeaderDesk
from grampus.rpc.connection import Connection
from grampus.rpc.subject import SERVER, WORKER, Subject

Peer = Connection[Message]
#: Seconds after which it is looked at again whether somebody may speak.
LOOK = 3.0
#: Connections of one node, half of those that there may be.
MOST_OF_ONE = 512
_TOO_MANY = f"{{}} {{}} has {MOST_OF_ONE} connections to this server already: close some"


class _Room(Protocol):
    def messages(self, connection: Peer, batch: list[Message]) -> None: ...
    async def request(self, connection: Peer, message: Message) -> Message: ...
    def closed(self, connection: Peer, reason: str) -> None: ...


class Reception:
    """The Handler of the node port."""

    def __init__(
        self,
        name: str,
        cluster: str,
        admission: Admission,
        roster: Roster,
        joins: JoinDesk,
        peers: PeerDesk,
        blobs: BlobDesk,
        leader: LeaderDesk,
        keys: KeyDesk,
    ) -> None:
        self._welcome = Welcome(PROTOCOL_VERSION, name, cluster)
        self._admission = admission
        self._roster = roster
        self._joins = joins
        self._peers = peers
        self._keys = keys
        #: Connections that each has, by role and name.
        self._present: Counter[tuple[str, str]] = Counter()
        #: When it was last looked at whether he who speaks still may, on the loop's clock.
        self._looked: dict[Peer, float] = {}
        self._rooms: dict[str, _Room] = {
            WORKER: roster,
            JOIN: joins,
            SERVER: _ServerRoom(peers, blobs, leader),
            KEYS: keys,
        }

    def greet(
        self, hello: Message, peer: str, subject: Subject | None
    ) -> tuple[Message, bool, int]:
        if not isinstance(hello, Hello):
            return Goodbye("say Hello first"), False, 0
        if why := not_spoken(hello.version):
            return Goodbye(why, "version-mismatch"), False, 0
        if hello.lane not in ("control", "bulk", KEYS):
            return Goodbye("a connection is for control, bulk or keys"), False, 0
        if why := self._admission.elsewhere(hello):
            return Goodbye(why, "wrong-cluster"), False, 0
        if why := self._admission.refuses(hello, subject):
            return Goodbye(why, "unauthorized"), False, 0
        if hello.role == JOIN:
            if why := self._peers.too_old(hello):
                return Goodbye(why, "version-mismatch"), False, 0
            return self._welcome, True, JOIN_FRAME
        if self._present[hello.role, hello.node] >= MOST_OF_ONE:
            return Goodbye(_TOO_MANY.format(hello.role, hello.node)), False, 0
        if hello.lane == KEYS:
            if why := self._refuses(hello, subject):
                kind = self._peers.kind(hello) if hello.role == SERVER else ""
                return Goodbye(why, kind), False, 0
            return self._here(self._welcome), True, KEYS_FRAME
        if hello.role == SERVER:
            return self._peers.greet(hello, subject)
        answer, accepted, limit = self._roster.greet(hello, peer, subject)
        return self._here(answer), accepted, limit

    def _here(self, answer: Message) -> Message:
        """With the history that is served here, for those who have seen another."""
        if not isinstance(answer, Welcome):
            return answer
        seen = self._keys.seen
        return replace(answer, history=seen.history, revision=seen.revision)

    def opened(self, connection: Peer) -> None:
        if isinstance(hello := connection.greeting, Hello):
            self._present[hello.role, hello.node] += 1
        match _room(connection):
            case "worker":
                self._roster.opened(connection)
            case "join":
                self._joins.opened(connection)
            case "server":
                self._peers.opened(connection)

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        if self._goes(connection):
            return
        self._rooms[_room(connection)].messages(connection, batch)

    def take(self, connection: Peer, number: int, message: Message) -> bool:
        if _room(connection) != KEYS or self._goes(connection):
            return False
        return self._keys.take(connection, number, message)

    async def request(self, connection: Peer, message: Message) -> Message:
        if why := self._goes(connection):
            raise Refused(why)
        if isinstance(message, Renew):
            return self._joins.renew(connection, message)
        return await self._rooms[_room(connection)].request(connection, message)

    def closed(self, connection: Peer, reason: str) -> None:
        self._looked.pop(connection, None)
        if isinstance(hello := connection.greeting, Hello):
            who = hello.role, hello.node
            self._present[who] -= 1
            if self._present[who] <= 0:
                del self._present[who]
        self._rooms[_room(connection)].closed(connection, reason)

    # -- who may go on

    def _refuses(self, hello: Hello, subject: Subject | None) -> str:
        if why := self._admission.refuses(hello, subject):
            return why
        if hello.role != SERVER:
            return ""
        return self._peers.stranger(hello, subject) or self._peers.outsider(hello)

    def _goes(self, connection: Peer) -> str:
        """Why it is sent away, or "": who was removed meanwhile is not heard on, whatever he says.
        Of a worker a look now and then; peers have their own, and who joins has little time."""
        now, room, hello = asyncio.get_running_loop().time(), _room(connection), connection.greeting
        if room not in (KEYS, WORKER) or not isinstance(hello, Hello):
            return ""
        if hello.role == WORKER and now - self._looked.get(connection, -LOOK) < LOOK:
            return ""
        if why := self._refuses(hello, connection.subject):
            connection.send(Goodbye(why))
            connection.close(why)
            return why
        self._looked[connection] = now
        return ""


class _ServerRoom:
    def __init__(self, peers: PeerDesk, blobs: BlobDesk, leader: LeaderDesk) -> None:
        self._peers = peers
        self._blobs = blobs
        self._leader = leader

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        hello = connection.greeting
        assert isinstance(hello, Hello)
        if not self._peers.leaves(connection):
            self._peers.messages(hello, batch)

    async def request(self, connection: Peer, message: Message) -> Message:
        hello = connection.greeting
        assert isinstance(hello, Hello)
        self._peers.leaves(connection)
        if isinstance(message, HasBlob | GetBlob | PutBlob):
            self._must_be_member(hello)
            return await self._blobs.answer(message)
        if isinstance(message, ReadLog | AskExplanation | AskPresence | AskClock):
            self._must_be_member(hello)
            return await self._leader.answer(message)
        return await self._peers.request(hello, message)

    def _must_be_member(self, hello: Hello) -> None:
        if why := self._peers.outsider(hello):
            raise Refused(why)

    def closed(self, connection: Peer, reason: str) -> None:
        self._peers.closed(connection)


def _room(connection: Peer) -> str:
    """By role, but for the lane that is the same for all."""
    hello = connection.greeting
    if not isinstance(hello, Hello):
        raise ProtocolError("nobody has said Hello")
    if hello.role not in (WORKER, SERVER, JOIN):
        raise Refused("a node is a server or a worker")
    return KEYS if hello.lane == KEYS and hello.role != JOIN else hello.role
