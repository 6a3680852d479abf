"""The launches that wait in the warden: for a free slot, or until the machine can start them.

Rule: in order of their numbers; who needs more slots than are free makes those behind it wait. One
that the machine could not start (no process, no memory, no room for its files) has its place again,
is tried every AGAIN ms, and lets others pass meanwhile. After PATIENCE it is given up. Time is
monotonic milliseconds and comes in as an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from grampus.worker.orders import Launch

AGAIN = 500
PATIENCE = 120_000


@dataclass(slots=True)
class Waiting:
    launch: Launch
    #: The order as it came.
    payload: bytes
    #: When it was tried in vain for the first time, and when it is tried next.
    failed: int | None = None
    again: int = 0


class Line:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line: deque[Waiting] = deque()

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[Launch]:
        return iter([waiting.launch for waiting in self._line])

    def __contains__(self, n: int) -> bool:
        return any(n == waiting.launch.n for waiting in self._line)

    def join(self, waiting: Waiting) -> bool:
        """At the end; False when the line is full."""
        if len(self._line) >= self._limit:
            return False
        self._line.append(waiting)
        return True

    def take(self, now: int, room: int) -> Waiting | None:
        """The first that may be tried now, if it fits into so many slots."""
        for waiting in self._line:
            if waiting.again <= now:
                if waiting.launch.slots > room:
                    return None
                self._line.remove(waiting)
                return waiting
        return None

    def put_back(self, waiting: Waiting, now: int) -> bool:
        """It was tried in vain; False when that went on for too long."""
        if waiting.failed is None:
            waiting.failed = now
        if now - waiting.failed >= PATIENCE:
            return False
        waiting.again = now + AGAIN
        behind = (i for i, other in enumerate(self._line) if other.launch.n > waiting.launch.n)
        self._line.insert(next(behind, len(self._line)), waiting)
        return True

    def remove(self, n: int) -> bool:
        for waiting in self._line:
            if waiting.launch.n == n:
                self._line.remove(waiting)
                return True
        return False

    def recall(self, n: int) -> bool:
        """As `remove`, but not what the machine could not start: that stays until its end."""
        tried = any(each.launch.n == n and each.failed is not None for each in self._line)
        return not tried and self.remove(n)

    def clear(self) -> list[Launch]:
        """Empties it, and says who waited."""
        left = list(self)
        self._line.clear()
        return left
