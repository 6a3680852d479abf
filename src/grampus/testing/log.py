"""A durable log, and the real ledger behind it. It leads, but for a while others may.

As in SoloLog: all that waits becomes one entry, which is written, synced, applied and then told.
A killed process loses what it had not written, a machine without power what it had not synced; the
ledger's file is as far as it was applied, or, without power, gone back to any older state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from grampus.consensus.port import Listener, Stopped
from grampus.errors import NoQuorum, NotLeader, OutcomeUnknown, Overloaded
from grampus.ledger import Ledger
from grampus.testing.watch import Watch
from grampus.testing.world import ProcessLoop, World

#: Commands in one entry, and proposed and not answered.
ENTRY, IN_FLIGHT = 500, 4096


class Disk:
    """What is left when processes are gone."""

    def __init__(self, world: World, watch: Watch) -> None:
        self.world = world
        self.watch = watch
        self.entries: list[tuple[int, list[bytes]]] = []
        #: So many of them no power cut takes away.
        self.synced = 0
        self.term = 0
        self.ledger = Ledger(None)

    def crash(self, power: bool) -> None:
        """What is not synced may be there or not, in order."""
        keep = self.synced if power else self.ledger.applied_index
        keep = self.world.rng.randint(max(keep, self.synced), len(self.entries))
        if keep < len(self.entries):
            self.world.say(f"lost: {len(self.entries) - keep} log entries that were not answered")
        del self.entries[keep:]
        self.synced = min(self.synced, keep)
        if power:
            self.ledger.close()
            self.ledger = Ledger(None)
            back = self.world.rng.randint(0, self.synced)
            for index in range(1, back + 1):
                self.ledger.apply(index, *self.entries[index - 1])

    def apply_next(self) -> tuple[list[object], list[object]]:
        index = self.ledger.applied_index + 1
        answers, facts = self.ledger.apply(index, *self.entries[index - 1])
        self.watch.applied(self.ledger, facts)
        return answers, facts


class SimLog:
    """Implements `Replica` for one process."""

    def __init__(self, loop: ProcessLoop, disk: Disk) -> None:
        self._loop = loop
        self._disk = disk
        self._world = loop.world
        self._listeners: list[Listener] = []
        self._waiting: list[tuple[list[bytes], asyncio.Future[list[object]]]] = []
        #: What is being written, and whether anything is.
        self._under_way: list[tuple[list[bytes], asyncio.Future[list[object]]]] = []
        self._busy = False
        self._stopped = False
        self._in_flight = 0
        #: It takes half of what is proposed until then, as if too much waited.
        self.refuse_until = 0.0
        self._quiet = asyncio.Event()
        self._led, self._over = asyncio.Event(), asyncio.Event()
        self._led.set()
        while disk.ledger.applied_index < len(disk.entries):
            disk.apply_next()
        disk.synced = len(disk.entries)
        disk.term += 1
        self._term = disk.term
        self._applied = disk.ledger.applied_index

    async def propose(self, commands: Sequence[bytes]) -> list[object]:
        if self._stopped:
            raise Stopped("the log is closed")
        if not commands:
            return []
        full = self._in_flight + len(commands) > IN_FLIGHT
        if not self._led.is_set() and self._world.rng.random() < 0.3:
            raise NoQuorum("no server leads")
        if self._world.time < self.refuse_until:
            full = full or self._world.rng.random() < 0.5
        if full:
            raise Overloaded(f"{self._in_flight} commands wait for the log")
        self._in_flight += len(commands)
        future: asyncio.Future[list[object]] = self._loop.create_future()
        self._waiting.append((list(commands), future))
        self._write()
        return await future

    async def propose_here(self, commands: Sequence[bytes]) -> list[object]:
        return await self.propose(commands)

    def _write(self) -> None:
        if self._busy or not self._waiting:
            return
        self._busy = True
        batch = [self._waiting.pop(0)]
        count = len(batch[0][0])
        while self._waiting and count + len(self._waiting[0][0]) <= ENTRY:
            count += len(self._waiting[0][0])
            batch.append(self._waiting.pop(0))
        self._under_way = batch
        rng = self._world.rng
        slow = rng.random() < 0.03
        self._world.after(rng.uniform(0.00002, 0.0002), lambda: self._written(batch, slow))

    def _written(
        self, batch: list[tuple[list[bytes], asyncio.Future[list[object]]]], slow: bool
    ) -> None:
        if not self._loop.alive:
            return
        commands = [command for part, _ in batch for command in part]
        self._disk.entries.append((self._term, commands))
        rng = self._world.rng
        wait = rng.uniform(0.05, 0.5) if slow else rng.uniform(0.0002, 0.003)
        self._world.after(wait, lambda: self._synced(batch))

    def _synced(self, batch: list[tuple[list[bytes], asyncio.Future[list[object]]]]) -> None:
        if not self._loop.alive:
            return
        self._disk.synced = len(self._disk.entries)
        answers, facts = self._disk.apply_next()
        index = self._disk.ledger.applied_index
        # The loop learns of it a moment later, and may read the new state before.
        self._world.after(
            self._world.rng.uniform(0, 0.0005), lambda: self._tell(index, batch, answers, facts)
        )

    def _tell(
        self,
        index: int,
        batch: list[tuple[list[bytes], asyncio.Future[list[object]]]],
        answers: list[object],
        facts: list[object],
    ) -> None:
        if self._loop.alive:
            self._loop.call_soon(self._committed, index, batch, answers, facts)
            self._busy, self._under_way = False, []
            self._write()

    def _committed(
        self,
        index: int,
        batch: list[tuple[list[bytes], asyncio.Future[list[object]]]],
        answers: list[object],
        facts: list[object],
    ) -> None:
        self._applied = index
        at = 0
        for commands, future in batch:
            part = answers[at : at + len(commands)]
            at += len(commands)
            self._in_flight -= len(commands)
            if not future.done():
                future.set_result(part)
        for listener in self._listeners:
            listener(index, facts)
        if self._stopped and not self._in_flight:
            self._quiet.set()

    def depose(self, seconds: float) -> None:
        """Others lead for so long, and take what is proposed here. Half of what has no answer yet
        gets none; it is in the log, or never will be."""
        if self._stopped or not self._led.is_set():
            return
        self._led.clear()
        self._over.set()
        self._new_term()
        rng, dropped = self._world.rng, []
        for piece in self._waiting:
            commands, future = piece
            if rng.random() < 0.5:
                dropped.append(piece)
                self._in_flight -= len(commands)
                self._fail(future, NotLeader("another leader came before it was in the log"))
            elif rng.random() < 0.5:
                self._fail(future, OutcomeUnknown("the leader was lost"))
        self._waiting = [piece for piece in self._waiting if piece not in dropped]
        for _, future in self._under_way:
            if rng.random() < 0.5:
                self._fail(future, OutcomeUnknown("the leader was lost"))
        self._world.after(seconds, self._lead)

    def _fail(self, future: asyncio.Future[list[object]], error: Exception) -> None:
        def fail() -> None:
            if not future.done():
                future.set_exception(error)

        self._loop.call_soon(fail)

    def _lead(self) -> None:
        if self._loop.alive and not self._stopped:
            self._new_term()
            self._over = asyncio.Event()
            self._loop.call_soon(self._led.set)

    def _new_term(self) -> None:
        self._disk.term += 1
        self._term = self._disk.term

    async def read_barrier(self) -> None:
        if not self._led.is_set() and self._world.rng.random() < 0.3:
            raise NoQuorum("no server leads")

    async def leads(self) -> None:
        if not self._stopped:
            await self._led.wait()
        if self._stopped:
            raise Stopped("the log is closed")

    async def deposed(self, term: int) -> None:
        if self._led.is_set() and term == self._term:
            await self._over.wait()

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    async def close(self) -> None:
        self._stopped = True
        self._over.set()
        self._led.set()
        if self._in_flight:
            await self._quiet.wait()

    @property
    def leader_address(self) -> str | None:
        return None

    @property
    def leader(self) -> bool:
        return self._led.is_set() and not self._stopped

    @property
    def term(self) -> int:
        return self._term

    @property
    def applied_index(self) -> int:
        return self._applied

    @property
    def in_flight(self) -> int:
        return self._in_flight
