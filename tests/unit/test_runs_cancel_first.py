"""A cancel that is in the log just before a command that would create work: it creates none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from grampus.model.run import AttemptState, RunState
from grampus.model.workflow import Retry, Shell, Task, Workflow
from grampus.runs.commands import (
    ApplyWorkflow,
    CancelRun,
    Command,
    DeclareLost,
    EndSession,
    ExpireRun,
    OpenSession,
    PauseRun,
    PauseWorkflow,
    ReportAttempt,
    ResumeRun,
    RetryRun,
    StartAttempts,
    SubmitRun,
    pack_definition,
)
from grampus.runs.events import AttemptStarted, RunStarted, TaskReady
from tests.unit.runs_book import Book

TASKS = (
    Task("a", Shell("x"), retry=Retry(max=3), max_lost=3),
    Task("b", Shell("x"), after=("a",)),
)


def start(book: Book) -> Command:
    return StartAttempts(10, book.epoch, book.session, "r1", [(0, 1)])


def report(state: AttemptState) -> Callable[[Book], Command]:
    def make(book: Book) -> Command:
        (n,) = book.start("r1")
        return ReportAttempt(20, book.session, n, state, 20, 0, "", (), None, 0, 0)

    return make


def end_session(book: Book) -> Command:
    book.start("r1")
    return EndSession(20, book.session, "gone")


def new_incarnation(book: Book) -> Command:
    book.start("r1")
    return OpenSession(20, "w1", "i2", "m", "b", True, "default", 4)


def declare_lost(book: Book) -> Command:
    book.start("r1")
    return DeclareLost(20, "r1", "a", "ann", 1)


def behind(book: Book) -> int:
    """r2 waits for r1, which has one task left, as attempt `n`."""
    limit(book, 1, at=5)
    (n,) = book.start("r1", 0)
    book.end(n)
    book.submit("r2")
    (n,) = book.start("r1", 1)
    return int(n)


def limit(book: Book, runs: int, at: int) -> None:
    book.do(raise_limit(runs, at))


def raise_limit(runs: int, at: int) -> Command:
    flow = Workflow("w", TASKS, max_active_runs=runs, timeout=15)
    return ApplyWorkflow(at, "w", pack_definition(flow.content()))


def room(book: Book) -> Command:
    behind(book)
    return raise_limit(2, 20)


def another_ends(book: Book) -> Command:
    done = AttemptState.SUCCEEDED
    return ReportAttempt(20, book.session, behind(book), done, 20, 0, "", (), None, 0, 0)


def another_is_cancelled(book: Book) -> Command:
    """With nothing of it left to kill."""
    limit(book, 1, at=5)
    book.submit("r2")
    return CancelRun(20, "r1", "bob")


def another_expires(book: Book) -> Command:
    limit(book, 1, at=5)
    book.do(CancelRun(6, "r1", "bob"))
    book.do(SubmitRun(7, "r3", "w", 2, b"{}", "x", 0, 7))
    book.submit("r2")
    return ExpireRun(40, book.epoch, "r3")


def submit_again(book: Book) -> Command:
    """The answer was lost, so the client asks again."""
    return SubmitRun(1, "r1", "w", 1, b"{}", "x", 0, 1)


def resume(book: Book) -> Command:
    book.do(PauseRun(10, "r1", "ann"))
    return ResumeRun(20, "r1", "ann")


def retry(book: Book) -> Command:
    return RetryRun(20, "r1", "", "ann")


def resume_workflow(book: Book) -> Command:
    """r1 is queued, and would begin."""
    (n,) = book.start("r1")
    book.do(PauseWorkflow(10, "w", True))
    book.do(CancelRun(10, "r1", "bob"))
    book.end(n, AttemptState.CANCELLED)
    book.submit("r2")
    return PauseWorkflow(20, "w", False)


@pytest.mark.parametrize(
    ("make", "run"),
    [
        (start, "r1"),
        (report(AttemptState.SUCCEEDED), "r1"),
        (report(AttemptState.FAILED), "r1"),
        (report(AttemptState.LOST), "r1"),
        (end_session, "r1"),
        (new_incarnation, "r1"),
        (declare_lost, "r1"),
        (room, "r2"),
        (another_ends, "r2"),
        (another_is_cancelled, "r2"),
        (another_expires, "r2"),
        (submit_again, "r1"),
        (resume, "r1"),
        (retry, "r1"),
        (resume_workflow, "r2"),
    ],
    ids=lambda value: getattr(value, "__qualname__", value),
)
def test_a_cancel_ahead_in_the_log_wins(make: Callable[[Book], Command], run: str) -> None:
    for cancelled in (False, True):
        book = Book(*TASKS)
        book.submit("r1")
        command = make(book)
        if cancelled:
            book.do(CancelRun(20, run, "ann"), command)
            work = [f for f in book.facts if isinstance(f, TaskReady | AttemptStarted | RunStarted)]
            assert work == []
            assert book.state(run) == RunState.CANCELLED
        else:
            book.do(command)
            work = [f for f in book.facts if isinstance(f, TaskReady | AttemptStarted | RunStarted)]
            # A run that is not over is not retried, one that exists is not made again; everything
            # else does create work.
            assert bool(work) == (make not in (retry, submit_again))


def test_a_cancel_that_is_refused_a_report_that_is_repeated_change_nothing() -> None:
    """The run is over: the report comes twice, then the cancel, then the report again."""
    book = Book()
    book.submit("r1")
    (n,) = book.start("r1")
    assert book.end(n) == "done"
    before = book.ledger.checksum(), book.ledger.revision
    assert book.end(n) == "done"
    book.do(CancelRun(30, "r1", "ann"))
    assert book.end(n, AttemptState.FAILED) == "stale"
    assert book.facts == []
    assert book.ledger.revision == before[1]
    assert book.state("r1") == RunState.SUCCEEDED
