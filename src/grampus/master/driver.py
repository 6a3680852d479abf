"""The master's loop: collect what happened, step, send, propose. It decides nothing.

Order of one round: messages of the turn leave first (they are consequences of committed facts),
then its commands are proposed; what they bring about comes back as facts, through the same inbox as
everybody else's. A refused command comes back as `Declined`, and its run is read anew.

A Master lasts for one office (see `office`): the next one begins with nothing but the ledger.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from grampus.master.asking import Deposed, ask
from grampus.master.briefs import Briefs
from grampus.master.core.events import Declined, Happening, Loaded, Stopping
from grampus.master.core.scheduler import Scheduler
from grampus.master.core.turn import Order, SendAssign, Turn
from grampus.master.loading import Loading
from grampus.master.roster import Roster
from grampus.master.timekeeper import Timekeeper
from grampus.protocol import Forget
from grampus.runs.commands import Refusal
from grampus.runs.events import Event, RunDeleted, RunFinished
from grampus.runs.proposer import Proposer

log = logging.getLogger("grampus.master")

#: Commands proposed together.
BATCH = 500
#: Between two tries while the log takes nothing more, in seconds.
BUSY = 0.05


class Master:
    """`begin`, then `run`; `happened` and `committed` may be called on the loop from before on."""

    def __init__(
        self,
        proposer: Proposer,
        loading: Loading,
        briefs: Briefs,
        roster: Roster,
        clock: Timekeeper,
    ) -> None:
        self._proposer = proposer
        self._loading = loading
        self._briefs = briefs
        self._roster = roster
        self._clock = clock
        self._inbox: list[Happening] = []
        self._wake = asyncio.Event()
        #: For those who ask why something waits; they change nothing in it. None before `begin`.
        self.scheduler: Scheduler | None = None

    def happened(self, events: Iterable[Happening]) -> None:
        self._inbox.extend(events)
        self._wake.set()

    def committed(self, index: int, facts: Sequence[object]) -> None:
        """The replica's listener."""
        found = [fact for fact in facts if isinstance(fact, Event)]
        if found:
            self.happened(found)  # type: ignore[arg-type]

    def stop(self) -> None:
        """Starts nothing more; what lives is still looked after."""
        self.happened([Stopping()])

    async def begin(self, epoch: int) -> None:
        """Reads the ledger, which has the office's own command by now."""
        # Facts up to the loaded revision that are in the inbox too are skipped by the scheduler.
        loaded = await self._load()
        self._inbox.insert(0, loaded)
        log.info(
            "in office with epoch %d: %d live attempts, %d tasks ready",
            epoch, len(loaded.live), len(loaded.ready),
        )  # fmt: skip
        self.scheduler = Scheduler(epoch)

    async def run(self) -> None:
        """Rounds until cancelled. Raises Deposed."""
        assert self.scheduler is not None
        while True:
            events, self._inbox = self._inbox, []
            self._wake.clear()
            believed, ticks = self._clock.believes(), self._clock.ticks()
            turn = self.scheduler.step(
                self._clock.now(), events, not believed, ticks, self._roster.pulse.look(ticks)
            )
            self._send(turn.messages)
            self._told(events)
            if turn.deposed:
                raise Deposed("another master has taken office")
            await self._propose(turn)
            if not self._inbox:
                await self._sleep(turn.wake_at)

    async def _load(self) -> Loaded:
        """The connection is free for others when this ends, however it ends."""
        reading = asyncio.get_running_loop().run_in_executor(None, self._loading.everything)
        try:
            return await asyncio.shield(reading)
        finally:
            if not reading.done():
                await asyncio.wait([reading])

    async def _propose(self, turn: Turn) -> None:
        for start in range(0, len(turn.commands), BATCH):
            commands = turn.commands[start : start + BATCH]
            answers = await ask(self._proposer, commands, BUSY)
            self._inbox.extend(
                Declined(command, answer)
                for command, answer in zip(commands, answers, strict=True)
                if isinstance(answer, Refusal)
            )
        for run in turn.reload:
            self._inbox.append(self._loading.run(run))

    def _send(self, orders: tuple[Order, ...]) -> None:
        for order in orders:
            if isinstance(order, SendAssign):
                assign = self._briefs.assign(order)
                if assign is not None:
                    self._roster.send(order.session, assign)
            else:
                self._roster.send(order.session, order)

    def _told(self, events: list[Happening]) -> None:
        """What others must do about facts."""
        deleted = []
        for event in events:
            if isinstance(event, RunFinished):
                self._briefs.forget(event.run)
            elif isinstance(event, RunDeleted):
                deleted.append(event.run)
        for start in range(0, len(deleted), BATCH):
            self._roster.send_all(Forget(deleted[start : start + BATCH]))

    async def _sleep(self, wake_at: int | None) -> None:
        if wake_at is None:
            await self._wake.wait()
            return
        delay = max(0, wake_at - self._clock.now()) / 1000
        # Wall time may jump: look again at least once a second.
        try:
            async with asyncio.timeout(min(delay, 1.0)):
                await self._wake.wait()
        except TimeoutError:
            pass
