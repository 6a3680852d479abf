"""What the API asks of its node, put together from the parts that can answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from grampus.api.ports import WorkerLoad
from grampus.consensus.port import Replica
from grampus.errors import NotFound, ProtocolError
from grampus.master.roster import Roster
from grampus.protocol import LogChunk, ReadLog
from grampus.runs.reads import Reads

#: How long a worker may take to answer with a piece of a log, in seconds.
LOG_TIMEOUT = 10.0


class LogReader:
    """Logs live with the worker that ran the attempt."""

    def __init__(self, reads: Reads, roster: Roster) -> None:
        self._reads = reads
        self._roster = roster
        self._names: dict[int, str] = {}

    async def __call__(
        self,
        session: int,
        n: int,
        run: str,
        task: str,
        attempt: int,
        stream: str,
        offset: int,
        limit: int,
    ) -> LogChunk:
        name = self._names.get(session) or await self._reads.session_name(session)
        if name is None:
            raise NotFound(f"session {session} is not in the ledger")
        self._names[session] = name
        message = ReadLog(session, n, run, task, attempt, stream, offset, limit)
        answer = await self._roster.ask(name, message, LOG_TIMEOUT)
        if not isinstance(answer, LogChunk):
            raise ProtocolError(f"{type(answer).__name__} is no answer to ReadLog")
        return answer


class NodeStatus:
    def __init__(self, replica: Replica, roster: Roster, waiting_for: Callable[[], str]) -> None:
        self._replica = replica
        self._roster = roster
        self._waiting_for = waiting_for

    def waiting_for(self) -> str:
        return self._waiting_for()

    def applied_index(self) -> int:
        return self._replica.applied_index

    def proposals_in_flight(self) -> int:
        return self._replica.in_flight

    def connected(self) -> Mapping[int, WorkerLoad]:
        return {
            session: WorkerLoad() if load is None else WorkerLoad(load.cpu, load.memory)
            for session, load in self._roster.loads.items()
        }
