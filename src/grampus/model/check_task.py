"""Whether one task makes sense by itself: ranges, fields of its action, templates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from grampus.errors import Problem
from grampus.model.duration import LONGEST, format_duration
from grampus.model.graph import Templated, templated
from grampus.model.json_value import json_fault
from grampus.model.lease import KEEP, SHORTEST_LEASE
from grampus.model.template import (
    TemplateError,
    check_quoting,
    check_raw,
    is_template,
    references_in,
)
from grampus.model.workflow import Http, Python, Retry, Shell, Sleep, Sql, Task

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_CALL = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z", re.ASCII)
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z")
_GROUP = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*\Z")


def check_task(task: Task) -> Iterator[Problem]:
    """All problems of `task` that need no other task; fields start with `tasks.NAME`."""
    prefix = f"tasks.{task.name}"
    checks = (_check_retry(task.retry), _check_options(task), _check_action(task))
    for field, message, found, allowed in (problem for part in checks for problem in part):
        yield Problem(message, None, None, f"{prefix}.{field}", found, allowed)
    for part in templated(task):
        yield from _check_template(prefix, part)


#: field, message, found, allowed
Fault = tuple[str, str, str | None, str | None]


def _range(field: str, value: float, low: float, high: float) -> Iterator[Fault]:
    if not low <= value <= high:
        yield field, "out of range", str(value), f"{low} to {high}"


def _duration(field: str, value: int, low: int = 0) -> Iterator[Fault]:
    if not low <= value <= LONGEST:
        found = format_duration(value) if value >= 0 else str(value)
        yield field, "out of range", found, f"{format_duration(low)} to ten years"


def _check_retry(retry: Retry) -> Iterator[Fault]:
    yield from _range("retry.max", retry.max, 0, 1000)
    yield from _range("retry.factor", retry.factor, 1, 100)
    yield from _range("retry.jitter", retry.jitter, 0, 1)
    yield from _duration("retry.delay", retry.delay)
    yield from _duration("retry.max_delay", retry.max_delay)
    for code in retry.on_exit or ():
        yield from _range("retry.on_exit", code, 1, 255)
    for name in retry.on_exception or ():
        if not _DOTTED.match(name):
            allowed = "names such as ValueError or requests.Timeout"
            yield "retry.on_exception", "no name of an exception", repr(name), allowed


def _check_options(task: Task) -> Iterator[Fault]:
    if task.timeout is not None:
        yield from _duration("timeout", task.timeout, 1)
    if task.lease is not None and task.lease != KEEP:
        yield from _duration("lease", task.lease, SHORTEST_LEASE)
    yield from _duration("grace", task.grace)
    yield from _range("slots", task.slots, 1, 1024)
    yield from _range("priority", task.priority, -1000, 1000)
    yield from _range("max_lost", task.max_lost, 0, 1000)
    if not _GROUP.match(task.group):
        allowed = "letters, digits, `_`, `.`, `-`, at most 64"
        yield "group", "no name of a group", repr(task.group), allowed
    for name, text in task.env.items():
        if not _ENV.match(name):
            yield f"env.{name}", "no name of a variable", repr(name), "letters, digits and _"
        elif name.startswith("GRAMPUS_"):
            yield f"env.{name}", "names with GRAMPUS_ are set by Grampus itself", None, None
        if "\0" in text:
            yield f"env.{name}", "a variable cannot hold a NUL character", None, None
    for name, value in (("cwd", task.cwd), ("python.interpreter", task.python)):
        if value is not None and (not value or "\0" in value):
            yield name, "no path", repr(value), None
    if task.python is not None and not isinstance(task.action, Python):
        yield (
            "python.interpreter",
            "an interpreter is for python tasks only",
            repr(task.python),
            None,
        )


def _check_action(task: Task) -> Iterator[Fault]:
    match task.action:
        case Shell(command=command):
            if not command.strip():
                yield "shell", "the command is empty", None, None
            if "\0" in command:
                yield "shell", "a command cannot hold a NUL character", None, None
        case Python() as python:
            if not _CALL.match(python.call):
                yield "python.call", "names no function", repr(python.call), "module:function"
            for name, value in python.args.items():
                if not _IDENTIFIER.match(name):
                    yield f"python.args.{name}", "no name of an argument", repr(name), None
                if fault := json_fault(value):
                    yield f"python.args.{name}", fault, None, None
        case Http() as http:
            yield from _check_http(http)
        case Sql() as sql:
            yield from _check_sql(sql)
        case Sleep(duration=duration):
            yield from _duration("sleep", duration)


def _check_http(http: Http) -> Iterator[Fault]:
    if not re.match(r"https?://[^/\s]|\{\{", http.url):
        yield "http.url", "no address", repr(http.url), "http://… or https://…"
    if http.method not in METHODS:
        yield "http.method", "unknown method", repr(http.method), ", ".join(METHODS)
    if http.body is not None and http.json is not None:
        yield "http.body", "a request has either `body` or `json`", "both", None
    if fault := json_fault(http.json):
        yield "http.json", fault, None, None
    for name, text in http.headers.items():
        if not _HEADER.match(name):
            yield f"http.headers.{name}", "no name of a header", repr(name), None
        if "\n" in text or "\r" in text or "\0" in text:
            yield f"http.headers.{name}", "a header is one line", repr(text)[:80], None
    for code in http.expect:
        yield from _range("http.expect", code, 100, 599)


def _check_sql(sql: Sql) -> Iterator[Fault]:
    if ":" not in sql.url and not is_template(sql.url):
        allowed = "dialect://… such as sqlite:///data.db"
        yield "sql.url", "no address of a database", repr(sql.url), allowed
    if (sql.statement is None) == (sql.file is None):
        found = "neither" if sql.statement is None else "both"
        yield "sql", "a sql task has either `statement` or `file`", found, None
    if sql.statement is not None and not sql.statement.strip():
        yield "sql.statement", "the statement is empty", None, None
    if sql.file is not None:
        path = PurePosixPath(sql.file)
        if is_template(sql.file):
            yield "sql.file", "cannot be a template: the file travels along", repr(sql.file), None
        elif not sql.file or path.is_absolute() or ".." in path.parts or "\0" in sql.file:
            allowed = "a path below the folder of the workflow's file"
            yield "sql.file", "leaves the folder", repr(sql.file), allowed
    yield from _range("sql.max_rows", sql.max_rows, 0, 100_000)
    for name, value in sql.params.items():
        if not _IDENTIFIER.match(name):
            yield f"sql.params.{name}", "no name of a parameter", repr(name), None
        if fault := json_fault(value):
            yield f"sql.params.{name}", fault, None, None


def _check_template(prefix: str, part: Templated) -> Iterator[Problem]:
    field = f"{prefix}.{part.field}"
    try:
        references_in(part.value)
        if part.kind == "shell":
            check_quoting(part.value)
        elif part.kind == "sql" and part.value is not None:
            check_raw(part.value)
    except TemplateError as error:
        many = isinstance(part.value, str) and "\n" in part.value.strip()
        yield Problem(str(error) if many else error.message, field=field)
