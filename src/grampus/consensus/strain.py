"""What a server's disk costs it: a sync that does not come back, and syncs that take long. Pure.

Rule: whose sync hangs takes part in nothing until it is over, for nothing can be put into Raft
before. Whose syncs are slow time and again should not lead, for everybody waits for the leader's.
Times are seconds of one monotonic clock. What is done about it, others decide.
"""

from __future__ import annotations

from collections import deque

#: A sync under way for so long hangs: by then the others have long elected another leader.
HANGS = 2.0
#: One that takes so long is slow.
SLOW = 0.5
#: A disk is slow when so many syncs were within so many seconds, over at least half of that time:
#: one moment in which it does something else as well is no reason.
FEW, WITHIN = 4, 10.0
#: What a peer says of its disk counts for so long, and is said again every so many seconds.
COUNTS, AGAIN = 3.0, 1.0


class Strain:
    """Of one log, whose calls come one after the other. Another thread may look at it."""

    def __init__(self) -> None:
        self._begun: float | None = None
        #: When the newest slow ones were over, and what they took: more than there can be.
        self._slow: deque[tuple[float, float]] = deque(maxlen=int(WITHIN / SLOW) + 1)

    def begins(self, now: float) -> None:
        self._begun = now

    def ended(self, now: float) -> None:
        begun, self._begun = self._begun, None
        if begun is not None and now - begun >= SLOW:
            self._slow.append((now, now - begun))

    def hangs(self, now: float) -> float:
        """How long the one under way has taken, once it hangs; else 0."""
        begun = self._begun
        took = 0.0 if begun is None else now - begun
        return took if took >= HANGS else 0.0

    def slow(self, now: float) -> float:
        """What a slow one takes on average, where the disk is slow; else 0."""
        lately = [(at, took) for at, took in self._slow if now - at <= WITHIN]
        if len(lately) < FEW or lately[-1][0] - lately[0][0] < WITHIN / 2:
            return 0.0
        return sum(took for _, took in lately) / len(lately)

    def told(self, now: float) -> int:
        """For others, in ms: 0 while all is well, from HANGS on it hangs, else it is slow."""
        return int(1000 * (self.hangs(now) or min(self.slow(now), HANGS - 0.001)))


class Disks:
    """What peers have said of theirs."""

    def __init__(self) -> None:
        self._said: dict[int, tuple[float, int]] = {}

    def heard(self, peer: int, now: float, told: int) -> None:
        """See `Strain.told`."""
        self._said.pop(peer, None)
        if told:
            self._said[peer] = (now, told)

    def known(self, now: float) -> dict[int, int]:
        """Those that are not well, in ms."""
        self._said = {id: said for id, said in self._said.items() if now - said[0] < COUNTS}
        return {id: told for id, (_, told) in self._said.items()}
