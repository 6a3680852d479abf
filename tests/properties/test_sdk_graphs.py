"""Python and YAML make the same graph, and what is printed is read back."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from grampus import shell, sql, task, workflow
from grampus import sleep as sleep_task
from grampus.model.check import check
from grampus.model.graph import canonical, cycles, mentioned, order
from grampus.model.template import escape
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
    read_workflow,
)
from grampus.sdk.yaml_dump import dump, same
from grampus.sdk.yaml_file import read_yaml

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ODD = st.sampled_from(
    [
        *("", "yes", "08", "null", "~", "1e3", "2026-01-01", "a: b", "# x", " lead", "trail ", "|"),
        *("line\nline", "line\n", "\n", "\ttab", "a\r\nb", "\x85", "\ufeff", "- x", "{a", "'", "é"),
        *("<<", "=", "*a", "&a", "!t", "%", "@", "`", "\u2028x", "x\n\n\n", "\x7f", "\U0001f600"),
    ]
)
WORDS = TEXT | ODD
LINE = WORDS.filter(lambda text: not set("\n\r\0") & set(text))
NO_NUL = WORDS.filter(lambda text: "\0" not in text)
SAFE = NO_NUL.map(escape)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e9, 1e9) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


def escaped(value: Any) -> Any:
    match value:
        case str():
            return escape(value)
        case list():
            return [escaped(item) for item in value]
        case dict():
            return {key: escaped(item) for key, item in value.items()}
    return value


VALUES = JSON.map(escaped)
NAMES = st.sampled_from(["a", "b1", "C_", "_d", "e" * 64, "yes", "null", "on", "y"])
ACTIONS = st.one_of(
    st.builds(Shell, SAFE.map(lambda text: f": {text}")),
    st.builds(Sleep, st.integers(0, 10**9)),
    st.builds(Python, st.just("m.n:f"), st.dictionaries(NAMES, VALUES, max_size=3)),
    st.builds(
        Http,
        LINE.map(lambda text: f"http://x/{escape(text)}"),
        st.sampled_from(["GET", "POST"]),
        st.dictionaries(st.sampled_from(["A", "X-b"]), LINE.map(escape), max_size=2),
        st.none(),
        VALUES,
        st.lists(st.integers(100, 599), max_size=2).map(tuple),
    ),
    st.builds(
        Sql,
        LINE.map(lambda text: f"sqlite://{escape(text)}"),
        SAFE.map(lambda text: f"select {text}"),
        st.none(),
        st.dictionaries(NAMES, VALUES, max_size=2),
        st.integers(0, 1000),
    ),
)
RETRIES = st.builds(
    Retry,
    st.integers(0, 1000),
    st.integers(0, 10**7),
    st.floats(1, 100),
    st.integers(0, 10**7),
    st.floats(0, 1),
    st.none() | st.lists(st.integers(1, 255), max_size=2).map(tuple),
    st.none() | st.lists(st.sampled_from(["ValueError", "Timeout"]), max_size=2).map(tuple),
)
PARAMS = st.one_of(
    st.builds(Param, st.just("p"), st.just("json"), VALUES, description=WORDS),
    st.builds(Param, st.just("p"), st.just("str"), SAFE),
    st.builds(Param, st.just("p"), st.just("int"), st.integers(-(2**63), 2**63 - 1)),
    st.just(Param("p", "date", "{{ tick.date }}")),
    st.just(Param("p", "float", 3)),
)
SCHEDULES = st.none() | st.builds(
    Schedule,
    st.just("0 6 * * 1-5"),
    tz=st.sampled_from(["UTC", "Asia/Tokyo"]),
    missed=st.sampled_from(["latest", "none", "all"]),
    overlap=st.sampled_from(["allow", "skip", "queue", "cancel_old"]),
    start=st.sampled_from([None, "2026-01-01"]),
)


@st.composite
def workflows(draw: Any) -> Workflow:
    count = draw(st.integers(1, 4))
    names = draw(st.lists(NAMES, min_size=count, max_size=count, unique=True))
    tasks = []
    for index, name in enumerate(names):
        upstream = [n for n in names[:index] if draw(st.booleans())]
        action = draw(ACTIONS)
        if upstream and isinstance(action, Shell) and draw(st.booleans()):
            action = Shell(f"{{{{ tasks.{upstream[0]}.output.rows }}}} ")
        options: dict[str, Any] = {
            "retry": draw(RETRIES | st.just(Retry())),
            "timeout": draw(st.none() | st.integers(1, 10**9)),
            "lease": draw(st.sampled_from([None, -1, 30_000])),
            "group": draw(st.sampled_from(["default", "yes", "gpu-1"])),
            "slots": draw(st.integers(1, 3)),
            "env": draw(st.dictionaries(st.sampled_from(["A", "no"]), SAFE, max_size=2)),
            "cwd": draw(st.sampled_from([None, "sub"])),
            "grace": draw(st.integers(0, 10**6)),
            "description": draw(WORDS),
        }
        if isinstance(action, Python):
            options["python"] = draw(st.sampled_from([None, "python3.12"]))
        tasks.append(Task(name, action, tuple(upstream), **options))
    found = Workflow(
        draw(NAMES),
        tuple(draw(st.permutations(tasks))),
        (draw(PARAMS),),
        draw(SCHEDULES),
        draw(st.sampled_from(["stop", "continue"])),
        draw(st.none() | st.integers(1, 5)),
        draw(st.sampled_from(["allow", "queue"])),
        timeout=draw(st.none() | st.integers(1, 10**9)),
        description=draw(WORDS),
    )
    return canonical(found)


@given(workflows())
@settings(max_examples=80, deadline=None)
def test_what_is_printed_is_read_back(found: Workflow) -> None:
    text = dump(found)
    declared, problems = read_yaml(text, "f.yaml")
    told = [str(problem) for problem in problems]
    assert told == [str(p) for p in check(found, declared[0].places)] == [], text
    assert declared[0].workflow == found
    assert declared[0].workflow.content() == found.content()
    assert read_workflow(found.content()) == found


@task
def step(**values: Any) -> None:
    """One step."""


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=6),
    st.lists(JSON, min_size=6, max_size=6),
    st.sampled_from(["", "rows", "a b"]),
)
@settings(max_examples=60, deadline=None)
def test_python_and_yaml_make_the_same_graph(
    upstreams: list[list[int]], values: list[Any], path: str
) -> None:
    @workflow
    def flow(p: int = 3) -> None:
        made: list[Any] = []
        for index, wanted in enumerate(upstreams):
            given = [made[n][path] if path else made[n] for n in wanted if n < index]
            if index % 3 == 2:
                made.append(
                    shell("echo {{ params.p }}", after=[made[n] for n in wanted if n < index])
                )
            else:
                made.append(step(given=given, value=values[index], p=p))
        sql("sqlite://", "select :p", params={"p": p}, after=made)
        sleep_task(1, after="sql")

    traced = flow.trace()
    assert traced.problems == ()
    declared, problems = read_yaml(dump(traced.workflow), "f.yaml")
    assert not problems
    assert same(declared[0].workflow, traced.workflow)
    for node in traced.workflow.tasks:
        assert set(mentioned(node).tasks) <= set(node.after)


@given(
    st.integers(1, 7).flatmap(
        lambda size: st.lists(
            st.lists(st.integers(0, size - 1), max_size=3), min_size=size, max_size=size
        )
    )
)
def test_a_graph_has_an_order_or_names_its_cycles(edges: list[list[int]]) -> None:
    tasks = [
        Task(f"t{index}", Sleep(1), tuple(f"t{n}" for n in dict.fromkeys(upstream)))
        for index, upstream in enumerate(edges)
    ]
    after = {node.name: node.after for node in tasks}
    done = [node.name for node in order(tasks)]
    for index, name in enumerate(done):
        assert set(after[name]) <= set(done[:index])
    loops = cycles(tasks)
    assert (len(done) == len(tasks)) == (not loops)
    seen: set[str] = set()
    for loop in loops:
        assert not seen & set(loop)
        seen |= set(loop)
        for first, second in zip(loop, [*loop[1:], loop[0]], strict=True):
            assert first in after[second]
    rest = [node for node in tasks if node.name not in seen]
    assert len(order(rest)) == len(rest)


@given(st.text(max_size=60) | st.text(st.sampled_from(list("{}[]:,-#&*!|>'\"\n ab1")), max_size=60))
@settings(max_examples=300)
def test_any_text_is_a_workflow_or_has_problems(text: str) -> None:
    declared, problems = read_yaml(text, "f.yaml")
    assert problems or declared
    assert all(problem.file == "f.yaml" for problem in problems)
