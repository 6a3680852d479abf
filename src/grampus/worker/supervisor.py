"""Keeps a warden beside the worker: takes over the one that runs, starts the next when it is gone.

Rule: a warden is taken over only if the journal speaks of it; any other that is found in the folder
is ended first, with all it has. While there is none, one is tried for without end, and whoever
waits for long is told why. What its notices mean, and what becomes of its attempts when it dies, is
decided in `core`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from grampus.errors import GrampusError
from grampus.worker.condition import Condition
from grampus.worker.containment import Subreaper
from grampus.worker.core.memory import Memory
from grampus.worker.orders import Notice, Order
from grampus.worker.warden_client import WardenClient, WardenFailed

log = logging.getLogger("grampus.worker")

#: Between two tries to start a warden, in seconds; the last one repeats.
WARDEN_WAITS = (0.1, 0.5, 2.0, 10.0)
#: A worker without a warden for so long says so, in seconds.
WARDEN_LATE = 3.0


class Enrolment(NamedTuple):
    """As what the worker registers: its attempts belong to a session of that."""

    name: str
    group: str
    slots: int


class Supervisor:
    """`memory` gives what is written down, `notice` hears the warden, `lost` is called when it is
    gone."""

    def __init__(
        self,
        folder: Path,
        enrolment: Enrolment,
        condition: Condition,
        memory: Callable[[], Memory],
        notice: Callable[[list[Notice]], None],
        lost: Callable[[], None],
    ) -> None:
        #: As it was asked for, or as an earlier start had it whose attempts still run.
        self.enrolment = enrolment
        #: None while there is none.
        self.warden: WardenClient | None = None
        #: The warden was told to end because its numbers were used.
        self.retiring = False
        self._folder = folder
        self._condition = condition
        self._memory = memory
        self._notice = notice
        self._lost = lost
        self._gone = asyncio.Event()

    async def start(self) -> None:
        """Takes the warden that runs already, if it is the one that the journal speaks of."""
        self._gone.clear()
        client = await WardenClient.attach(self._folder, self._notice, self._gone.set)
        if client is not None and not self._is_ours(client):
            await client.stop(0)
            client = None
        if client is None:
            slots = self.enrolment.slots
            client = await WardenClient.start(self._folder, slots, self._notice, self._gone.set)
        self.warden, self.retiring = client, False
        if client.containment == Subreaper.name:
            log.warning(
                "attempts are held together by a %s alone: what they leave is found by its descent,"
                " and may be missed should their warden and its shim be killed at once; grampus"
                " doctor says what would hold them better", Subreaper.name,
            )  # fmt: skip

    def _is_ours(self, client: WardenClient) -> bool:
        memory = self._memory()
        if memory.session is None or memory.instance != client.instance or self.retiring:
            return False
        its = Enrolment(memory.name, memory.group, client.slots)
        if its == self.enrolment:
            return True
        if not (client.running or memory.launched or memory.outbox):
            return False
        # Its attempts belong to a session of that name, group and size.
        self.enrolment = its
        log.warning(
            "attempts of an earlier start still run: until the next start this stays worker %s,"
            " group %s, with %d slots", *its,
        )  # fmt: skip
        return True

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            await self._gone.wait()
            self.warden = None
            self._lost()
            # Most come within a second; one that must wait for what cannot be killed does not.
            loop = asyncio.get_running_loop()
            late = loop.call_later(WARDEN_LATE, self._condition.misses_warden)
            try:
                await self._replace()
            finally:
                late.cancel()

    async def _replace(self) -> None:
        """Until there is one."""
        tries = 0
        while self.warden is None:
            try:
                await self.start()
            except (GrampusError, OSError) as error:
                log.error("the warden does not start: %s", error)
                self._condition.misses_warden(str(error))
                await asyncio.sleep(WARDEN_WAITS[min(tries, len(WARDEN_WAITS) - 1)])
                tries += 1

    def send(self, order: Order) -> None:
        """Lost when there is no warden."""
        if self.warden is not None:
            self.warden.send(order)

    def retire(self) -> None:
        """Another one is needed: the numbers of this one were used."""
        self.retiring = True
        if self.warden is not None:
            self.warden.retire()

    async def stop(self, grace: int) -> None:
        """Ends it and all that it has, within `grace` ms."""
        if self.warden is not None and not self.warden.closed.is_set():
            try:
                await self.warden.stop(grace)
            except WardenFailed as error:
                log.error("%s", error)

    def leave(self) -> None:
        """Lets it go on alone."""
        if self.warden is not None:
            self.warden.leave()
