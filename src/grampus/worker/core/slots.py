"""Who is with the warden or on the way to it, and who waits for that, in order of arrival."""

from __future__ import annotations

from collections import deque


class Slots:
    """Never more than `room` are taken. The first in line goes first, even if a later one fits.

    The warden runs as many as fit into `total` and keeps the others waiting, in order, so that a
    slot that becomes free does not wait for a message. The ledger does not start what does not fit
    into the room: the line is short, it holds what a Sync or a Kill is about to give room to.
    """

    def __init__(self, total: int, room: int, line_limit: int) -> None:
        self.total = total
        self.room = room
        self._line_limit = line_limit
        self._held: dict[int, int] = {}
        self._used = 0
        self._line: deque[tuple[int, int]] = deque()

    @property
    def used(self) -> int:
        return self._used

    def held(self) -> dict[int, int]:
        """Slots by number, of those that have them."""
        return dict(self._held)

    def line(self) -> list[tuple[int, int]]:
        """Number and slots of those that wait, in order."""
        return list(self._line)

    def join(self, n: int, slots: int) -> bool:
        """Puts `n` at the end of the line; False when the line is full."""
        if len(self._line) >= self._line_limit:
            return False
        self._line.append((n, slots))
        return True

    def take(self) -> int | None:
        """Gives slots to the first in line, if they are free, and returns its number."""
        if not self._line or self._used + self._line[0][1] > self.room:
            return None
        n, slots = self._line.popleft()
        self.hold(n, slots)
        return n

    def hold(self, n: int, slots: int) -> None:
        """`n` has slots already."""
        self._held[n] = slots
        self._used += slots

    def leave(self, n: int) -> None:
        """`n` gives its slots back, or its place in the line; fine when it has neither."""
        slots = self._held.pop(n, None)
        if slots is not None:
            self._used -= slots
        elif self._line:
            self._line = deque(entry for entry in self._line if entry[0] != n)
