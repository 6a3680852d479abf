"""Since when this server has not stood still.

Rule: a process that stood still (stopped, swapped out, its machine asleep) has heard nobody
meanwhile; what it was told waits in its sockets. Whoever counts how long something was not heard
looks here first, and counts from then at the earliest. Somebody looks every BEAT ms, and everybody
who judges by it looks at that moment: whoever comes first sees the gap.
"""

from __future__ import annotations

#: Between two looks, in ms; longer than GAP is standing still.
BEAT, GAP = 250, 1_000


class Pulse:
    """Time is ticks, in ms."""

    def __init__(self, now: int) -> None:
        self._last = now
        self._awake = now

    def look(self, now: int) -> int:
        """Since when, in ticks."""
        if now - self._last > GAP:
            self._awake = now
        self._last = max(self._last, now)
        return self._awake
