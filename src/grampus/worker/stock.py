"""The warden's stock of prepared processes, and the warm slots below them.

Rule: an attempt gets a warm slot only when one stands ready. Whatever is not ready, has failed or
was declined means a cold start, and nobody waits. Who may begin when is decided in `keeper`: a warm
slot borrows the place of a cold one, its `home`, for as long as an attempt runs in it.

Each prepared process runs in a slot of its own (see `prepared`), in a PID namespace. The namespaces
of its warm slots are within it: ending the outer shim ends all of it, and when that shim has been
reaped nothing is left. A prepared process that dies takes its attempts along: they are LOST.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from msgspec import Struct

from grampus.worker.channel import Channel
from grampus.worker.containment import Containment, PidNamespace
from grampus.worker.orders import Launch
from grampus.worker.process_tree import descendants
from grampus.worker.slot import Slot
from grampus.worker.stderr import say

#: Prepared processes at a time; the longest unused one makes room.
KEPT = 4
#: But only one that was not used for so long: else too many modules would chase each other out.
MAKES_ROOM = 10_000
#: One without attempts ends after so long. A module is prepared when it is wanted twice within it.
IDLE = 60_000
#: The import, and then each shim, must be there after so long.
IMPORT_TIMEOUT, RISE_TIMEOUT = 30_000, 10_000
#: After a decline, or after so many crashes of attempts in a row, a module starts cold for so long.
DECLINED_FOR, CRASHES = 600_000, 2
_REMEMBERED = 256
_CRASHED = (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGABRT)
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROGRAM = (
    "import sys; sys.path[:] = [p for p in sys.path if p] + [{root!r}];"
    "from grampus.worker.prepared import main; main()"
)
#: Module, bundle, environment of the import.
Key = tuple[str, str, tuple[tuple[str, str], ...]]


class Prepared(Struct, frozen=True, array_like=True, tag="prepared"):
    """The module is imported; shims may be asked for."""


class Declined(Struct, frozen=True, array_like=True, tag="declined"):
    """This module's attempts must start cold."""

    reason: str


class Rise(Struct, frozen=True, array_like=True, tag="rise"):
    """Fork a shim; its socket comes along. It says hello on it by its own pidfd."""

    attempts: str
    slot: int
    cap: int
    mark: str


_DECODE = msgspec.msgpack.Decoder(Prepared | Declined).decode


class Loop(NamedTuple):
    """What a stock needs of the loop around it."""

    watch: Callable[[int, Callable[[], None]], None]
    forget: Callable[[int], None]
    after: Callable[[int, Callable[[], None]], None]
    #: Hears the slot's shim from now on; says `Stock.lost` when it is gone.
    adopt: Callable[[Slot, Channel], None]


class WarmSlot(Slot):
    """A slot whose shim was forked by a prepared process."""

    def __init__(self, number: int, attempts: str, cap: int, mark: str, oven: Oven) -> None:
        super().__init__(number, attempts, cap, mark)
        self.home: Slot | None = None
        self.oven = oven
        #: Of the shim; None before it said hello, and once it is seen gone.
        self.pidfd: int | None = None

    def condemn(self) -> None:
        super().condemn()
        if self.pidfd is not None:
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                return

    def reap(self) -> bool:
        """A pidfd says that a process is gone when all of its PID namespace is."""
        if self.pidfd is not None and select.select([self.pidfd], [], [], 0)[0]:
            os.close(self.pidfd)
            self.pidfd = None
        return self.pidfd is None

    def processes(self) -> list[int]:
        if self.pidfd is None:
            return []
        with open(f"/proc/self/fdinfo/{self.pidfd}") as file:
            pid = next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
        return descendants(pid) if pid > 0 else []


class Oven:
    """One prepared process, as the warden knows it."""

    def __init__(self, key: Key, slot: Slot, control: socket.socket, now: int) -> None:
        self.key = key
        #: Around it.
        self.slot = slot
        self.control = control
        self.ready = False
        self.used = now
        #: By when it must have answered; None: nothing is asked.
        self.due: int | None = now + IMPORT_TIMEOUT
        self.idle: list[WarmSlot] = []
        self.busy: set[WarmSlot] = set()
        #: The slot that is being forked, and the warden's end of its connection.
        self.rising: tuple[WarmSlot, socket.socket] | None = None
        self.crashes = 0


class Stock:
    def __init__(
        self,
        loop: Loop,
        count: int,
        attempts: str,
        cap: int,
        instance: str,
        lock: int,
        containment: Containment,
    ) -> None:
        self._loop = loop
        #: As many as there are slots may run; numbers of warm slots begin behind those.
        self._count = count
        self._files = attempts, cap
        self._instance = instance
        self._lock = lock
        self._containment = containment
        self._ovens: dict[Key, Oven] = {}
        self._dying: list[Slot] = []
        self._numbers: list[int] = []
        self._next_number = count
        #: When a key was wanted last, and until when it starts cold; both bounded.
        self._wanted: dict[Key, int] = {}
        self._declined: dict[Key, int] = {}
        #: Nothing is prepared any more.
        self.closed = not isinstance(containment, PidNamespace)

    def take(self, launch: Launch, home: Slot) -> WarmSlot | None:
        """A warm slot that stands ready for this attempt, in place of `home`."""
        if launch.warm is None or self.closed:
            return None
        env = tuple(item for item in launch.env.items() if not item[0].startswith("GRAMPUS_"))
        key = launch.warm.module, launch.warm.bundle, env
        oven = self._ovens.get(key)
        if oven is None:
            self._want(key)
            return None
        oven.used = _ticks()
        if not oven.ready:
            return None
        while oven.idle and oven.idle[-1].lost:
            oven.idle.pop()
        if not oven.idle:
            self._raise(oven)
            return None
        slot = oven.idle.pop()
        slot.home = home
        oven.busy.add(slot)
        return slot

    def give_back(self, slot: WarmSlot, exit: int | None) -> None:
        """Its attempt is over and its shim ready for the next one."""
        oven = slot.oven
        oven.busy.discard(slot)
        oven.used = _ticks()
        if self._ovens.get(oven.key) is not oven:
            return
        oven.idle.append(slot)
        oven.crashes = oven.crashes + 1 if exit in _CRASHED else 0
        if oven.crashes >= CRASHES and not oven.busy:
            why = "its attempts crash"
            # Not now: the slot's connection is being read.
            self._loop.after(0, lambda: self._retire(oven, why, decline=True))

    def lost(self, slot: WarmSlot) -> None:
        """Its shim is gone, and all below it."""
        slot.oven.busy.discard(slot)
        if slot in slot.oven.idle:
            slot.oven.idle.remove(slot)
        self._numbers.append(slot.number)

    def shims(self) -> set[int | None]:
        """Children of the warden that are no strays."""
        return {oven.slot.pid for oven in self._ovens.values()} | {s.pid for s in self._dying}

    def beat(self) -> None:
        """From time to time: ends what is idle or does not answer."""
        now = _ticks()
        for oven in list(self._ovens.values()):
            if oven.due is not None and oven.due <= now:
                what = "does not answer" if oven.ready else "is not imported in time"
                self._retire(oven, what, decline=True)
            elif not oven.busy and now - oven.used >= IDLE:
                self._retire(oven, "")
        for key in [key for key, until in self._declined.items() if until <= now]:
            del self._declined[key]

    def close(self) -> None:
        """Ends all of it; `gone` tells when."""
        self.closed = True
        for oven in list(self._ovens.values()):
            self._retire(oven, "")

    def gone(self) -> bool:
        self._bury()
        return not self._dying

    # Beginning

    def _want(self, key: Key) -> None:
        now = _ticks()
        before = self._wanted.pop(key, None)
        self._wanted[key] = now
        if len(self._wanted) > _REMEMBERED:
            del self._wanted[next(iter(self._wanted))]
        if before is None or now - before > IDLE or key in self._declined:
            return
        if len(self._ovens) + len(self._dying) >= KEPT:
            idle = [oven for oven in self._ovens.values() if not oven.busy]
            unused = [oven for oven in idle if now - oven.used >= MAKES_ROOM]
            if unused:
                self._retire(min(unused, key=lambda oven: oven.used), "")
            return
        self._prepare(key, now)

    def _prepare(self, key: Key, now: int) -> None:
        module, bundle, env = key
        slot = self._slot(Slot)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            channel = slot.fork(self._containment, self._lock, theirs.fileno())
            program = _PROGRAM.format(root=_ROOT)
            argv = [sys.executable, "-c", program, str(theirs.fileno()), bundle, module]
            launch = Launch(-1, argv, dict(env), bundle, None, 0, "prepared")
            slot.start(launch, msgspec.msgpack.encode(launch), None)
        except OSError as error:
            ours.close()
            self._numbers.append(slot.number)
            self._decline(key, error.strerror or str(error))
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        oven = self._ovens[key] = Oven(key, slot, ours, now)
        self._push(channel)
        self._loop.watch(ours.fileno(), lambda: self._hear(oven))
        self._loop.watch(channel.fileno(), lambda: self._hear_outer(oven, channel))

    def _push(self, channel: Channel) -> None:
        channel.flush()
        if channel.waiting and not channel.closed:
            self._loop.after(1, lambda: self._push(channel))

    def _slot(self, kind: type[Slot], *more: Oven) -> Slot:
        if self._numbers:
            number = self._numbers.pop()
        else:
            number = self._next_number
            self._next_number += 1
        attempts, cap = self._files
        return kind(number, attempts, cap, self._instance, *more)

    def _hear_outer(self, oven: Oven, channel: Channel) -> None:
        """Whatever the outer shim says, it says that the prepared process has ended."""
        if channel.receive() or channel.closed:
            self._retire(oven, "it died", decline=True)

    def _hear(self, oven: Oven) -> None:
        try:
            data = oven.control.recv(65536)
            message = _DECODE(data) if data else Declined("it died")
        except BlockingIOError:
            return
        except (OSError, msgspec.DecodeError) as error:
            message = Declined(str(error))
        if isinstance(message, Declined):
            self._retire(oven, message.reason, decline=True)
            return
        oven.ready, oven.due = True, None
        self._raise(oven)

    def _raise(self, oven: Oven) -> None:
        """Asks for one more warm slot, if there may be one."""
        if oven.rising is not None or len(oven.busy) + len(oven.idle) >= self._count:
            return
        slot = self._slot(WarmSlot, oven)
        assert isinstance(slot, WarmSlot)
        ours, theirs = socket.socketpair()
        attempts, cap = self._files
        order = Rise(attempts, slot.number, cap, f"{self._instance}/{slot.number}")
        try:
            socket.send_fds(oven.control, [msgspec.msgpack.encode(order)], [theirs.fileno()])
        except OSError:
            ours.close()
            self._numbers.append(slot.number)
            return
        finally:
            theirs.close()
        oven.rising, oven.due = (slot, ours), _ticks() + RISE_TIMEOUT
        self._loop.watch(ours.fileno(), lambda: self._risen(oven))

    def _risen(self, oven: Oven) -> None:
        assert oven.rising is not None
        slot, sock = oven.rising
        try:
            data, fds, _, _ = socket.recv_fds(sock, 1, 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data or not fds:
            self._retire(oven, "no shim can be forked from it", decline=True)
            return
        self._loop.forget(sock.fileno())
        oven.rising = oven.due = None
        slot.pidfd = fds[0]
        slot.channel = Channel(sock)
        oven.idle.append(slot)
        self._loop.adopt(slot, slot.channel)

    # The end

    def _decline(self, key: Key, reason: str) -> None:
        _log(f"module {key[0]!r} starts cold for {DECLINED_FOR // 60_000} min: {reason}")
        self._declined.pop(key, None)
        self._declined[key] = _ticks() + DECLINED_FOR
        if len(self._declined) > _REMEMBERED:
            del self._declined[next(iter(self._declined))]

    def _retire(self, oven: Oven, reason: str, decline: bool = False) -> None:
        """KILL to all of it. Attempts that run there are lost, each when it is seen gone."""
        if self._ovens.get(oven.key) is not oven:
            return
        del self._ovens[oven.key]
        if decline:
            self._decline(oven.key, reason)
        self._loop.forget(oven.control.fileno())
        oven.control.close()
        if oven.rising is not None:
            slot, sock = oven.rising
            self._loop.forget(sock.fileno())
            sock.close()
            self._numbers.append(slot.number)
            oven.rising = None
        for slot in oven.idle:
            assert slot.channel is not None
            self._loop.forget(slot.channel.fileno())
            slot.condemn()
            if slot.pidfd is not None:
                # Within the outer namespace, which is waited for.
                os.close(slot.pidfd)
                slot.pidfd = None
            self._numbers.append(slot.number)
        oven.idle.clear()
        assert oven.slot.channel is not None
        self._loop.forget(oven.slot.channel.fileno())
        oven.slot.condemn()
        self._dying.append(oven.slot)
        self._watch_dying(1)

    def _watch_dying(self, delay: int) -> None:
        self._bury()
        if self._dying:
            self._loop.after(delay, lambda: self._watch_dying(min(2 * delay, 1000)))

    def _bury(self) -> None:
        for slot in [slot for slot in self._dying if slot.reap()]:
            self._dying.remove(slot)
            self._numbers.append(slot.number)


def _ticks() -> int:
    return time.monotonic_ns() // 1_000_000


def _log(text: str) -> None:
    say(f"warden {os.getpid()}: {text}")
