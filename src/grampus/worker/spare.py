"""The process of a warm attempt, forked before there is an attempt: it waits for its orders.

Where one attempt follows from another, as in a chain, the fork and the pages that it copies lie on
the way from the one to the other. A spare has both behind it when its orders come. It has run
nothing of the user's by then, and has seen nothing of any attempt's. It costs more than a fork that
is made when it is needed: so there is one only while the warden has nothing to start.

Rule: a shim has one at most, and only while nothing runs there: so whoever is its child at the end
of an attempt belongs to that attempt. Who dies, or is not there, is replaced by an ordinary fork.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from typing import NoReturn

import msgspec
from msgspec import Struct

#: One that nobody wants is ended after so many ms: it has copied about a MiB.
IDLE = 1_000
#: What the shim waits for a spare that does not read, in seconds.
_DEAF = 1.0


class Orders(Struct, frozen=True, array_like=True):
    """What the process must know beside its standard streams."""

    spec: bytes
    env: dict[str, str]
    cwd: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Orders).decode


class Spare:
    """The shim's side of it."""

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self._sock = sock
        self._until = _ticks() + IDLE

    @classmethod
    def fork(cls, fork: Callable[[], int], live: Callable[[socket.socket], NoReturn]) -> Spare:
        """`live` is all that the new process does. OSError when there can be none."""
        ours, theirs = socket.socketpair()
        try:
            pid = fork()
            if pid == 0:
                ours.close()
                live(theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.settimeout(_DEAF)
        return cls(pid, ours)

    def send(self, orders: Orders, streams: list[int]) -> bool:
        """It begins. False when it is gone: then so is all of it."""
        data = _encode(orders)
        data = len(data).to_bytes(8, "little") + data
        try:
            sent = socket.send_fds(self._sock, [data], streams)
            if sent < len(data):
                self._sock.sendall(data[sent:])
        except OSError:
            self.end()
            return False
        self._sock.close()
        return True

    def left(self) -> int:
        """Ms for which it is still kept; not above 0 when that is over."""
        return self._until - _ticks()

    def end(self) -> None:
        self._sock.close()
        os.kill(self.pid, signal.SIGKILL)  # Until it is waited for, its number is nobody else's.
        os.waitpid(self.pid, 0)


def wait_for_orders(sock: socket.socket) -> tuple[Orders, list[int]]:
    """In the spare: its orders, and its standard streams. Ends when the shim does not want it."""
    data, streams, _, _ = socket.recv_fds(sock, 1 << 16, 2)
    while len(data) < 8 or len(data) < 8 + int.from_bytes(data[:8], "little"):
        more = sock.recv(1 << 16)
        if not more:
            os._exit(0)
        data += more
    return _decode(data[8:]), streams


def _ticks() -> int:
    return time.monotonic_ns() // 1_000_000
