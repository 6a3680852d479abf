"""Rules of schedules in the ledger: planning, firing, overlap, pausing, what is remembered."""

from __future__ import annotations

from typing import Any

import pytest

from grampus.ids import run_id_of_key
from grampus.ledger import Ledger
from grampus.model.run import AttemptState
from grampus.model.workflow import Schedule, Shell, Task, Workflow
from grampus.runs.apply_schedules import QUEUE_LIMIT
from grampus.runs.change import Graphs
from grampus.runs.commands import (
    ApplyWorkflow,
    CancelRun,
    Command,
    DeleteWorkflow,
    FireTick,
    OpenSession,
    PauseSchedule,
    PauseWorkflow,
    PlanSchedule,
    Refusal,
    ReportAttempt,
    Retain,
    SkipTicks,
    StartAttempts,
    SubmitRun,
    TakeOffice,
    encode_command,
    pack_definition,
)
from grampus.runs.queries import Queries
from grampus.runs.views import ScheduleView


class Book:
    """A ledger with the scheduled workflow `w`, planned for 100, 200, ..."""

    def __init__(self, overlap: Any = "skip", **options: Any) -> None:
        self.ledger = Ledger(None)
        self.index = 0
        self.facts: list[Any] = []
        self.epoch = self.do(TakeOffice(0, "n", 1))
        self.session = self.do(OpenSession(0, "w1", "i1", "m", "b", True, "default", 9))
        self.apply(10, schedule=Schedule(every=100, overlap=overlap), **options)
        assert self.do(self.plan(1, 100)) == "planned"

    def do(self, *commands: Command) -> Any:
        self.index += 1
        answers, facts = self.ledger.apply(self.index, 1, [encode_command(c) for c in commands])
        self.facts = facts
        return answers[0] if len(answers) == 1 else answers

    def apply(self, at: int, **options: Any) -> Any:
        content = Workflow("w", (Task("a", Shell("true")),), **options).content()
        return self.do(ApplyWorkflow(at, "w", pack_definition(content)))

    def plan(self, version: int, tick: int | None) -> PlanSchedule:
        return PlanSchedule(20, self.epoch, "w", version, tick)

    def fire(self, tick: int, version: int = 1, epoch: int | None = None, **more: Any) -> Any:
        values: dict[str, Any] = {
            "at": tick + 5, "epoch": epoch or self.epoch, "workflow": "w", "version": version,
            "tick": tick, "next_tick": tick + 100, "run": run_of(tick), "params": b"{}",
            "reason": "",
        } | more  # fmt: skip
        return self.do(FireTick(**values))

    def skip(self, first: int, last: int, reason: str, version: int = 1) -> Any:
        count = (last - first) // 100 + 1
        return self.do(
            SkipTicks(
                last + 9, self.epoch, "w", version, first, last, count, last + 100, reason
            )
        )  # fmt: skip

    def pause(self, at: int, paused: bool) -> Any:
        return self.do(PauseSchedule(at, "w", paused, "ann"))

    def end(self, run: str, at: int = 1_000) -> None:
        """The run's one task succeeds."""
        (n,) = self.do(StartAttempts(at, self.epoch, self.session, run, [(0, 1)]))
        done = AttemptState.SUCCEEDED
        self.do(ReportAttempt(at, self.session, n, done, at, 0, "", (), None, 0, 0))

    def submit(self, run: str) -> Any:
        return self.do(SubmitRun(50, run, "w", 1, b"{}", "x", 0, 50))

    @property
    def queries(self) -> Queries:
        return Queries(self.ledger.database, Graphs())

    @property
    def schedule(self) -> ScheduleView:
        view = self.queries.schedule("w")
        assert view is not None
        return view

    def ticks(self) -> list[tuple[int, int, int, str]]:
        """(first, last, count, outcome), oldest first."""
        rows = self.queries.ticks("w", 2_000)
        return [(t.tick, t.last, t.count, t.outcome) for t in reversed(rows)]

    def reason(self) -> str:
        return self.queries.ticks("w", 1)[0].reason

    def runs(self) -> dict[int, str]:
        """States by tick."""
        return {r.tick: r.state for r in self.queries.runs(None, None, 2_000, None)}


def run_of(tick: int) -> str:
    return run_id_of_key(f"schedule:w:{tick}")


def refused(answer: Any, code: str = "conflict") -> str:
    assert isinstance(answer, Refusal), answer
    assert answer.code == code
    return answer.reason


def test_a_tick_is_one_run_and_one_row_however_often_it_is_proposed() -> None:
    book = Book("allow")
    assert book.fire(100) == "run"
    kinds = [type(fact).__name__ for fact in book.facts]
    assert kinds[:2] == ["RunSubmitted", "RunStarted"]
    assert kinds[-2:] == ["TickDone", "SchedulePlanned"]
    assert "next tick of w is another" in refused(book.fire(100))
    assert "next tick of w is another" in refused(book.fire(300))
    assert book.ticks() == [(100, 100, 1, "run")]
    (run,) = book.queries.runs(None, None, 9, None)
    assert (run.id, run.tick) == (run_of(100), 100)
    assert book.schedule.next_tick == 200


def test_another_leader_another_version_and_ticks_that_do_not_go_up_are_refused() -> None:
    book = Book()
    refused(book.fire(100, epoch=book.epoch + 1), "stale-epoch")
    refused(book.fire(100, version=2))
    assert "ticks go up" in refused(book.fire(100, next_tick=100))
    assert "is planned" in refused(book.do(book.plan(1, 100)))
    assert book.ticks() == []
    assert book.fire(100, next_tick=None) == "run"
    refused(book.fire(200))


def test_a_new_version_is_planned_anew_and_what_was_due_is_not_lost() -> None:
    book = Book()
    assert book.schedule.since is None
    # The tick of 100 was due, and nobody had looked at it.
    book.apply(150, schedule=Schedule(every=50))
    assert (book.schedule.next_tick, book.schedule.since) == (None, 99)
    refused(book.fire(100))
    refused(book.fire(100, version=2))
    assert book.do(book.plan(2, 100)) == "planned"
    book.fire(100, version=2, next_tick=150)
    # Nothing was due: it is planned from now on.
    book.apply(120, schedule=Schedule(every=60))
    assert book.schedule.since == 120


def test_without_a_schedule_or_deleted_nothing_is_planned() -> None:
    book = Book()
    book.fire(100)
    book.apply(110)
    assert book.queries.schedule("w") is None
    refused(book.fire(200), "not-found")
    refused(book.pause(1, True), "not-found")
    book.apply(120, schedule=Schedule(every=100))
    book.do(CancelRun(121, run_of(100), "ann"))
    assert book.do(DeleteWorkflow(130, "w")) == "deleted"
    assert book.queries.schedule("w") is None
    assert book.ticks() == [(100, 100, 1, "run")]


def test_the_clock_went_back_and_nothing_fires_twice() -> None:
    book = Book("allow")
    book.fire(100)
    book.fire(200)
    # It is 50 again, and a new version is planned from there.
    book.apply(50, schedule=Schedule(every=100, overlap="queue"))
    book.do(book.plan(2, 100))
    assert book.fire(100, version=2) == "known"
    assert book.fire(200, version=2) == "known"
    assert book.fire(300, version=2) == "run"
    assert [tick for tick, _, _, _ in book.ticks()] == [100, 200, 300]
    assert len(book.queries.runs(None, None, 9, None)) == 3


def test_resume_plans_anew_what_a_wrong_clock_put_far_ahead() -> None:
    book = Book("allow")
    book.fire(100, next_tick=9_000_000)
    book.pause(150, True)
    book.pause(160, False)
    assert (book.schedule.next_tick, book.schedule.since) == (None, 160)
    book.do(book.plan(1, 200))
    assert book.fire(200) == "run"


def test_resume_takes_back_what_was_left_out_later_and_keeps_what_has_a_run() -> None:
    book = Book("allow")
    book.fire(100, next_tick=200)
    # A clock that was far ahead: most of it was missed, and the newest has a run.
    assert book.skip(200, 8_999_900, "missed") == "missed"
    book.fire(9_000_000)
    book.pause(250, True)
    book.pause(260, False)
    assert book.ticks() == [
        (100, 100, 1, "run"), (200, 260, 89_998, "missed"), (9_000_000, 9_000_000, 1, "run")
    ]  # fmt: skip
    book.do(book.plan(1, 300))
    assert book.fire(300, next_tick=9_000_000) == "run"
    assert book.fire(9_000_000) == "known"


def test_a_new_version_does_not_plan_what_is_told_already() -> None:
    book = Book("allow")
    book.fire(100, next_tick=200)
    book.fire(200, next_tick=300)
    # Whoever applied it asked long ago, or by a clock that was behind.
    book.apply(120, schedule=Schedule(every=70))
    assert book.schedule.since == 200


def test_overlap_skip_looks_at_manual_runs_too() -> None:
    book = Book("skip")
    book.submit("r1")
    assert book.fire(100) == "skipped"
    assert book.reason() == "overlap: run r1 is RUNNING"
    book.end("r1")
    assert book.fire(200) == "run"
    assert book.ticks() == [(100, 100, 1, "skipped"), (200, 200, 1, "run")]


def test_overlap_queue_starts_one_after_the_other() -> None:
    book = Book("queue")
    for tick in (100, 200, 300):
        assert book.fire(tick) == "run"
    assert book.runs() == {100: "RUNNING", 200: "QUEUED", 300: "QUEUED"}
    book.end(run_of(100))
    assert book.runs() == {100: "SUCCEEDED", 200: "RUNNING", 300: "QUEUED"}
    # A manual run is not held up by them, but they are by it.
    book.submit("r1")
    book.end(run_of(200))
    assert book.runs()[300] == "QUEUED"
    book.end("r1")
    assert book.runs()[300] == "RUNNING"


def test_runs_that_wait_to_be_alone_hold_nobody_else_up() -> None:
    book = Book("queue", max_active_runs=3)
    book.submit("r1")
    for tick in (100, 200):
        assert book.fire(tick) == "run"
    book.do(PauseWorkflow(250, "w", True))
    book.submit("r2")
    book.end("r1")
    book.do(PauseWorkflow(300, "w", False))
    states = {run.id: run.state for run in book.queries.runs(None, None, 9, None)}
    assert states == {
        "r1": "SUCCEEDED", run_of(100): "RUNNING", run_of(200): "QUEUED", "r2": "RUNNING",
    }  # fmt: skip


def test_the_story_of_a_planned_run_names_its_tick() -> None:
    book = Book("queue")
    book.fire(100)
    page = book.queries.story(run_of(100), None, None, 1)
    assert page is not None
    text = "submitted by its schedule, for 1970-01-01 00:00:00.100 UTC: w version 1"
    assert page.lines[0].text == text


def test_the_queue_of_a_schedule_is_bounded() -> None:
    book = Book("queue")
    for tick in range(100, 100 * (QUEUE_LIMIT + 2), 100):
        assert book.fire(tick) == "run"
    tick += 100
    assert book.fire(tick) == "skipped"
    assert book.reason() == f"overlap: {QUEUE_LIMIT} runs are queued"


def test_overlap_cancel_old_waits_until_the_old_one_is_gone() -> None:
    book = Book("cancel_old")
    book.fire(100)
    # Nothing of it lives: it is over at once.
    book.fire(200)
    assert book.runs() == {100: "CANCELLED", 200: "RUNNING"}
    (n,) = book.do(StartAttempts(300, book.epoch, book.session, run_of(200), [(0, 1)]))
    book.fire(300)
    book.fire(400)
    assert list(book.runs().values()) == ["QUEUED", "CANCELLED", "CANCELLING", "CANCELLED"]
    gone = AttemptState.CANCELLED
    book.do(ReportAttempt(500, book.session, n, gone, 500, 0, "", (), None, 0, 0))
    assert book.runs()[400] == "RUNNING"


def test_overlap_allow_leaves_the_limit_of_the_workflow() -> None:
    book = Book("allow", max_active_runs=2)
    for tick in (100, 200, 300):
        assert book.fire(tick) == "run"
    assert sorted(book.runs().values()) == ["QUEUED", "RUNNING", "RUNNING"]


def test_a_paused_workflow_has_its_ticks_recorded_in_one_row() -> None:
    book = Book()
    book.do(PauseWorkflow(50, "w", True))
    assert [book.fire(tick) for tick in (100, 200, 300)] == ["paused"] * 3
    assert book.ticks() == [(100, 300, 3, "paused")]
    assert book.reason() == "workflow w is paused"
    book.do(PauseWorkflow(350, "w", False))
    book.fire(400)
    assert book.ticks() == [(100, 300, 3, "paused"), (400, 400, 1, "run")]


def test_a_paused_schedule_fires_nothing_and_its_range_is_one_row() -> None:
    book = Book()
    assert book.pause(50, True) == "paused"
    assert book.pause(51, True) == "paused"
    assert "is paused" in refused(book.fire(100))
    refused(book.skip(100, 200, "missed"))
    assert book.skip(100, 200, "paused") == "paused"
    assert book.skip(300, 300, "paused") == "paused"
    assert book.ticks() == [(100, 300, 3, "paused")]
    assert book.reason() == "schedule paused by ann"
    # A new version stays paused.
    book.apply(350, schedule=Schedule(every=50))
    assert book.schedule.paused
    book.do(book.plan(2, 400))
    assert book.pause(360, False) == "active"
    book.do(book.plan(2, 400))
    refused(book.skip(400, 500, "paused", version=2))
    assert book.fire(400, version=2) == "run"


def test_missed_ticks_are_one_row_with_the_reason() -> None:
    book = Book()
    assert book.skip(100, 900, "missed") == "missed"
    assert book.ticks() == [(100, 900, 9, "missed")]
    assert book.reason() == "too late, and missed is latest"
    assert book.fire(1_000) == "run"


def test_params_that_cannot_be_resolved_are_a_row_that_says_why() -> None:
    book = Book()
    assert book.fire(100, params=None, reason="params.day: no") == "failed"
    assert book.ticks() == [(100, 100, 1, "failed")]
    assert book.reason() == "params.day: no"
    assert book.runs() == {}


def test_a_run_that_somebody_made_under_that_id_is_left_alone() -> None:
    book = Book("allow")
    book.submit(run_of(100))
    assert book.fire(100) == "failed"
    assert "another request" in book.reason()


def test_retention_deletes_old_rows_of_ticks() -> None:
    book = Book("allow")
    for tick in (100, 200, 300):
        book.fire(tick)
    book.do(Retain(400, 205, 10))
    assert [first for first, _, _, _ in book.ticks()] == [200, 300]
    assert book.queries.has_ticks_before(206)
    assert not book.queries.has_ticks_before(205)


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow", "cancel_old"])
def test_the_same_commands_are_the_same_ledger(overlap: str) -> None:
    def play() -> str:
        book = Book(overlap)
        for tick in (100, 200, 300):
            book.fire(tick)
        book.pause(310, True)
        book.skip(400, 500, "paused")
        return book.ledger.checksum()

    assert play() == play()
