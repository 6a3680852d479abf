"""What the API asks of its node, put together from the parts that can answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from grampus.api.ports import LogReading, WorkerLoad
from grampus.consensus.port import Replica
from grampus.errors import GrampusError, NotFound, ProtocolError
from grampus.master.core.explain import explain
from grampus.master.core.scheduler import Scheduler
from grampus.master.office import Office
from grampus.master.roster import Roster
from grampus.master.timekeeper import Timekeeper
from grampus.model.run import TaskState
from grampus.protocol import LogChunk, ReadLog
from grampus.runs.explanation import Explanation
from grampus.runs.reads import Reads
from grampus.runs.standing import TaskStanding

#: How long a worker may take to answer with a piece of a log, in seconds.
LOG_TIMEOUT = 10.0
#: And with how much an attempt wrote.
SIZE_TIMEOUT = 2.0


class LogReader:
    """Logs live with the worker that ran the attempt; it is connected to the leader."""

    def __init__(self, reads: Reads, roster: Roster) -> None:
        self._reads = reads
        self._roster = roster
        self._names: dict[int, str] = {}

    async def read(self, asked: ReadLog) -> LogChunk:
        """Raises NotFound, ServerUnreachable when the worker is not connected here, or what the
        worker raised."""
        session = asked.session
        name = self._names.get(session) or await self._reads.session_name(session)
        if name is None:
            raise NotFound(f"session {session} is not in the ledger")
        self._names[session] = name
        answer = await self._roster.ask(name, asked, LOG_TIMEOUT)
        if not isinstance(answer, LogChunk):
            raise ProtocolError(f"{type(answer).__name__} is no answer to ReadLog")
        return answer


class Explainer:
    """What the ledger says of the run, what the scheduler knows, and what its worker can see."""

    def __init__(
        self,
        reads: Reads,
        scheduler: Callable[[], Scheduler | None],
        read_log: LogReading,
        clock: Timekeeper,
    ) -> None:
        self._reads = reads
        self._scheduler = scheduler
        self._read_log = read_log
        self._clock = clock

    async def __call__(self, run: str, task: str | None) -> Explanation | None:
        standing = await self._reads.standing(run, task)
        if standing is None:
            return None
        found = explain(self._scheduler(), standing, self._clock.now(), self._clock.doubt)
        if task is None or found.tasks[0].state != TaskState.RUNNING:
            return found
        (one,) = found.tasks
        written = await self._written(run, standing.tasks[0])
        return replace(found, tasks=(replace(one, written=written),))

    async def _written(self, run: str, task: TaskStanding) -> int | None:
        """None when the worker does not say so in time."""
        last, total = task.last, 0
        if last is None:
            return None
        try:
            async with asyncio.timeout(SIZE_TIMEOUT):
                for stream in ("stdout", "stderr"):
                    asked = ReadLog(
                        last.session, last.n, run, task.name, last.attempt, stream, 0, 0
                    )
                    total += (await self._read_log(asked)).size
        except (GrampusError, TimeoutError):
            return None
        return total


class NodeStatus:
    def __init__(self, replica: Replica, office: Office, roster: Roster) -> None:
        self._replica = replica
        self._office = office
        self._roster = roster

    def waiting_for(self) -> str:
        if self._office.stopping:
            return "the node is stopping"
        if not self._replica.leader:
            return "" if self._replica.leader_address else "no leader is known"
        if not self._office.held.is_set():
            return "the master is not in office yet"
        return "" if self._roster.loads else "no worker is connected"

    def applied_index(self) -> int:
        return self._replica.applied_index

    def proposals_in_flight(self) -> int:
        return self._replica.in_flight

    def leads(self) -> bool:
        return self._office.held.is_set()

    def connected(self) -> Mapping[int, WorkerLoad]:
        return {
            session: WorkerLoad(
                containment=self._roster.containments.get(session),
                cpu=None if load is None else load.cpu,
                memory=None if load is None else load.memory,
                trouble="" if load is None else load.trouble,
                stuck=0 if load is None else len(load.stuck),
            )
            for session, load in self._roster.loads.items()
        }
