"""Connections that are not encrypted yet: accepted, given time for the handshake, let through.

Rule: a few handshakes are under way at a time, each within a deadline; those that come meanwhile
wait in the kernel's queue. From one network come three of four at most: one more waits as long as
those before it get on, which takes moments, and holds up who stands behind it; but if they do not,
it is turned away at once, so that others come through. One that fails costs one line in the log.
What comes out is an ordinary connection that has still to say Hello.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from grampus.rpc.address import address
from grampus.rpc.crowd import Crowd
from grampus.rpc.tls_faults import tls_fault

log = logging.getLogger("grampus.rpc")

#: Seconds without accepting when the process has no descriptors left.
_REST = 1.0
#: Connections that are taken from the kernel in one turn of the loop.
_PER_TURN = 64
#: A handshake that has taken this part of its time makes no progress.
PATIENCE = 2


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
        self._share = max(1, most * 3 // 4)
        self._crowd: Crowd[asyncio.Task[None]] = Crowd()
        #: Accepted, and not begun: too many from where it comes are before it.
        self._next: tuple[socket.socket, str, str] | None = None
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
        if self._next is not None:
            self._next[0].close()
            self._next = None
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
        """Somebody waits in the kernel's queue, or has waited here."""
        for _ in range(_PER_TURN):
            if self._next is not None and not self._begin(*self._next):
                self._accept(False)
                return
            if len(self._under_way) >= self._most:
                self._accept(False)
                return
            try:
                sock, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("no connection can be accepted now: %s", error)
                self._accept(False)
                self._rest(_REST)
                return
            sock.setblocking(False)
            self._next = (sock, peer[0], address(peer[0], peer[1]))

    def _begin(self, sock: socket.socket, host: str, peer: str) -> bool:
        """Whether it is done with, one way or the other."""
        now = self._loop.time()
        if self._crowd.of(host) >= self._share:
            slow = (self._crowd.since(host) or now) + self._timeout / PATIENCE - now
            if slow > 0:
                self._rest(slow)
                return False
            log.debug("connection to %s closed: %d of there make no progress", peer, self._share)
            sock.close()
        else:
            work = self._shake(sock, peer)
            try:
                task = self._tasks.create_task(work)
            except RuntimeError:
                # The owner of the tasks is closing.
                work.close()
                sock.close()
            else:
                self._under_way[task] = sock
                self._crowd.come(task, host, now)
                task.add_done_callback(self._done)
        self._next = None
        return True

    def _rest(self, seconds: float) -> None:
        if self._resting is not None:
            self._resting.cancel()
        self._resting = self._loop.call_later(seconds, self._go_on)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._crowd.gone(task)
        self._go_on()

    def _go_on(self) -> None:
        if not self._closed:
            self._accept(True)
            if self._next is not None:
                self._come()

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
