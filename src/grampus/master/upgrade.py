"""Who raises the apply version of the ledger: a clerk of the office.

Rule: it is raised as soon as every server knows a newer one, and never before. Whoever falls back
between the look and the command meets what he does not know, and stops: `Ledger` sees to that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from grampus.clock import Clock
from grampus.consensus.port import Replica, Stopped
from grampus.errors import GrampusError
from grampus.upkeep import RaiseVersion, encode_command

log = logging.getLogger("grampus.master")

#: Seconds between two looks.
LOOK = 0.5


class Upgrade:
    """`version` is that of the ledger here, `common` the newest that every server knows."""

    def __init__(
        self,
        replica: Replica,
        clock: Clock,
        version: Callable[[], int],
        common: Callable[[], int],
    ) -> None:
        self._replica = replica
        self._clock = clock
        self._version = version
        self._common = common
        self._stopping = False

    def committed(self, index: int, facts: Sequence[object]) -> None:
        return

    def stop(self) -> None:
        self._stopping = True

    async def run(self, epoch: int) -> None:
        """Until cancelled or stopped."""
        while not self._stopping:
            try:
                await self.once()
            except Stopped:
                return
            except GrampusError as error:
                log.warning("the apply version is not raised: %s", error)
            await asyncio.sleep(LOOK)

    async def once(self) -> None:
        before, to = self._version(), self._common()
        if to <= before:
            return
        log.info("every server knows apply version %d: it is raised from %d", to, before)
        await self._replica.propose([encode_command(RaiseVersion(self._clock.now(), to))])
