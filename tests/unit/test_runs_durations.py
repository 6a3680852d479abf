"""How long something took, told late: by the worker's steady clock, not by the news."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from grampus.ledger import Ledger
from grampus.model.run import AttemptState
from grampus.model.workflow import Shell, Task, Workflow
from grampus.protocol import Report, Reports
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
from grampus.runs.queries import Queries
from grampus.runs.views import AttemptView, TaskView

STARTED = 1_000


class Book:
    """A ledger in which the only task of run `r` was started at STARTED, as n 1."""

    def __init__(self) -> None:
        self.ledger, self.index = Ledger(None), 0
        content = Workflow("w", (Task("a", Shell("true")),)).content()
        epoch = self.do(TakeOffice(0, "n", 1))
        self.session = self.do(OpenSession(0, "w1", "i1", "m", "b", True, "default", 4))
        self.do(ApplyWorkflow(0, "w", pack_definition(content)))
        self.do(SubmitRun(1, "r", "w", 1, b"{}", "x", 0, 1))
        self.do(StartAttempts(STARTED, epoch, self.session, "r", [(0, 1)]))
        self.queries = Queries(self.ledger.database, Graphs())

    def do(self, command: Any) -> Any:
        self.index += 1
        answers, _ = self.ledger.apply(self.index, 1, [encode_command(command)])
        return answers[0]

    def report(self, state: AttemptState, at: int, when: int, took: int | None = None) -> None:
        command = ReportAttempt(
            at, self.session, 1, state, when, None, "", (), None, 0, 0, took
        )  # fmt: skip
        assert self.do(command) == "done"

    @property
    def task(self) -> TaskView:
        return self.queries.tasks("r")[0]

    @property
    def attempt(self) -> AttemptView:
        return self.task.attempts[0]

    def story(self) -> list[str]:
        page = self.queries.story("r", None, None, 100)
        assert page is not None
        return [line.text for line in page.lines]


def test_an_end_that_is_told_late_is_when_it_was() -> None:
    book = Book()
    book.report(AttemptState.RUNNING, at=8_800, when=1_010)
    book.report(AttemptState.SUCCEEDED, at=8_801, when=4_012, took=3_001)
    assert (book.attempt.running, book.attempt.ended) == (1_011, 4_012)
    assert (book.task.started, book.task.ended) == (STARTED, 4_012)
    assert "a/1 SUCCEEDED on w1 after 3.0s" in book.story()
    facts = {e.kind: msgspec.json.decode(e.data) for e in book.queries.events("r", 0, 100)}
    assert facts["attempt.finished"]["took"] == 3_001
    assert facts["task.finished"]["ended"] == 4_012
    assert facts["task.finished"]["at"] == 8_801, "the ledger's time of the change stays"


@pytest.mark.parametrize(
    ("at", "when", "took", "span"),
    [
        (9_000, 500, 100, (1_000, 1_000)),
        (9_000, 99_000, 3_000, (6_000, 9_000)),
        (9_000, 4_000, 2**62, (1_000, 4_000)),
        (900, 800, 3_000, (1_000, 1_000)),
        (9_000, -(2**63) + 1, 0, (1_000, 1_000)),
        (9_000, 4_000, None, (4_000, 4_000)),
    ],
    ids=["before-its-start", "ahead", "too-long", "clock-back", "absurd", "not-measured"],
)
def test_no_report_makes_a_time_before_the_start_or_after_the_ledgers(
    at: int, when: int, took: int | None, span: tuple[int, int]
) -> None:
    book = Book()
    book.report(AttemptState.SUCCEEDED, at, when, took)
    assert (book.attempt.running, book.attempt.ended) == span


def test_an_end_without_a_measure_is_told_by_the_ledgers_times() -> None:
    """So it is in what was written before there was one."""
    book = Book()
    book.report(AttemptState.LOST, at=5_000, when=5_000)
    assert book.attempt.running is None
    assert "a/1 LOST on w1 after 4.0s" in book.story()


def test_how_long_ago_is_asked_of_the_steady_clock_first() -> None:
    jumped = Report(1, 1, AttemptState.SUCCEEDED, at=900_000, ticks=5_000)
    assert Reports([jumped], at=1_000, ticks=9_800).ago(jumped) == 4_800
    unsteady = Report(1, 1, AttemptState.CANCELLED, at=900)
    assert Reports([unsteady], at=1_000, ticks=9_800).ago(unsteady) == 100
    assert Reports([unsteady]).ago(unsteady) == 0, "it says nothing of when it was sent"
    later = Report(1, 1, AttemptState.SUCCEEDED, at=1, ticks=9_900)
    assert Reports([later], at=1, ticks=9_800).ago(later) == 0
