"""Random graphs, failures, pauses, timeouts, rounds, in random order: a run always ends, and right.

The ledger and the scheduler are the real ones, over SQLite in memory; the worker is a bag of
attempts from which Hypothesis draws what happens next. After every step the invariants are checked.
"""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from grampus.ledger import Ledger
from grampus.model.run import AttemptState, RunState, TaskState
from grampus.model.workflow import Retry, Shell, Task, Workflow
from grampus.runs.commands import (
    ApplyWorkflow,
    CancelRun,
    DeclareLost,
    EndSession,
    PauseRun,
    Refusal,
    ResumeRun,
    RetryRun,
    StartAttempts,
    SubmitRun,
    TakeOffice,
    pack_definition,
)
from tests.world import World


@st.composite
def workflows(draw: st.DrawFn, name: str = "w") -> Workflow:
    count = draw(st.integers(1, 8))
    tasks = []
    for i in range(count):
        ups = draw(st.lists(st.integers(0, max(0, i - 1)), max_size=3, unique=True)) if i else []
        tasks.append(
            Task(
                name=f"t{i}",
                action=Shell("true"),
                after=tuple(f"t{u}" for u in sorted(ups)),
                retry=Retry(max=draw(st.integers(0, 2)), delay=draw(st.sampled_from([0, 500]))),
                slots=draw(st.sampled_from([1, 1, 1, 2, 3])),
                priority=draw(st.integers(-2, 2)),
                max_lost=draw(st.integers(0, 2)),
            )
        )
    return Workflow(
        name,
        tuple(tasks),
        on_failure=draw(st.sampled_from(["stop", "continue"])),
        max_active_runs=draw(st.sampled_from([None, 1, 2])),
        overlap=draw(st.sampled_from(["allow", "queue", "cancel_old"])),
        timeout=draw(st.sampled_from([None, None, 20, 2_000])),
    )


OUTCOMES = (
    AttemptState.SUCCEEDED,
    AttemptState.SUCCEEDED,
    AttemptState.SUCCEEDED,
    AttemptState.FAILED,
    AttemptState.TIMED_OUT,
    AttemptState.LOST,
    AttemptState.CANCELLED,
)


def submit(world: World, run: str, version: int = 1, priority: int = 0) -> Any:
    (answer,) = world.propose(
        SubmitRun(world.now, run, "w", version, b"{}", "r", priority, world.now)
    )
    return answer


def rounds(world: World, run: str) -> list[list[tuple[str, Any]]]:
    """Of each round: what became of attempts, as (task, fact), in order."""
    found: list[list[tuple[str, Any]]] = [[]]
    for event in world.queries().events(run, 0, 100_000):
        fact = msgspec.json.decode(event.data)
        if event.kind == "run.retried":
            found.append([])
        elif event.kind == "attempt.finished":
            found[-1].append((fact["task"], fact))
    return found


def resume(world: World, run: str) -> Any:
    (answer,) = world.propose(ResumeRun(world.now, run, "test"))
    return answer


def retry(world: World, run: str, workflow: Workflow, data: Any) -> None:
    """What may be run again begins again; what is active or cancelled is left alone."""
    before = world.queries().run(run)
    assert before is not None
    task = data.draw(st.sampled_from(["", *(task.name for task in workflow.tasks)]))
    (answer,) = world.propose(RetryRun(world.now, run, task, "test"))
    if before.state == RunState.FAILED or (before.state == RunState.SUCCEEDED and task):
        assert not isinstance(answer, Refusal), answer
        assert not task or task in answer[1]
    else:
        assert isinstance(answer, Refusal)
        assert answer.code == "conflict"


def assert_ended_right(world: World, run: str, workflow: Workflow) -> None:
    queries = world.queries()
    view = queries.run(run)
    tasks = {t.name: t for t in queries.tasks(run)}
    assert view is not None
    assert view.state in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED), view
    states = {t.state for t in tasks.values()}
    if view.state == RunState.SUCCEEDED:
        assert states == {TaskState.SUCCEEDED}
    expired = view.reason.startswith("timed out after")
    if view.state == RunState.FAILED and not expired:
        assert states & {TaskState.FAILED, TaskState.TIMED_OUT}
    if expired:
        assert view.state == RunState.FAILED
    every = rounds(world, run)
    for task in workflow.tasks:
        seen = tasks[task.name]
        for facts in every:
            mine = [fact["state"] for name, fact in facts if name == task.name]
            assert mine.count("SUCCEEDED") <= 1, "two accepted results in one round"
            assert mine.count("FAILED") + mine.count("TIMED_OUT") <= task.retry.max + 1
        last = [a.state for a in seen.attempts]
        assert seen.state != TaskState.SUCCEEDED or last[-1] == AttemptState.SUCCEEDED
        assert [a.attempt for a in seen.attempts] == list(range(1, len(seen.attempts) + 1))
        if seen.started is not None:
            for up in task.after:
                done = tasks[up]
                assert done.state == TaskState.SUCCEEDED, (task.name, up)
                assert done.ended is not None
                assert done.ended <= seen.started
        if seen.state == TaskState.UPSTREAM_FAILED:
            assert any(tasks[up].state != TaskState.SUCCEEDED for up in task.after)


@settings(max_examples=150, deadline=None)
@given(workflow=workflows(), data=st.data())
def test_every_run_ends_and_no_task_runs_before_its_inputs(workflow: Workflow, data: Any) -> None:
    world = World(slots=3)
    world.propose(ApplyWorkflow(world.now, "w", pack_definition(workflow.content())))
    runs = [f"r{i}" for i in range(data.draw(st.integers(1, 3), label="runs"))]
    for run in runs:
        assert submit(world, run, priority=data.draw(st.integers(-1, 1))) == "created"
    again = data.draw(st.integers(0, 3), label="rounds more")
    for _ in range(2_000):
        world.turn()
        if not world.attempts:
            paused = list(world.scheduler.paused)
            if paused and data.draw(st.booleans()):
                assert resume(world, data.draw(st.sampled_from(paused))) == "RUNNING"
                continue
            dues = (world.scheduler.queue.next_due(), world.scheduler.expiries.next_due())
            due = min((due for due in dues if due is not None), default=None)
            if due is None and not paused:
                if again > 0:
                    again -= 1
                    retry(world, data.draw(st.sampled_from(runs)), workflow, data)
                    continue
                break
            world.now = max(world.now + 1, due or 0)
            continue
        world.now += 1
        what = data.draw(st.integers(0, 40))
        if what == 0:
            world.propose(CancelRun(world.now, data.draw(st.sampled_from(runs)), "test"))
        elif what in (3, 4, 5):
            world.propose(PauseRun(world.now, data.draw(st.sampled_from(runs)), "test"))
        elif what in (6, 7):
            resume(world, data.draw(st.sampled_from(runs)))
        elif what == 8:
            retry(world, data.draw(st.sampled_from(runs)), workflow, data)
        elif what == 9:
            gone = world.attempts.pop(data.draw(st.sampled_from(sorted(world.attempts))))
            name = workflow.tasks[gone.index].name
            (answer,) = world.propose(DeclareLost(world.now, gone.run, name, "test", gone.attempt))
            assert answer in ("READY", "FAILED", "CANCELLED")
            assert world.report(gone.session, gone.n, AttemptState.SUCCEEDED) == "stale"
        elif what == 10:
            world.fall_silent()
            lost, world.attempts = world.attempts, {}
            for key in lost:
                assert world.report(*key, AttemptState.SUCCEEDED) == "stale"
        elif what == 1:
            world.attempts.clear()
            world.worker(3)
        else:
            key = data.draw(st.sampled_from(sorted(world.attempts)))
            state = data.draw(st.sampled_from(OUTCOMES))
            assert world.report(*key, state, 0 if state == "SUCCEEDED" else 1) == "done"
            if what == 2:
                assert world.report(*key, AttemptState.SUCCEEDED) in ("done", "stale")
    else:
        raise AssertionError("the runs do not end")
    for run in runs:
        assert_ended_right(world, run, workflow)
    assert len(set(world.started)) == len(world.started), "an attempt was assigned twice"
    assert [w.busy for w in world.queries().workers()] == [0]
    replayed = Ledger(None)
    for index, entry in enumerate(world.log, start=1):
        replayed.apply(index, 1, entry)
    assert replayed.checksum() == world.ledger.checksum()


def test_a_cancel_that_is_ahead_in_the_log_refuses_the_start() -> None:
    world = World()
    world.propose(
        ApplyWorkflow(1, "w", pack_definition(Workflow("w", (Task("a", Shell("true")),)).content()))
    )
    submit(world, "r1")
    cancel = CancelRun(world.now, "r1", "ann")
    start = StartAttempts(world.now, world.scheduler.epoch, world.session, "r1", [(0, 1)])
    cancelled, refused = world.propose(cancel, start)
    assert cancelled == RunState.CANCELLED
    assert isinstance(refused, Refusal)
    assert refused.code == "not-active"
    world.turn()
    assert world.started == []


def test_a_start_of_an_older_epoch_is_refused() -> None:
    world = World()
    world.propose(
        ApplyWorkflow(1, "w", pack_definition(Workflow("w", (Task("a", Shell("true")),)).content()))
    )
    submit(world, "r1")
    old = world.scheduler.epoch
    world.propose(TakeOffice(world.now, "n2", 1))
    (refused,) = world.propose(StartAttempts(world.now, old, world.session, "r1", [(0, 1)]))
    assert isinstance(refused, Refusal)
    assert refused.code == "stale-epoch"


def test_attempts_of_an_ended_session_are_lost_and_its_late_reports_are_stale() -> None:
    world = World()
    world.propose(
        ApplyWorkflow(1, "w", pack_definition(Workflow("w", (Task("a", Shell("true")),)).content()))
    )
    submit(world, "r1")
    world.turn()
    ((session, n),) = world.attempts
    world.propose(EndSession(world.now, session, "gone"))
    assert world.report(session, n, AttemptState.SUCCEEDED) == "stale"
    (task,) = world.queries().tasks("r1")
    assert task.state == TaskState.READY
    assert [a.state for a in task.attempts] == [AttemptState.LOST]
