"""Which attempts may not go on, because no server has confirmed for too long that their worker is
heard: somebody else may have them soon.

Rules:
- The time runs from the moment at which the newest confirmed keep-alive was *sent*; it is that of
  the machine since its boot, suspend included (CLOCK_BOOTTIME), in ms.
- `look` comes before anything that was received is read: what has passed is passed, and no later
  word takes it back.
- An attempt is asked to end at 60 % of its lease and killed at 80 %, whatever its own grace. One
  that has not begun by then never begins. One that is kept is not in here.

It outlives the worker's process: the warden has it.
"""

from __future__ import annotations

from typing import NamedTuple

from grampus.model.duration import format_duration
from grampus.model.lease import SHORTEST_LEASE, fence_of


class Ending(NamedTuple):
    """Of one attempt: TERM, and KILL in so many ms."""

    n: int
    grace: int


class Fence:
    def __init__(self) -> None:
        #: When the newest confirmed keep-alive was sent; None: none was.
        self.confirmed: int | None = None
        #: Leases of those that run, by number.
        self._leases: dict[int, int] = {}
        #: When those are killed that were told to end, and those of them that were.
        self._kill_at: dict[int, int] = {}
        self._killed: set[int] = set()

    def confirm(self, sent: int) -> None:
        if self.confirmed is None or sent > self.confirmed:
            self.confirmed = sent

    def begin(self, n: int, lease: int | None) -> None:
        """It runs from now on."""
        if lease is not None:
            self._leases[n] = lease

    def end(self, n: int) -> bool:
        """It is over; whether it was told to end."""
        self._leases.pop(n, None)
        self._killed.discard(n)
        return self._kill_at.pop(n, None) is not None

    def bars(self, lease: int | None, now: int) -> bool:
        """Whether an attempt may not begin any more, or not yet."""
        if lease is None:
            return False
        return self.confirmed is None or now >= self.confirmed + fence_of(lease).term

    def look(self, now: int) -> list[Ending]:
        """Those that have to end now: each is named once with what is left until KILL, and once
        with nothing."""
        found: list[Ending] = []
        if self.confirmed is None:
            return found
        for n, lease in self._leases.items():
            if n not in self._kill_at:
                if now < self.confirmed + fence_of(lease).term:
                    continue
                self._kill_at[n] = self.confirmed + fence_of(lease).kill
                if now < self._kill_at[n]:
                    found.append(Ending(n, self._kill_at[n] - now))
            if now >= self._kill_at[n] and n not in self._killed:
                self._killed.add(n)
                found.append(Ending(n, 0))
        return found

    def why(self, lease: int, now: int) -> str:
        """For the report of who was fenced."""
        heard = ""
        if self.confirmed is not None:
            heard = f" for {format_duration(round(now - self.confirmed, -3))}"
        own = format_duration(lease)
        return f"fenced: no server confirmed its worker{heard}, and its lease is {own}"

    def rests(self, now: int) -> bool:
        """Nobody's lease can be that far: there is nothing to look at."""
        return self.confirmed is None or now < self.confirmed + fence_of(SHORTEST_LEASE).term

    @property
    def watches(self) -> bool:
        """Whether time matters to anybody here."""
        return bool(self._leases)
