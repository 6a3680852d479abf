"""What a connection asks of those around it: who takes its messages, and who decides about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from grampus.rpc.connection import Connection

M = TypeVar("M")


class Handler(Protocol[M]):
    """What takes the messages of a connection."""

    def messages(self, connection: Connection[M], batch: list[M]) -> None:
        """One-way messages, in order. An exception closes the connection."""

    async def request(self, connection: Connection[M], message: M) -> M:
        """The answer to a request. Its GrampusError is told to the asker, word for word.

        Cancelled when the connection ends.
        """

    def closed(self, connection: Connection[M], reason: str) -> None:
        """Called once for every opened connection, never from inside `close`."""


class Taker(Protocol[M]):
    """A Handler that can do without a task for some requests."""

    def take(self, connection: Connection[M], number: int, message: M) -> bool:
        """True: it is answered by `respond(number, ...)`, once, now or later. An exception closes
        the connection."""


class Owner(Protocol[M]):
    """Who decides which connections may speak: the server's door, or the client that connects."""

    def made(self, connection: Connection[M]) -> None:
        """The TCP connection stands."""

    def first(self, connection: Connection[M], message: M) -> None:
        """The first message has come: `open` or end the connection."""

    def lost(self, connection: Connection[M], reason: str) -> None:
        """It is over."""
