"""A clock that knows whether it can be believed: the time of this office.

Rule: whoever does by wall time what cannot be taken back (fires ticks, ends runs by their timeout,
deletes) asks it first. It says aloud when it begins to doubt, what to do about it, and when it
believes again. What a doubt is, `core.steadiness` decides.
"""

from __future__ import annotations

import logging

from grampus.clock import Clock
from grampus.master.core.steadiness import HOLD, Steadiness
from grampus.runs.story import span

log = logging.getLogger("grampus.master")

_HOUR, _DAY = 3_600_000, 86_400_000


class Timekeeper:
    """Is a `Clock` itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._steady = Steadiness(clock.now(), clock.ticks())
        self._told = ""

    def now(self) -> int:
        return self._clock.now()

    def ticks(self) -> int:
        return self._clock.ticks()

    def synchronised(self) -> bool:
        return self._clock.synchronised()

    def begin(self, newest: int | None) -> None:
        """An office begins: `newest` is the time of the newest entry that the ledger has."""
        self._look()
        self._steady.compare(newest)
        self._look()

    def believes(self, patience: int = HOLD) -> bool:
        """Whether somebody believes the clock now who doubts for so many ms."""
        self._look()
        return self._steady.believes(patience)

    def trust(self) -> None:
        """Somebody says that the clock is right."""
        self._steady.trust()
        self._look()

    @property
    def doubt(self) -> str:
        """What is wrong with the clock, for people; "" when schedules fire by it."""
        self._look()
        left = self._steady.left(HOLD)
        return f"{self._why()}; they wait for {span(left)} more" if left else ""

    def _why(self) -> str:
        off, against = self._steady.off
        where = "ahead of" if off > 0 else "behind"
        about = span(abs(off) // _HOUR * _HOUR if abs(off) >= _DAY else abs(off))
        if against == "ledger":
            return f"the clock is {about} {where} the newest entry of the ledger"
        return f"the clock is suddenly {about} ahead"

    def _look(self) -> None:
        steady = self._steady
        # The kernel is asked only when it matters.
        synchronised = steady.doubted and self._clock.synchronised()
        steady.look(self._clock.now(), self._clock.ticks(), synchronised)
        if steady.jump < 0:
            back = span(-steady.jump)
            log.warning("the clock went back by %s: what was fired is not fired again", back)
        if steady.doubted and not steady.believes(HOLD):
            why = self._why()
            if why != self._told:
                log.error(
                    "ALARM: %s: schedules and timeouts of runs are held back for %s, and nothing is"
                    " deleted for a day. Set the clock; or, if it is right: grampus schedule"
                    " trust-clock", why, span(HOLD),
                )  # fmt: skip
            self._told = why
        elif self._told:
            log.warning("the clock is believed again: schedules fire")
            self._told = ""
