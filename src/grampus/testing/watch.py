"""What must be true at every moment of a simulation: it sees each fact when it is applied, and each
execution of an attempt when it starts and when nothing of it is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from grampus.ledger import Ledger
from grampus.master.core.steadiness import BOUND
from grampus.model.run import FINAL_RUN, FINAL_TASK, AttemptState
from grampus.runs import events as facts
from grampus.testing.tick_watch import TickWatch
from grampus.testing.world import World

#: How long finished runs are kept, in ms: longer than a machine may be off and be believed.
KEEP = 2 * 86_400_000
Task = tuple[str, str]


class Execution(NamedTuple):
    """`<run>/<task>.<attempt>` in numbers and names."""

    run: str
    task: str
    attempt: int

    @classmethod
    def of(cls, stem: str) -> Execution:
        run, _, rest = stem.partition("/")
        task, _, attempt = rest.rpartition(".")
        return cls(run, task, int(attempt))


class Watch:
    """Raises AssertionError with what is broken."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.ticks = TickWatch(world)
        #: Runs of which somebody asked that they be deleted.
        self.unwanted: set[str] = set()
        #: When they ended, in true time.
        self._ended: dict[str, int] = {}
        #: They ended by a clock that was behind: how old they are can be seen by others only.
        self._dated_back: set[str] = set()
        self.revision = 0
        #: Attempts of the ledger that are not final.
        self.live: dict[Task, int] = {}
        self._started: set[Execution] = set()
        self._cancelled: set[str] = set()
        self._rounds: Counter[str] = Counter()
        self._successes: Counter[tuple[str, int, str]] = Counter()
        self._final: set[str] = set()
        self.deleted: set[str] = set()
        self.running: dict[Task, Execution] = {}
        #: Whether the warden that runs it goes on.
        self.executed: dict[Execution, Callable[[], bool]] = {}
        #: (session, n) of attempts that are final.
        self.finals: set[tuple[int, int]] = set()
        self._paused: set[str] = set()
        #: A person said that nothing is left of them.
        self._declared: set[Execution] = set()
        #: Whether what it runs on stood still, and had no chance to end it in time.
        self._overslept: dict[Execution, Callable[[], bool]] = {}
        #: What happened, for the reader of a test.
        self.seen: Counter[str] = Counter()

    # -- the ledger -------------------------------------------------------------------------------

    def applied(self, ledger: Ledger, news: list[object]) -> None:
        for fact in news:
            assert isinstance(fact, facts.Event)
            if fact.revision <= self.revision:
                continue  # Applied again after a crash.
            assert fact.revision == self.revision + 1, "a revision is missing"
            self.revision = fact.revision
            self.seen[type(fact).__name__] += 1
            self._fact(fact)
            if isinstance(fact, facts.TickDone):
                self.ticks.done(ledger, fact)
                self.seen[f"tick {fact.outcome}"] += 1
            elif isinstance(fact, facts.SchedulePlanned):
                self.ticks.planned(fact)

    def _fact(self, fact: facts.Event) -> None:
        run = fact.run
        match fact:
            case facts.AttemptStarted(task=task, attempt=attempt):
                assert run not in self._cancelled, f"{run} is cancelled and starts {task}"
                assert run not in self._paused, f"{run} is paused and starts {task}"
                assert (run, task) not in self.live, f"two live attempts of {run}/{task}"
                self.live[run, task] = attempt
                self._started.add(Execution(run, task, attempt))
            case facts.AttemptFinished(task=task, attempt=attempt, state=state):
                assert self.live.pop((run, task), None) == attempt, f"{run}/{task} was not live"
                self.finals.add((fact.session, fact.n))
                self._over(Execution(run, task, attempt), state, fact.error)
                if state == AttemptState.SUCCEEDED:
                    key = (run, self._rounds[run], task)
                    self._successes[key] += 1
                    assert self._successes[key] == 1, f"{run}/{task} succeeded twice"
                self.seen[state] += 1
            case facts.RunCancelling():
                self._cancelled.add(run)
                self._paused.discard(run)
            case facts.RunPaused():
                self._paused.add(run)
            case facts.RunResumed():
                self._paused.discard(run)
            case facts.RunRetried():
                assert run not in self._cancelled, f"{run} is cancelled and runs again"
                self._rounds[run] += 1
                self._final.discard(run)
            case facts.RunDeleted():
                assert run in self._final, f"{run} is deleted before its end"
                age = self._world.right_now() - self._ended[run]
                dated_back = run in self._dated_back
                assert run in self.unwanted or dated_back or age > KEEP - BOUND, (
                    f"{run} is deleted, although it ended {age} ms ago"
                )
                self.deleted.add(run)
            case facts.RunFinished():
                assert run not in self._final, f"{run} has ended twice"
                self._final.add(run)
                self._ended[run] = self._world.right_now()
                if self._world.off < -BOUND:
                    self._dated_back.add(run)
                self._paused.discard(run)
                left = [task for (other, task) in self.live if other == run]
                assert not left, f"{run} is over, but {left} live"

    def _over(self, attempt: Execution, state: AttemptState, error: str) -> None:
        if error.startswith("declared lost"):
            self._declared.add(attempt)
            return
        runs = self.running.get((attempt.run, attempt.task))
        if runs == attempt and self._overslept[attempt]():
            self._declared.add(attempt)
            self.seen["overslept"] += 1
            return
        assert runs != attempt, f"{attempt} is over in the ledger, but its processes live"
        goes_on = self.executed.get(attempt)
        if state == AttemptState.LOST and _is_leased(error):
            self.seen["lease over" if error.startswith("its worker") else "lost as fenced"] += 1
        elif state == AttemptState.LOST and goes_on is not None:
            assert not goes_on(), f"{attempt} is lost although its warden lives: {error}"

    # -- processes --------------------------------------------------------------------------------

    def begins(
        self, attempt: Execution, goes_on: Callable[[], bool], overslept: Callable[[], bool]
    ) -> None:
        other = self.running.get((attempt.run, attempt.task))
        assert other is None or other in self._declared, f"{attempt} starts beside {other}"
        assert attempt not in self.executed, f"{attempt} is started again"
        assert attempt in self._started, f"{attempt} runs, and the ledger does not know it"
        self.running[attempt.run, attempt.task] = attempt
        self.executed[attempt] = goes_on
        self._overslept[attempt] = overslept

    def ends(self, attempt: Execution) -> None:
        if self.running.get((attempt.run, attempt.task)) == attempt:
            del self.running[attempt.run, attempt.task]
        else:
            assert attempt in self._declared, f"{attempt} ends and was not there"


def _is_leased(error: str) -> bool:
    """Lost because nobody heard its worker: it was ended there, and the worker may live."""
    return error.startswith("fenced:") or " was not heard for " in error


def at_rest(ledger: Ledger) -> str:
    """What is left to do in a ledger; "" is nothing."""
    db = ledger.database
    left = [
        f"run {run} is {state}"
        for run, state in db.query("SELECT id, state FROM run ORDER BY seq")
        if state not in FINAL_RUN
    ]
    return ", ".join(left)


def check_end(ledger: Ledger) -> None:
    """Of a ledger in which every run is final."""
    db = ledger.database
    for run, task, state in db.query("SELECT run, idx, state FROM task_run ORDER BY run, idx"):
        assert state in FINAL_TASK, f"{run}/{task} is {state}, but its run is over"
    assert db.query("SELECT session, n FROM attempt WHERE ended IS NULL") == []
    assert db.query("SELECT id FROM session WHERE ended IS NULL AND busy != 0") == []
    assert db.query("SELECT id FROM run WHERE remaining != 0") == []


def equal_to_replay(ledger: Ledger, entries: list[tuple[int, list[bytes]]]) -> None:
    again = Ledger(None)
    for index, (term, commands) in enumerate(entries, start=1):
        again.apply(index, term, commands)
    assert again.checksum() == ledger.checksum(), "a replay of the log makes another ledger"
    again.close()
