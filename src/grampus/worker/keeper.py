"""What the warden does with its slots: who gets one, who is ended, who is lost.

Rule: an attempt is over when its shim has seen its containment empty, or, if the shim died, when
the warden has seen it. Leases are looked at before anything that was received is read.

Starting, watching and ending one attempt is left to the `shim` of its slot, what the worker orders
and hears to `warden_server`, prepared processes to `stock`. `warden` is the process around all of
it.
"""

from __future__ import annotations

import socket
import time
from typing import Literal

import msgspec
from msgspec.structs import replace

from grampus.clock import SystemClock
from grampus.worker.channel import Channel
from grampus.worker.containment import Containment
from grampus.worker.core.seen import Seen
from grampus.worker.fence import Fence
from grampus.worker.line import AGAIN, Line, Waiting
from grampus.worker.loop import Loop, ticks
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
    Trouble,
)
from grampus.worker.shim import STUCK_AFTER, Struggling, ended
from grampus.worker.slot import Slot
from grampus.worker.stderr import log
from grampus.worker.stock import Stock
from grampus.worker.strays import end_strays
from grampus.worker.warden_server import HOLD, WardenServer
from grampus.worker.warm_slot import WarmSlot

#: Grace when a signal asks for the end.
LAST_GRACE = 10_000
#: A shim that says nothing for so long after it should have is killed.
SILENCE = 15_000
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
        folder: str,
        cap: int,
    ) -> None:
        """`folder` is that of the worker; `cap` bounds what is kept of a stream, in bytes."""
        self._slots = slots
        self._instance = instance
        #: Every shim holds the lock too: it is free when the last of them is gone.
        self._lock = lock
        self._containment = containment
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
        self._clock = SystemClock()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode_answer = msgspec.msgpack.Decoder(Ended | Struggling).decode
        #: No attempt starts any more; when all are over, the warden ends.
        self._stopping = False
        self._loop = Loop()
        self._server = WardenServer(self._loop, self, folder)
        self._stock = Stock(
            self._loop, self._adopt, len(slots), folder, cap, instance, lock, containment
        )

    def run(self, signals: socket.socket) -> None:
        """Until the end of everything. `signals` gets a byte for each that came."""
        self._server.listen()
        self._loop.watch(signals.fileno(), lambda: self._signalled(signals))
        self._loop.after(_BEAT, self._beat)
        wait: int | None = None
        while not (self._stopping and not self._running):
            if self._fence.watches or self._line:
                wait = VIGIL if wait is None else min(wait, VIGIL)
            readable = self._loop.wait(wait)
            # Before anything is read: no late word brings back what others may have by now.
            self._fence_off()
            self._loop.serve(readable)
            wait = self._server.flush()
        self._leave()

    # What the worker asks: the Receiver of its connection

    def greeting(self) -> list[Notice]:
        inventory = [
            *(
                Running(n, slot.number, slot.started, False, slot.started_ticks)
                for n, slot in self._running.items()
            ),
            *(Running(launch.n, None, 0, False) for launch in self._line),
            *(Running(n, None, 0, True) for n in self._server.kept),
        ]
        ready = Ready(self._instance, self._containment.name, len(self._slots), inventory)
        return [ready, Trouble(self._trouble)] if self._trouble else [ready]

    def ordered(self, order: Order, payload: bytes) -> None:
        match order:
            case Launch():
                self._launch(order, payload)
            case End(n):
                self._end(n)
            case Recall(n):
                if self._line.recall(n):
                    self._refuse(n, "unable", "no slot became free for it")
                    self._serve_queue()
            case Confirmed(sent):
                self._fence.confirm(sent)
            case Shutdown(grace):
                self._stop(grace, "the worker asks")

    def is_idle(self) -> bool:
        return not (self._running or self._line)

    def is_unwanted(self, why: str) -> None:
        self._stop(0, why)

    # Starting

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
        elif self._server.is_full:
            self._refuse(n, "end", "too many ends wait to be taken")
        elif not self._line.join(Waiting(launch, payload)):
            self._refuse(n, "unable", "more launches wait than the warden has slots for")
        else:
            self._serve_queue()

    def _serve_queue(self) -> None:
        while self._free and (waiting := self._line.take(ticks(), self._room)) is not None:
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
            now = ticks()
            due = None if launch.timeout is None else now + launch.timeout + launch.grace + SILENCE
            slot.start(launch, waiting.payload, due)
            # Before the shim knows of it: it may be over when this process goes on.
            slot.started, slot.started_ticks = self._clock.now(), self._clock.ticks()
            self._loop.push(channel)
            self._running[launch.n] = slot
            self._orders[launch.n] = waiting
            self._fence.begin(launch.n, launch.lease)
            self._room -= launch.slots
            started = Started(launch.n, slot.number, slot.started, slot.started_ticks)
            self._server.say(started, HOLD)

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
            self._server.say(Trouble(why))
        self._trouble, self._troubled_at = why, ticks()
        if self._stopping or not self._line.put_back(waiting, self._troubled_at):
            self._refuse(waiting.launch.n, "unable", why)
        else:
            self._loop.after(AGAIN, self._serve_queue)

    def _adopt(self, slot: Slot, channel: Channel) -> None:
        self._loop.watch(channel.fileno(), lambda: self._hear_shim(slot))

    def _refuse(self, n: int, cause: Literal["unable", "end"], error: str) -> None:
        now, ticks = self._clock.now(), self._clock.ticks()
        end = Ended(n, now, cause, None, error, 0, 0, False, ticks=ticks)
        self._server.tell_end(n, self._encode(end))

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
            self._loop.push(slot.channel)
        due = ticks() + grace + SILENCE
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
        self._server.hang_up()
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
                    self._server.tell_end(answer.n, payload, HOLD if busy else 0)
            else:
                slot.due = ticks() + STUCK_AFTER + SILENCE
                self._complain(slot)
        if channel.closed:
            self._lose(slot, "its shim died")
        elif self._line:
            self._serve_queue()
        elif isinstance(slot, WarmSlot) and slot.launch is None:
            slot.stand_by()
            self._loop.push(channel)

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
            self._server.say(Stuck(slot.launch.n, pids))

    def _lose(self, slot: Slot, why: str) -> None:
        """A shim is dead or must die. Its slot is not used before all below it is gone."""
        assert slot.channel is not None
        log(f"slot {slot.number}: {why}")
        self._loop.forget(slot.channel.fileno())
        slot.condemn()
        if slot in self._free:
            self._free.remove(slot)
        self._bury(slot, 1, ticks() + STUCK_AFTER)

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
                self._server.tell_end(launch.n, self._encode(end))
            self._serve_queue()
            return
        if ticks() >= stuck_at and slot.launch is not None:
            pids = strays or slot.processes()
            log(f"attempt {slot.launch.n} is lost and does not end, KILL was sent to {pids}")
            self._server.say(Stuck(slot.launch.n, pids))
            stuck_at = ticks() + STUCK_AFTER
        self._loop.after(delay, lambda: self._bury(slot, min(2 * delay, 500), stuck_at))

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
        return end_strays({slot.pid for slot in self._slots} | self._stock.shims())

    # From time to time, and at the end

    def _beat(self) -> None:
        self._loop.after(_BEAT, self._beat)
        now = ticks()
        for slot in list(self._running.values()):
            if slot.due is not None and slot.due <= now and not slot.lost:
                self._lose(slot, "its shim has fallen silent")
        self._stock.beat()
        if self._trouble and now - self._troubled_at >= _BEAT:
            self._trouble = ""
            log("attempts can be started again")
            self._server.say(Trouble(""))

    def _signalled(self, signals: socket.socket) -> None:
        signals.recv(4096)
        self._stop(LAST_GRACE, "a signal asks for it")

    def _leave(self) -> None:
        """Nothing runs: says the last words and sees the shims go."""
        deadline = ticks() + 2_000
        self._server.finish(deadline)
        self._stock.close()
        for slot in self._slots:
            if slot.channel is not None:
                slot.channel.close()
        for slot in self._slots:
            while not slot.reap():
                if ticks() >= deadline:
                    slot.condemn()
                time.sleep(0.001)
        while not self._stock.gone():
            time.sleep(0.001)


def _is_stem(stem: str) -> bool:
    return "\0" not in stem and all(part not in ("", ".", "..") for part in stem.split("/"))
