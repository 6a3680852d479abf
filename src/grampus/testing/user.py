"""Whoever uses the cluster: applies, submits, cancels, deletes, and remembers what was answered.

An answer that does not come is asked for again, with the same id, as the clients do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from grampus.errors import GrampusError
from grampus.model.run import RunState
from grampus.model.workflow import Retry, Schedule, Shell, Task, Workflow
from grampus.runs.commands import (
    ApplyWorkflow,
    CancelRun,
    Command,
    DeclareLost,
    DeleteRun,
    PauseRun,
    PauseSchedule,
    PauseWorkflow,
    Refusal,
    ResumeRun,
    RetryRun,
    SubmitRun,
    pack_definition,
)
from grampus.testing.node import SimServer
from grampus.testing.world import World


def schedule(rng: random.Random) -> Schedule:
    return Schedule(
        every=rng.choice([1_500, 4_000, 11_000]),
        missed=rng.choice(["latest", "all", "none"]),
        overlap=rng.choice(["allow", "skip", "queue", "cancel_old"]),
    )


def workflow(rng: random.Random, name: str, scheduled: bool) -> Workflow:
    tasks = []
    for i in range(rng.randint(1, 6)):
        ups = sorted(rng.sample(range(i), min(i, rng.choice([0, 1, 1, 2])))) if i else []
        tasks.append(
            Task(
                name=f"t{i}",
                action=Shell("true"),
                after=tuple(f"t{up}" for up in ups),
                retry=Retry(max=rng.randint(0, 2), delay=rng.choice([0, 500, 3000])),
                slots=rng.choice([1, 1, 1, 2, 3]),
                priority=rng.randint(-1, 1),
                timeout=rng.choice([None, None, 500, 5000]),
                grace=rng.choice([0, 100, 10_000]),
                max_lost=rng.choice([1, 3, 10]),
            )
        )
    return Workflow(
        name,
        tuple(tasks),
        on_failure=rng.choice(["stop", "continue"]),
        max_active_runs=rng.choice([None, 1, 2]),
        overlap=rng.choice(["allow", "queue", "cancel_old"]),
        schedule=schedule(rng) if scheduled else None,
    )


class User:
    """`server` gives the one that answers now, or None; `live` has the attempts that are live."""

    def __init__(
        self,
        world: World,
        server: Callable[[], SimServer | None],
        live: Mapping[tuple[str, str], int],
    ) -> None:
        self._world = world
        #: Of the seed alone: what a user wants stays the same when servers ask for other chances.
        self._rng = random.Random(f"user {world.seed}")
        self._server = server
        self._live = live
        self._runs = 0
        #: Runs of which a submission was answered, and their workflow.
        self.submitted: dict[str, str] = {}
        self.cancelled: set[str] = set()
        #: A deletion was asked for.
        self.deleted: set[str] = set()
        self._versions: dict[str, int] = {}
        self._paused: set[str] = set()
        #: Some of the workflows that are applied have one.
        self.schedules = False
        self._ending = False
        #: Questions without an answer.
        self.asking: dict[int, str] = {}
        self._asked = 0

    def act(self, kinds: list[str]) -> None:
        rng = self._rng
        kind = rng.choice(kinds)
        run = rng.choice(sorted(self.submitted)) if self.submitted else None
        if kind == "apply" or not self._versions:
            self._apply(rng.choice(["v", "w"]))
        elif kind == "submit" or run is None:
            self._submit(rng.choice(sorted(self._versions)))
        elif kind == "cancel":
            self._cancel(run)
        elif kind == "delete":
            self._delete(run)
        elif kind == "pause-workflow":
            name = rng.choice(sorted(self._versions))
            self._paused ^= {name}
            self._ask(PauseWorkflow(self._world.now(), name, name in self._paused), _nothing)
        elif kind == "pause":
            self._ask(PauseRun(self._world.now(), run, "ann"), _nothing)
        elif kind == "resume":
            self._ask(ResumeRun(self._world.now(), run, "ann"), _nothing)
        elif kind == "declare-lost":
            live = sorted(self._live.items())
            if live:
                (run, task), attempt = rng.choice(live)
                self._ask(DeclareLost(self._world.now(), run, task, "ann", attempt), _nothing)
        elif kind == "pause-schedule":
            name = rng.choice(sorted(self._versions))
            self._ask(PauseSchedule(self._world.now(), name, rng.random() < 0.5, "ann"), _nothing)
        elif kind == "retry":
            self._ask(RetryRun(self._world.now(), run, "", "ann"), _nothing)

    def let_all_end(self) -> None:
        """Nothing stays paused, and nothing starts by itself."""
        self._ending = True
        for name in sorted(self._versions):
            self._pause_schedule(name)
        for name in sorted(self._versions):
            self._ask(PauseWorkflow(self._world.now(), name, False), _nothing)
        self._paused.clear()
        for run in sorted(self.submitted):
            self._ask(ResumeRun(self._world.now(), run, "ann"), _nothing)

    def _pause_schedule(self, name: str) -> None:
        if self.schedules:
            self._ask(PauseSchedule(self._world.now(), name, True, "ann"), _nothing)

    def _apply(self, name: str) -> None:
        scheduled = self.schedules and self._rng.random() < 0.7
        definition = workflow(self._rng, name, scheduled)

        def answered(answer: object) -> None:
            assert isinstance(answer, (tuple, list))
            self._versions[name] = max(answer[0], self._versions.get(name, 0))
            if self._ending:
                self._pause_schedule(name)

        self._ask(
            ApplyWorkflow(self._world.now(), name, pack_definition(definition.content())), answered
        )

    def _submit(self, name: str) -> None:
        self._runs += 1
        run, now = f"run{self._runs}", self._world.now()
        priority = self._rng.randint(-1, 1)

        def answered(answer: object) -> None:
            if not isinstance(answer, Refusal):
                self.submitted[run] = name

        self._ask(
            SubmitRun(now, run, name, self._versions[name], b"{}", "r", priority, now), answered
        )

    def _cancel(self, run: str) -> None:
        def answered(answer: object) -> None:
            if answer in (RunState.CANCELLING, RunState.CANCELLED):
                self.cancelled.add(run)

        self._ask(CancelRun(self._world.now(), run, "ann"), answered)

    def _delete(self, run: str) -> None:
        # Also when it is refused: what was asked twice may be done the second time.
        self.deleted.add(run)
        self._ask(DeleteRun(self._world.now(), run), _nothing)

    def _ask(self, command: Command, answered: Callable[[object], None]) -> None:
        self._asked += 1
        self.asking[self._asked] = _short(command)
        self._world.say(f"user asks {_short(command)}")
        self._try(self._asked, command, answered)

    def _try(self, number: int, command: Command, answered: Callable[[object], None]) -> None:
        if number not in self.asking:
            return
        # No answer came: the server is gone, or slow. What is repeated is the same request, and
        # the server notes when it came.
        self._world.after(5.0, lambda: self._try(number, command, answered))
        server = self._server()
        if server is None:
            return

        async def ask() -> None:
            try:
                (answer,) = await server.proposer.propose(replace(command, at=self._world.now()))
            except GrampusError:
                return
            if self.asking.pop(number, None) is not None:
                self._world.say(f"user hears {_short(command)}: {answer}")
                answered(answer)

        server.loop.begin(ask())


def _nothing(answer: object) -> None:
    return


def _short(command: Command) -> str:
    what = getattr(command, "run", None) or getattr(command, "name", "")
    return f"{type(command).__name__} {what}"
