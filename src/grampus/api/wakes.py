"""Who is woken when a run changes.

Rule: a stream holds no queue. It reads pages from the ledger at the pace of its client, and is only
*woken*; so a slow client costs nothing, and nothing is missed or sent twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from grampus.errors import GrampusError
from grampus.runs.events import Event

#: See `Ports.barrier`; None where a read may be stale.
Barrier = Callable[[], Awaitable[None]] | None

#: Seconds of silence after which a stream says that it lives: both sides notice a dead connection.
HEARTBEAT = 15.0
#: Seconds of silence after which a stream asks whether its server still hears a majority: without
#: one, nothing that happens comes here.
PROBE = 5.0
#: Streams that may be open at once.
MOST_STREAMS = 256


class Woken:
    """One stream's bell."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        #: The server stops: end the stream.
        self.closed = False

    def ring(self) -> None:
        self._rung.set()

    def clear(self) -> None:
        """Call before reading: a change that comes while you read rings again."""
        self._rung.clear()

    def take(self) -> bool:
        """Whether it rang; it is clear afterwards."""
        rung = self._rung.is_set()
        self._rung.clear()
        return rung

    async def nap(self, least: float, most: float) -> None:
        """Sleeps for `least` seconds, and then until it rings, at most for `most` in all."""
        await asyncio.sleep(least)
        await self.wait(most - least)

    async def wait(self, seconds: float) -> bool:
        """False when nothing rang for so long. Does not clear."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        return True


class Wakes:
    """The node subscribes `hear` to its log, which wakes each run that a commit changed; streams
    wait on `watch`."""

    def __init__(self) -> None:
        self._bells: dict[str, set[Woken]] = {}
        self._closed = False

    @property
    def streams(self) -> int:
        return sum(map(len, self._bells.values()))

    def wake(self, run: str) -> None:
        """Costs one look-up when nobody watches."""
        for bell in self._bells.get(run, ()):
            bell.ring()

    def hear(self, index: int, facts: Sequence[object]) -> None:
        """What a commit brought about."""
        for fact in facts:
            if isinstance(fact, Event) and fact.run:
                self.wake(fact.run)

    def close(self) -> None:
        """Ends all streams, and those to come at once."""
        self._closed = True
        for bells in self._bells.values():
            for bell in bells:
                bell.closed = True
                bell.ring()

    @contextmanager
    def watch(self, run: str) -> Iterator[Woken]:
        bell = Woken()
        bell.closed = self._closed
        bells = self._bells.setdefault(run, set())
        bells.add(bell)
        try:
            yield bell
        finally:
            bells.discard(bell)
            if not bells and self._bells.get(run) is bells:
                del self._bells[run]


async def is_cut_off(barrier: Barrier) -> bool:
    """Whoever streams ends the stream then: the client says so, and looks for who goes on."""
    if barrier is None:
        return False
    try:
        await barrier()
    except GrampusError:
        return True
    return False
