"""What the API needs from its node, as protocols. The composition root gives the real things.

Rule: the API reads through `Reads`, changes through `Propose`, and knows nobody else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from msgspec import Struct

from grampus.clock import Clock
from grampus.cluster.server import ClusterServer
from grampus.cluster.tokens import TokenRow
from grampus.protocol import LogChunk, ReadLog
from grampus.runs.commands import Command
from grampus.runs.explanation import Explanation
from grampus.runs.story import StoryPage
from grampus.runs.views import (
    EventView,
    OutputView,
    RunView,
    ScheduleView,
    TaskView,
    TickView,
    WorkerView,
    WorkflowView,
)


class Propose(Protocol):
    async def __call__(self, *commands: Command) -> list[object]:
        """One answer or `Refusal` per command, after the commit.

        Raises Overloaded, Stopped, OutcomeUnknown; InvalidInput for one that is too large."""
        ...


class Reads(Protocol):
    """Queries over the committed state. None and [] mean that there is no such thing."""

    async def workflow(self, name: str, version: int | None) -> WorkflowView | None:
        """The newest version for None."""
        ...

    async def workflows(self, limit: int, after: str) -> list[WorkflowView]:
        """By name, those beyond `after` ("" is from the start)."""
        ...

    async def run(self, run: str) -> RunView | None: ...

    async def resolve_run(self, text: str) -> list[str]:
        """Ids that begin with `text`, at most two; the newest run's for `last`."""
        ...

    async def runs(
        self, workflow: str | None, state: str | None, limit: int, before_seq: int | None
    ) -> list[RunView]:
        """Newest first, those with a lower `seq` than `before_seq`."""
        ...

    async def tasks(self, run: str) -> list[TaskView]: ...

    async def task(self, run: str, task: str) -> TaskView | None:
        """One of them; None when there is no such task."""
        ...

    async def story(
        self, run: str, task: str | None, after: tuple[int, int] | None, limit: int
    ) -> StoryPage | None:
        """A page of it; None when there is no such run or task."""
        ...

    async def output(self, run: str, task: str) -> OutputView | None:
        """None when there is no such task."""
        ...

    async def events(self, run: str, after_revision: int, limit: int) -> list[EventView]:
        """In order of revision."""
        ...

    async def schedule(self, workflow: str) -> ScheduleView | None: ...

    async def schedules(self, limit: int, after: str) -> list[ScheduleView]:
        """By name, those beyond `after`."""
        ...

    async def ticks(self, workflow: str, limit: int, before: int | None) -> list[TickView]:
        """Newest first, those planned before `before`."""
        ...

    async def workers(self) -> list[WorkerView]: ...

    async def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Runs by state, and tasks of runs that are not final by state; without those of none."""
        ...


class BlobStore(Protocol):
    """Content-addressed files (see `blob_files`). A hash is 64 hexadecimal digits, lower case."""

    async def has(self, hash: str) -> bool: ...

    async def put(self, hash: str, pieces: AsyncIterator[bytes]) -> None:
        """Durable under `hash` when this returns; once there, putting it again is no error.

        Raises InvalidInput when the bytes have another hash. What `pieces` raises passes
        through; then, and when cancelled, nothing is kept."""
        ...

    def open(self, hash: str) -> AsyncIterator[bytes]:
        """The bytes, in pieces of at most 1 MiB. The first piece raises NotFound."""
        ...


class LogReading(Protocol):
    async def __call__(self, asked: ReadLog) -> LogChunk:
        """Answers at once, with no data when there is none yet.

        Raises NotFound when the log is gone, another GrampusError when it cannot be had now."""
        ...


class Explain(Protocol):
    async def __call__(self, run: str, task: str | None) -> Explanation | None:
        """From what the scheduler knows now; None when there is no such run or task."""
        ...


class WorkerLoad(Struct, frozen=True):
    """What a connected worker said of itself last; None before it did."""

    #: Percent of the machine.
    cpu: int | None = None
    #: Free bytes.
    memory: int | None = None
    #: How it contains its attempts: `pid-namespace`, `cgroup` or `subreaper`.
    containment: str | None = None
    #: Why it can start nothing, or "".
    trouble: str = ""
    #: How many of its attempts cannot be killed.
    stuck: int = 0


class Presence(Protocol):
    async def __call__(self) -> Mapping[int, WorkerLoad] | None:
        """By session: the workers that talk to the server that leads; None when it does not say."""
        ...


class OfficeClock(Clock, Protocol):
    """The time, and whether the office here believes it."""

    @property
    def doubt(self) -> str:
        """Why schedules are held back, for people; "" when they fire."""
        ...

    def trust(self) -> None:
        """Somebody says that it is right."""
        ...


class ClockDoubt(Protocol):
    """Of the clock by which schedules fire: that of the server in office."""

    async def look(self) -> str:
        """Why schedules are held back, for people; "" when they fire."""
        ...

    async def trust(self) -> str:
        """Somebody says that it is right: what was in doubt until now. Raises NoQuorum."""
        ...


class Status(Protocol):
    """The node as it is this moment. Answers from memory."""

    def waiting_for(self) -> str:
        """Why the node takes no work yet, for people; "" when it does."""
        ...

    def applied_index(self) -> int: ...

    def proposals_in_flight(self) -> int: ...

    def connected(self) -> Mapping[int, WorkerLoad]:
        """By session: the workers that talk to this server now."""
        ...


LedgerState = Literal["same", "differs", "waits", "unclear"]


class LedgerSum(Struct, frozen=True):
    """What a server has told of its ledger."""

    name: str
    #: `same` as most; `waits`: not told yet; `unclear`: no majority has the same.
    state: LedgerState
    #: Hexadecimal, or "".
    sum: str


class LedgerCheck(Struct, frozen=True):
    """A comparison of the servers' ledgers at one entry of the log."""

    index: int
    #: What most of the voters have; None while that is not known.
    agreed: str | None
    servers: tuple[LedgerSum, ...]


class Cluster(Protocol):
    """The servers of the cluster that this one belongs to."""

    async def ask(self, action: str, name: str) -> bytes:
        """`status` `remove` `replace` `transfer`: the cluster afterwards, as JSON.

        Raises NotFound, Refused, NotLeader, NoQuorum, OutcomeUnknown."""
        ...

    async def snapshot(self) -> tuple[int, AsyncIterator[bytes]]:
        """A copy of the ledger as of now: its size, and its bytes."""
        ...

    async def make_token(self, role: str, name: str, life: int) -> tuple[str, int]:
        """A join token for a `server` or `worker`, for `name` only unless it is "": its text, and
        when it expires, in wall ms. `life` in ms. Raises Refused."""
        ...

    async def begin_check(self) -> int:
        """All servers take a checksum of their ledger now: at which entry.

        Raises Refused when there is one server only, NoQuorum, OutcomeUnknown."""
        ...

    def check(self, index: int) -> LedgerCheck:
        """What came out until now. Raises NotFound when nothing is known of it here."""
        ...

    async def list_tokens(self) -> list[TokenRow]:
        """All that are kept, the newest first."""
        ...

    async def revoke(self, what: str, name: str) -> None:
        """A `token`, by its id, or the key of a `worker`: it counts no more. Raises NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """All of them together."""

    propose: Propose
    reads: Reads
    blobs: BlobStore
    read_log: LogReading
    status: Status
    explain: Explain
    presence: Presence
    clock: OfficeClock
    clock_doubt: ClockDoubt
    #: So many random bytes.
    entropy: Callable[[int], bytes]
    cluster: Cluster
    #: After it, a read sees whatever was answered before. Raises NoQuorum.
    barrier: Callable[[], Awaitable[None]]
    #: The metadata center of this server.
    keys: ClusterServer
    #: Of a session, confirmed by the leader. Raises SessionUnknown, and what says that it was not.
    keep_alive: Callable[[int], Awaitable[None]]
    #: For how long this server has not heard the leader, in ms; 0 where it leads.
    unheard: Callable[[], int] = lambda: 0
