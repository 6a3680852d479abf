"""Answers what servers ask of the logs of attempts, and forgets those of runs that are gone.

Rule: the files of a slot are another attempt's once its own has ended. So where an attempt runs is
looked at before the piece is read and after it, and a piece that may be of both is read again.
Files are read and removed in threads; what is in them is left to `logs`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from grampus.protocol import LogChunk, ReadLog
from grampus.worker.logs import Logs


class LogDesk:
    """`slot_of` says where an attempt runs now, None when it does not; `begin` starts a task."""

    def __init__(
        self,
        logs: Logs,
        slot_of: Callable[[ReadLog], int | None],
        begin: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._logs = logs
        self._slot_of = slot_of
        self._begin = begin

    async def answer(self, asked: ReadLog) -> LogChunk:
        """Raises UsageError for names that are none."""
        while True:
            slot = self._slot_of(asked)
            chunk = await asyncio.to_thread(self._logs.read, asked, slot)
            if slot is None or self._slot_of(asked) == slot:
                return chunk

    def forget(self, runs: list[str]) -> None:
        self._begin(asyncio.to_thread(self._logs.forget, runs))
