"""A node port with a lane for keys beside those that it had.

Rule: who may speak is said by the room that was there before; the lane decides only who answers.
"""

from __future__ import annotations

from typing import Protocol

from msgspec.structs import replace

from grampus.cluster.desk import KEYS, KeyDesk
from grampus.protocol import KEYS_FRAME, Hello, Message
from grampus.rpc.connection import Connection
from grampus.rpc.subject import Subject

Peer = Connection[Message]


class Room(Protocol):
    def greet(
        self, hello: Message, peer: str, subject: Subject | None
    ) -> tuple[Message, bool, int]: ...
    def opened(self, connection: Peer) -> None: ...
    def messages(self, connection: Peer, batch: list[Message]) -> None: ...
    async def request(self, connection: Peer, message: Message) -> Message: ...
    def closed(self, connection: Peer, reason: str) -> None: ...


class Lanes:
    """The Handler of the node port."""

    def __init__(self, room: Room, keys: KeyDesk) -> None:
        self._room = room
        self._keys = keys

    def greet(
        self, hello: Message, peer: str, subject: Subject | None
    ) -> tuple[Message, bool, int]:
        if not isinstance(hello, Hello) or hello.lane != KEYS:
            return self._room.greet(hello, peer, subject)
        answer, accepted, _ = self._room.greet(replace(hello, lane="control"), peer, subject)
        return answer, accepted, KEYS_FRAME

    def opened(self, connection: Peer) -> None:
        if not _for_keys(connection):
            self._room.opened(connection)

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        (self._keys if _for_keys(connection) else self._room).messages(connection, batch)

    def take(self, connection: Peer, number: int, message: Message) -> bool:
        return _for_keys(connection) and self._keys.take(connection, number, message)

    async def request(self, connection: Peer, message: Message) -> Message:
        room = self._keys if _for_keys(connection) else self._room
        return await room.request(connection, message)

    def closed(self, connection: Peer, reason: str) -> None:
        (self._keys if _for_keys(connection) else self._room).closed(connection, reason)


def _for_keys(connection: Peer) -> bool:
    hello = connection.greeting
    return isinstance(hello, Hello) and hello.lane == KEYS
