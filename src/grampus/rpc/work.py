"""Requests of the other side: at most `most` are worked on at a time, the others wait in order.

Rule: every task belongs to the owner's TaskGroup and ends with the connection, for then nobody
waits for its answer. The bound on those that wait is the connection's: it stops reading while
`full`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from grampus.errors import GrampusError

M = TypeVar("M")


class NoOwner(GrampusError):
    """The TaskGroup takes no more tasks: its owner is closing."""


class Work(Generic[M]):
    def __init__(
        self,
        most: int,
        tasks: asyncio.TaskGroup,
        run: Callable[[int, M], Coroutine[Any, Any, None]],
        eased: Callable[[], None],
    ) -> None:
        self._most = most
        self._tasks = tasks
        self._run = run
        #: Called when a request is done with.
        self._eased = eased
        self._waiting: deque[tuple[int, M]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        #: Those that need no task.
        self._taken = 0

    @property
    def full(self) -> bool:
        return len(self._running) + self._taken >= self._most

    @property
    def crowded(self) -> bool:
        """Others wait: who comes now waits behind them."""
        return bool(self._waiting) or self.full

    def begin(self) -> None:
        """One that needs no task is worked on, until `end`."""
        self._taken += 1

    def end(self) -> None:
        self._taken -= 1

    def add(self, number: int, message: M) -> None:
        self._waiting.append((number, message))

    def start(self) -> None:
        """Start what waits, as far as there is room. NoOwner when the owner is closing."""
        while self._waiting and not self.full:
            coroutine = self._run(*self._waiting.popleft())
            try:
                task = self._tasks.create_task(coroutine)
            except RuntimeError:
                coroutine.close()
                raise NoOwner("this side is closing") from None
            self._running.add(task)
            task.add_done_callback(self._done)

    def cancel(self) -> None:
        self._waiting.clear()
        for task in self._running:
            task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._eased()
