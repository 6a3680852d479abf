"""A run as it is watched: its lines, and its picture on small and large terminals."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from grampus.cli.live import Picture, depths
from grampus.cli.watch import Watched, WatchedTask
from grampus.model.run import AttemptState, RunState, TaskState
from grampus.sdk.answers import Attempt, Run, RunEvent, TaskRun

T0 = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class FixedClock:
    def __init__(self, seconds: float) -> None:
        self._ms = round((T0.timestamp() + seconds) * 1000)

    def now(self) -> int:
        return self._ms

    def ticks(self) -> int:
        return self._ms


def run(state: RunState = RunState.RUNNING, **fields: Any) -> Run:
    given = {
        "id": "a" * 12,
        "workflow": "w",
        "version": 1,
        "tick": T0,
        "created": T0,
        "started": T0,
    }
    return Run(state=state, **(given | fields))  # type: ignore[arg-type]


def task(name: str, index: int = 0, state: str = "WAITING", **fields: Any) -> TaskRun:
    return TaskRun(name=name, index=index, kind="shell", state=TaskState(state), **fields)


def event(type: str, seconds: float = 0, **fields: Any) -> RunEvent:
    return RunEvent(type=type, revision=1, at=T0 + timedelta(seconds=seconds), **fields)


def told(watched: Watched, *events: RunEvent) -> list[str]:
    """The lines without their time."""
    return [line[10:] for e in events if (line := watched.move(e)) is not None]


STORY = (
    event("run.submitted", state="RUNNING"),
    event("run.started"),
    event("task.ready", task="a", attempt=1, state="READY", due=T0),
    event("attempt.started", 1, task="a", attempt=1, worker="w1"),
    event("attempt.running", 1, task="a", attempt=1, worker="w1"),
    event("attempt.finished", 2, task="a", attempt=1, state="FAILED", exit=3),
    event("task.ready", 2, task="a", attempt=2, state="RETRYING", due=T0 + timedelta(seconds=7)),
    event("attempt.started", 7, task="a", attempt=2, worker="w2"),
    event("attempt.running", 7, task="a", attempt=2, worker="w2"),
    event("attempt.finished", 8, task="a", attempt=2, state="SUCCEEDED", exit=0),
    event("task.finished", 8, task="a", state="SUCCEEDED"),
    event("task.finished", 8, task="b", state="UPSTREAM_FAILED", reason="a did not succeed"),
    event("run.finished", 8, state="SUCCEEDED"),
)
LINES = [
    "a                 RUNNING     on w1",
    "a                 RETRYING    attempt 2 in 5.0s: exit code 3",
    "a                 RUNNING     attempt 2, on w2",
    "a                 SUCCEEDED   after 7.0s",
    "b                 UPSTREAM_FAILED  a did not succeed",
    "run               SUCCEEDED",
]


def test_each_change_is_one_line() -> None:
    assert told(Watched(run(), [task("a"), task("b", 1)]), *STORY) == LINES


def test_events_that_are_told_twice_give_no_second_line() -> None:
    watched = Watched(run(), [task("a"), task("b", 1)])
    assert told(watched, *STORY, *STORY) == LINES


def test_what_was_over_when_the_watch_began_is_not_told_again() -> None:
    first = Attempt(task="a", attempt=1, state=AttemptState.FAILED, worker="w1", started=T0, exit=3)
    second = Attempt(task="a", attempt=2, state=AttemptState.RUNNING, worker="w2", started=T0)
    begun = T0 + timedelta(seconds=1)
    now = task("a", 0, "RUNNING", attempts=(first, second), started=begun)
    assert told(Watched(run(), [now, task("b", 1)]), *STORY) == LINES[3:]
    done = task("a", 0, "SUCCEEDED", attempts=(first, second), started=T0, ended=T0)
    final = run(RunState.SUCCEEDED, ended=T0)
    assert told(Watched(final, [done, task("b", 1, "UPSTREAM_FAILED")]), *STORY) == []


def test_a_lost_attempt_is_told_when_the_next_one_is_due() -> None:
    lines = told(
        Watched(run(), [task("a")]),
        event("attempt.running", task="a", attempt=1, worker="w1"),
        event("attempt.finished", task="a", attempt=1, state="LOST", error="the worker is gone"),
        event("task.ready", task="a", attempt=2, state="READY", due=T0),
    )
    assert lines[1:] == ["a                 READY       attempt 2: the worker is gone"]


def test_a_skipped_task_tells_why_and_not_its_last_error() -> None:
    lines = told(
        Watched(run(), [task("a")]),
        event("attempt.finished", task="a", attempt=1, state="FAILED", error="boom"),
        event("task.ready", task="a", attempt=2, state="RETRYING", due=T0),
        event("task.finished", task="a", state="SKIPPED", reason="the run stops"),
    )
    assert lines[-1] == "a                 SKIPPED     the run stops"


def test_cancelling_is_told_and_events_of_unknown_kinds_are_not() -> None:
    lines = told(
        Watched(run(), [task("a")]),
        event("run.cancelling", by="user"),
        event("run.coloured"),
        event("task.painted", task="a"),
        event("task.ready", task="nobody", attempt=1, state="READY"),
        event("run.finished", state="CANCELLED"),
    )
    assert lines == ["run               CANCELLING", "run               CANCELLED"]


def test_errors_of_tasks_cannot_draw_on_the_terminal() -> None:
    watched = Watched(run(), [task("a")])
    lines = told(
        watched,
        event("attempt.finished", task="a", attempt=1, state="FAILED", error="\x1b[2J[red]x\nend"),
        event("task.finished", task="a", state="FAILED"),
    )
    assert lines == ["a                 FAILED      \\x1b[2J[red]x end"]
    picture = [text.plain for text in Picture(watched, FixedClock(9)).lines(80, 24)]
    assert "    \\x1b[2J[red]x" in picture
    assert not any("\x1b" in text for text in picture)


def test_the_picture_says_that_nobody_answers_as_long_as_it_is_so() -> None:
    picture = Picture(Watched(run(), [task("a")]), FixedClock(9))
    picture.fall_silent("no server answers")
    lines = [text.plain for text in picture.lines(80, 24)]
    assert lines[2] == "no server answers for 0.0s: trying again"
    picture.fall_silent("")
    assert not any("no server" in text.plain for text in picture.lines(80, 24))


def many(count: int) -> Watched:
    tasks = [task("first", 0, "SUCCEEDED", started=T0, ended=T0)]
    tasks += [
        task(
            f"part_{n}",
            n,
            "FAILED" if n == 700 else "RUNNING" if n in (3, 500) else "WAITING",
            after=("first",),
            started=T0 if n in (3, 500, 700) else None,
            reason="line 1\nline 2\nline 3\nline 4" if n == 700 else "",
        )
        for n in range(1, count)
    ]
    return Watched(run(), tasks)


def test_a_large_graph_collapses_to_what_matters() -> None:
    lines = [text.plain for text in Picture(many(1000), FixedClock(2)).lines(80, 12)]
    assert len(lines) <= 12
    assert all(len(line) <= 80 for line in lines)
    assert "2/1000 done, 1 failed" in lines[1]
    shown = "\n".join(lines[2:-1])
    assert "✗ part_700" in shown
    assert "line 4" in shown
    assert "line 1" not in shown
    assert "● part_3 " in shown
    assert "● part_500" in shown
    # 1000 tasks, and as many are told as there are lines for.
    assert lines[-1].startswith("  + ")
    assert sum(int(word) for word in lines[-1].split() if word.isdigit()) == 1000 - 6


@pytest.mark.parametrize("width", [10, 40, 80, 140])
@pytest.mark.parametrize("height", [4, 5, 24, 60])
def test_a_picture_never_leaves_its_terminal(width: int, height: int) -> None:
    for watched in (many(1000), many(5), many(1), Watched(run(), [])):
        lines = Picture(watched, FixedClock(100)).lines(width, height)
        assert len(lines) <= height
        assert all(text.cell_len <= width for text in lines)


def test_tasks_are_indented_by_what_is_before_them() -> None:
    tasks = [task("c", 0, after=("a", "b")), task("a", 1), task("b", 2, after=("a",))]
    watched = Watched(run(), tasks)
    assert depths(watched.tasks) == {"a": 0, "b": 1, "c": 2}
    lines = [text.plain for text in Picture(watched, FixedClock(0)).lines(80, 24)]
    assert [line.rstrip() for line in lines[2:]] == [
        "· a      WAITING",
        "  · b    WAITING",
        "    · c  WAITING",
    ]


def test_a_long_chain_has_a_depth_without_recursion() -> None:
    chain = [
        WatchedTask(task(f"t{n}", n, after=(f"t{n + 1}",) if n < 4999 else ())) for n in range(5000)
    ]
    assert depths(chain)["t0"] == 4999


def test_what_was_over_before_the_watch_began_can_be_told_too() -> None:
    final = run(state="SUCCEEDED", started=T0, ended=T0)
    done = [task("a", state="SUCCEEDED", ended=T0), task("b", 1, "UPSTREAM_FAILED", ended=T0)]
    watched = Watched(final, done, whole=True)
    assert not watched.over
    assert told(watched, *STORY) == LINES


def test_on_a_narrow_terminal_names_give_way_to_states_and_times() -> None:
    watched = Watched(run(), [task("n" * 64, state="RUNNING", started=T0)])
    lines = [text.plain for text in Picture(watched, FixedClock(2)).lines(40, 10)]
    assert re.search(r"^● n+…  RUNNING +[\d.]+s", lines[2])


def test_tries_count_in_their_round_and_only_what_is_charged() -> None:
    watched = Watched(run(), [task("a", max_attempts=3)])
    (a,) = watched.tasks
    seen = []
    for number, state in enumerate(("LOST", "FAILED", "CANCELLED", "FAILED", "FAILED"), start=1):
        watched.move(event("attempt.started", number, task="a", attempt=number, worker="w"))
        seen.append(a.tries)
        watched.move(event("attempt.finished", number, task="a", attempt=number, state=state))
    assert (seen, a.tries) == ([1, 1, 2, 2, 3], 3)
    # The next round begins anew, although the attempts are counted on.
    watched.move(event("task.reset", 6, task="a"))
    watched.move(event("attempt.started", 7, task="a", attempt=6, worker="w"))
    assert (a.tries, a.attempt) == (1, 6)
    # What is known from the beginning goes on from there.
    (b,) = Watched(run(), [task("b", 0, "RUNNING", max_attempts=3, tries=2)]).tasks
    b.move(event("attempt.finished", 8, task="b", attempt=9, state="FAILED"))
    assert b.tries == 2


def test_a_task_that_ended_before_it_was_told_took_only_as_long_as_it_took() -> None:
    watched = Watched(run(), [task("a")])
    ended = T0 + timedelta(seconds=4)
    assert told(
        watched,
        event("attempt.started", 1, task="a", attempt=1, worker="w1"),
        event("task.finished", 8.8, task="a", state="SUCCEEDED", ended=ended),
    ) == ["a                 SUCCEEDED   after 3.0s"]
    assert watched.tasks[0].ended == round(ended.timestamp() * 1000)
