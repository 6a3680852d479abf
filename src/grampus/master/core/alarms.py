"""One moment per name, and which of them have come. A moment that was changed or dropped is
forgotten: the heap holds stale ones, which are skipped."""

from __future__ import annotations

import heapq


class Alarms:
    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._times)

    def get(self, name: str) -> int | None:
        return self._times.get(name)

    def set(self, name: str, at: int) -> None:
        self._times[name] = at
        heapq.heappush(self._heap, (at, name))

    def drop(self, name: str) -> None:
        self._times.pop(name, None)
        if len(self._heap) > 2 * len(self._times) + 1_000:
            # Most of it is stale: runs end long before their timeout.
            self._heap = [(at, name) for name, at in self._times.items()]
            heapq.heapify(self._heap)

    def due(self, now: int, limit: int) -> list[str]:
        """Takes at most `limit` names whose moment has come, the earliest first."""
        names: list[str] = []
        while len(names) < limit and (at := self.next_due()) is not None and at <= now:
            _, name = heapq.heappop(self._heap)
            del self._times[name]
            names.append(name)
        return names

    def next_due(self) -> int | None:
        while self._heap:
            at, name = self._heap[0]
            if self._times.get(name) == at:
                return at
            heapq.heappop(self._heap)
        return None
