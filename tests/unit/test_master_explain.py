"""Reasons that no transcript shows: of the master itself, of what is under way, of long lists.

The others are played in `tests/scenarios/master/explain_*.txt`."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest

from grampus.master.core.events import ReadyTask, Stopping
from grampus.master.core.explain import explain
from grampus.master.core.queue import ReadyQueue
from grampus.model.run import AttemptState
from grampus.model.workflow import Shell, Task, Workflow
from grampus.runs.commands import (
    ApplyWorkflow,
    OpenSession,
    PauseRun,
    ResumeRun,
    SubmitRun,
    pack_definition,
)
from grampus.runs.explanation import Code, Explanation
from grampus.runs.story import listed, span
from tests.unit.runs_book import Book
from tests.world import World


def a_world(*tasks: Task, slots: int = 1, **options: typing.Any) -> World:
    world = World(slots)
    tasks = tasks or (Task("a", Shell("x")), Task("b", Shell("x"), after=("a",)))
    flow = Workflow("w", tasks, **options)
    world.propose(ApplyWorkflow(1, "w", pack_definition(flow.content())))
    submit(world, "r1")
    return world


def submit(world: World, run: str) -> None:
    world.propose(SubmitRun(world.now, run, "w", 1, b"{}", "x", 0, world.now))


def told(world: World, run: str, task: str | None = None, master: bool = True) -> Explanation:
    standing = world.queries().standing(run, task)
    assert standing is not None
    return explain(world.scheduler if master else None, standing, world.now)


def codes(found: Explanation) -> list[list[str]]:
    return [[r.code for r in found.reasons], *([r.code for r in t.reasons] for t in found.tasks)]


def test_without_a_master_nothing_starts() -> None:
    world = a_world()
    found = told(world, "r1", master=False)
    assert codes(found) == [["no-master"], ["no-master"], ["upstream", "no-master"]]


def test_a_server_that_is_being_stopped_starts_nothing() -> None:
    world = a_world()
    world.pending.append(Stopping())
    world.turn()
    assert codes(told(world, "r1")) == [["stopping"], ["stopping"], ["upstream"]]


def test_a_start_that_is_being_committed_is_said() -> None:
    world = a_world()
    turn = world.scheduler.step(world.now, world.pending)
    assert turn.commands
    found = told(world, "r1", "a")
    assert codes(found) == [[], ["starting"]]
    assert "being committed" in found.tasks[0].reasons[0].text


def test_free_slots_mean_that_it_starts_soon() -> None:
    world = a_world()
    world.turn()
    # The first attempt ends; the scheduler has not looked since.
    ((session, n),) = world.attempts
    world.report(session, n, AttemptState.SUCCEEDED)
    world.scheduler.step(world.now, world.pending[:-1])
    assert codes(told(world, "r1", "b")) == [[], ["starting"]]


def test_who_holds_the_slots_is_named_up_to_ten() -> None:
    world = a_world(*(Task(f"t{i}", Shell("x")) for i in range(30)), slots=20)
    world.turn()
    (reason,) = told(world, "r1", "t25").tasks[0].reasons[:1]
    assert reason.code == "no-free-slot"
    assert len(reason.names) == 10
    assert reason.names[0] == "r1/t0"
    assert "20 of 20 busy with r1/t0" in reason.text
    assert reason.text.endswith("and 11 more")


def test_a_run_of_many_tasks_is_explained_in_part() -> None:
    world = a_world(*(Task(f"t{i}", Shell("x")) for i in range(200)))
    world.turn()
    found = told(world, "r1")
    assert len(found.tasks) == 50
    assert found.tasks_left == 150
    assert found.tasks[0].state == "RUNNING"


def test_the_overlap_of_a_schedule_is_told_with_the_run_that_is_active() -> None:
    world = a_world(max_active_runs=1)
    submit(world, "r2")
    db = world.ledger.database
    db.execute("UPDATE run SET alone = 1 WHERE id = 'r2'")
    (reason,) = told(world, "r2", "a").reasons
    assert reason.code == "overlap"
    assert reason.names == ("r1",)
    assert "r1 (RUNNING)" in reason.text


def test_a_timeout_that_is_held_back_by_a_doubted_clock_says_so() -> None:
    world = a_world(timeout=1_000)
    standing = world.queries().standing("r1", None)
    assert standing is not None
    late = world.now + 5_000
    doubt = "the clock is suddenly 1h ahead; they wait for 9m more"
    (reason,) = explain(world.scheduler, standing, late, doubt).reasons
    assert reason.code == "run-timeout"
    assert reason.text == f"the run's own timeout has passed by a clock that is doubted: {doubt}"
    (reason,) = explain(world.scheduler, standing, late).reasons
    assert reason.text == "the run's own timeout passes in 0.000s"


def test_workers_that_would_do_but_take_nothing_are_told_with_the_reason() -> None:
    world = a_world(Task("a", Shell("x"), slots=6), slots=2)
    world.turn()
    for name, slots in (("deaf", 6), ("dry", 8), ("full", 7), ("small", 1)):
        world.propose(OpenSession(1, name, name, "m", "b", True, "default", slots))
    world.turn()
    places = {place.worker: place for place in world.scheduler.places.values()}
    for name in ("dry", "full", "small"):
        places[name].connected = True
    places["dry"].draining, places["full"].trouble = True, "no room"
    (reason,) = told(world, "r1", "a").tasks[0].reasons
    assert reason.text == (
        "needs 6 slots, the largest worker that takes tasks of group default has 2; deaf would do,"
        " but does not answer, dry would do, but is draining and full would do, but starts nothing"
        " now (no room)"
    )
    for name in ("small", "full", "w1"):
        places[name].draining = True
    (reason,) = told(world, "r1", "a").tasks[0].reasons
    assert reason.code == "worker-draining"
    assert reason.text.endswith("its workers are draining: dry, full, small and w1; deaf is silent")


def test_a_failed_run_names_what_failed() -> None:
    world = a_world()
    world.turn()
    ((session, n),) = world.attempts
    world.report(session, n, AttemptState.FAILED, 1)
    found = told(world, "r1")
    assert found.reasons[0].text == "it is FAILED: 1 FAILED, 1 UPSTREAM_FAILED"
    assert [task.task for task in found.tasks] == ["a"]


def test_there_is_no_explanation_of_what_is_not_there() -> None:
    world = a_world()
    assert world.queries().standing("nope", None) is None
    assert world.queries().standing("r1", "nope") is None
    assert world.queries().story("nope", None, None, 5) is None
    assert world.queries().story("r1", "nope", None, 5) is None


def test_every_code_is_told_somewhere() -> None:
    """A code without a test is a promise without one."""
    here = Path(__file__)
    played = here.parents[1].glob("scenarios/master/explain_*.txt")
    text = here.read_text() + "".join(path.read_text() for path in played)
    missing = [code for code in typing.get_args(Code) if code not in text]
    assert missing == []


def test_the_place_in_line_counts_its_own_group_and_no_stale_entries() -> None:
    queue = ReadyQueue()
    tasks = [ReadyTask("r", i, 1, 5, "g", 1, priority) for i, priority in enumerate((0, 3, 0, 9))]
    for task in tasks:
        queue.put(10, task)
    queue.put(10, ReadyTask("other", 0, 1, 5, "h", 1, 99))
    assert queue.ahead(tasks[2]) == (3, 2)
    queue.remove("r", 3)
    queue.put(10, tasks[0])
    assert queue.ahead(tasks[2]) == (1, 1)
    assert queue.find("r", 3) is None


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (list("abcdef"), "a, b, c and 3 more"),
    ],
)
def test_lists_read_like_sentences(names: list[str], text: str) -> None:
    assert listed(names) == text


def test_spans_are_as_exact_as_they_are_useful() -> None:
    assert [span(ms) for ms in (0, 12, 3_210, 48_400, 330_000)] == [
        "0.000s", "0.012s", "3.2s", "48s", "5m30s",
    ]  # fmt: skip


def test_pages_of_a_story_say_the_same_as_the_whole() -> None:
    book = Book(*(Task(f"t{i}", Shell("x")) for i in range(12)))
    book.submit("r1")
    book.do(PauseRun(5, "r1", "ann"))
    book.do(ResumeRun(6, "r1", "ann"))
    whole = book.queries.story("r1", None, None, 1_000)
    assert whole is not None
    assert whole.after is None
    lines, after = [], None
    while True:
        page = book.queries.story("r1", None, after, 4)
        assert page is not None
        lines += page.lines
        after = page.after
        if after is None:
            break
    assert tuple(lines) == whole.lines
    assert [line.text for line in lines][-1] == "t11 may start again: the run goes on"
