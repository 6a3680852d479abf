"""The loop that fires schedules: collect what happened, step, propose. It decides nothing.

It runs beside the master's loop, in the same office: a thousand schedules that are due in one
minute are proposed turn by turn, and hold nobody up. A step runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from grampus.master.almanac import Almanac
from grampus.master.asking import Deposed, ask
from grampus.master.core.triggers import (
    Firing,
    ScheduleLoaded,
    TickDeclined,
    Triggers,
)
from grampus.master.timekeeper import Timekeeper
from grampus.runs.commands import Refusal
from grampus.runs.events import Fact, SchedulePlanned, WorkflowApplied, WorkflowDeleted
from grampus.runs.proposer import Proposer
from grampus.runs.reads import Reads

log = logging.getLogger("grampus.master")

#: Schedules read at once.
PAGE = 500
#: Wall time may jump: it is looked at so often at least, in seconds.
LOOK = 1.0
#: Between two tries while the log takes nothing more, in seconds.
BUSY = 0.5
_CONCERNS = (SchedulePlanned, WorkflowApplied, WorkflowDeleted)


class ScheduleDriver:
    """`committed` may be called at any time on the loop; `run` needs the replica to be open."""

    def __init__(self, proposer: Proposer, reads: Reads, clock: Timekeeper) -> None:
        self._proposer = proposer
        self._reads = reads
        self._clock = clock
        self._inbox: list[Fact | ScheduleLoaded | TickDeclined] = []
        self._wake = asyncio.Event()
        self._stopping = False

    def committed(self, index: int, facts: Sequence[object]) -> None:
        """The replica's listener."""
        found = [fact for fact in facts if isinstance(fact, _CONCERNS)]
        if found:
            self._inbox.extend(found)
            self._wake.set()

    def stop(self) -> None:
        """Fires nothing more."""
        self._stopping = True
        self._wake.set()

    async def run(self, epoch: int) -> None:
        """Until cancelled or stopped. Raises Deposed."""
        triggers = Triggers(epoch, Almanac())
        await self._load()
        while not self._stopping:
            events, self._inbox = self._inbox, []
            self._wake.clear()
            now = self._clock.now()
            believed = self._clock.believes()
            turn = await asyncio.to_thread(triggers.step, now, events, not believed)
            if turn.deposed:
                raise Deposed("another master has taken office")
            await self._carry_out(turn)
            if not self._inbox:
                await self._sleep(turn.wake_at if believed else None)

    async def _load(self) -> None:
        after = ""
        while page := await self._reads.schedules(PAGE, after):
            self._inbox.extend(ScheduleLoaded(view.workflow, view) for view in page)
            after = page[-1].workflow

    async def _carry_out(self, turn: Firing) -> None:
        if turn.commands and not self._stopping:
            answers = await ask(self._proposer, turn.commands, BUSY)
            self._inbox.extend(
                TickDeclined(command.workflow, answer)
                for command, answer in zip(turn.commands, answers, strict=True)
                if isinstance(answer, Refusal)
            )
        for workflow in turn.reload:
            self._inbox.append(ScheduleLoaded(workflow, await self._reads.schedule(workflow)))

    async def _sleep(self, wake_at: int | None) -> None:
        delay = LOOK
        if wake_at is not None:
            delay = min(max(0, wake_at - self._clock.now()) / 1000, LOOK)
        try:
            async with asyncio.timeout(delay):
                await self._wake.wait()
        except TimeoutError:
            pass
