"""A worker's own blobs: what it has fetched or made, kept for a while in case it is wanted again.

Rule: a server has each of them, so that any may go; only what an attempt may be reading must not.
Attempts are given paths when they are made ready, which renews the blob, and read their inputs when
they begin: what nobody has wanted for UNUSED is read by nobody.
"""

from __future__ import annotations

import asyncio
import logging

from grampus.blobs import Blobs
from grampus.clock import Clock

log = logging.getLogger("grampus.worker")

#: How often it looks, and after what time a blob goes that nobody wanted, in seconds.
EVERY = 3600.0
UNUSED = 7 * 24 * 3600


class Larder:
    def __init__(self, blobs: Blobs, clock: Clock) -> None:
        self._blobs = blobs
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                await asyncio.to_thread(self.clear)
            except OSError as error:
                log.warning("old blobs cannot be removed: %s", error)

    def clear(self) -> int:
        """How many were removed."""
        before = self._clock.now() / 1000 - UNUSED
        old = [hash for hash, renewed in self._blobs.hashes() if renewed < before]
        for hash in old:
            self._blobs.remove(hash, before)
        return len(old)
