"""How quick the disk is: whether a sync is over sooner than the way to a thread and back.

Rule: a disk that takes its time is waited for on a thread, so that the event loop goes on. Where a
sync is over in a fraction of a millisecond, the way to the thread and back, some 0.15 ms while
nothing else runs, is much of it, most of all where processors are busy. The average decides, and
one slow sync is enough to send the next ones back to the thread for a while. Who has much to write
has a load, and takes the thread in any case: then the loop's time is worth more.
"""

from __future__ import annotations

#: Seconds that a sync may take on average to be waited for on the loop.
QUICK = 0.0006
#: The newest one counts for one part of so many.
MEMORY = 32


class Pace:
    def __init__(self, quick: float = QUICK) -> None:
        """With 0 the thread is always taken."""
        self._limit = quick
        self._average = 8 * quick

    @property
    def quick(self) -> bool:
        return self._average < self._limit

    def took(self, seconds: float) -> None:
        """A sync did, by itself."""
        self._average += (seconds - self._average) / MEMORY
