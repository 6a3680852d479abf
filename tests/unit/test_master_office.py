"""The master's office on a replica that loses the lead in the middle of everything."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from grampus.consensus.port import Listener, Stopped
from grampus.database import Database
from grampus.errors import NoQuorum, NotLeader, OutcomeUnknown, Overloaded
from grampus.ledger import Ledger
from grampus.master import asking, driver, office
from grampus.master.briefs import Briefs
from grampus.master.core.check import check
from grampus.master.core.events import Happening, WorkerConnected, WorkerSynced
from grampus.master.core.pulse import Pulse
from grampus.master.core.scheduler import Scheduler
from grampus.master.driver import Master
from grampus.master.loading import Loading
from grampus.master.office import Office
from grampus.master.rounds import Rounds
from grampus.master.timekeeper import Timekeeper
from grampus.model.run import AttemptState
from grampus.model.workflow import Shell, Task, Workflow
from grampus.protocol import Assign, Message, Sync
from grampus.runs.change import Graphs
from grampus.runs.commands import (
    ApplyWorkflow,
    OpenSession,
    ReportAttempt,
    StartAttempts,
    SubmitRun,
    TakeOffice,
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


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "BUSY", 0)
    monkeypatch.setattr(driver, "Scheduler", Checked)
    monkeypatch.setattr(asking, "SETTLE_AGAIN", 0)
    monkeypatch.setattr(office, "AGAIN", 0)


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


def test_nobody_is_in_office_where_the_replica_does_not_lead(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await asyncio.sleep(0)
        assert not await stage.office.opens()
        assert stage.office.scheduler is None
        assert stage.replica.ledger.applied_index == 0

    play(tmp_path, scenario)


def test_office_is_taken_although_the_log_takes_nothing_at_first(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        moods = iter(["busy", "no-quorum", "elsewhere", "lost", "late"])
        stage.replica.mood = lambda: next(moods, "taken")
        stage.replica.lead()
        await stage.office.held.wait()
        assert stage.office.epoch == stage.replica.applied_index == 1

    play(tmp_path, scenario)


def test_a_deposed_office_forgets_and_dismisses_and_the_next_one_goes_on(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.prepare(*wide(4))
        stage.crew.idle = True
        stage.replica.lead()
        await stage.connect()
        await stage.office.held.wait()
        first, (clerk,) = stage.office.epoch, stage.clerks
        await until(lambda: len(stage.crew.assigned) == 2)
        stage.replica.depose()
        await until(lambda: stage.crew.dismissed)
        assert (stage.office.epoch, stage.office.scheduler) == (0, None)
        assert not stage.office.is_open
        assert clerk.epoch == first
        assert clerk.over
        assert stage.crew.dismissed == ["this server leads no more"]
        # Meanwhile another server leads: an attempt ends there.
        stage.crew.finish(stage.crew.assigned[0][1])
        heard = len(clerk.heard)

        stage.crew.idle = False
        stage.replica.lead()
        await stage.connect()
        for _, n in list(stage.crew.assigned)[1:]:
            stage.crew.finish(n)
        await stage.until_done()
        assert stage.office.epoch > first
        assert len(clerk.heard) == heard, "it hears of the next office"
        assert len(set(stage.crew.assigned)) == 4

    play(tmp_path, scenario)


def test_a_server_is_confirmed_only_if_it_led_all_the_time_that_the_barrier_took(
    tmp_path: Path,
) -> None:
    """Somebody else may have passed the barrier on."""

    async def scenario(stage: Stage) -> None:
        office, replica = stage.office, stage.replica
        barriers: list[asyncio.Future[None]] = []

        async def barrier() -> None:
            barriers.append(asyncio.get_running_loop().create_future())
            await barriers[-1]

        office._rounds = Rounds(barrier)
        assert not await office.confirmed()
        replica.lead()
        await office.held.wait()
        asked = asyncio.create_task(office.confirmed())
        await until(lambda: len(barriers) == 1)
        barriers[0].set_result(None)
        assert await asked
        # Deposed meanwhile; deposed and elected again meanwhile; no majority.
        for count, happens in enumerate((["depose"], ["depose", "lead"], []), 2):
            asked = asyncio.create_task(office.confirmed())
            await until(lambda count=count: len(barriers) == count)  # type: ignore[misc]
            for what in happens:
                getattr(replica, what)()
            if happens:
                barriers[-1].set_result(None)
            else:
                barriers[-1].set_exception(NoQuorum("no majority"))
            assert not await asked
            replica.lead()
            await office.held.wait()

    play(tmp_path, scenario)


def test_a_master_that_finds_another_in_office_takes_it_again_while_it_leads(
    tmp_path: Path,
) -> None:
    async def scenario(stage: Stage) -> None:
        stage.replica.lead()
        await stage.office.held.wait()
        epoch = stage.office.epoch
        # Of this very term: nothing but a start tells.
        stage.replica.apply([encode_command(TakeOffice(1, "n2", stage.replica.term))])
        stage.prepare(*wide(1))
        await stage.connect()
        await stage.until_held(but=epoch)
        await stage.connect()
        await stage.until_done()

    play(tmp_path, scenario)


def test_an_office_that_was_asked_for_in_an_earlier_term_is_refused(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.replica.lead()
        await stage.office.held.wait()
        late = TakeOffice(1, "n2", stage.replica.term - 1)
        (refusal,) = stage.replica.apply([encode_command(late)])
        assert "term" in str(refusal)
        assert stage.office.held.is_set()

    play(tmp_path, scenario)


@pytest.mark.parametrize("mood", ["busy", "no-quorum", "elsewhere", "lost", "late"])
def test_starts_without_an_answer_are_neither_lost_nor_doubled(tmp_path: Path, mood: str) -> None:
    async def scenario(stage: Stage) -> None:
        stage.prepare(*wide(5))
        stage.replica.lead()
        await stage.office.held.wait()
        moods = iter([mood] * 2)
        stage.replica.mood = lambda: next(moods, "taken")
        await stage.connect()
        await stage.until_done()
        assert len(stage.crew.assigned) == 5
        assert next(moods, None) is None

    play(tmp_path, scenario)


def test_a_start_that_is_answered_by_nobody_may_come_true_after_the_next_was_asked_for(
    tmp_path: Path,
) -> None:
    """Another worker was chosen for the second: nothing stays reserved at either."""

    async def scenario(stage: Stage) -> None:
        stage.prepare(*wide(1))
        (other,) = stage.replica.apply(
            [encode_command(OpenSession(1, "w2", "i", "m", "b", True, "default", 2))]
        )
        stage.replica.lead()
        await stage.office.held.wait()
        epoch, now = stage.office.epoch, 1_000
        late = StartAttempts(now, epoch, other, RUN, [(0, 1)])  # type: ignore[arg-type]
        begun = False

        def mood() -> str:
            nonlocal begun
            if not begun:
                begun = True
                stage.replica.apply([encode_command(late)])
            return "taken"

        stage.replica.mood = mood
        await stage.connect()
        await until(lambda: stage.crew.assigned)
        assert [session for session, _ in stage.crew.assigned] == [other]
        await until(
            lambda: stage.office.scheduler is not None and not stage.office.scheduler.proposed
        )

    play(tmp_path, scenario)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_log_does_every_task_runs_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    async def scenario(stage: Stage) -> None:
        first = wide(3)
        behind = tuple(Task(f"u{i}", Shell("true"), after=("t0", "t1", "t2")) for i in range(6))
        stage.prepare(*first, *behind)
        tries = 60

        def mood() -> str:
            nonlocal tries
            tries -= 1
            if tries < 0:
                return "taken"
            if chance.random() < 0.15:
                stage.replica.depose()
            return chance.choice(
                ["taken", "taken", "busy", "no-quorum", "elsewhere", "lost", "late"]
            )

        stage.replica.mood = mood

        async def staff() -> None:
            epoch = 0
            while True:
                if not stage.replica.leader and chance.random() < 0.3:
                    stage.replica.lead()
                if stage.office.is_open and stage.office.epoch != epoch:
                    epoch = stage.office.epoch
                    stage.happened(WorkerConnected(stage.crew.session))
                await asyncio.sleep(0)

        staffing = asyncio.create_task(staff())
        try:
            await stage.until_done()
        finally:
            staffing.cancel()
        # What was committed, and whose Assign got lost with its office, was told by a Sync.
        assert len(set(stage.crew.assigned)) == len(stage.crew.assigned) == 9
        starts = stage.readers.query("SELECT count(*), count(DISTINCT task) FROM attempt")
        assert list(starts) == [(9, 9)]

    play(tmp_path, scenario)


def test_a_replica_that_has_failed_ends_the_office_with_its_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        stage = Stage(tmp_path)
        running = asyncio.create_task(stage.office.run())
        stage.replica.lead()
        await stage.office.held.wait()
        stage.replica.fail()
        with pytest.raises(Stopped, match="the log has stopped"):
            await running
        stage.close()

    asyncio.run(scenario())


def test_stopping_holds_in_the_next_office_too(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.prepare(*wide(2))
        stage.replica.lead()
        await stage.office.held.wait()
        stage.office.stop()
        stage.replica.depose()
        await until(lambda: not stage.office.held.is_set())
        stage.replica.lead()
        await stage.connect()
        await stage.office.held.wait()
        for _ in range(50):
            await asyncio.sleep(0)
        assert stage.office.scheduler is not None
        assert stage.office.scheduler.stopping
        assert all(clerk.stopped for clerk in stage.clerks)
        assert stage.crew.assigned == []

    play(tmp_path, scenario)
