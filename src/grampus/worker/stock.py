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
import signal
import socket
import sys
from collections.abc import Callable

import msgspec

from grampus.worker.channel import Channel
from grampus.worker.containment import Containment, PidNamespace
from grampus.worker.demand import DECLINED_FOR, IDLE, Demand, Key
from grampus.worker.loop import Loop, ticks
from grampus.worker.orders import Launch
from grampus.worker.oven import Oven
from grampus.worker.slot import Slot
from grampus.worker.stderr import log
from grampus.worker.warm_orders import Declined, Prepared, Rise
from grampus.worker.warm_slot import WarmSlot

#: Prepared processes at a time; the longest unused one makes room.
KEPT = 4
#: But only one that was not used for so long: else too many modules would chase each other out.
MAKES_ROOM = 10_000
#: After so many crashes of attempts in a row a module starts cold for a while.
CRASHES = 2
_CRASHED = (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGABRT)
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROGRAM = (
    "import sys; sys.path[:] = [p for p in sys.path if p] + [{root!r}];"
    "from grampus.worker.prepared import main; main()"
)


class Stock:
    def __init__(
        self,
        loop: Loop,
        adopt: Callable[[Slot, Channel], None],
        count: int,
        folder: str,
        cap: int,
        instance: str,
        lock: int,
        containment: Containment,
    ) -> None:
        """`adopt` hears a slot's shim from now on, and says `lost` when it is gone; `folder` is
        that of the worker."""
        self._loop = loop
        self._adopt = adopt
        #: As many as there are slots may run; numbers of warm slots begin behind those.
        self._count = count
        self._files = os.path.join(folder, "attempts"), cap
        self._instance = instance
        self._lock = lock
        self._containment = containment
        self._ovens: dict[Key, Oven] = {}
        self._dying: list[Slot] = []
        self._numbers: list[int] = []
        self._next_number = count
        self._demand = Demand()
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
        oven.used = ticks()
        if not oven.ready:
            return None
        slot = oven.take()
        if slot is None:
            self._raise(oven)
            return None
        slot.home = home
        return slot

    def give_back(self, slot: WarmSlot, exit: int | None) -> None:
        """Its attempt is over and its shim ready for the next one."""
        oven = slot.oven
        oven.busy.discard(slot)
        oven.used = ticks()
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
        now = ticks()
        for oven in list(self._ovens.values()):
            if oven.due is not None and oven.due <= now:
                what = "does not answer" if oven.ready else "is not imported in time"
                self._retire(oven, what, decline=True)
            elif not oven.busy and now - oven.used >= IDLE:
                self._retire(oven, "")
        self._demand.beat(now)

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
        now = ticks()
        if not self._demand.want(key, now):
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
        slot = Slot(self._number(), *self._files, self._instance)
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
        self._loop.push(channel)
        self._loop.watch(ours.fileno(), lambda: self._hear(oven))
        self._loop.watch(channel.fileno(), lambda: self._hear_outer(oven, channel))

    def _number(self) -> int:
        if self._numbers:
            return self._numbers.pop()
        self._next_number += 1
        return self._next_number - 1

    def _hear_outer(self, oven: Oven, channel: Channel) -> None:
        """Whatever the outer shim says, it says that the prepared process has ended."""
        if channel.receive() or channel.closed:
            self._retire(oven, "it died", decline=True)

    def _hear(self, oven: Oven) -> None:
        match oven.hear():
            case Declined(reason):
                self._retire(oven, reason, decline=True)
            case Prepared():
                self._raise(oven)

    def _raise(self, oven: Oven) -> None:
        """Asks for one more warm slot, if there may be one."""
        if oven.rising is not None or len(oven.busy) + len(oven.idle) >= self._count:
            return
        attempts, cap = self._files
        slot = WarmSlot(self._number(), attempts, cap, self._instance, oven)
        order = Rise(attempts, slot.number, cap, f"{self._instance}/{slot.number}")
        hello = oven.ask_for(slot, order, ticks())
        if hello is None:
            self._numbers.append(slot.number)
        else:
            fd = hello.fileno()
            self._loop.watch(fd, lambda: self._risen(oven, fd))

    def _risen(self, oven: Oven, hello: int) -> None:
        slot = oven.receive()
        if isinstance(slot, Declined):
            self._retire(oven, slot.reason, decline=True)
        elif slot is not None:
            assert slot.channel is not None
            self._loop.forget(hello)
            self._adopt(slot, slot.channel)

    # The end

    def _decline(self, key: Key, reason: str) -> None:
        log(f"module {key[0]!r} starts cold for {DECLINED_FOR // 60_000} min: {reason}")
        self._demand.decline(key, ticks())

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
            slot.let_go()
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
