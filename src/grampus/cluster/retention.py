"""Old history is forgotten, and old events are deleted; by the server that leads.

A clock that jumps ahead costs nothing but history: who watched from before it reads anew.
"""

from __future__ import annotations

import asyncio
import logging

from grampus.clock import Clock
from grampus.cluster.commands import Compact, DeleteOp, Txn, encode_command
from grampus.cluster.events import PREFIX, time_of
from grampus.cluster.limits import TXN_LIMIT, end_of
from grampus.cluster.reads import KeyReads
from grampus.consensus.port import Replica
from grampus.errors import GrampusError

log = logging.getLogger("grampus.cluster")

#: Seconds between two looks.
EVERY = 60.0
#: How long history and events are kept, in ms.
KEEP = 24 * 3_600_000
#: Steps of one look: what is left waits for the next one.
STEPS = 200


class KeyRetention:
    def __init__(self, replica: Replica, reads: KeyReads, clock: Clock) -> None:
        self._replica = replica
        self._reads = reads
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled. A look that fails is logged, and the next one tries again."""
        while True:
            await asyncio.sleep(EVERY)
            if self._replica.leader:
                try:
                    await self.once()
                except GrampusError as error:
                    log.warning("keys: %s", error)

    async def once(self) -> None:
        now = self._clock.now()
        for _ in range(STEPS):
            (more,) = await self._replica.propose([encode_command(Compact(now, now - KEEP))])
            if more is not True:
                break
        await self._delete_events(now)

    async def _delete_events(self, now: int) -> None:
        start = PREFIX
        for _ in range(STEPS):
            page = await self._reads.range(start, end_of(PREFIX), TXN_LIMIT)
            old = [
                DeleteOp(item.key)
                for item in page.items
                if (at := time_of(item.key)) is not None and at < now - KEEP
            ]
            if old:
                await self._replica.propose([encode_command(Txn(now, (), tuple(old), ()))])
            if not page.more:
                return
            start = page.items[-1].key + b"\0"
