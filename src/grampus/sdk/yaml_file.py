"""Workflows written in YAML, read into the same values that Python makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from msgspec import Struct

from grampus.errors import Problem
from grampus.model.params import parse_text
from grampus.model.workflow import (
    Action,
    Http,
    Param,
    ParamType,
    Python,
    Retry,
    Shell,
    Sleep,
    Sql,
    Task,
    Workflow,
)
from grampus.sdk.calls import HTTP, SQL
from grampus.sdk.flow import finish, infer
from grampus.sdk.reader import (
    HEAD,
    OPTIONS,
    Convert,
    Reader,
    duration,
    json_object,
    json_value,
    names,
    one_of,
    read_retry,
    read_schedule,
    text,
)
from grampus.sdk.yaml_nodes import Document, read_documents

_KEEP: Convert = lambda value: value  # noqa: E731
_KINDS = ("shell", "python", "http", "sql", "sleep")
_TOP: dict[str, Convert] = {
    "workflow": text,
    "schedule": _KEEP,
    "params": _KEEP,
    "defaults": _KEEP,
    "tasks": _KEEP,
    "include": names,
    **HEAD,
}
_PYTHON: dict[str, Convert] = {"call": text, "args": json_object, "interpreter": text}
_TASK: dict[str, Convert] = {
    **dict.fromkeys(_KINDS, _KEEP),
    "after": names,
    "retry": _KEEP,
    **OPTIONS,
}
_PARAM: dict[str, Convert] = {
    "type": one_of(get_args(ParamType)),
    "default": json_value,
    "description": text,
}
_DEFAULTS: dict[str, Convert] = {
    "retry": _KEEP,
    "interpreter": text,
    **{name: convert for name, convert in OPTIONS.items() if name != "description"},
}


class Declared(Struct, frozen=True):
    """One workflow of a file: canonical, without a bundle, perhaps with problems."""

    workflow: Workflow
    include: tuple[str, ...]
    places: dict[str, tuple[str | None, int | None]]


def read_yaml(content: str, file: str) -> tuple[list[Declared], list[Problem]]:
    """All workflows of a file, one a document, and all problems."""
    documents, problems = read_documents(content, file)
    if not documents and not problems:
        problems.append(Problem("the file is empty: it declares no workflow", file))
    declared = []
    for document in documents:
        found, wrong = _read(document)
        problems += wrong
        if found is not None:
            declared.append(found)
    return declared, problems


def _read(document: Document) -> tuple[Declared | None, list[Problem]]:
    reader = Reader()
    reader.places = document.places
    if not isinstance(document.value, Mapping):
        if not document.problems:
            allowed = ", ".join(_TOP)
            reader.wrong("", "a workflow has to be an object", document.value, allowed)
        return None, [*document.problems, *reader.problems]
    raw = reader.fields(document.value, "", _TOP)
    for name in ("workflow", "tasks"):
        if document.value.get(name) is None:
            reader.wrong(name, f"`{name}` is missing")
    defaults = _defaults(reader, raw.get("defaults"))
    listed = reader.mapping(raw.get("tasks", {}), "tasks", "tasks by name")
    workflow = Workflow(
        name=raw.get("workflow", "unnamed"),
        tasks=tuple(_task(reader, name, value, defaults) for name, value in listed.items()),
        params=_params(reader, raw.get("params")),
        schedule=read_schedule(reader, raw.get("schedule")),
        **{name: raw[name] for name in HEAD if name in raw},
    )
    unsure = {problem.field for problem in reader.problems}
    workflow, found = finish(workflow, document.places)
    found = [problem for problem in found if not _follows(problem.field, unsure)]
    problems = [*document.problems, *reader.problems, *found]
    return Declared(workflow, raw.get("include", ()), document.places), problems


def _follows(field: str | None, unsure: set[str | None]) -> bool:
    """Whether a problem may only be there because something of its field could not be read."""
    if field is None:
        return False
    return any(
        other is not None and (other == field or other.startswith((f"{field}.", f"{field}[")))
        for other in unsure
    )


def _defaults(reader: Reader, raw: object) -> dict[str, Any]:
    if raw is None:
        return {}
    found = reader.mapping(raw, "defaults", ", ".join(_DEFAULTS))
    done = reader.fields(found, "defaults", _DEFAULTS)
    if "retry" in done:
        done["retry"] = read_retry(reader, done["retry"], "defaults.retry")
    return done


def _params(reader: Reader, raw: object) -> tuple[Param, ...]:
    if raw is None:
        return ()
    return tuple(
        _param(reader, name, value)
        for name, value in reader.mapping(raw, "params", "params by name").items()
    )


def _param(reader: Reader, name: str, value: object) -> Param:
    field = f"params.{name}"
    if value is None:
        return Param(name, required=True)
    if not isinstance(value, Mapping):
        return Param(name, infer(value), json_value(value))
    found = reader.fields(value, field, _PARAM)
    description = found.get("description", "")
    if "default" not in value:
        return Param(name, found.get("type", "str"), None, True, description)
    default = found.get("default")
    kind = found.get("type") or infer(default)
    if kind == "bool" and isinstance(default, str) and default in ("yes", "no"):
        default = parse_text(Param(name, "bool"), default)
    return Param(name, kind, default, False, description)


def _task(reader: Reader, name: str, value: object, defaults: Mapping[str, Any]) -> Task:
    field = f"tasks.{name}"
    raw = reader.mapping(value, field, ", ".join(_TASK))
    done = reader.fields(raw, field, _TASK)
    kinds = [kind for kind in _KINDS if raw.get(kind) is not None]
    if isinstance(value, Mapping) and len(kinds) != 1:
        what = " and ".join(kinds) if kinds else "nothing"
        allowed = "exactly one of " + ", ".join(_KINDS)
        reader.wrong(field, f"a task does one thing, this one {what}", allowed=allowed)
    action, interpreter = _action(reader, kinds[0] if kinds else "", done, field)
    retry = defaults.get("retry", Retry())
    if "retry" in done:
        retry = read_retry(reader, done["retry"], f"{field}.retry")
    options = {key: item for key, item in defaults.items() if key in OPTIONS}
    options |= {key: item for key, item in done.items() if key in OPTIONS}
    if "env" in defaults:
        options["env"] = {**defaults["env"], **done.get("env", {})}
    if isinstance(action, Python):
        interpreter = interpreter or defaults.get("interpreter")
    after = tuple(dict.fromkeys(done.get("after", ())))
    return Task(name, action, after, retry, python=interpreter, **options)


def _action(
    reader: Reader, kind: str, done: Mapping[str, Any], field: str
) -> tuple[Action, str | None]:
    """The action, and the interpreter that a python task names."""
    raw, field = done.get(kind), f"{field}.{kind}"
    match kind:
        case "shell":
            return Shell(_text(reader, raw, field)), None
        case "sleep":
            made = reader.fields({"sleep": raw}, field.rpartition(".")[0], {"sleep": duration})
            return Sleep(made.get("sleep", 0)), None
        case "python":
            if isinstance(raw, str):
                return Python(raw), None
            made = reader.fields(reader.mapping(raw, field, ", ".join(_PYTHON)), field, _PYTHON)
            _require(reader, made, raw, field, "call")
            return Python(made.get("call", "m:f"), made.get("args", {})), made.get("interpreter")
        case "http":
            if isinstance(raw, str):
                return Http(raw), None
            made = reader.fields(reader.mapping(raw, field, ", ".join(HTTP)), field, HTTP)
            _require(reader, made, raw, field, "url")
            return Http(**{"url": "http://x", **made}), None
        case "sql":
            made = reader.fields(reader.mapping(raw, field, ", ".join(SQL)), field, SQL)
            _require(reader, made, raw, field, "url")
            return Sql(**{"url": "x:", **made}), None
    return Shell(":"), None


def _text(reader: Reader, raw: object, field: str) -> str:
    if isinstance(raw, str):
        return raw
    reader.wrong(field, "cannot be used", raw, "text")
    return ":"


def _require(reader: Reader, made: Mapping[str, Any], raw: object, field: str, name: str) -> None:
    if isinstance(raw, Mapping) and raw.get(name) is None:
        reader.wrong(field, f"`{name}` is missing")
