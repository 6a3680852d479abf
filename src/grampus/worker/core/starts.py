"""Starts of attempts that no server was told of yet.

Rule: RUNNING is held back for RUNNING_DELAY, for an attempt that is over sooner is reported once,
not twice. A start that is lost on its way is not told again: the final report, which must not be
lost, is in the `outbox`. Time is wall milliseconds.
"""

from __future__ import annotations

#: An attempt that is over sooner is reported once, not twice.
RUNNING_DELAY = 50


class Starts:
    def __init__(self) -> None:
        #: When they are told, by number.
        self._due: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._due)

    def hold_back(self, n: int, now: int) -> None:
        self._due[n] = now + RUNNING_DELAY

    def hurry(self, n: int, now: int) -> None:
        self._due[n] = now

    def leave(self, n: int) -> None:
        """Its start is no news any more."""
        self._due.pop(n, None)

    def take_due(self, now: int) -> list[int]:
        """Removes those to tell now. A wall clock that was set back makes none later."""
        due = [n for n, at in self._due.items() if at <= now or at > now + RUNNING_DELAY]
        for n in due:
            del self._due[n]
        return due

    def next_due(self) -> int:
        """There must be one."""
        return min(self._due.values())
