"""The check of a workflow: one problem for each thing that is wrong, at its place."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from grampus.model.check import CONTENT_LIMIT, check
from grampus.model.graph import canonical, cycles, order
from grampus.model.workflow import (
    Http,
    Param,
    Python,
    Retry,
    Schedule,
    Shell,
    Sleep,
    Sql,
    Task,
    Workflow,
)


def one(action: Any = None, **options: Any) -> Workflow:
    return Workflow("w", (Task("a", action or Shell("true"), **options),), (Param("x"),))


def texts(workflow: Workflow) -> list[str]:
    return [str(problem) for problem in check(canonical(workflow))]


@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        (Workflow("1w", ()), "workflow: no name for a workflow"),
        (Workflow("w", ()), "tasks: the workflow has no tasks"),
        (msgspec.structs.replace(one(), max_active_runs=0), "max_active_runs: out of range"),
        (Workflow("w", (Task("a-b", Sleep(1)),)), "tasks.a-b: no name for a task"),
        (Workflow("w", (Task("a", Sleep(1)), Task("a", Sleep(2)))), "tasks.a: another task has"),
        (one(after=("b",)), "tasks.a.after: unknown task `b`"),
        (one(after=("a",)), "tasks.a.after: the task comes after itself"),
        (one(Shell("{{ tasks.a.output }}")), "tasks.a.shell: the task uses its own output"),
        (one(Shell("{{ tasks.b.output }}")), "tasks.a.shell: unknown task `b`"),
        (one(Shell("{{ params.y }}")), "tasks.a.shell: unknown param `y`"),
        (one(env={"E": "{{ params.y }}"}), "tasks.a.env.E: unknown param `y`"),
        (one(Shell("{{ parms.x }}")), "tasks.a.shell: unknown name `parms` (did you mean `params`"),
        (one(Shell("\n# {{ params.x }}\n:")), "tasks.a.shell: a value in a comment"),
        (one(Shell(" ")), "tasks.a.shell: the command is empty"),
        (
            one(retry=Retry(1001)),
            "tasks.a.retry.max: out of range (found 1001; allowed: 0 to 1000)",
        ),
        (one(retry=Retry(1, factor=0.5)), "tasks.a.retry.factor: out of range"),
        (one(retry=Retry(1, factor=float("nan"))), "tasks.a.retry.factor: out of range"),
        (one(retry=Retry(1, jitter=1.1)), "tasks.a.retry.jitter: out of range"),
        (one(retry=Retry(1, delay=-1)), "tasks.a.retry.delay: out of range"),
        (one(retry=Retry(1, on_exit=(0,))), "tasks.a.retry.on_exit: out of range"),
        (one(retry=Retry(1, on_exception=("a b",))), "tasks.a.retry.on_exception: no name"),
        (one(timeout=0), "tasks.a.timeout: out of range"),
        (one(lease=500), "tasks.a.lease: out of range (found 500ms; allowed: 10s to ten years)"),
        (one(group="a b"), "tasks.a.group: no name of a group"),
        (one(slots=0), "tasks.a.slots: out of range"),
        (one(priority=1001), "tasks.a.priority: out of range"),
        (one(max_lost=-1), "tasks.a.max_lost: out of range"),
        (one(env={"A=B": "x"}), "tasks.a.env.A=B: no name of a variable"),
        (one(env={"GRAMPUS_RUN": "x"}), "tasks.a.env.GRAMPUS_RUN: names with GRAMPUS_"),
        (one(python="python3"), "tasks.a.python.interpreter: an interpreter is for python"),
        (one(Python("main")), "tasks.a.python.call: names no function (found 'main'"),
        (one(Python("a:b", {"x y": 1})), "tasks.a.python.args.x y: no name of an argument"),
        (one(Http("ftp://x")), "tasks.a.http.url: no address"),
        (one(Http("http://x", method="GETS")), "tasks.a.http.method: unknown method"),
        (one(Http("http://x", body="b", json=1)), "tasks.a.http.body: a request has either"),
        (one(Http("http://x", headers={"a": "b\nc"})), "tasks.a.http.headers.a: a header is one"),
        (one(Http("http://x", expect=(99,))), "tasks.a.http.expect: out of range"),
        (one(Sql("sqlite://")), "tasks.a.sql: a sql task has either `statement` or `file`"),
        (one(Sql("sqlite://", "s", "f")), "tasks.a.sql: a sql task has either"),
        (one(Sql("nothing", "s")), "tasks.a.sql.url: no address of a database"),
        (one(Sql("sqlite://", file="../x")), "tasks.a.sql.file: leaves the folder"),
        (one(Sql("sqlite://", "select {{ params.x }}")), "tasks.a.sql.statement: a value must not"),
        (one(Sleep(-1)), "tasks.a.sleep: out of range"),
        (one(Shell("x" * 40_000)), "tasks.a: the task is too large"),
    ],
)
def test_each_thing_that_is_wrong_is_one_problem_at_its_field(
    workflow: Workflow, expected: str
) -> None:
    found = texts(workflow)
    assert any(text.startswith(expected) for text in found), found
    assert len(found) <= 2


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        (Param("a b", default=""), "params.a b: no name for a param"),
        (Param("n", "int", "3"), "params.n.default: the default is not of type int"),
        (Param("d", "date", "tomorrow"), "params.d.default: the default is not of type date"),
        (Param("d", "date", "{{ params.x }}"), "params.d.default: "),
        (Param("d", "date", "{{ tick.dat }}"), "params.d.default: "),
        (Param("x", required=True), "params.x: a workflow with a schedule starts by itself"),
    ],
)
def test_params_are_checked(param: Param, expected: str) -> None:
    workflow = Workflow("w", (Task("a", Sleep(1)),), (param,), schedule=Schedule(cron="0 0 * * *"))
    found = texts(workflow)
    assert len(found) == 1
    assert found[0].startswith(expected)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(), "schedule: a schedule has either `cron` or `every` (found neither)"),
        (Schedule("0 0 * * *", 5000), "schedule: a schedule has either `cron` or `every` (found b"),
        (Schedule("0 24 * * *"), "schedule.cron: bad hour"),
        (Schedule("0 0 * *"), "schedule.cron: not five fields"),
        (Schedule("0 0 30 2 *"), "schedule.cron: "),
        (Schedule(every=10), "schedule.every: out of range (found 10ms; allowed: 1s to 366d)"),
        (Schedule("0 0 * * *", tz="Europe/Pari"), "schedule.tz: unknown time zone (did you mean"),
        (Schedule("0 0 * * *", tz="../etc/passwd"), "schedule.tz: unknown time zone"),
        (Schedule("0 0 * * *", tz=""), "schedule.tz: unknown time zone"),
        (Schedule("0 0 * * *", start="soon"), "schedule.start: no local time"),
        (Schedule("0 0 * * *", start="2026-01-01T00:00Z"), "schedule.start: no local time"),
        (Schedule(every=5000, start="2026-02-01", end="2026-01-01"), "schedule.end: the end is"),
    ],
)
def test_schedules_are_checked(schedule: Schedule, expected: str) -> None:
    found = texts(Workflow("w", (Task("a", Sleep(1)),), schedule=schedule))
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_a_schedule_that_comes_once_in_four_years_is_fine() -> None:
    assert texts(Workflow("w", (Task("a", Sleep(1)),), schedule=Schedule("0 0 29 2 *"))) == []


def chain(*pairs: tuple[str, str]) -> Workflow:
    after: dict[str, list[str]] = {}
    for follower, upstream in pairs:
        after.setdefault(upstream, [])
        after.setdefault(follower, []).append(upstream)
    return Workflow("w", tuple(Task(n, Sleep(1), tuple(a)) for n, a in sorted(after.items())))


def test_a_cycle_is_named_in_running_order() -> None:
    workflow = chain(("b", "a"), ("c", "b"), ("a", "c"), ("d", "c"), ("a", "z"))
    assert texts(workflow) == ["tasks.a.after: these tasks wait for each other: a → b → c → a"]


def test_cycles_that_share_nothing_are_all_named() -> None:
    workflow = chain(("a", "b"), ("b", "a"), ("y", "x"), ("x", "y"))
    assert cycles(workflow.tasks) == [["a", "b"], ["x", "y"]]


def test_a_mention_makes_an_upstream_and_the_form_is_canonical() -> None:
    tasks = (
        Task("c", Shell("{{ tasks.b.output }}"), ("a",)),
        Task("a", Sleep(1)),
        Task("b", Sleep(1)),
    )
    workflow = canonical(Workflow("w", tasks))
    assert workflow.tasks[0].after == ("a", "b")
    assert canonical(workflow) == workflow
    assert [task.name for task in order(workflow.tasks)] == ["a", "b", "c"]
    assert check(workflow) == []
    assert "not in `after`" in str(check(Workflow("w", tasks))[0])


def test_problems_get_the_place_of_the_nearest_field_above() -> None:
    places = {"": ("f.yaml", 1), "tasks.a": ("f.yaml", 7), "tasks.a.retry": ("f.yaml", 9)}
    workflow = Workflow("w", (Task("a", Shell(""), retry=Retry(-1)),), max_active_runs=0)
    assert [problem.line for problem in check(workflow, places)] == [1, 9, 7]


def test_a_large_chain_is_checked_in_time_and_a_larger_one_refused() -> None:
    tasks = tuple(
        Task(f"t{n}", Sleep(1), (f"t{n - 1}",) if n else (f"t{9_999}",)) for n in range(10_000)
    )
    found = texts(Workflow("w", tasks))
    assert len(found) == 1
    assert found[0].startswith("tasks.t0.after: these tasks wait for each other: t0 → t1 → t2")
    assert len(found[0]) < 300
    many = tuple(Task(f"t{n}", Shell("x" * 20_000)) for n in range(CONTENT_LIMIT // 20_000 + 1))
    assert [t.partition(":")[0] for t in texts(Workflow("w", many))] == ["tasks"]
