"""Old runs are deleted, and blobs that nobody names any more are removed.

What is old is said by the clock, and what is deleted is gone: while it is in doubt (see
`timekeeper`), it is a day until anything is.

Runs are deleted by a command of the server in office; blobs are files, and each server removes its
own, after a read barrier: what was named before it looked is in its ledger.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import accumulate

from grampus.blobs import Blobs
from grampus.errors import GrampusError
from grampus.master.timekeeper import Timekeeper
from grampus.runs.commands import Retain
from grampus.runs.proposer import Proposer
from grampus.runs.reads import Reads

log = logging.getLogger("grampus.master")

#: How often it looks, in seconds. One command deletes so many runs at most, and no more of them
#: than have so many events and task runs together, unless one has more: all else waits for it.
EVERY = 600.0
RUNS, ROWS = 50, 5_000
#: A blob may be there before the command that names it: younger ones are left alone, in seconds.
#: Elsewhere than in office for twice as long: what is found there in office is there elsewhere too.
YOUNG = 24 * 3600
#: How long a clock that is in doubt is not believed, in ms.
DOUBT = 24 * 3_600_000


class Retention:
    """`keep` is for how long finished runs stay, in ms; `rules` says whether this server is in
    office."""

    def __init__(
        self,
        proposer: Proposer,
        reads: Reads,
        blobs: Blobs,
        clock: Timekeeper,
        keep: int,
        rules: Callable[[], bool] = lambda: True,
    ) -> None:
        self._rules = rules
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
        now = self._clock.now()
        rules = self._rules()
        deleted = await self._delete(now) if rules else 0
        await self._proposer.settle()
        await self._sweep(now / 1000 - (YOUNG if rules else 2 * YOUNG))
        return deleted

    async def _delete(self, now: int) -> int:
        deleted, before = 0, now - self._keep
        below = await self._reads.first_run_since(before, now)
        while True:
            sizes = await self._reads.sizes_of_old_runs(before, below, RUNS, ROWS + 1)
            fit = sum(1 for size in accumulate(sizes) if size <= ROWS)
            (runs,) = await self._proposer.propose(Retain(now, before, max(fit, 1), below))
            assert isinstance(runs, list)
            deleted += len(runs)
            if len(runs) == len(sizes) < RUNS and not await self._reads.has_ticks_before(before):
                return deleted

    async def _sweep(self, before: float) -> None:
        """Removes what nobody names and nobody has renewed since `before`, in seconds."""
        blobs = await asyncio.to_thread(lambda: list(self._blobs.hashes()))
        old = [hash for hash, renewed in blobs if renewed < before]
        for start in range(0, len(old), 500):
            some = old[start : start + 500]
            named = set(await self._reads.referenced_blobs(some))
            for hash in some:
                if hash not in named:
                    await asyncio.to_thread(self._blobs.remove, hash, before)
