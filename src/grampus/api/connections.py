"""Who may be connected to the API: so many, and nobody for long without a request.

Rule: a connection costs nothing but its descriptor before the head of a request is whole, and it
gets `HEAD` seconds for that. Those beyond the bound are closed as soon as they are accepted, before
any TLS: they must not use up the files that the rest of the process needs. And those of one network
are fewer than all, so that others find a place.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from grampus.rpc.crowd import network_of

#: Seconds for the head of a request, from its first byte, or from the connection on.
HEAD = 10.0


class Listener(socket.socket):
    """Has at most `most` connections open, and `most_of_one` of one network; set both before it is
    listened on."""

    def __init__(self, *rest: Any) -> None:
        super().__init__(*rest)
        self.most = self.most_of_one = 0
        #: And the network that each comes from.
        self._taken: weakref.WeakKeyDictionary[socket.socket, str] = weakref.WeakKeyDictionary()

    def accept(self) -> tuple[socket.socket, Any]:
        taken, peer = super().accept()
        network = network_of(peer[0])
        if not self._has_room(network):
            for each in [each for each in self._taken if each.fileno() < 0]:
                del self._taken[each]
            if not self._has_room(network):
                taken.close()
                # As if it had left before it was accepted; asyncio comes again for the next.
                raise ConnectionAbortedError
        self._taken[taken] = network
        return taken, peer

    def _has_room(self, network: str) -> bool:
        if len(self._taken) < min(self.most, self.most_of_one):
            return True
        mine = sum(each == network for each in self._taken.values())
        return len(self._taken) < self.most and mine < self.most_of_one


class Guest(H11Protocol):
    """One connection of HTTP/1.1, which is closed when no request comes in time."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._asks:
            self._settle()
        elif self._late is None:
            self._expect()

    @property
    def _asks(self) -> bool:
        """The head of a request has come, and its answer is not over."""
        return self.cycle is not None and not self.cycle.response_complete

    def _expect(self) -> None:
        self._late = self.loop.call_later(HEAD, self._give_up)

    def _settle(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if not self._asks:
            self.transport.close()
