"""Rules of the run store, one by one, on a ledger in memory."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from grampus.model.run import AttemptState, RunState, Value
from grampus.model.workflow import Retry, Shell, Task, Workflow
from grampus.runs.apply_attempts import AHEAD
from grampus.runs.commands import (
    ApplyWorkflow,
    CancelRun,
    DeleteRun,
    DeleteWorkflow,
    DrainWorker,
    OpenSession,
    PauseWorkflow,
    Retain,
    SilenceSession,
    pack_definition,
)
from grampus.runs.graph import retry_delay
from tests.unit.runs_book import Book, refused


def test_the_same_request_is_the_same_run_and_another_is_a_conflict() -> None:
    book = Book()
    assert book.submit("r1") == "created"
    assert book.submit("r1") == "exists"
    refused(book.submit("r1", request="other"), "conflict")


def test_the_same_content_is_the_same_version() -> None:
    book = Book()
    again = Workflow("w", (Task("a", Shell("true")),)).content()
    other = Workflow("w", (Task("a", Shell("false")),)).content()
    assert tuple(book.do(ApplyWorkflow(1, "w", pack_definition(again)))) == (1, False)
    assert tuple(book.do(ApplyWorkflow(2, "w", pack_definition(other)))) == (2, True)
    assert tuple(book.do(ApplyWorkflow(3, "w", pack_definition(again)))) == (3, True)


def test_max_active_runs_queues_and_the_next_one_starts_by_priority_then_age() -> None:
    book = Book(max_active_runs=1)
    for run, priority in (("r1", 0), ("r2", 0), ("r3", 5)):
        book.submit(run, priority=priority)
    assert [book.state(r) for r in ("r1", "r2", "r3")] == ["RUNNING", "QUEUED", "QUEUED"]
    (n,) = book.start("r1")
    book.end(n)
    assert [book.state(r) for r in ("r1", "r2", "r3")] == ["SUCCEEDED", "QUEUED", "RUNNING"]


def test_overlap_skip_refuses_and_cancel_old_makes_room() -> None:
    book = Book(max_active_runs=1, overlap="skip")
    book.submit("r1")
    assert "overlap is skip" in refused(book.submit("r2"), "conflict")
    book = Book(max_active_runs=1, overlap="cancel_old")
    book.submit("r1")
    assert book.submit("r2") == "created"
    assert [book.state(r) for r in ("r1", "r2")] == ["CANCELLED", "RUNNING"]


def test_a_paused_workflow_queues_its_runs_until_it_is_resumed() -> None:
    book = Book()
    book.do(PauseWorkflow(1, "w", True))
    book.submit("r1")
    assert book.state("r1") == "QUEUED"
    book.do(PauseWorkflow(2, "w", False))
    assert book.state("r1") == "RUNNING"


def test_a_queued_run_says_why_it_waits_now_not_why_it_came_to() -> None:
    book = Book(max_active_runs=1)

    def reasons() -> list[str]:
        found = [run.reason for run in book.queries.runs(None, "QUEUED", 10, None)]
        run = book.queries.run("r2")
        assert run is not None
        assert run.reason in (*found, "")
        return found

    book.do(PauseWorkflow(1, "w", True))
    book.submit("r1")
    book.submit("r2")
    assert reasons() == ["workflow w is paused"] * 2
    book.do(PauseWorkflow(2, "w", False))
    assert reasons() == ["max_active_runs: 1 of 1 active"]
    book.do(PauseWorkflow(3, "w", True))
    assert reasons() == ["workflow w is paused"]
    flow = Workflow("w", (Task("a", Shell("true")),), max_active_runs=2)
    book.do(ApplyWorkflow(4, "w", pack_definition(flow.content())))
    book.do(PauseWorkflow(5, "w", False))
    assert reasons() == []


def test_the_story_says_what_let_a_run_out_of_the_queue() -> None:
    def began(book: Book, run: str) -> str:
        page = book.queries.story(run, None, None, 50)
        assert page is not None
        return next(line.text for line in page.lines if line.kind == "run.started")

    book = Book(max_active_runs=1)
    for run in ("r1", "r2", "r3"):
        book.submit(run)
    (n,) = book.start("r1")
    book.end(n)
    flow = Workflow("w", (Task("a", Shell("true")),), max_active_runs=2)
    book.do(ApplyWorkflow(30, "w", pack_definition(flow.content())))
    book.do(PauseWorkflow(31, "w", True))
    book.submit("r4")
    book.do(CancelRun(32, "r2", "ann"), CancelRun(32, "r3", "ann"))
    book.do(PauseWorkflow(33, "w", False))
    assert [began(book, run) for run in ("r1", "r2", "r3", "r4")] == [
        "RUNNING",
        "RUNNING: run r1 is over",
        "RUNNING: version 2 was applied",
        "RUNNING: workflow w was resumed",
    ]


def test_a_task_that_is_not_tried_again_because_the_run_stops_says_so() -> None:
    tasks = [Task(name, Shell("x"), retry=Retry(max=up)) for name, up in (("a", 0), ("b", 3))]
    book = Book(*tasks, on_failure="stop")
    book.submit("r1")
    for (n,) in [book.start("r1", index) for index in (0, 1)]:
        book.end(n, AttemptState.FAILED, error="no luck")
    assert [task.reason for task in book.queries.tasks("r1")] == [
        "no luck",
        "not tried again: a failed: no luck",
    ]
    story = book.queries.story("r1", "b", None, 100)
    assert story is not None
    assert "b is FAILED: not tried again: a failed: no luck" in [line.text for line in story.lines]


def test_a_queued_run_can_be_cancelled() -> None:
    book = Book(max_active_runs=1)
    book.submit("r1")
    book.submit("r2")
    assert book.do(CancelRun(5, "r2", "ann")) == "CANCELLED"
    assert book.task("r2") == "CANCELLED"


def test_cancelling_a_finished_run_is_refused_and_cancelling_twice_is_not() -> None:
    book = Book()
    book.submit("r1")
    (n,) = book.start("r1")
    assert book.do(CancelRun(12, "r1", "ann")) == "CANCELLING"
    assert book.do(CancelRun(13, "r1", "ann")) == "CANCELLING"
    assert book.end(n, AttemptState.CANCELLED) == "done"
    assert book.state("r1") == "CANCELLED"
    book.submit("r2")
    (n,) = book.start("r2")
    book.end(n)
    refused(book.do(CancelRun(30, "r2", "ann")), "conflict")


def test_what_ended_by_itself_during_the_cancel_is_told_as_it_was() -> None:
    book = Book(*(Task(name, Shell("x"), retry=Retry(max=3)) for name in "abcd"))
    book.submit("r1")
    numbers = [book.start("r1", index)[0] for index in range(4)]
    book.do(CancelRun(15, "r1", "ann"))
    ends = [AttemptState.FAILED, AttemptState.TIMED_OUT, AttemptState.LOST, AttemptState.CANCELLED]
    for n, end in zip(numbers, ends, strict=True):
        book.end(n, end)
    tasks = [book.task("r1", index) for index in range(4)]
    assert tasks == ["FAILED", "TIMED_OUT", "CANCELLED", "CANCELLED"]
    assert book.state("r1") == RunState.CANCELLED


def test_a_result_that_comes_after_the_cancel_is_kept() -> None:
    book = Book()
    book.submit("r1")
    (n,) = book.start("r1")
    book.do(CancelRun(12, "r1", "ann"))
    book.end(n, output=Value("json", b"5", None, 1))
    assert (book.state("r1"), book.task("r1")) == ("CANCELLED", "SUCCEEDED")
    output = book.queries.output("r1", "a")
    assert output is not None
    assert output.value == Value("json", b"5", None, 1)


@pytest.mark.parametrize(
    ("retry", "report", "again"),
    [
        (Retry(1), {"exit": 1}, True),
        (Retry(0), {"exit": 1}, False),
        (Retry(1, on_exit=(75,)), {"exit": 1}, False),
        (Retry(1, on_exit=(75,)), {"exit": 75}, True),
        (Retry(1, on_exit=(137,)), {"exit": -9}, True),
        (Retry(1, on_exception=("OSError",)), {"exception": ("TimeoutError", "OSError")}, True),
        (Retry(1, on_exception=("OSError",)), {"exception": ("ValueError",)}, False),
        (Retry(1, on_exception=("Timeout",)), {"exception": ("requests.Timeout",)}, True),
        (Retry(1, on_exit=(75,)), {"state": AttemptState.TIMED_OUT}, True),
    ],
)
def test_retry_asks_what_ended_the_attempt(retry: Retry, report: Any, again: bool) -> None:
    book = Book(Task("a", Shell("x"), retry=retry))
    book.submit("r1")
    (n,) = book.start("r1")
    book.end(n, **({"state": AttemptState.FAILED} | report))
    assert book.task("r1") == ("RETRYING" if again else "FAILED")


def test_a_retry_is_not_started_before_it_is_due() -> None:
    book = Book(Task("a", Shell("x"), retry=Retry(1, delay=5_000)))
    book.submit("r1")
    (n,) = book.start("r1")
    book.end(n, AttemptState.FAILED, exit=1)
    refused(book.start("r1", attempt=2, at=5_019), "not-due")
    assert book.start("r1", attempt=2, at=5_020) == [n + 1]


def test_a_worker_is_given_so_many_times_its_slots_and_no_more() -> None:
    fits = 4 * AHEAD // 2
    book = Book(*(Task(f"t{i}", Shell("x"), slots=2) for i in range(fits + 1)))
    book.submit("r1")
    for index in range(fits):
        book.start("r1", index)
    assert "room for 0 slots" in refused(book.start("r1", fits), "no-slot")


def test_a_task_that_needs_more_slots_than_there_are_never_starts() -> None:
    book = Book(Task("a", Shell("x"), slots=5))
    book.submit("r1")
    assert "only 4 slots" in refused(book.start("r1"), "no-slot")


def test_an_attempt_number_is_never_skipped_or_repeated() -> None:
    book = Book()
    book.submit("r1")
    refused(book.start("r1", attempt=2), "not-due")
    book.start("r1")
    refused(book.start("r1", attempt=1), "not-due")
    refused(book.start("r1", attempt=2), "not-due")


def test_a_contradicting_late_report_is_stale_and_a_repeated_one_is_done() -> None:
    book = Book()
    book.submit("r1")
    (n,) = book.start("r1")
    assert book.end(n) == "done"
    assert book.end(n) == "done"
    assert book.end(n, AttemptState.FAILED, exit=1) == "stale"
    assert book.end(n + 7) == "stale"
    assert book.task("r1") == "SUCCEEDED"


def test_a_second_incarnation_waits_unless_nothing_of_the_first_is_left() -> None:
    book = Book()
    book.submit("r1")
    book.start("r1")
    unclean = OpenSession(30, "w1", "i2", "m", "b", False, "default", 4)
    refused(book.do(unclean), "conflict")
    assert book.task("r1") == "RUNNING"
    rebooted = OpenSession(31, "w1", "i3", "m", "b2", False, "default", 4)
    assert book.do(rebooted) == book.session + 1
    assert book.task("r1") == "READY"


def test_the_same_incarnation_gets_its_session_back() -> None:
    book = Book()
    again = OpenSession(30, "w1", "i1", "m", "b", False, "default", 4)
    assert book.do(again) == book.session


def test_lost_attempts_are_replaced_up_to_max_lost() -> None:
    book = Book(Task("a", Shell("x"), max_lost=1))
    book.submit("r1")
    (n,) = book.start("r1")
    book.end(n, AttemptState.LOST, exit=None)
    assert book.task("r1") == "READY"
    (n,) = book.start("r1", attempt=2, at=30)
    book.end(n, AttemptState.LOST, exit=None)
    assert (book.task("r1"), book.state("r1")) == ("FAILED", "FAILED")


def test_delete_and_retention_leave_nothing_and_spare_what_is_active() -> None:
    book = Book()
    for run in ("r1", "r2", "r3"):
        book.submit(run)
    for run in ("r1", "r2"):
        (n,) = book.start(run)
        book.end(n, output=Value("json", b"1", None, 1))
    refused(book.do(DeleteRun(40, "r3")), "conflict")
    refused(book.do(DeleteWorkflow(40, "w")), "conflict")
    assert book.do(DeleteRun(40, "r1")) == "deleted"
    assert list(book.do(Retain(50, 21, 10))) == ["r2"]
    assert book.state("r3") == "RUNNING"
    db = book.ledger.database
    for table in ("run", "task_run", "attempt", "output", "event"):
        column = "id" if table == "run" else "run"
        left = db.query(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IN ('r1', 'r2')")
        assert left == [], table


def test_the_wait_before_a_retry_grows_is_capped_and_has_jitter() -> None:
    retry = Retry(9, delay=1_000, factor=2.0, max_delay=5_000)
    assert [retry_delay(retry, k, 0) for k in (1, 2, 3, 4, 60)] == [1000, 2000, 4000, 5000, 5000]
    spread = Retry(9, delay=1_000, jitter=0.5)
    assert retry_delay(spread, 1, 0) == 1_000
    assert retry_delay(spread, 1, 2**32 - 1) == 501
    assert retry_delay(Retry(9), 3, 123) == 0


SCRIPT = """
from tests.properties.test_run_progress import World, submit
from grampus.model.workflow import *
from grampus.runs.commands import *
world = World()
tasks = [Task("t0", Shell("x"))]
tasks += [Task(f"t{i}", Shell("x"), after=(f"t{i//2}",)) for i in range(1, 40)]
flow = Workflow("w", tuple(tasks), on_failure="continue")
world.propose(ApplyWorkflow(1, "w", pack_definition(flow.content())))
for i in range(4): submit(world, f"r{i}")
for k in range(90):
    world.turn()
    world.now += 1
    for key in sorted(world.attempts):
        world.report(*key, "FAILED" if key[1] % 7 == 3 else "SUCCEEDED", 1)
print(world.ledger.checksum())
"""


def test_processes_with_other_hash_seeds_have_the_same_ledger() -> None:
    sums = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(["src", ".", *sys.path])},
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(sums) == 1
    assert len(sums.pop()) == 65


def test_a_worker_that_registered_meanwhile_is_not_silenced() -> None:
    book = Book()
    registered = book.index
    again = OpenSession(30, "w1", "i1", "m", "b", True, "default", 4)
    assert book.do(again) == book.session
    late = SilenceSession(31, book.epoch, book.session, registered)
    refused(book.do(late), "conflict")
    assert book.do(SilenceSession(31, book.epoch, book.session, book.index - 1)) == "silent"
    refused(book.do(SilenceSession(32, book.epoch + 1, book.session, registered)), "stale-epoch")


def test_what_lives_at_a_silent_worker_is_unreachable_until_it_registers() -> None:
    book = Book()
    registered = book.index - 1
    book.submit("r1")
    (n,) = book.start("r1")
    book.do(SilenceSession(31, book.epoch, book.session, registered))
    (task,) = book.queries.tasks("r1")
    assert task.attempts[0].state == AttemptState.UNREACHABLE
    (worker,) = book.queries.workers()
    assert worker.silent == 31
    book.do(OpenSession(40, "w1", "i1", "m", "b", True, "default", 4))
    (task,) = book.queries.tasks("r1")
    assert task.attempts[0].state == AttemptState.STARTING
    assert book.end(n) == "done"


def test_a_worker_of_another_folder_does_not_end_a_session_that_may_live() -> None:
    """A copy of a folder, or two workers of one name: both see nothing of each other."""
    book = Book()
    registered = book.index - 1
    book.submit("r1")
    (n,) = book.start("r1")
    other = OpenSession(30, "w1", "i2", "m", "b", True, "default", 4, "elsewhere")
    assert "another data folder" in refused(book.do(other), "conflict")
    book.do(SilenceSession(31, book.epoch, book.session, registered))
    refused(book.do(other), "conflict")
    book.end(n)
    assert book.do(other) > book.session
    assert book.end(n) == "done"


def test_a_draining_worker_gets_no_attempt_whatever_the_scheduler_thinks() -> None:
    book = Book()
    book.submit("r1")
    assert book.do(DrainWorker(5, "w1", True, "ann")) is True
    assert book.do(DrainWorker(5, "w1", True, "ann")) is False
    assert "draining" in refused(book.start("r1"), "no-slot")
    assert book.do(DrainWorker(6, "w1", False, "ann")) is True
    assert book.start("r1") == [1]
    refused(book.do(DrainWorker(6, "w9", True, "ann")), "not-found")
