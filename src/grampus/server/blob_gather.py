"""A server brings the blobs here that its ledger names and its folder lacks.

Why: a majority has a blob when it is named, not everybody; and who joins, or replaces a lost
server, or has taken over a snapshot of the ledger has none of those before. Without this a blob
would go with the servers that happened to be there.

Rule: one at a time, over the bulk connections, each checked by its hash; a look now and then, for
there is no end to what may have been missed.
"""

from __future__ import annotations

import asyncio
import logging

from grampus.blobs import Blobs
from grampus.errors import GrampusError
from grampus.runs.reads import Reads
from grampus.server.blob_spread import BlobSpread

log = logging.getLogger("grampus.blobs")

#: Seconds between two looks; between the first ones while something is lacking.
EVERY, SOON = 30.0, 0.5
#: Hashes in one query.
PAGE = 500


class BlobGather:
    def __init__(self, blobs: Blobs, reads: Reads, spread: BlobSpread) -> None:
        self._blobs = blobs
        self._reads = reads
        self._spread = spread
        #: Named and not here: as of the last look, less those that have come since.
        self.lacks = 0
        self._told = 0

    async def run(self) -> None:
        """Until cancelled."""
        wait = SOON
        while True:
            before = self.lacks
            try:
                await self.once()
            except (GrampusError, OSError) as error:
                log.warning("blobs that are lacking are not fetched now: %s", error)
            wait = min(2 * wait, EVERY) if self.lacks == before else SOON
            await asyncio.sleep(wait if self.lacks else EVERY)

    async def once(self) -> None:
        self.lacks = lacked = await self._count()
        if not lacked:
            return
        came, after = 0, ""
        while page := await self._reads.named_blobs(after, PAGE):
            for hash in await asyncio.to_thread(self._lacking, page):
                if await self._spread.fetch(hash):
                    came += 1
                    self.lacks = max(0, self.lacks - 1)
            after = page[-1]
        self.lacks = await self._count()
        if came or self.lacks != self._told:
            self._told = self.lacks
            log.info(
                "%d blobs that the ledger names were fetched from other servers; %d are lacking",
                came, self.lacks,
            )  # fmt: skip

    async def _count(self) -> int:
        lacks, after = 0, ""
        while page := await self._reads.named_blobs(after, PAGE):
            lacks += len(await asyncio.to_thread(self._lacking, page))
            after = page[-1]
        return lacks

    def _lacking(self, hashes: list[str]) -> list[str]:
        return [hash for hash in hashes if self._blobs.size(hash) < 0]
