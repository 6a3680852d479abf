"""`@workflow`, `cron`, `every`: a function that is read once into a graph."""

from __future__ import annotations

import datetime
import functools
import inspect
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from grampus.errors import Problem, UsageError
from grampus.model.json_value import json_fault
from grampus.model.workflow import Param, ParamType, Workflow
from grampus.sdk.declare import Duration, first_line
from grampus.sdk.reader import HEAD, Reader, json_value, read_schedule
from grampus.sdk.refs import ParamRef, TraceError
from grampus.sdk.trace import Place, Trace, shown

if TYPE_CHECKING:
    from grampus.sdk.local import LocalRun

_TYPES: dict[object, ParamType] = {
    str: "str",
    int: "int",
    float: "float",
    bool: "bool",
    datetime.date: "date",
    list: "list",
}


@dataclass(frozen=True)
class Timing:
    """When a workflow starts by itself; made by `cron` and `every`."""

    cron: str | None = None
    every: Duration | None = None
    tz: str | None = None
    missed: str | None = None
    overlap: str | None = None
    start: str | None = None
    end: str | None = None

    def fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def cron(
    line: str,
    *,
    tz: str | None = None,
    missed: str | None = None,
    overlap: str | None = None,
    start: str | None = None,
    end: str | None = None,
) -> Timing:
    """`cron("0 6 * * *", tz="Europe/Paris")`: minute hour day month weekday, on the clock of `tz`.

    `missed`: latest, none or all ticks that passed while nothing could run. `overlap`: allow, skip,
    queue or cancel_old when a run is active. `start`, `end`: local dates or date-times.
    """
    return Timing(cron=line, tz=tz, missed=missed, overlap=overlap, start=start, end=end)


def every(
    interval: Duration,
    *,
    tz: str | None = None,
    missed: str | None = None,
    overlap: str | None = None,
    start: str | None = None,
    end: str | None = None,
) -> Timing:
    """`every("5m")`: counted from `start`, or from the epoch. The rest is as in `cron`."""
    return Timing(every=interval, tz=tz, missed=missed, overlap=overlap, start=start, end=end)


class Traced(Struct, frozen=True):
    """What a workflow function declares, checked as far as values go."""

    #: Canonical, without a bundle.
    workflow: Workflow
    #: The functions of its python tasks, by task name.
    functions: dict[str, Callable[..., Any]]
    problems: tuple[Problem, ...]
    include: tuple[str, ...]


class WorkflowFunction:
    """A function that declares a workflow. It is never called by users: see `local` and `trace`."""

    __wrapped__: Callable[..., Any]

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self._options = dict(options)
        functools.update_wrapper(self, function)

    @property
    def name(self) -> str:
        return str(self._options.get("name") or self.__wrapped__.__name__)

    @property
    def source(self) -> Path:
        """The file that declares it."""
        return Path(self.__wrapped__.__code__.co_filename)

    def __call__(self, *args: object, **kwargs: object) -> Any:
        name = self.__wrapped__.__name__
        raise UsageError(
            f"a workflow is not called: run it here with {name}.local(), or apply its file with "
            f"`grampus workflow apply`"
        )

    def local(self, **params: Any) -> LocalRun:
        """Runs the workflow in this process. Raises what a task raises."""
        from grampus.sdk.local import run_local

        return run_local(self, params)

    def trace(self) -> Traced:
        """Reads the function. Problems are in the answer; nothing of the user's is run twice."""
        trace = Trace()
        place = (shown(str(self.source)), self.__wrapped__.__code__.co_firstlineno)
        trace.reader.places[""] = place
        params = _params(trace.reader, self.__wrapped__)
        problems = trace.reader.problems
        if inspect.iscoroutinefunction(self.__wrapped__) or inspect.isgeneratorfunction(
            self.__wrapped__
        ):
            problem = (
                "a workflow is a plain function: without `async` and `yield` (tasks may be async)"
            )
            trace.reader.wrong("", problem)
            return Traced(Workflow(self.name, ()), {}, tuple(problems), ())
        with trace:
            try:
                refs = {param.name: ParamRef(trace, f"params.{param.name}") for param in params}
                self.__wrapped__(**refs)
            except TraceError as error:
                if error.problem not in problems:
                    problems.append(error.problem)
            except Exception as error:
                problems.append(exception_problem(error, self.source.parent))
        head = {key: self._options.get(key) for key in HEAD}
        head["description"] = head["description"] or first_line(self.__wrapped__)
        timing = self._options.get("schedule")
        raw = timing.fields() if isinstance(timing, Timing) else timing
        workflow = Workflow(
            name=self.name,
            tasks=tuple(trace.tasks),
            params=tuple(params),
            schedule=read_schedule(trace.reader, raw),
            **trace.reader.fields(head, "", HEAD),
        )
        if not problems or trace.tasks:
            workflow, found = finish(workflow, trace.reader.places)
            problems += [problem for problem in found if not _told(problem, problems)]
        include = tuple(self._options.get("include") or ())
        return Traced(workflow, trace.functions, tuple(problems), include)


def finish(workflow: Workflow, places: Mapping[str, Place]) -> tuple[Workflow, list[Problem]]:
    """The canonical form and its problems."""
    from grampus.model.check import check
    from grampus.model.graph import canonical

    done = canonical(workflow)
    return done, check(done, places)


def _told(problem: Problem, problems: Sequence[Problem]) -> bool:
    return any((p.message, p.field) == (problem.message, problem.field) for p in problems)


def workflow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    schedule: Timing | None = None,
    on_failure: str | None = None,
    max_active_runs: int | None = None,
    overlap: str | None = None,
    timeout: float | str | None = None,
    description: str | None = None,
    include: Sequence[str] | None = None,
) -> Any:
    """Makes a function a workflow. Its params are the workflow's, with types and defaults.

    `on_failure`: stop, or continue with what does not depend on the failed task. `overlap`: what a
    run beyond `max_active_runs` does. `timeout`: of a whole run from its start, seconds or text
    such as "2h". `include`: patterns of further files that travel along.
    """
    options = {key: value for key, value in locals().items() if key != "function"}
    if function is None:
        return lambda decorated: WorkflowFunction(decorated, options)
    if not inspect.isfunction(function):
        raise TypeError(
            f"@workflow is for functions; a name is given as @workflow(name={function!r})"
        )
    return WorkflowFunction(function, options)


def infer(default: object) -> ParamType:
    """The type of a param that only has a default."""
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float"), (str, "str")):
        if isinstance(default, kind):
            return typing.cast("ParamType", name)
    return "list" if isinstance(default, list | tuple) else "json"


def _params(reader: Reader, function: Callable[..., Any]) -> list[Param]:
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # an annotation may name anything, and fail in any way
        hints = dict(getattr(function, "__annotations__", {}))
    params = []
    for name, parameter in inspect.signature(function).parameters.items():
        field = f"params.{name}"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            reader.wrong(field, "a workflow has named params only: `*` and `**` cannot be used")
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            reader.wrong(field, "a workflow has named params only: `/` cannot be used")
            continue
        required, default = parameter.default is parameter.empty, parameter.default
        day = isinstance(default, datetime.date) and not isinstance(default, datetime.datetime)
        if day:
            default = default.isoformat()
        if name in hints:
            kind = _kind(hints[name])
        else:
            kind = "str" if required else "date" if day else infer(default)
        if not required and (fault := json_fault(default)):
            reader.wrong(field, f"the default is no JSON value: {fault}", default)
            required = True
        params.append(Param(name, kind, None if required else json_value(default), required))
    return params


def _kind(hint: object) -> ParamType:
    if isinstance(hint, str):
        hint = {"str": str, "int": int, "float": float, "bool": bool, "list": list}.get(hint, hint)
    origin = typing.get_origin(hint)
    if origin in (list, tuple) or hint is tuple:
        return "list"
    if origin is typing.Union or origin is types.UnionType:
        return "json"
    return next((name for kind, name in _TYPES.items() if hint is kind), "json")


def exception_problem(error: BaseException, folder: Path) -> Problem:
    """An exception of the user's code, at the innermost line below `folder`."""
    if isinstance(error, SyntaxError) and error.filename:
        return Problem(f"{type(error).__name__}: {error.msg}", shown(error.filename), error.lineno)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    file, line = None, None
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).is_relative_to(folder):
            file, line = shown(frame.filename), frame.lineno
    return Problem(text, file, line)
