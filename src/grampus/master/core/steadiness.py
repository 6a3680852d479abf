"""Whether wall time can be believed: it is compared with the time since boot, which never jumps.

A clock that jumps forward is not believed for HOLD: what is done by it (a year's ticks fired, old
runs deleted) cannot be taken back. One that jumps back needs no such care: nothing is due yet.
"""

from __future__ import annotations

#: Wall time may differ by so much between two looks, and is doubted for so long after, in ms.
BOUND = 300_000
HOLD = 600_000


class Steadiness:
    def __init__(self, now: int, ticks: int, hold: int = HOLD) -> None:
        self._now = now
        self._ticks = ticks
        self._hold = hold
        self._until: int | None = None
        self._ahead = 0
        #: By how much the newest look found the clock off, in ms; 0 when it was not.
        self.jump = 0

    def doubt(self) -> None:
        """Holds back from now on, as after a jump."""
        self._until = self._ticks + self._hold

    def look(self, now: int, ticks: int) -> bool:
        """Whether to go on. `now` is wall time, `ticks` the time since boot.

        A jump back of what was doubted ends the doubt."""
        self.jump = (now - self._now) - (ticks - self._ticks)
        self._now, self._ticks = now, ticks
        if abs(self.jump) <= BOUND:
            self.jump = 0
        else:
            self._ahead = max(self._ahead + self.jump, 0)
            if self.jump > 0:
                self._until = ticks + self._hold
            elif self._ahead <= BOUND:
                self._until, self._ahead = None, 0
        if self._until is not None and ticks >= self._until:
            self._until, self._ahead = None, 0
        return self._until is None
