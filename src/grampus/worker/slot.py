"""A slot of the warden: one shim, forked when it is first needed, and what runs in it.

It knows the shim's process and its connection; what is to be done when it falls silent or dies is
decided in `warden`.
"""

from __future__ import annotations

import os
import signal
import socket

import msgspec

from grampus.worker.capture import Kept, SlotFiles
from grampus.worker.channel import Channel
from grampus.worker.containment import Containment
from grampus.worker.orders import Launch
from grampus.worker.process_tree import descendants
from grampus.worker.shim import Halt, StandBy, become_shim

_encode = msgspec.msgpack.Encoder().encode
_STAND_BY = _encode(StandBy())


class Slot:
    def __init__(self, number: int, attempts: str, cap: int, mark: str) -> None:
        self.number = number
        self._files = attempts, number, cap
        self._mark = f"{mark}/{number}"
        #: Connection to the shim; None without a shim.
        self.channel: Channel | None = None
        #: Of the shim; kept until it is reaped.
        self.pid: int | None = None
        #: Of the newest shim.
        self._containment: Containment | None = None
        #: What runs here.
        self.launch: Launch | None = None
        #: Its start, in wall ms and in ms since boot.
        self.started = self.started_ticks = 0
        #: Monotonic ms by which the shim must have said something; None: no hurry.
        self.due: int | None = None
        #: The shim is dead or condemned; the slot is not free until all of it has been seen gone.
        self.lost = False

    def fork(self, containment: Containment, lock: int, passed: int | None = None) -> Channel:
        """Makes the shim; OSError when the system does not let it. Only from the main thread."""
        ours, theirs = socket.socketpair()
        try:
            pid = containment.fork(self.number)
            if pid == 0:
                files = SlotFiles(*self._files)
                become_shim(containment, theirs, lock, files, self._mark, passed)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid, self._containment = pid, containment
        self.channel = Channel(ours)
        return self.channel

    def start(self, launch: Launch, payload: bytes, due: int | None) -> None:
        """Queues the order as it came."""
        assert self.channel is not None
        self.launch, self.due = launch, due
        self.channel.send(payload)

    def halt(self, grace: int) -> None:
        if self.channel is not None:
            self.channel.send(_encode(Halt(grace)))

    def stand_by(self) -> None:
        if self.channel is not None:
            self.channel.send(_STAND_BY)

    def finish(self) -> None:
        """The attempt is over and nothing of it is left."""
        self.launch = self.due = None

    def condemn(self) -> None:
        """KILL to the shim, and no connection any more."""
        self.lost = True
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)

    def reap(self) -> bool:
        """True once the shim is gone, and what it left: with a PID namespace, that goes before."""
        if self.pid is not None and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.pid = None
        if self.pid is not None:
            return False
        return self._containment is None or self._containment.end(self.number)

    def keep(self, stem: str) -> Kept:
        """In place of a dead shim: gives what its attempt wrote its name."""
        return SlotFiles(*self._files).keep(stem)

    def processes(self) -> list[int]:
        """What runs below the shim, as this machine numbers it."""
        return [] if self.pid is None else descendants(self.pid)
