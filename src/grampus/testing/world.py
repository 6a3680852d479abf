"""Virtual time, chance from a seed, and the event loops of simulated processes.

Rule: whatever happens, happens in an order that the seed alone decides. Each process has an asyncio
loop of its own, which is worked on until it is idle; then time jumps to what comes next. A process
that is killed is never worked on again: no cleanup of its runs, as with kill -9.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import heapq
import itertools
import random
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from grampus.testing.wire import Listener, Wire

#: Wall time at the start, in ms.
EPOCH = 1_800_000_000_000
#: Turns that a loop may take without time going on.
_LIVELOCK = 5_000


class PowerCut(BaseException):
    """The machine is without power in the middle of a call: its process is no more."""


class World:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        #: Seconds since the start.
        self.time = 0.0
        #: By how much wall time is wrong, in ms, and whether something keeps it right.
        self.off = 0
        self.kept_right = False
        #: Time that went by in one leap, while the machine was off, in ms.
        self._leapt = 0
        #: Share of messages that are lost, doubled or late.
        self.noise = 0.0
        #: Pairs of processes, by name, between which nothing passes.
        self.partition: set[frozenset[str]] = set()
        #: (from, to): what the one sends never reaches the other.
        self.oneway: set[tuple[str, str]] = set()
        self.trace: list[str] = []
        self.listeners: dict[int, Listener] = {}
        self.wires: list[Wire] = []
        self.loops: list[ProcessLoop] = []
        self._graves: list[ProcessLoop] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def now(self) -> int:
        """Wall milliseconds, as the machine shows them."""
        return self.right_now() + self.off

    def right_now(self) -> int:
        """Wall milliseconds, as they are."""
        return EPOCH + int(self.time * 1000) + self._leapt

    def leap(self, ms: int) -> None:
        self._leapt += ms

    def ticks(self) -> int:
        return int(self.time * 1000)

    def synchronised(self) -> bool:
        """What the kernel says of the wall clock."""
        return self.kept_right

    def severed(self, one: str, other: str) -> bool:
        """Whether what the one sends does not reach the other."""
        if self.oneway and (one, other) in self.oneway:
            return True
        return bool(self.partition) and frozenset((one, other)) in self.partition

    def say(self, text: str) -> None:
        self.trace.append(f"{self.time:10.4f}  {text}")

    def after(self, delay: float, do: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (self.time + delay, self._order, do))

    def process(self, name: str) -> ProcessLoop:
        loop = ProcessLoop(self, name)
        self.loops.append(loop)
        return loop

    def kill(self, loop: ProcessLoop) -> None:
        """What it had written to its wires still arrives."""
        if not loop.alive:
            return
        loop.alive = False
        self.loops.remove(loop)
        self._graves.append(loop)
        for listener in list(self.listeners.values()):
            if listener.loop is loop:
                listener.close()
        for wire in [wire for wire in self.wires if wire.loop is loop]:
            wire.vanish()
        for last in loop.dying:
            last()

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        while not done():
            for loop in list(self.loops):
                if loop.alive:
                    loop.work()
            following = [loop.next_at() for loop in self.loops]
            if self._events:
                following.append(self._events[0][0])
            at = min(following, default=until)
            if at >= until:
                self.time = until
                return
            self.time = max(self.time, at)
            while self._events and self._events[0][0] <= self.time:
                heapq.heappop(self._events)[2]()

    def close(self) -> None:
        """Buries every process: their tasks end without any effect."""
        for loop in list(self.loops):
            self.kill(loop)
        self.wires.clear()
        self._events.clear()
        for loop in self._graves:
            loop.bury()
        self._graves.clear()


def current() -> ProcessLoop:
    """The process that runs now."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ProcessLoop)
    return loop


class _Idle(selectors.SelectSelector):
    """Never waits: when a loop has nothing to do, it is stopped instead."""

    idle: Callable[[float | None], None]

    def select(self, timeout: float | None = None) -> list[Any]:
        self.idle(timeout)
        return []


class _Task(asyncio.Task[Any]):
    """A group cancels its tasks in the order of a set. So that a seed is one history, that order
    comes from when they began, not from where they are in memory."""

    def __init__(self, coro: Any, *, loop: ProcessLoop, **rest: Any) -> None:
        self._number = loop.task_number()
        super().__init__(coro, loop=loop, **rest)

    def __hash__(self) -> int:
        return self._number


def _task(loop: asyncio.AbstractEventLoop, coro: Any, **rest: Any) -> asyncio.Task[Any]:
    assert isinstance(loop, ProcessLoop)
    return _Task(coro, loop=loop, **rest)


class ProcessLoop(asyncio.SelectorEventLoop):
    """One process. Threads are played by the loop itself, a little later."""

    def __init__(self, world: World, name: str) -> None:
        selector = _Idle()
        selector.idle = self._idle
        self.world = world
        self.name = name
        self.alive = True
        #: It is stopped (SIGSTOP) until then.
        self.held_until = 0.0
        #: What left a task or a callback by an exception.
        self.broken: BaseException | None = None
        #: Called when it is killed: what its kernel does for it.
        self.dying: list[Callable[[], None]] = []
        #: Seconds that a call on a thread may take longer than it should: a slow disk.
        self.lag = 0.0
        #: And takes longer in any case; and until when a call of an own thread does not come back.
        self.drag = self.hung_until = 0.0
        #: Of which threads, by how their names begin.
        self.hung_threads = "grampus"
        #: Threads work on one call after the other: when the newest of each ends.
        self._busy_until: dict[int, float] = {}
        #: When its next timer is due.
        self._due = 0.0
        self._turns = 0
        self._muted = False
        self._main: set[asyncio.Task[Any]] = set()
        self.task_number = itertools.count().__next__
        super().__init__(selector)
        self.set_task_factory(_task)
        self.set_exception_handler(self._failed)

    def time(self) -> float:
        return self.world.time

    def _idle(self, timeout: float | None) -> None:
        self._turns += 1
        if timeout != 0 or self._turns > _LIVELOCK:
            self._due = float("inf") if timeout is None else self.world.time + timeout
            self.stop()

    def work(self) -> None:
        """Until nothing is left to do at this time."""
        if self.held_until > self.world.time:
            return
        if not self._ready and self._due > self.world.time and self.broken is None:  # type: ignore[attr-defined]
            return
        self._turns = 0
        self.run_forever()
        assert self._turns <= _LIVELOCK or self._muted, f"{self.name} does not come to rest"
        if self.broken is not None and not self._muted:
            raise self.broken

    def next_at(self) -> float:
        if self.held_until > self.world.time:
            return self.held_until
        # A little later, so that a time that was rounded has come.
        return self._due + 1e-7

    def begin(self, main: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task whose failure is the failure of the simulation."""
        task = self.create_task(main, context=contextvars.Context())
        self._main.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._main.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.fail(context.get("exception") or AssertionError(context["message"]))

    def fail(self, error: BaseException) -> None:
        if self.alive and not self._muted and self.broken is None:
            self.broken = error

    def bury(self) -> None:
        self._muted = True
        self.held_until = 0.0
        for _ in range(20):
            left = asyncio.all_tasks(self)
            if not left:
                break
            for task in left:
                task.cancel()
            self.work()
        self.close()

    # -- what the parts of a product ask of a loop ------------------------------------------------

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        future: asyncio.Future[Any] = self.create_future()

        def work() -> None:
            if future.done() or self._muted or not self.alive:
                return
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)
            except PowerCut:
                return

        at = self.world.time + self.world.rng.uniform(0.0001, 0.002)
        if self.lag:
            at += self.world.rng.uniform(0, self.lag)
        if executor is not None:
            at += self.drag
            if executor._thread_name_prefix.startswith(self.hung_threads):
                at = max(at, self.hung_until)
            at = max(at, self._busy_until.get(id(executor), 0.0) + 1e-6)
            self._busy_until[id(executor)] = at
        self.call_at(at, work)
        return future

    async def create_connection(  # type: ignore[override]
        self, factory: Callable[[], Any], host: Any = None, port: Any = None, **_: Any
    ) -> Any:
        await asyncio.sleep(self.world.rng.uniform(0.0001, 0.001))
        listener = self.world.listeners.get(port)
        if listener is not None and (
            self.world.severed(self.name, listener.loop.name)
            or self.world.severed(listener.loop.name, self.name)
        ):
            await asyncio.sleep(3.0)
            raise TimeoutError(errno.ETIMEDOUT, "nothing passes")
        if listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")
        here, there = Wire.pair(self.world, self, listener.loop)
        protocol = factory()
        listener.loop.call_soon(there.attach, listener.factory)
        here.attach(lambda: protocol)
        return here, protocol

    async def create_server(  # type: ignore[override]
        self, factory: Any, *_: Any, sock: Any = None, **__: Any
    ) -> Any:
        port = sock.getsockname()[1]
        listener = self.world.listeners[port] = Listener(self.world, self, factory, port)
        return listener
