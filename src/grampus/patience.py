"""A deadline of one length for many waits, with one timer for all of them; waits after a cancel.

A timer for each wait costs more than most of these waits: nearly all are over long before. Here a
wait that is over is forgotten at once, and only the first of those that are left is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


def hear_cancel() -> None:
    """For whoever ends in order after a cancel, before its first wait: the cancel is heard.

    Until Python 3.11.3, an `asyncio.timeout` in a task whose cancel is still open ends with
    CancelledError, and with it what was to follow."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


class Patience:
    """Used on one event loop; each task waits for one thing at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        #: Until when each may wait, in order; and how often it was cancelled by others before.
        self._waiting: dict[asyncio.Task[Any], tuple[float, int]] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def wait_for(self, what: Awaitable[T]) -> T:
        """As `asyncio.wait_for`: raises TimeoutError, and cancels what was waited for."""
        task = asyncio.current_task()
        assert task is not None
        loop = task.get_loop()
        self._waiting[task] = loop.time() + self._seconds, task.cancelling()
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)
        try:
            return await what
        except asyncio.CancelledError:
            if task in self._expired and task.uncancel() <= self._waiting[task][1]:
                raise TimeoutError from None
            raise
        finally:
            del self._waiting[task]
            self._expired.discard(task)

    def _look(self) -> None:
        """The first one's time may be over."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, (deadline, _) in self._waiting.items():
            if deadline > now:
                self._timer = loop.call_at(deadline, self._look)
                return
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()
