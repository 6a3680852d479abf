"""Old runs are deleted, and blobs that nobody names any more are removed.

What is old is said by the clock, and what is deleted is gone: while it is in doubt (see
`timekeeper`), it is a day until anything is.
"""

from __future__ import annotations

import asyncio
import logging

from grampus.blobs import Blobs
from grampus.errors import GrampusError
from grampus.master.timekeeper import Timekeeper
from grampus.runs.commands import Retain
from grampus.runs.proposer import Proposer
from grampus.runs.reads import Reads

log = logging.getLogger("grampus.master")

#: How often it looks, in seconds, and how many runs one command deletes.
EVERY = 600.0
RUNS = 50
#: A blob may be there before the command that names it: younger ones are left alone, in seconds.
YOUNG = 24 * 3600
#: How long a clock that is in doubt is not believed, in ms.
DOUBT = 24 * 3_600_000


class Retention:
    """`keep` is for how long finished runs stay, in ms."""

    def __init__(
        self,
        proposer: Proposer,
        reads: Reads,
        blobs: Blobs,
        clock: Timekeeper,
        keep: int,
    ) -> None:
        self._proposer = proposer
        self._reads = reads
        self._blobs = blobs
        self._clock = clock
        self._keep = keep

    async def run(self) -> None:
        """Until cancelled. A look that fails is logged, and the next one tries again."""
        while True:
            await asyncio.sleep(EVERY)
            if not self._clock.believes(DOUBT):
                continue
            try:
                await self.once()
            except (GrampusError, OSError) as error:
                log.warning("retention: %s", error)

    async def once(self) -> int:
        """How many runs were deleted."""
        now, deleted = self._clock.now(), 0
        while True:
            (runs,) = await self._proposer.propose(Retain(now, now - self._keep, RUNS))
            assert isinstance(runs, list)
            deleted += len(runs)
            if len(runs) < RUNS and not await self._reads.has_ticks_before(now - self._keep):
                break
        await self._sweep(now)
        return deleted

    async def _sweep(self, now: int) -> None:
        before = now / 1000 - YOUNG
        blobs = await asyncio.to_thread(lambda: list(self._blobs.hashes()))
        old = [hash for hash, renewed in blobs if renewed < before]
        for start in range(0, len(old), 500):
            some = old[start : start + 500]
            named = set(await self._reads.referenced_blobs(some))
            for hash in some:
                if hash not in named:
                    await asyncio.to_thread(self._blobs.remove, hash, before)
