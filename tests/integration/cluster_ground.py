"""A metadata center over a real log and ledger, on one node."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from grampus.clock import SystemClock
from grampus.cluster.reads import KeyReads
from grampus.cluster.server import ClusterServer
from grampus.consensus.solo import SoloLog
from grampus.ledger import Ledger

#: No test waits longer than this for anything, in seconds.
PATIENCE = 20.0


@asynccontextmanager
async def a_center(folder: Path) -> AsyncIterator[ClusterServer]:
    for part in ("ledger", "log"):
        (folder / part).mkdir(exist_ok=True)
    path = folder / "ledger" / "ledger.db"
    ledger = Ledger(path)
    log = await SoloLog.open(folder / "log", ledger, light=ledger.light)
    reads = KeyReads(path)
    server = ClusterServer(log, reads, SystemClock(), "h1", os.urandom)
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(server.run())
            yield server
            server.close()
            running.cancel()
    finally:
        reads.close()
        await log.close()
        ledger.close()


def play(folder: Path, scenario: Callable[[ClusterServer], Awaitable[None]]) -> None:
    async def go() -> None:
        async with a_center(folder) as server:
            await asyncio.wait_for(scenario(server), PATIENCE)

    asyncio.run(go())
