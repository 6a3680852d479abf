"""Connections that are not encrypted yet: accepted, given time for the handshake, let through.

Rule: a few handshakes are under way at a time, each within a deadline; those that come meanwhile
wait in the kernel's queue. One that fails costs one line in the log. What comes out is an ordinary
connection that has still to say Hello.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from grampus.rpc.address import address
from grampus.rpc.tls_faults import tls_fault

log = logging.getLogger("grampus.rpc")

#: Seconds without accepting when the process has no descriptors left.
_REST = 1.0


class Handshakes:
    """On one listening socket, which stays the caller's. The tasks of handshakes run in `tasks`."""

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        connection: Callable[[], asyncio.Protocol],
        tasks: asyncio.TaskGroup,
        *,
        timeout: float,
        linger: float,
        most: int,
    ) -> None:
        self._listener = listener
        self._context = context
        self._connection = connection
        self._tasks = tasks
        self._timeout = timeout
        self._linger = linger
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[asyncio.Task[None], socket.socket] = {}
        self._resting: asyncio.TimerHandle | None = None
        self._accepting = False
        self._closed = False

    def start(self) -> None:
        self._accept(True)

    async def close(self) -> None:
        """Accepts nobody any more, and ends what is under way."""
        self._closed = True
        self._accept(False)
        if self._resting is not None:
            self._resting.cancel()
        for sock in self._under_way.values():
            _hang_up(sock)
        if self._under_way:
            await asyncio.wait(list(self._under_way))

    def _accept(self, accepting: bool) -> None:
        if accepting == self._accepting:
            return
        self._accepting = accepting
        if accepting:
            self._loop.add_reader(self._listener.fileno(), self._come)
        else:
            self._loop.remove_reader(self._listener.fileno())

    def _come(self) -> None:
        """Somebody waits in the kernel's queue."""
        while len(self._under_way) < self._most:
            try:
                sock, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("no connection can be accepted now: %s", error)
                self._accept(False)
                self._resting = self._loop.call_later(_REST, self._go_on)
                return
            sock.setblocking(False)
            work = self._shake(sock, address(peer[0], peer[1]))
            try:
                task = self._tasks.create_task(work)
            except RuntimeError:
                # The owner of the tasks is closing.
                work.close()
                sock.close()
                return
            self._under_way[task] = sock
            task.add_done_callback(self._done)
        self._accept(False)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._go_on()

    def _go_on(self) -> None:
        if not self._closed:
            self._accept(True)

    async def _shake(self, sock: socket.socket, peer: str) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._connection,
                sock,
                ssl=self._context,
                ssl_handshake_timeout=self._timeout,
                ssl_shutdown_timeout=self._linger,
            )
        except OSError as error:
            if not self._closed:
                log.warning("connection to %s closed: no TLS: %s", peer, tls_fault(error))


def _hang_up(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The other side, or the end of the handshake, came first.
        pass
