"""The warden's end of the connection to its worker.

Rules:
- One worker at a time, of the same user. It may come and go: attempts go on without one.
- What has ended is kept until a worker says that it has written it down (`Taken`), and is said
  again to each that comes.
- A notice may wait a moment for company. An end that somebody waits for does not.

What orders mean, and when the warden ends, is left to its owner; the other end is `warden_client`.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from typing import Protocol

import msgspec

from grampus.worker.channel import Channel
from grampus.worker.loop import Loop, ticks
from grampus.worker.orders import Notice, Order, Taken
from grampus.worker.stderr import log

SOCKET = "warden.sock"
#: How long a warden waits for a worker when it has nothing to do and nothing to tell ...
ALONE = 30_000
#: ... and when it has nothing to do, but ends to tell.
UNTOLD = 24 * 3_600_000
#: Ends that are kept; no attempt starts beyond. The ledger has no more than slots of them open.
KEPT = 10_000
#: How long what a worker does not read at once waits, and what may wait for company: most of what
#: is short has ended by then.
HOLD = 8


class Receiver(Protocol):
    """Whom the worker talks to."""

    def greeting(self) -> list[Notice]:
        """What each worker is told first."""
        ...

    def ordered(self, order: Order, payload: bytes) -> None: ...

    def is_idle(self) -> bool:
        """Nothing runs and nothing waits to."""
        ...

    def is_unwanted(self, why: str) -> None:
        """No worker came."""
        ...


class WardenServer:
    def __init__(self, loop: Loop, receiver: Receiver, folder: str) -> None:
        self._loop = loop
        self._receiver = receiver
        self._folder = folder
        self._listener: socket.socket | None = None
        self._worker: Channel | None = None
        #: Ended that no worker has taken, by number, as it is said.
        self._kept: dict[int, bytes] = {}
        #: Monotonic ms since when there is no worker, or nothing has happened without one.
        self._alone_since = 0
        #: Monotonic ms; None: nothing waits to be written.
        self._flush_at: int | None = None
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Order).decode

    # Workers come and go

    def listen(self) -> None:
        address = os.path.join(self._folder, SOCKET)
        if os.path.lexists(address):
            os.unlink(address)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # By way of the folder's descriptor: a path in an address may have 107 bytes at most.
        handle = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{handle}/{SOCKET}")
            os.chmod(address, 0o600)
        finally:
            os.close(handle)
        listener.listen(4)
        listener.setblocking(False)
        self._listener = listener
        self._loop.watch(listener.fileno(), self._accept)
        self._be_alone()

    def hang_up(self) -> None:
        """Whoever looks for a warden shall find the next one."""
        if self._listener is not None:
            self._loop.forget(self._listener.fileno())
            self._listener.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._folder, SOCKET))
            self._listener = None

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # It has gone again.
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if self._worker is not None or struct.unpack("3i", peer)[1] != os.geteuid():
            sock.close()
            return
        self._worker = Channel(sock)
        self._loop.watch(sock.fileno(), self._hear)
        for notice in self._receiver.greeting():
            self.say(notice)
        for payload in self._kept.values():
            self._pass_on(payload)

    def _hear(self) -> None:
        worker = self._worker
        assert worker is not None
        for payload in worker.receive():
            try:
                order = self._decode(payload)
            except msgspec.DecodeError as error:
                log(f"an order that makes no sense ends the connection: {error}")
                self._lose()
                return
            if isinstance(order, Taken):
                for n in order.numbers:
                    self._kept.pop(n, None)
            else:
                self._receiver.ordered(order, payload)
        if worker.closed:
            self._lose()

    def _lose(self) -> None:
        """Attempts go on: the worker that comes next adopts them."""
        assert self._worker is not None
        self._loop.forget(self._worker.fileno())
        fault = self._worker.fault
        self._worker.close()
        self._worker = None
        self._flush_at = None
        if self._listener is not None:
            log("the worker is gone" + (f": {fault}" if fault else ""))
            self._be_alone()

    def _be_alone(self) -> None:
        """There is no worker, now or since something ended: how long is one waited for?"""
        self._alone_since = ticks()
        self._loop.after(self._patience(), self._give_up_waiting)

    def _patience(self) -> int:
        return UNTOLD if self._kept else ALONE

    def _give_up_waiting(self) -> None:
        if self._worker is not None or self._listener is None or not self._receiver.is_idle():
            return
        patience = self._patience()
        if ticks() - self._alone_since >= patience:
            self._receiver.is_unwanted(f"no worker came within {patience // 1000} s")

    # What it is told

    @property
    def kept(self) -> list[int]:
        """Numbers of the ends that no worker has taken."""
        return list(self._kept)

    @property
    def is_full(self) -> bool:
        return len(self._kept) >= KEPT

    def say(self, notice: Notice, hold: int = 0) -> None:
        """To the worker that there is, if there is one; `hold` is how long it may wait, in ms."""
        self._pass_on(self._encode(notice), hold)

    def tell_end(self, n: int, payload: bytes, hold: int = 0) -> None:
        """`payload` is the Ended of `n`."""
        self._kept[n] = payload
        if self._worker is None:
            self._be_alone()
        self._pass_on(payload, hold)

    def _pass_on(self, payload: bytes, hold: int = 0) -> None:
        if self._worker is None:
            return
        self._worker.send(payload)
        at = ticks() + hold
        if self._flush_at is None or at < self._flush_at:
            self._flush_at = at

    def flush(self) -> int | None:
        """Writes what is due; returns in how many ms to call again, None when nothing waits."""
        if self._flush_at is not None and self._flush_at <= ticks():
            self._write()
        return None if self._flush_at is None else max(0, self._flush_at - ticks())

    def _write(self) -> None:
        self._flush_at = None
        if self._worker is None:
            return
        self._worker.flush()
        if self._worker.closed:
            self._lose()
        elif self._worker.waiting:
            self._flush_at = ticks() + HOLD

    def finish(self, deadline: int) -> None:
        """The last words, until so many monotonic ms."""
        while self._worker is not None and self._worker.waiting and ticks() < deadline:
            select.select([], [self._worker], [], 0.1)
            self._worker.flush()
