"""The real cores and message paths, with an eye on each step and noise on each message."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from grampus.master.core.check import check
from grampus.master.core.scheduler import Scheduler
from grampus.master.roster import Roster
from grampus.protocol import Message
from grampus.testing.watch import Watch
from grampus.testing.world import World, current
from grampus.worker.core.check import Watch as CoreWatch
from grampus.worker.core.core import WorkerCore
from grampus.worker.core.events import Acked, Event, KillAsked, SyncAsked
from grampus.worker.core.instructions import Instruction, Launch
from grampus.worker.core.memory import Memory
from grampus.worker.link import Link


@contextlib.contextmanager
def _fatal() -> Iterator[None]:
    """What fails ends the simulation, even where the product would log it and go on."""
    try:
        yield
    except Exception as error:
        current().fail(error)
        raise


class CheckedScheduler(Scheduler):
    def step(self, now: int, events: Any, *args: Any, **kwargs: Any) -> Any:
        with _fatal():
            turn = super().step(now, events, *args, **kwargs)
            check(self)
            return turn


class CheckedCore(WorkerCore):
    """What was acknowledged is committed; what was killed unseen never starts; what a Sync closes
    is ended."""

    told: ClassVar[Watch]

    def __init__(self, slots: int, memory: Memory | None = None, **kwargs: Any) -> None:
        super().__init__(slots, memory, **kwargs)
        self._watch = CoreWatch()
        if memory is not None:
            self._watch.written.add(memory.entries())
        self._killed: set[tuple[int | None, int]] = set()
        self._synced_at = -1

    def step(self, now: int, events: Any) -> list[Instruction]:
        with _fatal():
            return self._checked(now, list(events))

    def _checked(self, now: int, happened: list[Event]) -> list[Instruction]:
        for event in happened:
            if isinstance(event, Acked):
                for n in (*event.done, *event.stale):
                    assert (event.session, n) in self.told.finals, f"{n} is not committed"
        before = self.session
        out = super().step(now, happened)
        self._watch.look(self, out)
        if self.session != before:
            self._synced_at = -1
        for instruction in out:
            if isinstance(instruction, Launch):
                assert (self.session, instruction.n) not in self._killed, "killed, and launched"
        for event in happened:
            if isinstance(event, KillAsked) and event.session == self.session:
                if (event.session, event.n) not in self._watch.launched:
                    self._killed.add((event.session, event.n))
            elif isinstance(event, SyncAsked) and event.session == self.session == before:
                self._synchronized(event)
        return out

    def _synchronized(self, sync: SyncAsked) -> None:
        if sync.revision < self._synced_at:
            return
        self._synced_at = sync.revision
        for n in set(range(1, sync.next_n)) - set(sync.live):
            assert n in self.attempts.seen, f"{n} is over and might start"
            attempt = self.attempts.live.get(n)
            assert attempt is None or attempt.stop is not None, f"{n} is over and goes on"


def disturb(world: World, later: Callable[[float, Callable[[], None]], Any], send: Any) -> None:
    """Mostly sends; sometimes not, twice, or late."""
    rng = world.rng
    if rng.random() >= world.noise:
        send()
        return
    how = rng.choice(["lost", "twice", "late"])
    if how == "twice":
        send()
    if how != "lost":
        later(rng.choice([0.0, rng.uniform(0, 0.1), rng.uniform(0, 15)]), send)


class NoisyRoster(Roster):
    """Assign, Kill and Sync may be lost, doubled or late, on the connection that they are for."""

    def __init__(self, world: World, *args: Any) -> None:
        super().__init__(*args)
        self._world = world

    def send(self, session: int, message: Message) -> None:
        said, connection = super().send, self._control.get(session)

        def send() -> None:
            if self._control.get(session) is connection:
                said(session, message)

        disturb(self._world, current().call_later, send)


class NoisyLink(Link):
    """Reports and Synced may be, too, on the connection that they were made for."""

    over: ClassVar[World]

    def send(self, message: Message) -> None:
        connection = self._control
        loop = current()

        def send() -> None:
            if connection is not None:
                connection.send(message)

        disturb(self.over, loop.call_later, send)
