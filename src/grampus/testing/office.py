"""What works beside the master of a simulated server: schedules and retention, on one clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from grampus.blobs import Blobs
from grampus.database import Database
from grampus.master.briefs import Briefs
from grampus.master.driver import Master
from grampus.master.firing import ScheduleDriver
from grampus.master.loading import Loading
from grampus.master.office import Office
from grampus.master.retention import Retention
from grampus.master.roster import Roster
from grampus.master.timekeeper import Timekeeper
from grampus.runs.change import Graphs
from grampus.runs.proposer import Proposer
from grampus.runs.queries import Queries
from grampus.runs.reads import Reads
from grampus.testing.log import SimLog
from grampus.testing.watch import KEEP
from grampus.testing.world import World


class SimReads(Reads):
    """Looks at the ledger in memory, a moment later."""

    def __init__(self, queries: Queries) -> None:
        self._sim_queries = queries

    async def _ask(self, ask: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(lambda: ask(self._sim_queries, *args, **kwargs))

    def close(self) -> None:
        return


class NoBlobs(Blobs):
    """Real files have real times, which have nothing to do with these."""

    def __init__(self) -> None:
        return

    def hashes(self) -> Iterator[tuple[str, float]]:
        return iter(())


def make_office(
    world: World,
    log: SimLog,
    proposer: Proposer,
    roster: Roster,
    db: Database,
    folder: Path,
    boot: str,
    node: str = "n1",
) -> Office:
    graphs = Graphs()
    queries, loading, reads = (
        Queries(db, graphs),
        Loading(db, graphs),
        SimReads(Queries(db, graphs)),
    )
    blobs = Blobs(folder / "blobs")
    clock = Timekeeper(world, folder / "clock.json", boot)
    retention = Retention(proposer, reads, NoBlobs(), clock, KEEP)

    def appoint() -> Master:
        clock.begin(queries.newest_time())
        return Master(proposer, loading, Briefs(queries, blobs.put), roster, clock)

    return Office(
        node, log, proposer, clock, appoint=appoint, dismiss=roster.dismiss,
        hire=lambda: [ScheduleDriver(proposer, reads, clock)], chores=[retention.run, roster.watch],
    )  # fmt: skip
