"""Numbers that may never start again, kept for ever as a few intervals."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


class Seen:
    """A set of non-negative integers. They are dense, so that it stays a handful of intervals."""

    def __init__(self) -> None:
        #: Half-open, ascending, neither touching nor overlapping.
        self._starts: list[int] = []
        self._stops: list[int] = []

    def __contains__(self, n: int) -> bool:
        i = bisect_right(self._starts, n) - 1
        return i >= 0 and n < self._stops[i]

    def add(self, n: int) -> None:
        self.add_range(n, n + 1)

    def add_range(self, start: int, stop: int) -> None:
        """Adds start, start + 1, ..., stop - 1."""
        if start >= stop:
            return
        first = bisect_right(self._stops, start - 1)
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def add_ranges(self, ranges: Iterable[tuple[int, int]]) -> None:
        for start, stop in ranges:
            self.add_range(start, stop)

    def close_below(self, stop: int, but: Iterable[int]) -> bool:
        """Adds every number below `stop` that is not in `but`. True when any of them was new."""
        before = self._starts.copy(), self._stops.copy()
        at = 0
        for n in sorted(set(but)):
            if n >= stop:
                break
            self.add_range(at, n)
            at = n + 1
        self.add_range(at, stop)
        return before != (self._starts, self._stops)

    def intervals(self) -> list[tuple[int, int]]:
        """The half-open intervals, ascending."""
        return list(zip(self._starts, self._stops, strict=True))
