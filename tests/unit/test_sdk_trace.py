"""Tracing: calls become nodes, references stay references, mistakes get the user's line."""

from __future__ import annotations

import datetime
import pickle
from pathlib import Path
from typing import Any

import pytest

import grampus
from grampus import Retry, context, cron, every, http, shell, sleep, sql, task, workflow
from grampus.errors import UsageError
from grampus.model.run import TaskState
from grampus.model.workflow import Http, Param, Python, Schedule, Shell, Sleep, Sql, Workflow
from grampus.model.workflow import Retry as ModelRetry

HERE = Path(__file__).name


@task
def load(source: str, n: int = 1, **more: Any) -> dict[str, Any]:
    """Loads.

    Much more text."""
    return {"source": source, "n": n, **more}


@task(retry=Retry(2, delay="10s", on_exception=[ValueError, "requests.Timeout"]), timeout="10m")
def total(parts: list[Any]) -> int:
    return len(parts)


def traced(function: Any, **options: Any) -> Workflow:
    found = workflow(**options)(function).trace()
    assert found.problems == ()
    return found.workflow


def problems(function: Any, **options: Any) -> list[str]:
    found = workflow(**options)(function).trace().problems
    assert all(problem.file and problem.file.endswith(HERE) for problem in found)
    return [f"{p.field}: {p.message}" if p.field else p.message for p in found]


def line_of(function: Any, offset: int) -> int:
    return int(function.__code__.co_firstlineno) + offset


def test_calls_become_nodes_with_names_and_upstream() -> None:
    def flow(source: str = "x") -> None:
        total([load(source, n) for n in range(3)])

    found = traced(flow)
    assert [node.name for node in found.tasks] == ["load", "load_2", "load_3", "total"]
    assert found.params == (Param("source", "str", "x"),)
    first, last = found.tasks[0], found.tasks[-1]
    module = __name__
    assert first.action == Python(f"{module}:load", {"source": "{{ params.source }}", "n": 0})
    assert first.description == "Loads."
    assert last.after == ("load", "load_2", "load_3")
    assert last.retry == ModelRetry(2, 10_000, on_exception=("ValueError", "Timeout"))
    assert last.timeout == 600_000


def test_fields_of_references_and_deep_values_pass() -> None:
    def flow(conf: dict[str, Any]) -> None:
        out: Any = load("a")
        load("b", more={"deep": (out.rows[0]["a b"], [conf['é"']])}, items=out.items)

    action = traced(flow).tasks[1].action
    assert isinstance(action, Python)
    assert action.args == {
        "source": "b",
        "more": {"deep": ['{{ tasks.load.output.rows[0]["a b"] }}', ['{{ params.conf["é\\""] }}']]},
        "items": "{{ tasks.load.output.items }}",
    }


def test_a_literal_that_looks_like_a_template_stays_a_literal() -> None:
    def flow() -> None:
        load("{{ params.x }}")

    action = traced(flow).tasks[0].action
    assert isinstance(action, Python)
    assert action.args == {"source": "{% raw %}{{ params.x }}{% endraw %}"}


def test_options_of_a_call_add_to_those_of_the_task() -> None:
    def flow() -> None:
        first = load("a")
        total.options(name="sum", after=[first], retry=5, lease="keep", env={"A": "1"})([])
        total.options(after="load", group="gpu", slots=2, priority=-1, grace=3, cwd="x")([])

    second, third = traced(flow).tasks[1:]
    assert (second.name, second.after, second.retry) == ("sum", ("load",), ModelRetry(5))
    assert (second.lease, second.env, second.timeout) == (-1, {"A": "1"}, 600_000)
    assert (third.name, third.after, third.group, third.slots) == ("total", ("load",), "gpu", 2)
    assert (third.priority, third.grace, third.cwd) == (-1, 3000, "x")


def test_the_other_kinds_take_templates_and_references() -> None:
    def flow(day: datetime.date = datetime.date(2026, 1, 2)) -> None:
        a = shell("echo {{ params.day }}", name="a", timeout=5, env={"DAY": day})
        b = http("http://x/{{ params.day }}", method="post", json={"day": day, "a": a.rows})
        c = sql("sqlite://", "select :day", params={"day": day}, after=b)
        sleep("1m30s", after=[c, "a"])

    found = traced(flow)
    assert found.params == (Param("day", "date", "2026-01-02"),)
    assert found.tasks[0].action == Shell("echo {{ params.day }}")
    assert found.tasks[0].env == {"DAY": "{{ params.day }}"}
    assert found.tasks[1].action == Http(
        "http://x/{{ params.day }}",
        "POST",
        json={"day": "{{ params.day }}", "a": "{{ tasks.a.output.rows }}"},
    )
    assert found.tasks[2].action == Sql(
        "sqlite://", "select :day", params={"day": "{{ params.day }}"}
    )
    assert found.tasks[3].action == Sleep(90_000)
    assert [node.after for node in found.tasks] == [(), ("a",), ("http",), ("a", "sql")]


def test_params_have_the_types_of_their_annotations() -> None:
    def flow(
        a: str,
        b: int,
        c: float = 1,
        d: bool = True,
        e: list[str] = ["x"],  # noqa: B006
        f: dict[str, int] | None = None,
        g: Any = 3,
        h=2.5,  # type: ignore[no-untyped-def]
        i=None,  # type: ignore[no-untyped-def]
    ) -> None:
        sleep(1)

    kinds = [(param.type, param.required) for param in traced(flow).params]
    assert kinds == [
        ("str", True),
        ("int", True),
        *((kind, False) for kind in ("float", "bool", "list", "json", "json", "float", "json")),
    ]


def test_a_schedule_and_the_options_of_a_workflow() -> None:
    def flow() -> None:
        """Nightly.

        And more."""
        sleep(1)

    schedule = cron("0 6 * * *", tz="Europe/Paris", missed="all", overlap="queue")
    found = traced(flow, name="n", schedule=schedule, on_failure="continue", max_active_runs=2)
    assert found.name == "n"
    assert found.description == "Nightly."
    assert found.schedule == Schedule("0 6 * * *", None, "Europe/Paris", "all", "queue")
    assert (found.on_failure, found.max_active_runs) == ("continue", 2)
    assert traced(flow, schedule=every("5m")).schedule == Schedule(every=300_000)


def test_outside_of_a_workflow_a_task_is_the_plain_function() -> None:
    assert load("a", n=2, x=1) == {"source": "a", "n": 2, "x": 1}
    assert load.__wrapped__("a") == {"source": "a", "n": 1}  # type: ignore[attr-defined]
    assert load.__name__ == "load"  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(load)) is load
    with pytest.raises(UsageError, match="inside a function with @workflow"):
        shell("true")


def test_a_workflow_is_not_called() -> None:
    flow = workflow(lambda_free)
    with pytest.raises(UsageError, match=r"lambda_free\.local\(\)"):
        flow()


def lambda_free() -> None:
    sleep(0)


USES: list[tuple[str, Any]] = [
    ("decide", lambda ref: bool(ref)),
    ("decide", lambda ref: ref == 3),
    ("decide", lambda ref: ref < 3),
    ("become text", lambda ref: f"{ref}"),
    ("become text", lambda ref: str(ref)),
    ("become text", lambda ref: f"{ref.rows:>3}"),
    ("iterated", lambda ref: list(ref)),
    ("iterated", lambda ref: len(ref)),
    ("iterated", lambda ref: 3 in ref),
    ("computed", lambda ref: ref + 1),
    ("computed", lambda ref: 2 * ref.rows),
    ("computed", lambda ref: int(ref)),
    ("computed", lambda ref: -ref),
    ("computed", lambda ref: ref()),
    ("sliced", lambda ref: ref[1:2]),
]


@pytest.mark.parametrize(("message", "use"), USES)
def test_a_value_that_is_not_there_yet_is_an_error_that_says_what_to_do(
    message: str, use: Any
) -> None:
    def of_param(n: int) -> None:
        use(n)

    def of_output() -> None:
        use(load("x"))

    (found,) = problems(of_param)
    assert message in found
    assert "{{ params.n" in found
    assert "argument to a task" in found
    (found,) = problems(of_output)
    assert message in found
    assert "{{ tasks.load.output" in found


def test_a_reference_can_be_looked_at_by_a_debugger() -> None:
    def flow(n: int) -> None:
        assert repr(n) == "<params.n>"
        assert repr(load("x")) == "<tasks.load.output>"
        assert not hasattr(n, "_private")
        load(source=n)

    traced(flow)


def test_all_mistakes_of_a_trace_come_at_once_with_their_lines() -> None:
    def flow(day: str) -> None:
        load()  # type: ignore[call-arg]
        load("a", "b", "c")  # type: ignore[call-arg]
        load({1, 2})  # type: ignore[arg-type]
        load(Path("x"))  # type: ignore[arg-type]
        load({1: 2})  # type: ignore[arg-type]
        load.options(name="x")("a")
        load.options(name="x")("b")
        load.options(timeout="soon", after=[3])("a")
        sql("sqlite://", "select {{ params.dya }}")
        shell("{{ params.dya }}")
        sleep("1 parsec")

    found = workflow(flow).trace().problems
    start = line_of(flow, 0)
    expected = [
        (1, "tasks.load", "missing a required argument: 'source'"),
        (2, "tasks.load_2", "too many positional arguments"),
        (3, "tasks.load_3.python.args.source", "type set is no JSON value: pass what JSON can"),
        (4, "tasks.load_4.python.args.source", "PosixPath is no JSON value"),
        (5, "tasks.load_5.python.args.source", "the key 1 is not text"),
        (7, "tasks.x", "another task has this name already"),
        (8, "tasks.load_6.timeout", "cannot be used"),
        (8, "tasks.load_6.after", "cannot be waited for"),
        (9, "tasks.sql.sql.statement", "a value must not become SQL text"),
        (9, "tasks.sql.sql.statement", "unknown param `dya` (did you mean `day`?)"),
        (10, "tasks.shell.shell", "unknown param `dya` (did you mean `day`?)"),
        (11, "tasks.sleep", "cannot be used"),
    ]
    assert len(found) == len(expected)
    for offset, field, message in expected:
        assert any(
            p.line == start + offset
            and p.field in (field, f"{field}.sleep")
            and message in p.message
            for p in found
        ), (offset, field, [str(p) for p in found])


def test_a_task_that_no_worker_could_find_is_refused() -> None:
    @task
    def inner() -> None:
        pass

    def flow() -> None:
        inner()

    assert "top level" in problems(flow)[0]


def test_star_arguments_are_refused() -> None:
    def flow() -> None:
        many(1, 2)
        only(1)

    found = problems(flow)
    assert "`args` of many has no name" in found[0]
    assert "`a` of only has no name" in found[1]
    assert "`*` and `**`" in problems(lambda *args: sleep(1), name="w")[0]


@task
def many(*args: int) -> None:
    pass


@task
def only(a: int, /) -> None:
    pass


def test_an_output_of_another_workflow_is_refused() -> None:
    kept: list[Any] = []

    def first() -> None:
        kept.append(load("a"))

    def second() -> None:
        load(kept[0])

    traced(first)
    assert any("another workflow" in text for text in problems(second))


def test_an_exception_in_the_function_has_its_line() -> None:
    def flow() -> None:
        load("a")
        raise KeyError("gone")

    (found,) = workflow(flow).trace().problems
    assert (found.line, found.message) == (line_of(flow, 2), "KeyError: 'gone'")


def test_wrong_decorators_are_told() -> None:
    with pytest.raises(TypeError, match="is for functions"):
        task(3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="is a task already"):
        task(load)
    with pytest.raises(TypeError, match="name is given as"):
        workflow("nightly")


def test_the_public_surface_can_be_counted() -> None:
    assert sorted(grampus.__all__) == [
        *("Client", "Context", "GrampusError", "InvalidInput", "Retry", "context", "cron"),
        *("every", "http", "shell", "sleep", "sql", "task", "workflow"),
    ]
    for name in grampus.__all__:
        assert getattr(grampus, name) is not None
    assert set(grampus.__all__) <= set(dir(grampus))
    with pytest.raises(AttributeError):
        grampus.nothing  # noqa: B018


TRIES: list[int] = []


@task(retry=Retry(2, on_exception="ValueError"))
def flaky(fails: int) -> list[int]:
    """Fails so many times."""
    TRIES.append(context().attempt)
    if len(TRIES) <= fails:
        raise ValueError("not yet")
    return TRIES


@task
async def later(found: list[int], day: str) -> dict[str, Any]:
    about = context()
    assert about.tick.tzinfo is not None
    return {"same": found is TRIES, "day": day, "task": about.task, "params": about.params}


@workflow(on_failure="continue")
def both(fails: int, day: datetime.date = datetime.date(2026, 1, 1)) -> None:
    found = flaky(fails)
    out: Any = later(found, day)
    said = shell(
        "printf 'day=%s\\n' {{ tasks.later.output.day }} > $GRAMPUS_OUTPUT; test $X = 5",
        env={"X": "5"},
    )
    shell("test {{ tasks.shell.output.day }} = 2026-01-01 && exit 3", name="last", after=said)
    sleep(0, after="last")
    sleep(0, name="other", after=out)


def test_a_workflow_runs_in_this_process() -> None:
    TRIES.clear()
    from grampus.sdk.local import run_local

    run = run_local(both, {"fails": 2}, raises=False)
    assert run.attempts["flaky"] == 3
    assert TRIES == [1, 2, 3]
    assert run.outputs["flaky"] is TRIES
    day = "2026-01-01"
    assert run.outputs["later"] == {
        "same": True,
        "day": day,
        "task": "later",
        "params": {"fails": 2, "day": day},
    }
    assert run.outputs["shell"] == {"day": day}
    assert run.states["last"] == TaskState.FAILED
    assert "exit code 3" in str(run.errors["last"])
    assert run.states["sleep"] == TaskState.UPSTREAM_FAILED
    assert run.states["other"] == TaskState.SUCCEEDED


def test_a_task_that_fails_raises_its_own_exception() -> None:
    TRIES.clear()
    with pytest.raises(ValueError, match="not yet"):
        both.local(fails=9)
    assert TRIES == [1, 2, 3]
    with pytest.raises(UsageError, match="fails"):
        both.local(fails="9")
    with pytest.raises(UsageError, match="running tasks"):
        context()


def test_the_context_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = tmp_path / "spec"
    spec.write_text('{"params": {"day": "x"}, "version": 4, "tz": "Asia/Tokyo"}')
    for name, value in {
        "RUN": "abc",
        "WORKFLOW": "w",
        "TASK": "t",
        "ATTEMPT": "2",
        "FENCING_TOKEN": "77",
        "TICK": "1767225599000",
        "SPEC": str(spec),
    }.items():
        monkeypatch.setenv(f"GRAMPUS_{name}", value)
    about = context()
    assert (about.run, about.workflow, about.version, about.task) == ("abc", "w", 4, "t")
    assert (about.attempt, about.fencing_token, about.params) == (2, 77, {"day": "x"})
    assert about.tick.isoformat() == "2026-01-01T08:59:59+09:00"
    monkeypatch.setenv("GRAMPUS_ATTEMPT", "two")
    with pytest.raises(UsageError, match="damaged"):
        context()
