"""Whether wall time can be believed, for those who do by it what cannot be taken back. Pure.

It is compared with the time since boot, which never jumps, and, where an office begins, with the
newest entry of the ledger. A clock that jumps ahead is doubted; one that jumps back is not: nothing
is due yet. At the beginning a clock is doubted that is far from the newest entry, to either side.

A doubt ends when the kernel calls the clock synchronised (whoever sets it by hand takes that away),
when the clock is set right again, or when somebody says that it is right. Else it is up to those
who ask for how long they doubt with it.
"""

from __future__ import annotations

from typing import Literal

#: Wall time may differ by so much between two looks, in ms.
BOUND = 300_000
#: A ledger may have been silent for so long.
AWAY = 24 * 3_600_000
#: Who does little harm believes a clock after so long.
HOLD = 600_000


class Steadiness:
    def __init__(self, now: int, ticks: int) -> None:
        self._now = now
        self._ticks = ticks
        #: Since when it is doubted, in ticks.
        self._since: int | None = None
        #: By how much it is off what was believed; below 0 is behind.
        self._off = 0
        self._against: Literal["ledger", "boot"] = "boot"
        #: By how much the newest look found the clock off, in ms; 0 when it was not.
        self.jump = 0

    @property
    def doubted(self) -> bool:
        return self._since is not None

    def compare(self, newest: int | None) -> None:
        """At the beginning of an office: `newest` is the time of the newest entry of the ledger."""
        off = 0 if newest is None else self._now - newest
        if not -BOUND <= off <= AWAY:
            self._since, self._off, self._against = self._ticks, off, "ledger"

    def look(self, now: int, ticks: int, synchronised: bool = False) -> None:
        """`now` is wall time, `ticks` the time since boot."""
        jump = (now - self._now) - (ticks - self._ticks)
        self._now, self._ticks = now, ticks
        self.jump = jump if abs(jump) > BOUND else 0
        if self._since is None:
            if self.jump > 0:
                self._since, self._off, self._against = ticks, self.jump, "boot"
        elif self.jump:
            self._off += self.jump
            if self._is_near():
                self._since = None
            elif self.jump > 0:
                self._since = ticks
        if synchronised:
            self._since = None

    def _is_near(self) -> bool:
        if self._against == "boot":
            return self._off <= BOUND
        return -BOUND <= self._off <= AWAY

    def trust(self) -> None:
        """Somebody says that it is right."""
        self._since = None

    def believes(self, patience: int) -> bool:
        """For somebody who doubts for so many ms."""
        return self.left(patience) == 0

    def left(self, patience: int) -> int:
        """How long that somebody doubts still, in ms."""
        return 0 if self._since is None else max(self._since + patience - self._ticks, 0)

    @property
    def off(self) -> tuple[int, Literal["ledger", "boot"]]:
        """By how many ms a doubted clock is off, and compared with what."""
        return self._off, self._against
