"""Tasks that may start, per worker group, by (priority, due time, age); and those that are not due.

An entry is replaced or removed by forgetting it: the heaps hold stale keys, which are skipped.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from grampus.master.core.events import ReadyTask

Key = tuple[str, int]


class ReadyQueue:
    def __init__(self) -> None:
        self._entries: dict[Key, tuple[int, ReadyTask]] = {}
        self._groups: dict[str, list[tuple[int, int, int, Key]]] = {}
        self._delayed: list[tuple[int, int, Key]] = []
        self._by_run: dict[str, dict[int, None]] = {}
        self._order = 0
        self._now = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[ReadyTask]:
        return (task for _, task in self._entries.values())

    def put(self, now: int, task: ReadyTask) -> None:
        """Adds or replaces; an entry of a later attempt is never replaced by an earlier one."""
        key = (task.run, task.index)
        known = self._entries.get(key)
        if known is not None and known[1].attempt > task.attempt:
            return
        self._order += 1
        self._entries[key] = (self._order, task)
        self._by_run.setdefault(task.run, {})[task.index] = None
        if task.waits(now):
            heapq.heappush(self._delayed, (task.due, self._order, key))
        else:
            self._push(self._order, task)

    def _push(self, order: int, task: ReadyTask) -> None:
        heap = self._groups.setdefault(task.group, [])
        heapq.heappush(heap, (-task.priority, task.due, order, (task.run, task.index)))

    def remove(self, run: str, index: int, attempt: int | None = None) -> None:
        """Forgets the entry; with `attempt`, only when it is not of a later one."""
        known = self._entries.get((run, index))
        if known is None or (attempt is not None and known[1].attempt > attempt):
            return
        del self._entries[(run, index)]
        tasks = self._by_run[run]
        del tasks[index]
        if not tasks:
            del self._by_run[run]

    def remove_run(self, run: str) -> None:
        for index in list(self._by_run.get(run, ())):
            self.remove(run, index)

    def ripen(self, now: int) -> None:
        """Moves what has become due into its group's queue."""
        if now < self._now:
            # The clock was set back: some may be due at a time that no delay reaches.
            self._delayed = [(self._due(now, *entry), *entry[1:]) for entry in self._delayed]
            heapq.heapify(self._delayed)
        self._now = now
        while self._delayed and self._delayed[0][0] <= now:
            _, order, key = heapq.heappop(self._delayed)
            known = self._entries.get(key)
            if known is not None and known[0] == order:
                self._push(order, known[1])

    def _due(self, now: int, due: int, order: int, key: Key) -> int:
        known = self._entries.get(key)
        return due if known is None or known[1].waits(now) else now

    def next_due(self) -> int | None:
        while self._delayed:
            due, order, key = self._delayed[0]
            known = self._entries.get(key)
            if known is not None and known[0] == order:
                return due
            heapq.heappop(self._delayed)
        return None

    def groups(self) -> list[str]:
        """Groups that may have something to start."""
        return [group for group, heap in self._groups.items() if heap]

    def find(self, run: str, index: int) -> ReadyTask | None:
        known = self._entries.get((run, index))
        return None if known is None else known[1]

    def ahead(self, task: ReadyTask) -> tuple[int, int]:
        """How many stand before the task in its group's line, and how many of these by priority."""
        order = self._entries[(task.run, task.index)][0]
        mine = (-task.priority, task.due, order)
        before = higher = 0
        for priority, due, other, key in self._groups.get(task.group, ()):
            if (priority, due, other) < mine and self._is(key, other):
                before += 1
                higher += priority < mine[0]
        return before, higher

    def _is(self, key: Key, order: int) -> bool:
        known = self._entries.get(key)
        return known is not None and known[0] == order

    def peek(self, group: str) -> ReadyTask | None:
        """The first of the group, left where it is."""
        heap = self._groups.get(group)
        while heap:
            order, key = heap[0][2], heap[0][3]
            known = self._entries.get(key)
            if known is not None and known[0] == order:
                return known[1]
            heapq.heappop(heap)
        return None

    def set_aside(self, group: str) -> ReadyTask:
        """Takes the first of the group out of the line but keeps its entry; see `put_back`."""
        task = self.peek(group)
        assert task is not None
        heapq.heappop(self._groups[group])
        return task

    def put_back(self, task: ReadyTask) -> None:
        known = self._entries.get((task.run, task.index))
        if known is not None and known[1] == task:
            self._push(known[0], task)
