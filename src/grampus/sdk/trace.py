"""One reading of a workflow function: calls of tasks become nodes of a graph.

Rule: the function runs once, with references for its params; no task runs. Problems are collected,
each with the line of the user's call, and the trace goes on where it can.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from grampus.errors import Problem
from grampus.model.json_value import json_fault
from grampus.model.template import escape
from grampus.model.workflow import Action, Task
from grampus.sdk.reader import OPTIONS, Reader, read_retry
from grampus.sdk.refs import Output, Reference, owner_of, spell, task_of

_HERE = str(Path(__file__).parent)
_current: ContextVar[Trace | None] = ContextVar("grampus_trace", default=None)
Place = tuple[str | None, int | None]


def current() -> Trace | None:
    """The trace that runs, if any."""
    return _current.get()


def user_place() -> Place:
    """File and line of the innermost frame that is not part of the sdk."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back  # type: ignore[assignment]
    return (shown(frame.f_code.co_filename), frame.f_lineno) if frame else (None, None)


def shown(path: str) -> str:
    """`path` relative to the working directory when it is below it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return path


class Trace:
    """The graph that is being made."""

    def __init__(self) -> None:
        self.reader = Reader()
        self.tasks: list[Task] = []
        #: The Python functions behind python tasks, by task name.
        self.functions: dict[str, Callable[..., Any]] = {}
        self._names: set[str] = set()
        self._added: set[str] = set()
        self._token: Any = None

    def __enter__(self) -> Trace:
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)

    def note(
        self, field: str | None, message: str, found: object = None, allowed: str | None = None
    ) -> Problem:
        """A problem at the user's line."""
        file, line = user_place()
        text = None if found is None else repr(found)[:80]
        problem = Problem(message, file, line, field, text, allowed)
        if problem not in self.reader.problems:
            self.reader.problems.append(problem)
        return problem

    def claim(self, base: str, explicit: bool) -> str:
        """The name of the next task: `base`, or `base_2`, `base_3` ... if nobody chose it."""
        name, count = base, 1
        while not explicit and name in self._names:
            count += 1
            name = f"{base}_{count}"
        if name in self._names:
            self.note(f"tasks.{name}", "another task has this name already")
        self._names.add(name)
        self.reader.places.setdefault(f"tasks.{name}", user_place())
        return name

    def add(
        self,
        name: str,
        action: Action,
        options: Mapping[str, Any],
        function: Callable[..., Any] | None = None,
    ) -> Output:
        """Adds a node. `options` as the user wrote them."""
        field = f"tasks.{name}"
        raw = {key: value for key, value in options.items() if value is not None}
        retry, after, python = (raw.pop(key, None) for key in ("retry", "after", "python"))
        if isinstance(raw.get("env"), Mapping):
            raw["env"] = {
                key: self.reference(value, f"{field}.env.{key}")
                if isinstance(value, Reference)
                else value
                for key, value in raw["env"].items()
            }
        done = self.reader.fields(raw, field, OPTIONS)
        if retry is not None:
            raw_retry = retry.fields() if hasattr(retry, "fields") else retry
            done["retry"] = read_retry(self.reader, raw_retry, f"{field}.retry")
        if python is not None:
            done["python"] = str(python)
        task = Task(name=name, action=action, after=self._after(after, field), **done)
        if name not in self._added:
            self._added.add(name)
            self.tasks.append(task)
            if function is not None:
                self.functions[name] = function
        return Output(self, f"tasks.{name}.output")

    def _after(self, after: object, field: str) -> tuple[str, ...]:
        if after is None:
            return ()
        found: list[str] = []
        single = isinstance(after, str | Reference) or not isinstance(after, list | tuple)
        for item in [after] if single else after:  # type: ignore[attr-defined]
            if isinstance(item, Output) and owner_of(item) is self:
                found.append(task_of(item))
            elif isinstance(item, str):
                found.append(item)
            else:
                allowed = "what tasks of this workflow returned, or names of tasks"
                self.note(f"{field}.after", "cannot be waited for", item, allowed)
        return tuple(dict.fromkeys(found))

    def reference(self, value: Reference, field: str) -> str:
        """The template that stands for `value`."""
        if owner_of(value) is not self:
            self.note(field, "this belongs to another workflow, or to an earlier reading of it")
        return f"{{{{ {spell(value)} }}}}"

    def literal(self, value: Any, field: str, templates: bool = False) -> Any:
        """`value` as a JSON value with templates; a text that looks like one is escaped,
        unless `templates` says that the user may write them here."""
        if isinstance(value, Reference):
            return self.reference(value, field)
        match value:
            case str():
                if fault := json_fault(value):
                    self.note(field, fault)
                return value if templates else escape(str(value))
            case list() | tuple():
                return [
                    self.literal(item, f"{field}[{index}]", templates)
                    for index, item in enumerate(value)
                ]
            case dict():
                return {
                    self._key(key, field): self.literal(item, f"{field}.{key!s}", templates)
                    for key, item in value.items()
                }
        if fault := json_fault(value):
            advice = "pass what JSON can hold (a path as text, a date as its isoformat()), or let "
            self.note(field, f"{fault}: {advice}a task make it and pass that task's output")
            return None
        return value

    def _key(self, key: object, field: str) -> str:
        if not isinstance(key, str):
            self.note(field, f"the key {key!r} is not text, as JSON needs it")
        return str(key)
