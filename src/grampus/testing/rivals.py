"""Two logs of which one is taken at a time: the leader may be replaced without knowing it.

As with a majority: from the moment at which it is away from the chief, nothing that the chief
proposes is committed and no barrier that it begins is passed; a while later the other one leads,
and sooner or later the first one learns of it. Until then it believes that it leads.
"""

from __future__ import annotations

import asyncio

from grampus.errors import NoQuorum, NotLeader, OutcomeUnknown
from grampus.testing.log import Disk, SimLog
from grampus.testing.world import ProcessLoop

Batch = list[tuple[list[bytes], asyncio.Future[list[object]]]]


class Court:
    """Who is taken."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.logs: list[RivalLog] = []
        #: None while there is nobody.
        self.chief: RivalLog | None = None

    def usurp(self, unaware: float = 2.0) -> None:
        """The one that leads is away from the majority, and another one is elected. It notices
        after so many seconds, or sooner."""
        old, world = self.chief, self.disk.world
        if old is None:
            return
        self.chief = None
        # What is in the log stays there, whatever its proposer hears of it.
        while self.disk.ledger.applied_index < len(self.disk.entries):
            self.disk.apply_next()
        self.disk.synced = len(self.disk.entries)
        new = next(log for log in self.logs if log is not old)
        world.after(world.rng.uniform(0.3, 2.0), lambda: self._crown(new))
        world.after(world.rng.uniform(unaware / 2, unaware), old.lose)

    def _crown(self, log: RivalLog) -> None:
        self.chief = log
        log.take()


class RivalLog(SimLog):
    def __init__(self, loop: ProcessLoop, disk: Disk, court: Court, node_address: str) -> None:
        super().__init__(loop, disk)
        self.process = loop
        self._court = court
        self.node_address = node_address
        court.logs.append(self)
        if court.chief is None:
            court.chief = self
        else:
            self._led.clear()

    def _written(self, batch: Batch, slow: bool) -> None:
        if self._court.chief is self:
            super()._written(batch, slow)
        else:
            self._loop.call_soon(self._drop, batch)

    def _synced(self, batch: Batch) -> None:
        if self._court.chief is self and self._disk.ledger.applied_index < len(self._disk.entries):
            super()._synced(batch)
        else:
            self._loop.call_soon(self._drop, batch)

    def _drop(self, batch: Batch) -> None:
        for commands, future in batch:
            self._in_flight -= len(commands)
            if not future.done():
                future.set_exception(OutcomeUnknown("the leader was lost"))
        self._busy, self._under_way = False, []
        self._write()

    async def read_barrier(self) -> None:
        """Whoever leads may pass it on: that somebody leads does not say that this one does."""
        chief = self._court.chief
        if chief is None or (chief is not self and self._world.rng.random() < 0.1):
            await asyncio.sleep(self._world.rng.uniform(0, 2))
            raise NoQuorum("no majority")
        await asyncio.sleep(self._world.rng.uniform(0.0001, 0.01))

    def lose(self) -> None:
        """A process that stands still learns it a while after it goes on."""
        delay = self._world.rng.uniform(0, 1.0)
        self._loop.call_soon(lambda: self._loop.call_later(delay, self._lose))

    def _lose(self) -> None:
        if self._court.chief is not self:
            self._step_down()

    def _step_down(self) -> None:
        self._led.clear()
        self._over.set()
        self._term = self._disk.term
        waiting, self._waiting = self._waiting, []
        for commands, future in waiting:
            self._in_flight -= len(commands)
            if not future.done():
                future.set_exception(NotLeader("another one leads"))

    def take(self) -> None:
        self._loop.call_soon(self._take)

    def _take(self) -> None:
        """Also of one that has not even learned that others led meanwhile."""
        if self._court.chief is not self:
            return
        if self._led.is_set():
            self._step_down()
        self._new_term()
        self._over = asyncio.Event()
        self._loop.call_later(0.01, self._led.set)


class Signpost:
    """The Directory of such a server: where the chief is."""

    def __init__(self, court: Court) -> None:
        self._court = court

    def leader(self) -> str:
        chief = self._court.chief
        return "" if chief is None else chief.node_address

    def servers(self) -> tuple[str, ...]:
        return tuple(log.node_address for log in self._court.logs)
