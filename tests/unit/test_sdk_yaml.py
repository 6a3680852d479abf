"""YAML: the contract's example, every mistake at its line, and no surprises of YAML 1.1."""

from __future__ import annotations

from typing import Any

import pytest

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
from grampus.sdk.yaml_dump import dump, same
from grampus.sdk.yaml_file import read_yaml
from grampus.sdk.yaml_nodes import plain

EXAMPLE = """\
workflow: nightly
schedule: {cron: "0 2 * * *", tz: Europe/Paris, missed: latest, overlap: skip}
params: {day: {type: date, default: "{{ tick.date }}"}, tables: {type: list, default: [orders]}}
defaults: {retry: {max: 2, delay: 10s}, group: etl, env: {A: 1, B: b}}
tasks:
  extract: {shell: "./extract.sh {{ params.day }}", timeout: 20m, env: {B: c}}
  check:   {http: {url: "https://example.org/health", expect: [200]}, retry: 5}
  load:    {sql: {url: "sqlite:///warehouse.db", file: load.sql}, after: [extract, check]}
  train:   {python: {call: "train:main", args: {rows: "{{ tasks.extract.output.rows }}"}}}
  rest:    {sleep: 10s, after: train, lease: keep, group: other}
"""


def read(text: str) -> Workflow:
    declared, problems = read_yaml(text, "f.yaml")
    assert [str(problem) for problem in problems] == []
    assert len(declared) == 1
    return declared[0].workflow


def wrong(text: str) -> list[str]:
    return [str(problem) for problem in read_yaml(text, "f.yaml")[1]]


def test_the_example_of_the_contract_is_read() -> None:
    found = read(EXAMPLE)
    retry, env = Retry(2, 10_000), {"A": "1", "B": "b"}
    assert found == Workflow(
        "nightly",
        (
            Task(
                "extract",
                Shell("./extract.sh {{ params.day }}"),
                (),
                retry,
                1_200_000,
                group="etl",
                env={"A": "1", "B": "c"},
            ),
            Task(
                "check",
                Http("https://example.org/health", expect=(200,)),
                (),
                Retry(5),
                group="etl",
                env=env,
            ),
            Task(
                "load",
                Sql("sqlite:///warehouse.db", file="load.sql"),
                ("extract", "check"),
                retry,
                group="etl",
                env=env,
            ),
            Task(
                "train",
                Python("train:main", {"rows": "{{ tasks.extract.output.rows }}"}),
                ("extract",),
                retry,
                group="etl",
                env=env,
            ),
            Task("rest", Sleep(10_000), ("train",), retry, lease=-1, group="other", env=env),
        ),
        (Param("day", "date", "{{ tick.date }}"), Param("tables", "list", ["orders"])),
        Schedule("0 2 * * *", tz="Europe/Paris"),
    )
    assert same(read(dump(found)), found)


def test_short_forms() -> None:
    found = read(
        "workflow: w\nschedule: '0 0 * * *'\n"
        "params: {n: 3, x: 1.5, t: text, on: false, l: [1], d: 2026-01-01, long: {type: json,"
        " default: null}}\n"
        "tasks:\n  a: {http: 'http://x'}\n  b: {python: 'm:f', after: a}\n"
        "  c: {sleep: 1.5, retry: 1, timeout: }\n"
    )
    assert found.schedule == Schedule("0 0 * * *")
    assert [param.type for param in found.params] == [
        *("int", "float", "str", "bool", "list", "str", "json"),
    ]
    assert found.params[5].default == "2026-01-01"
    assert found.tasks[0].action == Http("http://x")
    assert found.tasks[1] == Task("b", Python("m:f"), ("a",))
    assert found.tasks[2] == Task("c", Sleep(1500), retry=Retry(1))
    required = read("workflow: w\nparams: {a: , b: {type: int}}\ntasks: {s: {sleep: 1}}")
    assert required.params == (Param("a", required=True), Param("b", "int", required=True))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("08", "08"),
        ("010", "010"),
        ("0", 0),
        ("-12", -12),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("2026-01-01", "2026-01-01"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        (".inf", ".inf"),
        ("1e999", "1e999"),
        ("~", None),
        ("<<", "<<"),
    ],
)
def test_plain_scalars_have_no_surprises(text: str, value: Any) -> None:
    assert plain(text) == value
    assert type(plain(text)) is type(value)
    quoted = read(f"workflow: w\nparams: {{p: {{default: '{text}'}}}}\ntasks: {{s: {{sleep: 1}}}}")
    assert quoted.params[0].default == text


def test_every_mistake_has_its_line_and_field() -> None:
    text = """\
workflow: nightly
schedul: x
schedule: {cron: "0 2 * * *", tz: Europe/Pari, missed: lastest}
params: {day: {type: dat}, n: {default: 3, defalt: 4}, _: {type: int, default: "3"}}
defaults: {retry: {maximum: 2}, grup: etl}
max_active_runs: many
on_failure: panic
tasks:
  extract:
    shell: |
      true
      echo {{ params.dya }}
    timeout: 20q
    retires: 3
  load: {sql: {file: load.sql, params: [1]}, after: [extrct], env: {A: [1]}}
  two: {sleep: 10s, shell: "x"}
  none: {after: load}
  text: hello
  http: {http: {url: "http://x", expect: [2000], headers: {a: b, a: c}}}
  py: {python: {args: {x: 1}}, lease: forever, slots: true}
  early: {shell: "{{ tasks.late.output }}"}
  late: {shell: "{{ tasks.early.output }}"}
  ? [a]
  : 1
"""
    expected = [
        (2, "schedul", "unknown field `schedul` (did you mean `schedule`?)"),
        (3, "schedule.tz", "unknown time zone (did you mean `Europe/Paris`?)"),
        (3, "schedule.missed", "(found 'lastest'; allowed: latest, none, all)"),
        (4, "params.day.type", "(found 'dat'; allowed: str, int, float, bool, date, list, json)"),
        (4, "params.n.defalt", "unknown field `defalt` (did you mean `default`?)"),
        (4, "params._.default", "not of type int (found '3'; allowed: a whole number of 64 bits)"),
        (5, "defaults.retry.maximum", "unknown field `maximum` (did you mean `max"),
        (5, "defaults.grup", "unknown field `grup` (did you mean `group`?)"),
        (6, "max_active_runs", "(found 'many'; allowed: a whole number)"),
        (7, "on_failure", "(found 'panic'; allowed: stop, continue)"),
        (10, "tasks.extract.shell", "unknown param `dya` (did you mean `day`?)"),
        (13, "tasks.extract.timeout", "(found '20q'; allowed: a number of seconds, or text such"),
        (14, "tasks.extract.retires", "unknown field `retires` (did you mean `retry`?)"),
        (15, "tasks.load.sql", "`url` is missing"),
        (15, "tasks.load.sql.params", "(found [1]; allowed: an object)"),
        (15, "tasks.load.after", "unknown task `extrct` (did you mean `extract`?)"),
        (15, "tasks.load.env", "(found {'A': [1]}; allowed: an object whose values are text)"),
        (16, "tasks.two", "a task does one thing, this one shell and sleep"),
        (17, "tasks.none", "a task does one thing, this one nothing"),
        (18, "tasks.text", "has to be an object (found 'hello'"),
        (19, "tasks.http.http.headers.a", "`a` is there twice (first in line 19)"),
        (19, "tasks.http.http.expect", "out of range (found 2000; allowed: 100 to 599)"),
        (20, "tasks.py.python", "`call` is missing"),
        (20, "tasks.py.lease", "(found 'forever'; allowed: `keep`, or a number of seconds"),
        (20, "tasks.py.slots", "(found True; allowed: a whole number)"),
        (21, "tasks.early.after", "these tasks wait for each other: early → late → early"),
        (23, "tasks", "a key has to be text"),
    ]
    found = wrong(text)
    for line, field, message in expected:
        start = f"f.yaml:{line}: {field}: "
        assert any(t.startswith(start) and message in t for t in found), (start, message, found)
    assert len(found) == len(expected), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f.yaml: the file is empty: it declares no workflow"),
        ("# only a comment\n---\n", "f.yaml: the file is empty: it declares no workflow"),
        ("just text", "f.yaml:1: a workflow has to be an object (found 'just text'"),
        ("a: [", "f.yaml:1: no valid YAML: "),
        ("a: 1\n b: 2", "f.yaml:2: no valid YAML: "),
        ("a: \x00", "f.yaml: no valid YAML: "),
        ("\t- a", "f.yaml:1: no valid YAML: "),
        ("tasks: {a: {sleep: 1}}", "f.yaml:1: workflow: `workflow` is missing"),
        ("workflow: w", "f.yaml:1: tasks: `tasks` is missing"),
        ("workflow: w\ntasks: []", "f.yaml:2: tasks: has to be an object (found []"),
        ("workflow: 3\ntasks: {a: {sleep: 1}}", "f.yaml:1: workflow: cannot be used (found 3"),
        ("workflow: !!python/name:os.system x\ntasks: {a: {sleep: 1}}", "f.yaml:1: workflow: tags"),
        ("workflow: w\ntasks: &a {a: *a}", "f.yaml:2: the document is too large, too deep"),
        ("[" * 5000, "f.yaml"),
        ("? " * 3000, "f.yaml"),
    ],
)
def test_what_is_no_workflow_is_told(text: str, expected: str) -> None:
    found = wrong(text)
    assert any(t.startswith(expected) for t in found), found


def test_aliases_cannot_make_a_small_file_large() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert any("too large" in text for text in wrong("\n".join(lines)))


def test_several_documents_are_several_workflows() -> None:
    one = "workflow: {}\ntasks: {{a: {{sleep: 1}}}}\n"
    declared, problems = read_yaml(one.format("x") + "---\n" + one.format("y"), "f.yaml")
    assert [each.workflow.name for each in declared] == ["x", "y"]
    assert not problems
    (problem,) = wrong(one.format("x") + "---\n" + one.format("1y"))
    assert problem.startswith("f.yaml:4: workflow: no name for a workflow")


def test_defaults_are_overridden_as_a_whole_but_for_env() -> None:
    found = read(
        "workflow: w\ndefaults: {retry: {max: 2, delay: 1m}, interpreter: py, timeout: 5}\n"
        "tasks:\n  a: {python: 'm:f', retry: {max: 1}}\n"
        "  b: {python: {call: 'm:f', interpreter: other}, timeout: 1h}\n  c: {shell: x}\n"
    )
    assert [task.python for task in found.tasks] == ["py", "other", None]
    assert [task.retry for task in found.tasks] == [Retry(1), Retry(2, 60_000), Retry(2, 60_000)]
    assert [task.timeout for task in found.tasks] == [5000, 3_600_000, 5000]
