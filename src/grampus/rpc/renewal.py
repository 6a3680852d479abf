"""Keeps the certificate of a node from ending: a new one when two thirds of its life are over.

Rules: the old one is in use until the new one has proved good and is shown. Nothing stops while
that fails: it is tried again, and each failure is a line in the log that says why, and how much
time is left. Who issues the new one is an argument: a server asks its own authority, a worker a
server.
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
        #: When the certificate ends that is shown; 0 before the first look.
        self._ends = 0
        #: There is a new one in the folder, and connections do not show it yet.
        self._unshown = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._sleep(await self.look() / 1000)

    async def look(self) -> int:
        """Renews if it is time to; ms until the next look."""
        try:
            if not self._unshown:
                self._ends = self._folder.ends()
                if (due := self._folder.renewal_due() - self._clock.now()) > 0:
                    return min(due, LOOK)
                issued = await self._issue(self._folder.request())
                self._folder.renew(issued, self._clock.now())
                self._unshown = True
            self._renewed()
            self._ends = self._folder.ends()
        except GrampusError as error:
            self._failures += 1
            wait = int(min(FIRST_RETRY << min(self._failures - 1, 10), LOOK))
            log.warning(
                "this node's certificate was not renewed, %s; the next try is in %d min: %s",
                self._left(), wait // 60_000, error,
            )  # fmt: skip
            return wait
        self._failures, self._unshown = 0, False
        log.info("this node's certificate was renewed, %s", self._left())
        return LOOK

    def _left(self) -> str:
        """Of the one that is shown."""
        left = self._ends - self._clock.now()
        if not self._ends:
            return "and what it has cannot be read"
        if left > 0:
            return f"the one in use holds for {left // _DAY} days"
        return "and the one in use has ended: other nodes refuse this one until it is"
