"""The parts of a process that run side by side: whichever fails first ends the process in order.

Rule: a part that fails does not cancel the others. Its error is kept, the composition root hears of
it and closes everything in its order, as if it had been told to stop. What fails after that is
logged if it is a bug.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from grampus.errors import GrampusError

log = logging.getLogger("grampus.parts")


class Parts:
    """Tasks of `group`. `reason` may know a better error than the one of the part that failed."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        reason: Callable[[Exception], Exception] = lambda error: error,
    ) -> None:
        self._group = group
        self._reason = reason
        #: A part has failed, and why.
        self.failed = asyncio.Event()
        self.failure: Exception | None = None

    def start(self, *works: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
        return [self._group.create_task(self._run(work)) for work in works]

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as failure:
            error = self._reason(failure)
            if self.failure is None:
                self.failure = error
                self.failed.set()
            elif error is not self.failure and not isinstance(error, GrampusError):
                log.exception("and this failed too")

    async def fail(self) -> NoReturn:
        """Raises the first error, once there is one."""
        await self.failed.wait()
        assert self.failure is not None
        raise self.failure
