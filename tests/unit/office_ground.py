"""Ground for tests of the office: one on a replica that wavers, with workers that are not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from grampus.consensus.port import Listener, Stopped
from grampus.database import Database
from grampus.errors import NoQuorum, NotLeader, OutcomeUnknown, Overloaded
from grampus.ledger import Ledger
from grampus.master.briefs import Briefs
from grampus.master.core.check import check
from grampus.master.core.events import Happening, WorkerConnected, WorkerSynced
from grampus.master.core.pulse import Pulse
from grampus.master.core.scheduler import Scheduler
from grampus.master.driver import Master
from grampus.master.loading import Loading
from grampus.master.office import Office
from grampus.master.timekeeper import Timekeeper
from grampus.model.run import AttemptState
from grampus.model.workflow import Shell, Task, Workflow
from grampus.protocol import Assign, Message, Sync
from grampus.runs.change import Graphs
from grampus.runs.commands import (
    ApplyWorkflow,
    OpenSession,
    ReportAttempt,
    SubmitRun,
    encode_command,
    pack_definition,
)
from grampus.runs.proposer import Proposer
from grampus.runs.queries import Queries

RUN = "aaaaaaaaaaaa"


async def until(what: Callable[[], object]) -> None:
    """Lets the others go on until it is true; `a_stage` has the deadline."""
    for _ in range(1_000_000):
        if what():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never comes")


class Clock:
    def now(self) -> int:
        return 1_000

    def ticks(self) -> int:
        return 0

    def synchronised(self) -> bool:
        return False


class Wavering:
    """A replica over a real ledger. `mood` is asked before each proposal what becomes of it:

    `taken`; `busy`, `no-quorum`, `elsewhere` (nothing happened); `lost` and `late` (no answer: it
    never happens, or it does before the next read barrier)."""

    def __init__(self, path: Path, mood: Callable[[], str] = lambda: "taken") -> None:
        self.ledger = Ledger(path)
        self.mood = mood
        self.term = 1
        self.leader = False
        self.leader_address: str | None = None
        self.in_flight = 0
        self.failed = False
        self.barriers = 0
        self._led = asyncio.Event()
        self._over = asyncio.Event()
        self._listeners: list[Listener] = []
        self._late: list[list[bytes]] = []

    # -- what the test does to it

    def lead(self) -> None:
        self.term += 1
        self.leader, self.leader_address = True, None
        self._over.clear()
        self._led.set()

    def depose(self) -> None:
        """Another one leads from now on: its term is another."""
        self.term += 1
        self.leader, self.leader_address = False, "127.0.0.1:9"
        self._led.clear()
        self._over.set()

    def fail(self) -> None:
        self.failed = True
        self.depose()
        self._led.set()

    def apply(self, commands: Sequence[bytes]) -> list[object]:
        index = self.ledger.applied_index + 1
        answers, facts = self.ledger.apply(index, self.term, commands)
        for listener in self._listeners:
            listener(index, facts)
        return answers

    # -- the port

    async def propose(self, commands: Sequence[bytes]) -> list[object]:
        await asyncio.sleep(0)
        if self.failed:
            raise Stopped("the log has stopped")
        match self.mood():
            case "busy":
                raise Overloaded("too much waits")
            case "no-quorum":
                raise NoQuorum("no majority")
            case "elsewhere":
                raise NotLeader("somebody else leads")
            case "lost":
                raise OutcomeUnknown("no answer")
            case "late":
                self._late.append(list(commands))
                raise OutcomeUnknown("no answer")
        answers = self.apply(commands)
        await asyncio.sleep(0)
        return answers

    async def read_barrier(self) -> None:
        self.barriers += 1
        if self.failed:
            raise Stopped("the log has stopped")
        if self.barriers % 3 == 0:
            raise NoQuorum("not now")
        late, self._late = self._late, []
        for commands in late:
            self.apply(commands)

    async def leads(self) -> None:
        await self._led.wait()
        if self.failed:
            raise Stopped("the log has stopped")

    async def deposed(self, term: int) -> None:
        if self.leader and self.term == term:
            await self._over.wait()

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    @property
    def applied_index(self) -> int:
        return self.ledger.applied_index


class Crew:
    """A roster with one worker, which does at once what it is assigned."""

    def __init__(self, replica: Wavering) -> None:
        self.replica = replica
        self.session = 0
        self.pulse = Pulse(0)
        self.assigned: list[tuple[int, int]] = []
        self.dismissed: list[str] = []
        #: When it is set, nothing is done.
        self.idle = False
        self.happened: Callable[[list[Happening]], None]

    def send(self, session: int, message: Message) -> None:
        if isinstance(message, Assign):
            self.assigned.append((session, message.n))
            if not self.idle:
                self.finish(message.n)
        elif isinstance(message, Sync):
            missing = tuple(n for n in message.live if (session, n) not in self.assigned)
            self.happened([WorkerSynced(session, missing)])

    def send_all(self, message: Message) -> None:
        return

    def finish(self, n: int) -> None:
        report = ReportAttempt(
            1_000, self.session, n, AttemptState.SUCCEEDED, 1_000, 0, "", (), None, 0, 0
        )
        self.replica.apply([encode_command(report)])


class Checked(Scheduler):
    def step(self, now: int, events: Any, *args: Any, **kwargs: Any) -> Any:
        turn = super().step(now, events, *args, **kwargs)
        check(self)
        return turn


class Stage:
    def __init__(self, folder: Path) -> None:
        path = folder / "ledger.db"
        self.replica = Wavering(path)
        self.crew = Crew(self.replica)
        self.readers = Database.open(path, readonly=True)
        office_readers, graphs = Database.open(path, readonly=True), Graphs()
        self.opened = (self.readers, office_readers, self.replica.ledger)
        loading, queries = Loading(office_readers, graphs), Queries(office_readers, graphs)
        replica: Any = self.replica
        crew: Any = self.crew
        proposer = Proposer(replica)
        #: Terms of the clerks that were hired, and what they did.
        self.clerks: list[Clerk] = []

        def appoint() -> Master:
            return Master(
                proposer, loading, Briefs(queries, lambda data: ""), crew, Timekeeper(Clock())
            )

        def hire() -> list[Clerk]:
            self.clerks.append(Clerk())
            return self.clerks[-1:]

        self.office = Office(
            "n1", replica, proposer, Clock(), appoint=appoint, dismiss=self._dismiss, hire=hire
        )
        self.crew.happened = self.office.happened

    def close(self) -> None:
        for each in self.opened:
            each.close()

    def _dismiss(self, reason: str) -> None:
        self.crew.dismissed.append(reason)

    def happened(self, *events: Happening) -> None:
        self.office.happened(events)

    def prepare(self, *tasks: Task) -> None:
        """A run of these, and a worker of two slots that is connected in every office."""
        content = Workflow("w", tasks).content()
        self.replica.apply(
            [
                encode_command(ApplyWorkflow(1, "w", pack_definition(content))),
                encode_command(SubmitRun(1, RUN, "w", 1, b"{}", "request", 0, 1)),
            ]
        )
        (self.crew.session,) = self.replica.apply(  # type: ignore[assignment]
            [encode_command(OpenSession(1, "w1", "i", "m", "b", True, "default", 2))]
        )

    async def connect(self) -> None:
        """As the worker does in every office."""
        await until(lambda: self.office.is_open)
        self.happened(WorkerConnected(self.crew.session))

    def states(self) -> list[str]:
        return [
            row[0] for row in self.readers.query("SELECT state FROM task_run ORDER BY run, idx")
        ]

    async def until_done(self) -> None:
        await until(lambda: set(self.states()) == {"SUCCEEDED"})

    async def until_held(self, but: int = 0) -> None:
        await until(lambda: self.office.epoch not in (0, but))


class Clerk:
    def __init__(self) -> None:
        self.epoch = 0
        self.heard: list[object] = []
        self.over = self.stopped = False

    def committed(self, index: int, facts: Sequence[object]) -> None:
        self.heard.extend(facts)

    async def run(self, epoch: int) -> None:
        self.epoch = epoch
        try:
            await asyncio.Event().wait()
        finally:
            self.over = True

    def stop(self) -> None:
        self.stopped = True


@asynccontextmanager
async def a_stage(folder: Path) -> AsyncIterator[Stage]:
    stage = Stage(folder)
    async with asyncio.timeout(60):
        running = asyncio.create_task(stage.office.run())
        try:
            yield stage
        finally:
            running.cancel()
            (error,) = await asyncio.gather(running, return_exceptions=True)
            assert isinstance(error, asyncio.CancelledError), error
            stage.close()


def play(folder: Path, scenario: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with a_stage(folder) as stage:
            await scenario(stage)

    asyncio.run(main())


def wide(count: int) -> tuple[Task, ...]:
    return tuple(Task(f"t{i}", Shell("true"), max_lost=100) for i in range(count))
