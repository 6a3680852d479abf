"""The office of the master: held on the server whose replica leads, for as long as it leads.

Rule: what was known in one office is forgotten at its end. The next one, here or elsewhere, begins
with a command of its own (`TakeOffice`, whose index is the epoch) and a look at the ledger.
Whatever an earlier office still had under way is refused by its epoch, or is a compare-and-set.

Losing the lead is normal: `run` ends those who are in office, sends the workers away, and waits for
the lead again. It leaves to them what they do, and to the replica who leads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from grampus.clock import Clock
from grampus.consensus.port import Replica, Stopped
from grampus.errors import GrampusError, OutcomeUnknown
from grampus.master.asking import Deposed
from grampus.master.core.events import Happening
from grampus.master.core.scheduler import Scheduler
from grampus.master.driver import Master
from grampus.master.rounds import Rounds
from grampus.runs.commands import Refusal, TakeOffice
from grampus.runs.proposer import Proposer

log = logging.getLogger("grampus.master")

#: Between two tries to take office, in seconds.
AGAIN = 0.05
#: A worker that comes between the election and the office waits so long, in seconds.
SOON = 2.0


class Clerk(Protocol):
    """Somebody who works in one office, beside its master. Made anew for each."""

    def committed(self, index: int, facts: Sequence[object]) -> None:
        """What the log brings, from before `run` on."""

    async def run(self, epoch: int) -> None:
        """Until cancelled or stopped. May raise Deposed."""

    def stop(self) -> None:
        """Begins nothing more."""


class Office:
    """`appoint` makes a master, `hire` the clerks; `chores` run in every office as they are.

    `dismiss` is told why, when the workers of this office have to go."""

    def __init__(
        self,
        node: str,
        replica: Replica,
        proposer: Proposer,
        clock: Clock,
        *,
        appoint: Callable[[], Master],
        dismiss: Callable[[str], None],
        hire: Callable[[], Sequence[Clerk]] = tuple,
        chores: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    ) -> None:
        self._node = node
        self._replica = replica
        self._proposer = proposer
        self._clock = clock
        self._appoint = appoint
        self._dismiss = dismiss
        self._hire = hire
        self._chores = chores
        self._master: Master | None = None
        self._clerks: Sequence[Clerk] = ()
        self._rounds = Rounds(replica.read_barrier)
        #: Set while there is a master that hears of workers.
        self._open = asyncio.Event()
        #: Nothing new is begun.
        self.stopping = False
        #: Of this office; 0 between two.
        self.epoch = 0
        #: Set while the master is in office.
        self.held = asyncio.Event()
        replica.subscribe(self._committed)

    # -- for those who are not in it ------------------------------------------------------------

    @property
    def scheduler(self) -> Scheduler | None:
        """For those who ask why something waits. None between two offices."""
        return None if self._master is None else self._master.scheduler

    @property
    def is_open(self) -> bool:
        """Whether workers are heard here."""
        return self._open.is_set()

    async def opens(self) -> bool:
        """The same, but waits for an office that is about to be taken."""
        if not self.is_open and self._replica.leader:
            try:
                async with asyncio.timeout(SOON):
                    await self._open.wait()
            except TimeoutError:
                pass
        return self.is_open

    async def confirmed(self) -> bool:
        """Whether this office was still the only one at some moment after the call: a majority has
        said so. Only then was whoever asks heard, for all that a later office may do."""
        replica, term = self._replica, self._replica.term
        if not (self.is_open and replica.leader):
            return False
        try:
            await self._rounds.confirm()
        except GrampusError:
            return False
        # A barrier is passed by whoever leads: that must have been this server, all the time.
        return self.is_open and replica.leader and replica.term == term

    def happened(self, events: Iterable[Happening]) -> None:
        """Nobody needs to hear of it between two offices: each begins without any worker."""
        if self._master is not None:
            self._master.happened(events)

    def stop(self) -> None:
        """Nothing more is started or fired; what lives is still looked after."""
        self.stopping = True
        if self._master is not None:
            self._master.stop()
        for clerk in self._clerks:
            clerk.stop()

    # -- one office after the other -------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. Raises Stopped when the replica has ended, and what a part of it
        raised."""
        # The last part of each group runs in its body: Python 3.11 and 3.12 leave a task marked as
        # cancelled when a part fails while the group only waits for its parts.
        while True:
            await self._replica.leads()
            term = self._replica.term
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._until_deposed(term))
                    await self._serve(term)
            except* (Deposed, Stopped, OutcomeUnknown) as reasons:
                # A replica that has ended says so at the next `leads`.
                log.warning("out of office: %s", _first(reasons))
            # A group that fails keeps to itself that it was cancelled in the same moment.
            me = asyncio.current_task()
            if me is not None and me.cancelling():
                raise asyncio.CancelledError

    async def _until_deposed(self, term: int) -> None:
        await self._replica.deposed(term)
        raise Deposed(f"this server leads no more: its term {term} is over")

    async def _serve(self, term: int) -> None:
        try:
            # From now on facts and workers are heard.
            master, clerks = self._master, self._clerks = self._appoint(), self._hire()
            if self.stopping:
                self.stop()
            self._open.set()
            epoch = await self._take(term)
            await master.begin(epoch)
            self.epoch = epoch
            self.held.set()
            async with asyncio.TaskGroup() as group:
                for clerk in clerks:
                    group.create_task(clerk.run(epoch))
                for chore in self._chores:
                    group.create_task(chore())
                await master.run()
        finally:
            self.held.clear()
            self._open.clear()
            self.epoch, self._master, self._clerks = 0, None, ()
            self._dismiss("the server stops" if self.stopping else "this server leads no more")

    async def _take(self, term: int) -> int:
        """The epoch. As often as it takes: clients that submit need no master, and may be many.

        Asked for twice, the later office counts. Raises Deposed when the term is over."""
        while True:
            command = TakeOffice(self._clock.now(), self._node, term)
            try:
                (epoch,) = await self._proposer.propose(command)
            except Stopped:
                raise
            except GrampusError:
                await asyncio.sleep(AGAIN)
                continue
            if isinstance(epoch, Refusal):
                await asyncio.sleep(AGAIN)
                raise Deposed(epoch.reason)
            assert isinstance(epoch, int)
            return epoch

    def _committed(self, index: int, facts: Sequence[object]) -> None:
        """The replica's listener."""
        if self._master is not None:
            self._master.committed(index, facts)
            for clerk in self._clerks:
                clerk.committed(index, facts)


def _first(group: BaseExceptionGroup[Exception]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
