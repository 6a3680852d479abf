"""Attempts that wait to be started, and since when.

Rule: one that has waited for AHEAD_PATIENCE would be better off elsewhere, or in its place in the
ledger's queue. Whoever asks for those decides about them: one that has to stay is parked again.
Time is wall milliseconds; a clock that was set back begins the wait anew.
"""

from __future__ import annotations

from collections.abc import Iterator

#: What was assigned ahead of a free slot and has waited for one so long is given back.
AHEAD_PATIENCE = 1_000


class Parked:
    def __init__(self) -> None:
        #: In the order of their coming.
        self._since: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._since)

    def __iter__(self) -> Iterator[int]:
        return iter(self._since)

    def park(self, n: int, now: int) -> None:
        self._since[n] = now

    def leave(self, n: int) -> None:
        """It has started, or it is over; fine when it was not parked."""
        self._since.pop(n, None)

    def restart(self, now: int) -> None:
        """The wait of all begins now."""
        self._since = dict.fromkeys(self._since, now)

    def take_impatient(self, now: int) -> list[int]:
        """Removes those that have waited for too long."""
        taken = []
        for n, since in list(self._since.items()):
            if now < since:
                self._since[n] = now
            elif now < since + AHEAD_PATIENCE:
                break
            else:
                del self._since[n]
                taken.append(n)
        return taken

    def next_due(self) -> int:
        """When the first of them has waited for too long; there must be one."""
        return next(iter(self._since.values())) + AHEAD_PATIENCE
