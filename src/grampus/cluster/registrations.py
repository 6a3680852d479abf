"""The keys by which this process is found: ephemeral, kept by one task, as new as it can.

Rule: of each key only the newest value counts, and it is put until it is there; so what waits is
bounded by the keys. Nothing else of a process is ever repeated for it. When the session is lost all
of them are put anew in the next one.
"""

from __future__ import annotations

import asyncio
import logging
import random

from grampus.cluster.client import ClusterClient
from grampus.cluster.held_session import HeldSession
from grampus.errors import GrampusError, Refused

log = logging.getLogger("grampus.cluster")

#: Keys of one process.
MOST = 64
#: Seconds between two tries: it doubles; a random part up to half is taken off.
FIRST_PAUSE, LAST_PAUSE = 0.2, 10.0


class Registrations:
    """`run` keeps them in the cluster. `name` and `ttl` (ms) are those of its session."""

    def __init__(self, client: ClusterClient, name: str, ttl: int) -> None:
        self._client = client
        self._name = name
        self._ttl = ttl
        self._values: dict[bytes, bytes] = {}
        #: What is not known to be in the cluster; None is to be deleted.
        self._waiting: dict[bytes, bytes | None] = {}
        self._wake = asyncio.Event()
        self._session: HeldSession | None = None

    def set(self, key: bytes, value: bytes) -> None:
        """Raises Refused for one key too many."""
        if key not in self._values and len(self._values) >= MOST:
            raise Refused(f"a process has at most {MOST} keys of its own")
        self._values[key] = value
        self._waiting[key] = value
        self._wake.set()

    def remove(self, key: bytes) -> None:
        if self._values.pop(key, None) is not None:
            self._waiting[key] = None
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled; then the keys are taken back, if there is time."""
        pause, told = FIRST_PAUSE, ""
        try:
            while True:
                try:
                    await self._keep()
                except GrampusError as error:
                    if str(error) != told:
                        told = str(error)
                        log.warning("this process is not registered: %s", error)
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                    pause = min(2 * pause, LAST_PAUSE)
                else:
                    pause, told = FIRST_PAUSE, ""
                    await self._wait()
        finally:
            await self._take_back()

    async def _keep(self) -> None:
        """Puts what waits."""
        session = self._session
        if session is None or not session.lives:
            session = self._session = await self._client.open_session(self._name, self._ttl)
            self._waiting = dict(self._values)
        while self._waiting:
            key, value = next(iter(self._waiting.items()))
            if value is None:
                await session.delete(key)
            else:
                await session.put(key, value, ephemeral=True)
            if self._waiting.get(key) == value:  # else there is a newer one already
                self._waiting.pop(key, None)

    async def _wait(self) -> None:
        """Until there is something to put, or the session is over."""
        self._wake.clear()
        if self._waiting or self._session is None:
            return
        async with asyncio.TaskGroup() as group:
            news = [
                group.create_task(self._wake.wait()),
                group.create_task(self._session.wait_over()),
            ]
            await asyncio.wait(news, return_when=asyncio.FIRST_COMPLETED)
            for task in news:
                task.cancel()

    async def _take_back(self) -> None:
        session, self._session = self._session, None
        if session is not None and session.lives:
            try:
                await session.close()
            except GrampusError as error:
                log.info("the keys of this process go when its session is over: %s", error)
