"""Read barriers for many who ask at once: one round at a time, and each serves all who asked before
it began.

Rule: whoever asks while a round is under way waits for the next one, for that one may have been
confirmed before he asked. A round that fails has failed for all whom it would have served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from grampus.errors import GrampusError, NoQuorum

#: What a round may take, in seconds.
WITHIN = 1.0


class Rounds:
    def __init__(self, barrier: Callable[[], Awaitable[None]]) -> None:
        self._barrier = barrier
        self._turn = asyncio.Lock()
        #: Rounds that began, and the newest that ended, well or not.
        self._begun = self._ended = 0
        self._passed = False

    async def confirm(self) -> None:
        """Raises NoQuorum when no round that began after the call has passed in time."""
        before = self._begun
        async with self._turn:
            if self._ended <= before:
                await self._round()
            if not self._passed:
                raise NoQuorum("no majority has confirmed in time that this server leads")

    async def _round(self) -> None:
        """When it is cancelled, it counts for nobody."""
        self._begun += 1
        passed = False
        try:
            async with asyncio.timeout(WITHIN):
                await self._barrier()
            passed = True
        except (GrampusError, TimeoutError):
            pass
        self._ended, self._passed = self._begun, passed
