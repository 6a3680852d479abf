"""What the warden does with its slots: who gets one, who is ended, who is lost.

One loop carries messages between the worker and the shims and fires timers. An attempt is over
when its shim has seen its containment empty, or, if the shim died, when the warden has seen it.
Starting, watching and ending one attempt is left to the `shim` of its slot; `warden` is the process
around all of it.

A worker may come and go: attempts go on without one. What has ended is kept until a worker says
that it has written it down, and is said again to each that comes. Alone and with nothing to do or
to tell, the warden ends soon.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec.structs import replace

from grampus.clock import SystemClock
from grampus.worker.channel import Channel
from grampus.worker.containment import Containment
from grampus.worker.core.seen import Seen
from grampus.worker.fence import Fence
from grampus.worker.line import AGAIN, Line, Waiting
from grampus.worker.orders import (
    Confirmed,
    End,
    Ended,
    Launch,
    Notice,
    Order,
    Ready,
    Recall,
    Running,
    Shutdown,
    Started,
    Stuck,
    Taken,
    Trouble,
)
from grampus.worker.process_tree import children, descendants
from grampus.worker.shim import STUCK_AFTER, Struggling, ended
from grampus.worker.slot import Slot
from grampus.worker.stderr import say
from grampus.worker.stock import Loop, Stock, WarmSlot

#: Grace when a signal asks for the end.
LAST_GRACE = 10_000
#: How long a warden waits for a worker when it has nothing to do and nothing to tell ...
ALONE = 30_000
#: ... and when it has nothing to do, but ends to tell.
UNTOLD = 24 * 3_600_000
#: Ends that are kept; no attempt starts beyond. The ledger has no more than slots of them open.
KEPT = 10_000
#: A shim that says nothing for so long after it should have is killed.
SILENCE = 15_000
#: Started waits so long for company: most of what is short has ended by then.
HOLD = 8
#: While leases count, the clock is looked at so often: a machine that was asleep does not notice.
VIGIL = 500
_BEAT = 5_000


class Keeper:
    """Has the slots. `run` returns when it was told to stop and nothing of any attempt is left."""

    def __init__(
        self,
        slots: list[Slot],
        instance: str,
        lock: int,
        containment: Containment,
        address: str,
        attempts: str,
        cap: int,
    ) -> None:
        self._slots = slots
        self._instance = instance
        #: Every shim holds the lock too: it is free when the last of them is gone.
        self._lock = lock
        self._containment = containment
        #: Path of the listening socket.
        self._address = address
        #: The last one that became free is the first to be used: few shims serve a light load.
        self._free = slots[::-1]
        #: Slots that no attempt takes. One that takes several has one shim all the same.
        self._room = len(slots)
        self._running: dict[int, Slot] = {}
        #: The orders of those that run and that nobody wishes to end, by number.
        self._orders: dict[int, Waiting] = {}
        self._line = Line(8 * len(slots))
        self._fence = Fence()
        #: Why the machine starts nothing, or "", and when that was seen last, in monotonic ms.
        self._trouble = ""
        self._troubled_at = 0
        self._seen = Seen()
        #: Ended that no worker has taken, by number, as it is said.
        self._kept: dict[int, bytes] = {}
        #: Monotonic ms since when there is no worker, or nothing has happened without one.
        self._alone_since = 0
        self._clock = SystemClock()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode_order = msgspec.msgpack.Decoder(Order).decode
        self._decode_answer = msgspec.msgpack.Decoder(Ended | Struggling).decode
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._timer_count = 0
        self._worker: Channel | None = None
        self._listener: socket.socket | None = None
        #: Monotonic ms; None: nothing waits to be written.
        self._flush_at: int | None = None
        #: No attempt starts any more; when all are over, the warden ends.
        self._stopping = False
        loop = Loop(self._watch, self._forget, self._after, self._adopt)
        self._stock = Stock(loop, len(slots), attempts, cap, instance, lock, containment)

    def run(self, listener: socket.socket, signals: socket.socket) -> None:
        """Until the end of everything."""
        self._listener = listener
        self._watch(listener.fileno(), self._accept)
        self._watch(signals.fileno(), lambda: self._signalled(signals))
        self._be_alone()
        self._after(_BEAT, self._beat)
        while not (self._stopping and not self._running):
            ready = self._epoll.poll(self._wait())
            # Before anything is read: no late word brings back what others may have by now.
            self._fence_off()
            for fd, _ in ready:
                handler = self._ready.get(fd)
                if handler is not None:
                    handler()
            now = _ticks()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()
            if self._flush_at is not None and self._flush_at <= now:
                self._flush()
        self._leave()

    # The loop's means

    def _watch(self, fd: int, handler: Callable[[], None]) -> None:
        self._epoll.register(fd, select.EPOLLIN)
        self._ready[fd] = handler

    def _forget(self, fd: int) -> None:
        self._epoll.unregister(fd)
        del self._ready[fd]

    def _after(self, delay: int, call: Callable[[], None]) -> None:
        self._timer_count += 1
        heapq.heappush(self._timers, (_ticks() + delay, self._timer_count, call))

    def _wait(self) -> float:
        at = self._timers[0][0]
        if self._flush_at is not None:
            at = min(at, self._flush_at)
        wait = max(0, at - _ticks()) / 1000
        return min(wait, VIGIL / 1000) if self._fence.watches or self._line else wait

    # The worker's side

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
        self._watch(sock.fileno(), self._hear_worker)
        self._say(
            Ready(self._instance, self._containment.name, len(self._slots), self._inventory())
        )
        if self._trouble:
            self._say(Trouble(self._trouble))
        for payload in self._kept.values():
            self._pass_on(payload)

    def _inventory(self) -> list[Running]:
        return [
            *(
                Running(n, slot.number, slot.started, False, slot.started_ticks)
                for n, slot in self._running.items()
            ),
            *(Running(launch.n, None, 0, False) for launch in self._line),
            *(Running(n, None, 0, True) for n in self._kept),
        ]

    def _hear_worker(self) -> None:
        worker = self._worker
        assert worker is not None
        for payload in worker.receive():
            try:
                order = self._decode_order(payload)
            except msgspec.DecodeError as error:
                log(f"an order that makes no sense ends the connection: {error}")
                self._lose_worker()
                return
            match order:
                case Launch():
                    self._launch(order, payload)
                case End(n):
                    self._end(n)
                case Recall(n):
                    if self._line.recall(n):
                        self._refuse(n, "unable", "no slot became free for it")
                        self._serve_queue()
                case Taken(numbers):
                    for n in numbers:
                        self._kept.pop(n, None)
                case Confirmed(sent):
                    self._fence.confirm(sent)
                case Shutdown(grace):
                    self._stop(grace, "the worker asks")
        if worker.closed:
            self._lose_worker()

    def _lose_worker(self) -> None:
        """Attempts go on: the worker that comes next adopts them."""
        assert self._worker is not None
        self._forget(self._worker.fileno())
        fault = self._worker.fault
        self._worker.close()
        self._worker = None
        self._flush_at = None
        if not self._stopping:
            log("the worker is gone" + (f": {fault}" if fault else ""))
            self._be_alone()

    def _be_alone(self) -> None:
        """There is no worker, now or since something ended: how long is one waited for?"""
        self._alone_since = _ticks()
        self._after(UNTOLD if self._kept else ALONE, self._give_up_waiting)

    def _tell_end(self, n: int, payload: bytes, hold: int = 0) -> None:
        self._kept[n] = payload
        if self._worker is None:
            self._be_alone()
        self._pass_on(payload, hold)

    def _say(self, notice: Notice, hold: int = 0) -> None:
        self._pass_on(self._encode(notice), hold)

    def _pass_on(self, payload: bytes, hold: int = 0) -> None:
        if self._worker is None:
            return
        self._worker.send(payload)
        at = _ticks() + hold
        if self._flush_at is None or at < self._flush_at:
            self._flush_at = at

    def _flush(self) -> None:
        self._flush_at = None
        if self._worker is None:
            return
        self._worker.flush()
        if self._worker.closed:
            self._lose_worker()
        elif self._worker.waiting:
            self._flush_at = _ticks() + HOLD

    # What the worker asks

    def _launch(self, launch: Launch, payload: bytes) -> None:
        n = launch.n
        if n in self._running or n in self._line:
            return
        if n in self._seen:
            self._refuse(n, "unable", f"number {n} was used before")
            return
        self._seen.add(n)
        if self._stopping:
            self._refuse(n, "end", "the warden is ending")
        elif not _is_stem(launch.stem):
            self._refuse(n, "unable", f"{launch.stem!r} cannot name files")
        elif launch.slots > len(self._slots):
            self._refuse(n, "unable", f"it needs {launch.slots} slots of {len(self._slots)}")
        elif len(self._kept) >= KEPT:
            self._refuse(n, "end", "too many ends wait to be taken")
        elif not self._line.join(Waiting(launch, payload)):
            self._refuse(n, "unable", "more launches wait than the warden has slots for")
        else:
            self._serve_queue()

    def _serve_queue(self) -> None:
        while self._free and (waiting := self._line.take(_ticks(), self._room)) is not None:
            launch = waiting.launch
            if self._fence.bars(launch.lease, self._clock.ticks()):
                self._bar(launch)
                continue
            slot = self._take_free()
            slot = self._stock.take(launch, slot) or slot
            channel = slot.channel
            if channel is None:
                try:
                    channel = slot.fork(self._containment, self._lock)
                except OSError as error:
                    self._free.append(slot)
                    self._try_again(waiting, f"no shim can be forked: {error.strerror or error}")
                    continue
                self._adopt(slot, channel)
            now = _ticks()
            due = None if launch.timeout is None else now + launch.timeout + launch.grace + SILENCE
            slot.start(launch, waiting.payload, due)
            # Before the shim knows of it: it may be over when this process goes on.
            slot.started, slot.started_ticks = self._clock.now(), self._clock.ticks()
            self._push(channel)
            self._running[launch.n] = slot
            self._orders[launch.n] = waiting
            self._fence.begin(launch.n, launch.lease)
            self._room -= launch.slots
            started = Started(launch.n, slot.number, slot.started, slot.started_ticks)
            self._say(started, HOLD)

    def _take_free(self) -> Slot:
        """The newest one; one with a shim, if there is any: to fork one may fail."""
        for i in range(len(self._free) - 1, -1, -1):
            if self._free[i].channel is not None:
                return self._free.pop(i)
        return self._free.pop()

    def _try_again(self, waiting: Waiting, why: str) -> None:
        """The machine could not start it: nobody's fault, and it may be able to soon."""
        if not self._trouble:
            log(f"{waiting.launch.stem} cannot be started, and is tried again: {why}")
            self._say(Trouble(why))
        self._trouble, self._troubled_at = why, _ticks()
        if self._stopping or not self._line.put_back(waiting, self._troubled_at):
            self._refuse(waiting.launch.n, "unable", why)
        else:
            self._after(AGAIN, self._serve_queue)

    def _adopt(self, slot: Slot, channel: Channel) -> None:
        self._watch(channel.fileno(), lambda: self._hear_shim(slot))

    def _push(self, channel: Channel) -> None:
        """An order larger than the socket's buffer goes in several pieces."""
        channel.flush()
        if channel.waiting:
            self._after(1, lambda: self._push(channel))

    def _refuse(self, n: int, cause: Literal["unable", "end"], error: str) -> None:
        now, ticks = self._clock.now(), self._clock.ticks()
        end = Ended(n, now, cause, None, error, 0, 0, False, ticks=ticks)
        self._tell_end(n, self._encode(end))

    def _end(self, n: int) -> None:
        slot = self._running.get(n)
        if slot is not None:
            assert slot.launch is not None
            self._orders.pop(n, None)
            self._halt(slot, slot.launch.grace)
        elif self._line.remove(n):
            self._refuse(n, "end", "ended before it was started")
            self._serve_queue()

    def _halt(self, slot: Slot, grace: int) -> None:
        slot.halt(grace)
        if slot.channel is not None:
            self._push(slot.channel)
        due = _ticks() + grace + SILENCE
        slot.due = due if slot.due is None else min(due, slot.due)

    def _fence_off(self) -> None:
        """Ends whose lease nobody has confirmed for too long; it needs no worker for that."""
        now = self._clock.ticks()
        if self._fence.rests(now):
            return
        for n, grace in self._fence.look(now):
            slot = self._running[n]
            assert slot.launch is not None
            if self._orders.pop(n, None) is not None:
                log(f"attempt {slot.launch.stem} is ended: no server confirms this worker")
            self._halt(slot, grace)
        for launch in [each for each in self._line if self._fence.bars(each.lease, now)]:
            self._line.remove(launch.n)
            self._bar(launch)

    def _bar(self, launch: Launch) -> None:
        """It has not begun, and never does."""
        assert launch.lease is not None
        self._refuse(launch.n, "unable", self._fence.why(launch.lease, self._clock.ticks()))

    def _stop(self, grace: int, why: str) -> None:
        if self._running or len(self._line):
            log(f"ending {len(self._running)} attempts: {why}")
        self._stopping = True
        self._hang_up()
        self._orders.clear()
        for launch in self._line.clear():
            self._refuse(launch.n, "end", "ended before it was started")
        for slot in self._running.values():
            assert slot.launch is not None
            self._halt(slot, min(grace, slot.launch.grace))

    # What shims say

    def _hear_shim(self, slot: Slot) -> None:
        channel = slot.channel
        assert channel is not None
        for payload in channel.receive():
            answer = self._decode_answer(payload)
            if isinstance(answer, Ended):
                payload = self._named(slot, answer, payload)
                self._release(slot)
                if isinstance(slot, WarmSlot):
                    self._stock.give_back(slot, answer.exit)
                order = self._orders.pop(answer.n, None)
                if answer.cause == "unable" and order is not None:
                    self._try_again(order, answer.error)
                else:
                    # While enough waits to keep the slots busy, nobody waits for this message.
                    busy = len(self._line) >= len(self._slots)
                    self._tell_end(answer.n, payload, HOLD if busy else 0)
            else:
                slot.due = _ticks() + STUCK_AFTER + SILENCE
                self._complain(slot)
        if channel.closed:
            self._lose(slot, "its shim died")
        elif self._line:
            self._serve_queue()
        elif isinstance(slot, WarmSlot) and slot.launch is None:
            slot.stand_by()
            self._push(channel)

    def _named(self, slot: Slot, answer: Ended, payload: bytes) -> bytes:
        """The end as it is told: the shim does not know why it was asked for it."""
        fenced = self._fence.end(answer.n)
        if not fenced or answer.cause != "end" or slot.launch is None or slot.launch.lease is None:
            return payload
        why = self._fence.why(slot.launch.lease, self._clock.ticks())
        return self._encode(replace(answer, cause="fenced", error=why))

    def _complain(self, slot: Slot) -> None:
        if slot.launch is not None:
            pids = slot.processes()
            log(f"attempt {slot.launch.n} does not end, KILL was sent to {pids}")
            self._say(Stuck(slot.launch.n, pids))

    def _lose(self, slot: Slot, why: str) -> None:
        """A shim is dead or must die. Its slot is not used before all below it is gone."""
        assert slot.channel is not None
        log(f"slot {slot.number}: {why}")
        self._forget(slot.channel.fileno())
        slot.condemn()
        if slot in self._free:
            self._free.remove(slot)
        self._bury(slot, 1, _ticks() + STUCK_AFTER)

    def _bury(self, slot: Slot, delay: int, stuck_at: int) -> None:
        gone = slot.reap()
        # Whoever lost a shim, its subreaper, fell to the warden; a living shim loses none.
        strays = self._end_strays() if gone else []
        if gone and not strays:
            slot.lost = False
            launch = slot.launch
            self._release(slot)
            if isinstance(slot, WarmSlot):
                self._stock.lost(slot)
            if launch is not None:
                self._orders.pop(launch.n, None)
                self._fence.end(launch.n)
                kept = slot.keep(launch.stem)
                end = ended(launch.n, self._clock, None, "lost", None, kept)
                self._tell_end(launch.n, self._encode(end))
            self._serve_queue()
            return
        if _ticks() >= stuck_at and slot.launch is not None:
            pids = strays or slot.processes()
            log(f"attempt {slot.launch.n} is lost and does not end, KILL was sent to {pids}")
            self._say(Stuck(slot.launch.n, pids))
            stuck_at = _ticks() + STUCK_AFTER
        self._after(delay, lambda: self._bury(slot, min(2 * delay, 500), stuck_at))

    def _release(self, slot: Slot) -> None:
        """Its attempt, if it had one, is over. A warm slot gives back the place that it had, an
        idle one has none."""
        if slot.launch is not None:
            del self._running[slot.launch.n]
            self._room += slot.launch.slots
        slot.finish()
        if not isinstance(slot, WarmSlot):
            self._free.append(slot)
        elif slot.home is not None:
            self._free.append(slot.home)
            slot.home = None

    def _end_strays(self) -> list[int]:
        """KILL to all that descends from the warden beside the shims. Returns whom it found.

        Only a look that finds nobody says that nobody is left: who is killed in one may have handed
        over to a child just before. Nobody is missed: a child leaves the list by `waitpid` alone,
        and hands its own children over before it can be waited for."""
        shims = {slot.pid for slot in self._slots} | self._stock.shims()
        found = [child for child in children(os.getpid()) if child not in shims]
        _kill(found)
        below = [pid for child in found for pid in descendants(child)]
        _kill(below)
        for child in found:
            os.waitpid(child, os.WNOHANG)
        return found + below

    # From time to time, and at the end

    def _beat(self) -> None:
        self._after(_BEAT, self._beat)
        now = _ticks()
        for slot in list(self._running.values()):
            if slot.due is not None and slot.due <= now and not slot.lost:
                self._lose(slot, "its shim has fallen silent")
        self._stock.beat()
        if self._trouble and now - self._troubled_at >= _BEAT:
            self._trouble = ""
            log("attempts can be started again")
            self._say(Trouble(""))

    def _give_up_waiting(self) -> None:
        if self._worker is not None or self._stopping or self._running or self._line:
            return
        patience = UNTOLD if self._kept else ALONE
        if _ticks() - self._alone_since >= patience:
            self._stop(0, f"no worker came within {patience // 1000} s")

    def _signalled(self, signals: socket.socket) -> None:
        signals.recv(4096)
        self._stop(LAST_GRACE, "a signal asks for it")

    def _hang_up(self) -> None:
        """Whoever looks for a warden shall find the next one."""
        if self._listener is not None:
            self._forget(self._listener.fileno())
            self._listener.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._address)
            self._listener = None

    def _leave(self) -> None:
        """Nothing runs: says the last words and sees the shims go."""
        deadline = _ticks() + 2_000
        while self._worker is not None and self._worker.waiting and _ticks() < deadline:
            select.select([], [self._worker], [], 0.1)
            self._worker.flush()
        self._stock.close()
        for slot in self._slots:
            if slot.channel is not None:
                slot.channel.close()
        for slot in self._slots:
            while not slot.reap():
                if _ticks() >= deadline:
                    slot.condemn()
                time.sleep(0.001)
        while not self._stock.gone():
            time.sleep(0.001)


def _is_stem(stem: str) -> bool:
    return "\0" not in stem and all(part not in ("", ".", "..") for part in stem.split("/"))


def _kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue  # Gone meanwhile, or of another user: then it is found again.


def _ticks() -> int:
    return time.monotonic_ns() // 1_000_000


def log(text: str) -> None:
    say(f"warden {os.getpid()}: {text}")
