"""The servers compare their ledgers: now and then each takes a checksum at the same entry, and
tells it by the log.

Rule: what most of the voters have is right. Whoever has another sum, be it the leader, has a ledger
that must not be used any more: damaged, or made by a program that decided otherwise. It stops for
good, and is replaced. Who takes no part in a round, because he still computes, has just started or
has taken over a snapshot, takes part in the next.

The rows are read on a thread of their own, through a reader that began at the entry, beside
`apply`; it rests as long as it works. While it reads, checkpoints wait, and the log stays.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from grampus.checksum import Tally, checksum
from grampus.clock import Clock
from grampus.consensus.port import Replica, Stopped
from grampus.database import Database
from grampus.errors import GrampusError
from grampus.upkeep import TakeSum, TellSum, encode_command

log = logging.getLogger("grampus.audit")

#: Seconds between two rounds.
EVERY = 600.0
#: Seconds of work after which the reader rests, as long as it has worked.
WORK = 0.002


class Audit:
    """Implements `ledger.Auditor`, and is the Auditor's driver on the event loop."""

    def __init__(
        self,
        replica: Replica,
        server: int,
        name: str,
        voters: Callable[[], Collection[int]],
        clock: Clock,
    ) -> None:
        self._replica = replica
        self._server = server
        self._name = name
        self._voters = voters
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grampus-audit")
        self._tally = Tally()
        self._rounds: asyncio.Queue[tuple[int, Database]] = asyncio.Queue(1)
        self._busy = False
        self._ending = False
        #: What came out here, by index of the round, for the newest ones.
        self.sums: dict[int, str] = {}

    # -- where the ledger is applied

    def begun(self, index: int, reader: Database) -> None:
        if self._busy or self._ending:
            reader.close()
            return
        self._busy = True
        self._loop.call_soon_threadsafe(self._take, index, reader)

    def told(self, index: int, server: int, sum: str) -> str:
        self._tally.told(index, server, sum)
        voters = self._voters()
        if self._tally.split(index, voters):
            log.error(
                "ALARM: the ledgers of the servers differ at entry %d, and no majority has the"
                " same: nobody can say which is right",
                index,
            )
        mine, agreed = self.sums.get(index), self._tally.agreed(index, voters)
        if mine is None or agreed is None or mine == agreed:
            return ""
        return (
            f"the ledger of server {self._name} is not that of the majority at entry {index}: it is"
            " damaged, and must not be used any more. Give it up with grampus cluster replace"
            f" {self._name} on another server, empty the folder, and let it join again"
        )

    # -- on the event loop

    async def ask(self) -> int:
        """Begins a round now; its index. Raises NoQuorum, OutcomeUnknown."""
        (index,) = await self._replica.propose([encode_command(TakeSum(self._clock.now()))])
        assert isinstance(index, int)
        return index

    def outcome(self, index: int) -> tuple[dict[int, str], str | None]:
        """What servers have told of that round, by id, and what most of the voters have."""
        return self._tally.sums(index), self._tally.agreed(index, self._voters())

    def _take(self, index: int, reader: Database) -> None:
        if self._ending:
            reader.close()
        else:
            self._rounds.put_nowait((index, reader))

    async def run(self) -> None:
        """Until cancelled. Raises StorageFailed when the ledger cannot be read."""
        try:
            while True:
                index, reader = await self._rounds.get()
                await self._round(index, reader)
        finally:
            self._ending = True
            while not self._rounds.empty():
                self._rounds.get_nowait()[1].close()
            self._thread.shutdown(wait=False)

    async def _round(self, index: int, reader: Database) -> None:
        computing = self._loop.run_in_executor(self._thread, self._compute, reader)
        try:
            sum = await asyncio.shield(computing)
        except asyncio.CancelledError:
            self._ending = True
            await asyncio.wait([computing])  # it ends at its next rest
            computing.exception()
            raise
        finally:
            self._busy = False
        self.sums = {**dict(list(self.sums.items())[-3:]), index: sum}
        try:
            told = TellSum(self._clock.now(), index, self._server, sum)
            await self._replica.propose([encode_command(told)])
        except Stopped:
            raise
        except GrampusError as error:
            log.warning("the checksum of entry %d is not told: %s", index, error)

    def _compute(self, reader: Database) -> str:
        began = time.monotonic()

        def rest() -> None:
            nonlocal began
            if self._ending:
                raise Stopped("this server stops")
            worked = time.monotonic() - began
            if worked >= WORK:
                time.sleep(worked)
                began = time.monotonic()

        try:
            return checksum(reader, rest)
        finally:
            reader.close()


class AuditRounds:
    """A Clerk of the office: begins the rounds."""

    def __init__(
        self, replica: Replica, clock: Clock, voters: Callable[[], Collection[int]]
    ) -> None:
        self._replica = replica
        self._clock = clock
        self._voters = voters
        self._stopping = False

    def committed(self, index: int, facts: Sequence[object]) -> None:
        return

    def stop(self) -> None:
        self._stopping = True

    async def run(self, epoch: int) -> None:
        """Until cancelled or stopped."""
        while True:
            await asyncio.sleep(EVERY)
            if self._stopping:
                return
            if len(self._voters()) < 2:
                continue  # there is nobody to compare with
            try:
                await self._replica.propose([encode_command(TakeSum(self._clock.now()))])
            except Stopped:
                return
            except GrampusError as error:
                log.warning("the servers do not compare their ledgers now: %s", error)
