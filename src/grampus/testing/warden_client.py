"""The worker's end of the connection to a simulated warden: `worker.warden_client`, without files.

Each direction is one call of the other side's process, in order, so that either may be dead, held
or asleep meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from grampus.testing.machine import Machine
from grampus.testing.warden import Warden
from grampus.testing.world import ProcessLoop
from grampus.worker import orders
from grampus.worker.warden_client import WardenFailed


class SimWardenClient:
    """What the worker's driver knows of a warden. Stands for `WardenClient`."""

    containment = "simulated"

    def __init__(
        self,
        warden: Warden,
        notice: Callable[[list[orders.Notice]], None],
        gone: Callable[[], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ProcessLoop)
        self.loop = loop
        self.warden = warden
        self.instance = warden.instance
        self.slots = warden.slots
        self.closed = asyncio.Event()
        self._notice = notice
        self._gone = gone
        self._asked = False
        self._left = False
        #: Nothing that was said earlier may be heard later, either way.
        self._there = self._here = 0.0
        self.running = warden.accept(self).running
        loop.dying.append(self._vanish)

    @classmethod
    async def attach(
        cls,
        machine: Machine,
        notice: Callable[[list[orders.Notice]], None],
        gone: Callable[[], None],
    ) -> SimWardenClient | None:
        await asyncio.sleep(machine.world.rng.uniform(0.0005, 0.01))
        for _ in range(100):
            found = [w for w in machine.wardens if w.goes_on()]
            if not found:
                return None
            if not found[-1].taken:
                return cls(found[-1], notice, gone)
            await asyncio.sleep(0.05)
        return None

    @classmethod
    async def start(
        cls,
        machine: Machine,
        slots: int,
        notice: Callable[[list[orders.Notice]], None],
        gone: Callable[[], None],
    ) -> SimWardenClient:
        await asyncio.sleep(machine.world.rng.uniform(0.05, 0.3))
        for _ in range(3_000):
            if machine.quiet:
                return cls(Warden(machine, slots), notice, gone)
            await asyncio.sleep(0.01)
        raise WardenFailed("another warden still has attempts in this folder")

    # -- to the warden ----------------------------------------------------------------------------

    def send(self, order: orders.Order) -> None:
        if self.loop.alive and not self.closed.is_set():
            self._to(lambda: self.warden.hear(self, order))

    def leave(self) -> None:
        self._left = self._asked = True
        self.closed.set()
        if self.loop.alive:
            self._vanish()

    def retire(self) -> None:
        self.send(orders.Shutdown(0))

    async def stop(self, grace: int) -> None:
        self._asked = True
        self.send(orders.Shutdown(grace))
        try:
            async with asyncio.timeout(grace / 1000 + 5):
                await self.closed.wait()
        except TimeoutError:
            raise WardenFailed("the warden cannot end all its attempts") from None

    def _vanish(self) -> None:
        self._to(lambda: self.warden.worker_gone(self))

    def _to(self, do: Callable[[], None]) -> None:
        world = self.warden.world
        self._there = max(self._there, world.time + world.rng.uniform(0.00002, 0.001))
        world.after(self._there - world.time, do)

    # -- from the warden --------------------------------------------------------------------------

    def come(self, notice: orders.Notice) -> None:
        self._from(lambda: self._hear(notice))

    def end(self) -> None:
        self._from(self._closed)

    def _from(self, do: Callable[[], None]) -> None:
        world = self.warden.world
        self._here = max(self._here, world.time + world.rng.uniform(0.00002, 0.001))
        world.after(self._here - world.time, lambda: self._call(do))

    def _call(self, do: Callable[[], None]) -> None:
        if self.loop.alive:
            self.loop.call_soon(do)

    def _hear(self, notice: orders.Notice) -> None:
        if not self._left:
            self._notice([notice])

    def _closed(self) -> None:
        self.closed.set()
        if not self._asked:
            self._gone()
