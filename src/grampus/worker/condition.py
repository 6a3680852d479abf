"""How a worker is: its load, and what keeps it from starting attempts.

Rule: what is wrong is said aloud when it begins and when it is over, and told to the server with
every report of the load; while it lasts, nothing is assigned to this worker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from grampus.cluster.load import LoadAverage
from grampus.protocol import Load

log = logging.getLogger("grampus.worker")

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

    def sample(self) -> bool:
        """Once a second. Whether what is wrong has changed."""
        self._load.sample()
        trouble = self._trouble()
        if trouble and not self._told:
            log.error("ALARM: this worker cannot start attempts, they wait: %s", trouble)
        elif self._told and not trouble:
            log.warning("attempts can be started again")
        changed, self._told = trouble != self._told, trouble
        return changed

    def report(self, session: int) -> Load:
        return Load(session, *self._load.average(), self._told)

    def _trouble(self) -> str:
        return (self.warden or self._chores())[:REASON]
