"""One prepared process, as the warden knows it, and the warm slots that it has forked.

Rule: it is asked for one thing at a time, the import and then one shim after another, and must
answer by `due`. When it begins and ends, and who gets its slots, is left to `stock`; its program is
`prepared`.
"""

from __future__ import annotations

import socket

import msgspec

from grampus.worker.channel import Channel
from grampus.worker.demand import Key
from grampus.worker.slot import Slot
from grampus.worker.warm_orders import Declined, Prepared, Rise
from grampus.worker.warm_slot import WarmSlot

#: The import, and then each shim, must be there after so long.
IMPORT_TIMEOUT, RISE_TIMEOUT = 30_000, 10_000

_DECODE = msgspec.msgpack.Decoder(Prepared | Declined).decode


class Oven:
    def __init__(self, key: Key, slot: Slot, control: socket.socket, now: int) -> None:
        self.key = key
        #: Around it.
        self.slot = slot
        self.control = control
        self.ready = False
        #: When somebody wanted or left a slot of it.
        self.used = now
        #: By when it must have answered; None: nothing is asked.
        self.due: int | None = now + IMPORT_TIMEOUT
        self.idle: list[WarmSlot] = []
        self.busy: set[WarmSlot] = set()
        #: The slot that is being forked, and the warden's end of its connection.
        self.rising: tuple[WarmSlot, socket.socket] | None = None
        #: Attempts in a row that crashed.
        self.crashes = 0

    def take(self) -> WarmSlot | None:
        """One that stands ready; it is busy from now on."""
        while self.idle and self.idle[-1].lost:
            self.idle.pop()
        if not self.idle:
            return None
        slot = self.idle.pop()
        self.busy.add(slot)
        return slot

    def hear(self) -> Prepared | Declined | None:
        """How the import went, if it has said so. It says nothing else: what is not understood, and
        its death, are a decline."""
        try:
            data = self.control.recv(65536)
            message = _DECODE(data) if data else Declined("it died")
        except BlockingIOError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            message = Declined(str(error))
        if isinstance(message, Prepared):
            self.ready, self.due = True, None
        return message

    def ask_for(self, slot: WarmSlot, order: Rise, now: int) -> socket.socket | None:
        """For a shim of `slot`, which says hello on the socket that is returned; None if it cannot
        be asked."""
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self.control, [msgspec.msgpack.encode(order)], [theirs.fileno()])
        except OSError:
            ours.close()
            return None
        finally:
            theirs.close()
        self.rising, self.due = (slot, ours), now + RISE_TIMEOUT
        return ours

    def receive(self) -> WarmSlot | Declined | None:
        """The slot that was asked for, once its shim is there: it stands ready."""
        assert self.rising is not None
        slot, sock = self.rising
        try:
            data, fds, _, _ = socket.recv_fds(sock, 1, 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            data, fds = b"", []
        if not data or not fds:
            return Declined("no shim can be forked from it")
        self.rising = self.due = None
        slot.pidfd = fds[0]
        slot.channel = Channel(sock)
        self.idle.append(slot)
        return slot
