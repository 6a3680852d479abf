"""Tasks without a Python function: `shell`, `http`, `sql`, `sleep`, called inside a workflow.

Rule: the texts given here are templates, as they are in YAML. A reference may be given in place
of any value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grampus.errors import UsageError
from grampus.model.workflow import Http, Shell, Sleep, Sql
from grampus.sdk import reader as read
from grampus.sdk.refs import Output
from grampus.sdk.trace import Trace, current

HTTP: dict[str, read.Convert] = {
    "url": read.text,
    "method": lambda value: read.text(value).upper(),
    "headers": read.texts,
    "body": read.text,
    "json": read.json_value,
    "expect": read.integers,
}
SQL: dict[str, read.Convert] = {
    "url": read.text,
    "statement": read.text,
    "file": read.text,
    "params": read.json_object,
    "max_rows": read.integer,
}


def shell(command: str, *, name: str | None = None, **options: Any) -> Output:
    """Runs `/bin/sh -c command`. Values in `{{ params.x }}` or `{{ tasks.a.output.b }}` are quoted.

    The output is what the command writes to the file `$GRAMPUS_OUTPUT`: `key=value` lines or one
    JSON object. `options` are those of `@task`, and `after`.
    """
    trace = _trace("shell")
    node = trace.claim(name or "shell", explicit=name is not None)
    made = trace.reader.fields({"shell": command}, f"tasks.{node}", {"shell": read.text})
    return trace.add(node, Shell(made.get("shell", "")), _options(trace, node, options))


def http(
    url: Any,
    *,
    method: str | None = None,
    headers: Mapping[str, Any] | None = None,
    body: Any = None,
    json: Any = None,
    expect: int | Sequence[int] | None = None,
    name: str | None = None,
    **options: Any,
) -> Output:
    """Sends one request. The output is `{"status", "headers", "body"}`."""
    given = locals()
    trace = _trace("http")
    node = trace.claim(name or "http", explicit=name is not None)
    made = _fields(trace, node, "http", {key: given[key] for key in HTTP}, HTTP)
    return trace.add(node, Http(**{"url": "", **made}), _options(trace, node, options))


def sql(
    url: Any,
    statement: Any = None,
    *,
    file: str | None = None,
    params: Mapping[str, Any] | None = None,
    max_rows: int | None = None,
    name: str | None = None,
    **options: Any,
) -> Output:
    """Runs statements through SQLAlchemy. The output is the rows of the last one, as objects.

    Values belong into `params`, and into the statement as `:name`.
    """
    given = locals()
    trace = _trace("sql")
    node = trace.claim(name or "sql", explicit=name is not None)
    made = _fields(trace, node, "sql", {key: given[key] for key in SQL}, SQL)
    return trace.add(node, Sql(**{"url": "", **made}), _options(trace, node, options))


def sleep(duration: str | int | float, *, name: str | None = None, **options: Any) -> Output:
    """Waits, and holds its slot."""
    trace = _trace("sleep")
    node = trace.claim(name or "sleep", explicit=name is not None)
    made = trace.reader.fields({"sleep": duration}, f"tasks.{node}", {"sleep": read.duration})
    return trace.add(node, Sleep(made.get("sleep", 0)), _options(trace, node, options))


def _trace(kind: str) -> Trace:
    trace = current()
    if trace is None:
        raise UsageError(f"{kind}() declares a task: call it inside a function with @workflow")
    return trace


def _fields(
    trace: Trace,
    node: str,
    kind: str,
    given: Mapping[str, Any],
    known: Mapping[str, Callable[[Any], Any]],
) -> dict[str, Any]:
    field = f"tasks.{node}.{kind}"
    raw = {
        key: trace.literal(value, f"{field}.{key}", templates=True)
        for key, value in given.items()
        if value is not None
    }
    return trace.reader.fields(raw, field, known)


def _options(trace: Trace, node: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    if "python" in options:
        trace.note(f"tasks.{node}", "`python` is for tasks with a Python function only")
    return {key: value for key, value in options.items() if key != "python"}
