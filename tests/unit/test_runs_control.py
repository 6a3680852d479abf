"""Rules of run control, one by one, on a ledger in memory."""

from __future__ import annotations

from typing import Any

import pytest

from grampus.master.core.alarms import Alarms
from grampus.model.check import check
from grampus.model.run import AttemptState, Value
from grampus.model.workflow import Retry, Shell, Task, Workflow
from grampus.runs.commands import (
    CancelRun,
    DeclareLost,
    DeleteWorkflow,
    ExpireRun,
    PauseRun,
    PauseWorkflow,
    ResumeRun,
    RetryRun,
)
from grampus.runs.transitions import BadTransition, run_step
from grampus.sdk.yaml_dump import dump
from grampus.sdk.yaml_file import read_yaml
from tests.unit.runs_book import Book, refused

A_THEN_B = (Task("a", Shell("x")), Task("b", Shell("x"), after=("a",)))
ONE = Value("json", b"1", None, 1)


def play(book: Book, *ends: tuple[int, int, AttemptState]) -> None:
    """Starts and ends attempts: (task, attempt, how)."""
    for index, attempt, state in ends:
        (n,) = book.start("r1", index, attempt, at=500)
        book.end(n, state, output=ONE if state == AttemptState.SUCCEEDED else None)


OK, FAILED = AttemptState.SUCCEEDED, AttemptState.FAILED


def test_only_a_running_run_is_paused_and_only_a_paused_one_resumed() -> None:
    book = Book(max_active_runs=1)
    book.submit("r1")
    book.submit("r2")
    assert "QUEUED" in refused(book.do(PauseRun(2, "r2", "ann")), "conflict")
    refused(book.do(PauseRun(2, "nope", "ann")), "not-found")
    assert book.do(ResumeRun(2, "r1", "ann")) == "RUNNING"
    assert book.facts == []
    assert book.do(PauseRun(2, "r1", "ann")) == "PAUSED"
    assert book.do(PauseRun(3, "r1", "bob")) == "PAUSED"
    assert book.facts == []
    view = book.queries.run("r1")
    assert view is not None
    assert view.reason == "paused by ann"
    refused(book.start("r1"), "not-active")
    assert book.do(CancelRun(4, "r1", "ann")) == "CANCELLED"
    assert book.state("r2") == "RUNNING"
    refused(book.do(ResumeRun(5, "r1", "ann")), "conflict")


def test_a_paused_run_holds_its_place_among_the_active_ones() -> None:
    book = Book(max_active_runs=1)
    book.submit("r1")
    book.do(PauseRun(2, "r1", "ann"))
    book.submit("r2")
    assert book.state("r2") == "QUEUED"


def test_a_resume_tells_again_what_may_start_and_when() -> None:
    book = Book(Task("a", Shell("x"), retry=Retry(1, delay=5_000)), Task("b", Shell("x")))
    book.submit("r1")
    (n,) = book.start("r1")
    book.do(PauseRun(15, "r1", "ann"))
    book.end(n, FAILED, exit=1)
    book.do(ResumeRun(30, "r1", "ann"))
    told = [(f.task, f.state, f.attempt, f.due) for f in book.facts[1:]]
    assert told == [("a", "RETRYING", 2, 5_020), ("b", "READY", 1, 1)]


def test_a_retry_keeps_what_succeeded_and_forgets_the_results_of_the_rest() -> None:
    book = Book(*A_THEN_B, Task("c", Shell("x"), after=("b",)))
    book.submit("r1")
    play(book, (0, 1, OK), (1, 1, FAILED))
    assert book.do(RetryRun(200, "r1", "", "ann")) == (2, ["b", "c"])
    play(book, (1, 2, OK), (2, 1, OK))
    assert book.state("r1") == "SUCCEEDED"
    assert "say from which task on" in refused(book.do(RetryRun(300, "r1", "", "a")), "conflict")
    assert book.do(RetryRun(300, "r1", "b", "ann")) == (3, ["b", "c"])
    assert [book.queries.value("r1", i) for i in range(3)] == [ONE, None, None]
    assert [book.task("r1", i) for i in range(3)] == ["SUCCEEDED", "READY", "WAITING"]
    refused(book.start("r1", 1, attempt=2, at=500), "not-due")
    play(book, (1, 3, OK), (2, 2, OK))
    assert book.state("r1") == "SUCCEEDED"


def test_failures_and_losses_count_anew_in_a_round() -> None:
    book = Book(Task("a", Shell("x"), retry=Retry(1), max_lost=0))
    book.submit("r1")
    play(book, (0, 1, FAILED), (0, 2, FAILED))

    def tries() -> tuple[int, int]:
        (task,) = book.queries.tasks("r1")
        return task.tries, task.max_attempts

    assert tries() == (2, 2)
    book.do(RetryRun(200, "r1", "", "ann"))
    assert tries() == (0, 2)
    play(book, (0, 3, FAILED))
    assert book.task("r1") == "RETRYING"
    assert tries() == (1, 2)
    play(book, (0, 4, AttemptState.LOST))
    assert book.state("r1") == "FAILED"
    assert tries() == (1, 2)


def test_a_task_named_in_a_retry_does_not_leave_others_behind() -> None:
    """What did not succeed is in every round: no task waits for one that never comes."""
    tasks = (*A_THEN_B, Task("x", Shell("x")), Task("y", Shell("x"), after=("a", "x")))
    book = Book(*tasks, on_failure="continue")
    book.submit("r1")
    play(book, (0, 1, OK), (1, 1, OK), (2, 1, FAILED))
    assert book.do(RetryRun(200, "r1", "b", "ann")) == (2, ["b", "x", "y"])
    play(book, (1, 2, OK), (2, 2, OK), (3, 1, OK))
    assert book.state("r1") == "SUCCEEDED"


def test_a_round_waits_like_a_new_run_and_can_be_cancelled_there() -> None:
    book = Book()
    book.submit("r1")
    play(book, (0, 1, FAILED))
    book.do(PauseWorkflow(150, "w", True))
    book.do(RetryRun(200, "r1", "", "ann"))
    assert book.state("r1") == "QUEUED"
    refused(book.do(RetryRun(200, "r1", "", "ann")), "conflict")
    refused(book.do(PauseRun(200, "r1", "ann")), "conflict")
    assert book.do(CancelRun(201, "r1", "ann")) == "CANCELLED"
    assert "start a new run" in refused(book.do(RetryRun(202, "r1", "", "ann")), "conflict")


def test_a_round_follows_the_overlap_of_its_workflow() -> None:
    book = Book(max_active_runs=1, overlap="skip")
    book.submit("r1")
    play(book, (0, 1, FAILED))
    book.submit("r2")
    assert "overlap is skip" in refused(book.do(RetryRun(200, "r1", "", "ann")), "conflict")
    book = Book(max_active_runs=1, overlap="cancel_old")
    book.submit("r1")
    play(book, (0, 1, FAILED))
    book.submit("r2")
    book.do(RetryRun(200, "r1", "", "ann"))
    assert (book.state("r1"), book.state("r2")) == ("RUNNING", "CANCELLED")


def test_a_retry_needs_its_task_and_its_workflow() -> None:
    book = Book()
    book.submit("r1")
    play(book, (0, 1, FAILED))
    refused(book.do(RetryRun(200, "r1", "nope", "ann")), "not-found")
    refused(book.do(RetryRun(200, "nope", "", "ann")), "not-found")
    book.do(DeleteWorkflow(201, "w"))
    assert "was deleted" in refused(book.do(RetryRun(202, "r1", "", "ann")), "conflict")


def test_a_run_expires_in_its_time_by_its_master_and_once() -> None:
    book = Book(*A_THEN_B, timeout=1_000)
    book.submit("r1")
    (n,) = book.start("r1")
    refused(book.do(ExpireRun(1_000, book.epoch, "r1")), "not-due")
    refused(book.do(ExpireRun(1_001, book.epoch - 1, "r1")), "stale-epoch")
    assert book.do(ExpireRun(1_001, book.epoch, "r1")) == "CANCELLING"
    refused(book.do(ExpireRun(1_002, book.epoch, "r1")), "not-active")
    assert book.do(CancelRun(1_003, "r1", "ann")) == "CANCELLING"
    book.end(n, AttemptState.CANCELLED, at=1_004)
    view = book.queries.run("r1")
    assert view is not None
    assert (view.state, view.reason) == ("FAILED", "timed out after 1s")
    assert book.do(RetryRun(2_000, "r1", "", "ann")) == (2, ["a", "b"])
    refused(book.do(ExpireRun(2_500, book.epoch, "r1")), "not-due")


def test_a_paused_run_without_attempts_expires_at_once() -> None:
    book = Book(timeout=1_000)
    book.submit("r1")
    book.do(PauseRun(2, "r1", "ann"))
    assert book.do(ExpireRun(1_001, book.epoch, "r1")) == "FAILED"
    assert book.state("r1") == "FAILED"
    refused(book.start("r1"), "not-active")


def test_a_run_without_timeout_never_expires() -> None:
    book = Book()
    book.submit("r1")
    refused(book.do(ExpireRun(10**12, book.epoch, "r1")), "not-due")


def test_an_attempt_is_declared_lost_by_its_number_while_it_lives() -> None:
    book = Book(Task("a", Shell("x"), max_lost=1))
    book.submit("r1")
    refused(book.do(DeclareLost(5, "r1", "a", "ann", 1)), "conflict")
    refused(book.do(DeclareLost(5, "r1", "nope", "ann", 1)), "not-found")
    (n,) = book.start("r1")
    refused(book.do(DeclareLost(15, "r1", "a", "ann", 2)), "conflict")
    assert book.do(DeclareLost(15, "r1", "a", "ann", 1)) == "READY"
    assert book.end(n) == "stale"
    assert [w.busy for w in book.queries.workers()] == [0]
    (n,) = book.start("r1", attempt=2, at=30)
    refused(book.do(DeclareLost(31, "r1", "a", "ann", 1)), "conflict")
    book.do(CancelRun(32, "r1", "ann"))
    assert book.do(DeclareLost(33, "r1", "a", "ann", 2)) == "CANCELLED"
    assert book.state("r1") == "CANCELLED"


@pytest.mark.parametrize(
    ("before", "after"),
    [("CANCELLED", "QUEUED"), ("PAUSED", "QUEUED"), ("SUCCEEDED", "RUNNING"), ("QUEUED", "PAUSED")],
)
def test_what_is_not_in_the_table_is_a_bug(before: Any, after: Any) -> None:
    with pytest.raises(BadTransition):
        run_step(before, after)


def test_the_timeout_of_a_workflow_is_read_checked_and_written() -> None:
    text = "workflow: w\ntimeout: 90m\ntasks: {a: {shell: x}}\n"
    (declared,), problems = read_yaml(text, "w.yaml")
    assert problems == []
    assert declared.workflow.timeout == 5_400_000
    assert "timeout: 1h30m" in dump(declared.workflow)
    (problem,) = check(Workflow("w", (Task("a", Shell("x")),), timeout=0))
    assert str(problem.field) == "timeout"
    from grampus import shell, workflow

    @workflow(timeout="2h")
    def flow() -> None:
        shell("x", name="a")

    assert flow.trace().workflow.timeout == 7_200_000


def test_alarms_ring_once_in_order_and_forget_what_was_dropped() -> None:
    alarms = Alarms()
    for name, at in (("a", 30), ("b", 10), ("c", 20), ("b", 25)):
        alarms.set(name, at)
    alarms.drop("c")
    assert alarms.next_due() == 25
    assert alarms.due(24, 9) == []
    assert alarms.due(40, 1) == ["b"]
    assert alarms.due(40, 9) == ["a"]
    assert (alarms.next_due(), len(alarms)) == (None, 0)
    for i in range(5_000):
        alarms.set(f"r{i}", i)
        alarms.drop(f"r{i}")
    assert len(alarms._heap) <= 1_001
