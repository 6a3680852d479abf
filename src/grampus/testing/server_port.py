"""Who is heard at the node port of a simulated server: peers, and those who ask for keys."""

from __future__ import annotations

from collections.abc import Callable

from grampus.cluster.lanes import Lanes
from grampus.consensus.peer_desk import PeerDesk
from grampus.errors import NotLeader
from grampus.protocol import PROTOCOL_VERSION, Goodbye, Hello, Message, Welcome
from grampus.rpc.connection import Connection
from grampus.rpc.subject import Subject

Peer = Connection[Message]


class ServerPort:
    """The Handler of the port, whatever is behind it at the moment: nothing, while the server opens
    its ledger."""

    def __init__(self, lanes: Callable[[], Lanes | None]) -> None:
        self._lanes = lanes

    def greet(
        self, hello: Message, peer: str, subject: Subject | None
    ) -> tuple[Message, bool, int]:
        lanes = self._lanes()
        if lanes is None:
            return Goodbye("not open yet"), False, 0
        return lanes.greet(hello, peer, subject)

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        if (lanes := self._lanes()) is not None:
            lanes.messages(connection, batch)

    def take(self, connection: Peer, number: int, message: Message) -> bool:
        lanes = self._lanes()
        return lanes is not None and lanes.take(connection, number, message)

    async def request(self, connection: Peer, message: Message) -> Message:
        lanes = self._lanes()
        if lanes is None:
            raise NotLeader("not open yet")
        return await lanes.request(connection, message)

    def closed(self, connection: Peer, reason: str) -> None:
        return


class PeerRoom:
    """All that is not about keys is between servers."""

    def __init__(self, desk: PeerDesk, cluster: str) -> None:
        self._desk = desk
        self._cluster = cluster

    def greet(
        self, hello: Message, peer: str, subject: Subject | None
    ) -> tuple[Message, bool, int]:
        if not isinstance(hello, Hello):
            return Goodbye("say Hello first"), False, 0
        if hello.role != "server":
            return Welcome(PROTOCOL_VERSION, "", self._cluster), True, 0
        return self._desk.greet(hello, subject)

    def opened(self, connection: Peer) -> None:
        self._desk.opened(connection)

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        if isinstance(connection.greeting, Hello) and not self._desk.leaves(connection):
            self._desk.messages(connection.greeting, batch)

    async def request(self, connection: Peer, message: Message) -> Message:
        hello = connection.greeting
        assert isinstance(hello, Hello)
        self._desk.leaves(connection)
        return await self._desk.request(hello, message)

    def closed(self, connection: Peer, reason: str) -> None:
        self._desk.closed(connection)
