"""Keeps the certificate of a node from ending: a new one when two thirds of its life are over.

Rule: nothing stops while it fails. It is tried again, and each failure is a line in the log that
says how much time is left. Who issues the new one is an argument: a server asks its own authority,
a worker asks a server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from grampus.clock import Clock
from grampus.errors import GrampusError
from grampus.rpc.tls_folder import TlsFolder

log = logging.getLogger("grampus.rpc")

#: Between two looks, in ms: the wall clock may be set meanwhile, and laptops sleep.
LOOK = 3_600_000
#: After a failure; it doubles up to LOOK.
FIRST_RETRY = 60_000
_DAY = 86_400_000


class Renewal:
    """`issue(request)` gives a certificate (PEM) for the folder's key. `renewed` is called when the
    new one is in the folder, to show it on connections from then on."""

    def __init__(
        self,
        folder: TlsFolder,
        issue: Callable[[bytes], Awaitable[bytes]],
        renewed: Callable[[], None],
        clock: Clock,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._folder = folder
        self._issue = issue
        self._renewed = renewed
        self._clock = clock
        self._sleep = sleep
        self._failures = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._sleep(await self.look() / 1000)

    async def look(self) -> int:
        """Renews if it is time to; ms until the next look."""
        due = self._folder.renewal_due() - self._clock.now()
        if due > 0:
            return min(due, LOOK)
        try:
            self._folder.renew(await self._issue(self._folder.request()))
            self._renewed()
        except GrampusError as error:
            self._failures += 1
            log.warning("this node's certificate was not renewed, %s: %s", self._left(), error)
            return int(min(FIRST_RETRY << min(self._failures - 1, 10), LOOK))
        self._failures = 0
        log.info("this node's certificate was renewed, %s", self._left())
        return LOOK

    def _left(self) -> str:
        left = self._folder.ends() - self._clock.now()
        return f"it holds for {left // _DAY} days" if left > 0 else "and it has expired"
