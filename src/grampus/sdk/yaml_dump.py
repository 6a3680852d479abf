"""A workflow as the YAML that declares it; read again, it is equal but for the bundle."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from grampus.model.duration import format_duration
from grampus.model.graph import mentioned
from grampus.model.lease import KEEP
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
from grampus.sdk.yaml_nodes import plain

_DURATIONS = frozenset({"timeout", "lease", "grace", "delay", "max_delay", "every"})


class _Dumper(yaml.SafeDumper):
    """Quotes what would be read as something else; long texts as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if not all(char.isprintable() or char == "\n" for char in text):
        style = '"'
    elif "\n" in text:
        clean = all(line == line.rstrip() for line in text.split("\n"))
        style = "|" if clean and text.strip() and not text[0].isspace() else '"'
    elif plain(text) != text or not isinstance(plain(text), str):
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump(workflow: Workflow) -> str:
    """The text of a YAML file."""
    top: dict[str, Any] = {"workflow": workflow.name}
    if workflow.description:
        top["description"] = workflow.description
    if workflow.schedule is not None:
        top["schedule"] = _changed(workflow.schedule, Schedule())
    if workflow.params:
        top["params"] = {param.name: _param(param) for param in workflow.params}
    blank = Workflow("", ())
    for name in ("on_failure", "max_active_runs", "overlap"):
        if getattr(workflow, name) != getattr(blank, name):
            top[name] = getattr(workflow, name)
    if workflow.timeout is not None:
        top["timeout"] = format_duration(workflow.timeout)
    top["tasks"] = {task.name: _task(task) for task in workflow.tasks}
    text: str = yaml.dump(
        top,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=False,
    )
    return text


def _changed(value: Any, blank: Any, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of a struct that differ from those of `blank`, as they are written."""
    found = {}
    for name in value.__struct_fields__:
        item = getattr(value, name)
        if name not in skip and item != getattr(blank, name):
            if name in _DURATIONS and item is not None:
                item = format_duration(item) if item != KEEP else "keep"
            found[name] = list(item) if isinstance(item, tuple) else item
    return found


def _param(param: Param) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": param.type}
    if not param.required:
        shown["default"] = param.default
    if param.description:
        shown["description"] = param.description
    return shown


def _task(task: Task) -> dict[str, Any]:
    shown = _action(task)
    implied = set(mentioned(task).tasks)
    after = [name for name in task.after if name not in implied]
    if after:
        shown["after"] = after
    blank = Task(task.name, task.action)
    shown |= _changed(task, blank, ("name", "action", "after", "retry", "python"))
    if task.retry != Retry():
        shown["retry"] = _changed(task.retry, Retry())
    return shown


def _action(task: Task) -> dict[str, Any]:
    match task.action:
        case Shell(command=command):
            return {"shell": command}
        case Sleep(duration=duration):
            return {"sleep": format_duration(duration)}
        case Python(call=call, args=args):
            python: dict[str, Any] = {"call": call}
            if args:
                python["args"] = args
            if task.python is not None:
                python["interpreter"] = task.python
            return {"python": python}
        case Http() as http:
            return {"http": {"url": http.url, **_changed(http, Http(""), ("url",))}}
        case Sql() as sql:
            return {"sql": {"url": sql.url, **_changed(sql, Sql(""), ("url",))}}


def same(first: Workflow, second: Workflow) -> bool:
    """Whether two workflows are equal but for their bundles."""
    blank = {"bundle": None}
    replace = msgspec.structs.replace
    return replace(first, **blank).content() == replace(second, **blank).content()
