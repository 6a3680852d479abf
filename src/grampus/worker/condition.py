"""How a worker is: its load, what keeps it from starting attempts, and what it cannot end.

Rule: what is wrong is said aloud when it begins and when it is over, and told to the server with
every report of the load; while it lasts, nothing is assigned to this worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from grampus.cluster.load import LoadAverage
from grampus.protocol import Load

log = logging.getLogger("grampus.worker")

#: Seconds between two samples of the load, and samples between two reports of it.
LOAD_SAMPLE, LOAD_EVERY = 1.0, 3
#: Of a reason, in characters.
REASON = 300


class Condition:
    """`chores` says what is wrong with what precedes an attempt, or ""."""

    def __init__(self, chores: Callable[[], str]) -> None:
        self._load = LoadAverage()
        self._chores = chores
        #: What the warden says.
        self.warden = ""
        self._told = ""
        #: Attempts that the warden cannot end.
        self._stuck: set[int] = set()
        self._told_stuck: tuple[int, ...] = ()

    async def keep_telling(self, tell: Callable[[], None]) -> None:
        """Until cancelled: whenever something has changed, else now and then."""
        count = 0
        while True:
            await asyncio.sleep(LOAD_SAMPLE)
            changed = self.sample()
            count += 1
            if changed or count % LOAD_EVERY == 0:
                tell()

    def sample(self) -> bool:
        """Once a second. Whether what is wrong has changed."""
        self._load.sample()
        trouble = self._trouble()
        if trouble and not self._told:
            log.error("ALARM: this worker cannot start attempts, they wait: %s", trouble)
        elif self._told and not trouble:
            log.warning("attempts can be started again")
        stuck = tuple(sorted(self._stuck))
        changed = trouble != self._told or stuck != self._told_stuck
        self._told, self._told_stuck = trouble, stuck
        return changed

    def is_stuck(self, n: int) -> None:
        """Says the warden, again and again."""
        self._stuck.add(n)

    def is_over(self, n: int) -> None:
        self._stuck.discard(n)

    def misses_warden(self, why: str = "") -> None:
        reason = f": {why}" if why else ""
        self.warden = f"its warden is gone, and the next one does not start yet{reason}"

    def has_new_word(self) -> None:
        """The warden begins to tell anew."""
        self.warden = ""
        self._stuck.clear()

    def report(self, session: int) -> Load:
        return Load(session, *self._load.average(), self._told, self._told_stuck)

    def _trouble(self) -> str:
        return (self.warden or self._chores())[:REASON]
