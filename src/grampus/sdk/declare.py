"""`@task`, `Retry`, and what a call of a task means inside and outside of a workflow."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from grampus.model.workflow import Python
from grampus.sdk.trace import Trace, current

P = ParamSpec("P")
R = TypeVar("R")

Duration = str | int | float


@dataclass(frozen=True)
class Retry:
    """`Retry(2)` is two more tries. The k-th waits delay * factor^(k-1), at most `max_delay`.

    `jitter`: part of the wait that is random, 0 to 1. `on_exit`, `on_exception`: only after these
    exit codes and exceptions (classes or names; base classes count).
    """

    max: int
    delay: Duration | None = None
    factor: float | None = None
    max_delay: Duration | None = None
    jitter: float | None = None
    on_exit: int | Sequence[int] | None = None
    on_exception: type[BaseException] | str | Sequence[type[BaseException] | str] | None = None

    def fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


class TaskFunction(Generic[P, R]):
    """A function that is a task. Inside a workflow a call adds a node and returns a reference to
    its output; anywhere else it is the plain function (`__wrapped__`)."""

    __wrapped__: Callable[P, R]

    def __init__(self, function: Callable[P, R], options: Mapping[str, Any]) -> None:
        self._options = dict(options)
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        trace = current()
        if trace is None:
            return self.__wrapped__(*args, **kwargs)
        return cast("R", _add(trace, self.__wrapped__, self._options, args, kwargs))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)  # type: ignore[arg-type]

    def __reduce__(self) -> str:
        return self.__wrapped__.__qualname__

    def options(
        self,
        *,
        name: str | None = None,
        after: object = None,
        retry: Retry | int | None = None,
        timeout: Duration | None = None,
        lease: Duration | None = None,
        group: str | None = None,
        slots: int | None = None,
        priority: int | None = None,
        env: Mapping[str, Any] | None = None,
        cwd: str | None = None,
        max_lost: int | None = None,
        python: str | None = None,
        grace: Duration | None = None,
        description: str | None = None,
    ) -> TaskFunction[P, R]:
        """The same task with other options; those that are not given stay."""
        given = {key: value for key, value in locals().items() if key != "self"}
        given = {key: value for key, value in given.items() if value is not None}
        return TaskFunction(self.__wrapped__, {**self._options, **given})


@overload
def task(function: Callable[P, R], /) -> TaskFunction[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    lease: Duration | None = None,
    group: str | None = None,
    slots: int | None = None,
    priority: int | None = None,
    env: Mapping[str, Any] | None = None,
    cwd: str | None = None,
    max_lost: int | None = None,
    python: str | None = None,
    grace: Duration | None = None,
    description: str | None = None,
) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    lease: Duration | None = None,
    group: str | None = None,
    slots: int | None = None,
    priority: int | None = None,
    env: Mapping[str, Any] | None = None,
    cwd: str | None = None,
    max_lost: int | None = None,
    python: str | None = None,
    grace: Duration | None = None,
    description: str | None = None,
) -> Any:
    """Makes a function a task: `@task` or `@task(retry=2, timeout="10m")`.

    `lease="keep"` lets an attempt outlive a silent worker; `python` is another interpreter.
    Durations are seconds or text such as "10m". A `name` given here is the first node's; further
    calls get `name_2`, `name_3` ...
    """
    given = {key: value for key, value in locals().items() if key != "function"}
    options = {key: value for key, value in given.items() if value is not None}
    if "name" in options:
        options["base"] = options.pop("name")
    if function is None:
        return lambda decorated: TaskFunction(_function(decorated), options)
    return TaskFunction(_function(function), options)


def _function(found: object) -> Callable[..., Any]:
    if isinstance(found, TaskFunction):
        raise TypeError(f"{found.__name__} is a task already")  # type: ignore[attr-defined]
    if not inspect.isfunction(found):
        raise TypeError(f"@task is for functions, not for {found!r}")
    return found


def _add(
    trace: Trace,
    function: Callable[..., Any],
    options: Mapping[str, Any],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
) -> object:
    given = dict(options)
    base, name = given.pop("base", None), given.pop("name", None)
    if "description" not in given and function.__doc__:
        given["description"] = first_line(function)
    node = trace.claim(str(name or base or function.__name__), explicit=name is not None)
    found = _bind(trace, node, function, args, kwargs)
    field = f"tasks.{node}.python.args"
    values = {key: trace.literal(value, f"{field}.{key}") for key, value in found.items()}
    if "<" in function.__qualname__:
        text = "a task has to be at the top level of its module, where a worker can find it"
        trace.note(f"tasks.{node}", text, function.__qualname__)
    call = f"{function.__module__}:{function.__qualname__}"
    return trace.add(node, Python(call, values), given, function)


def _bind(
    trace: Trace,
    node: str,
    function: Callable[..., Any],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
) -> dict[str, object]:
    """Arguments by name, as Python would bind them; defaults are left to the function."""
    signature = inspect.signature(function)
    try:
        bound = signature.bind(*args, **kwargs).arguments
    except TypeError as error:
        found = f"{function.__name__}{signature}"
        trace.note(f"tasks.{node}", f"{function.__name__}(): {error}", allowed=found)
        return {}
    values: dict[str, object] = {}
    for key, value in bound.items():
        kind = signature.parameters[key].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            values.update(value)
        elif kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            text = f"`{key}` of {function.__name__} has no name to pass it by: use a list"
            trace.note(f"tasks.{node}", text, allowed=f"{function.__name__}{signature}")
        else:
            values[key] = value
    return values


def first_line(function: Callable[..., Any]) -> str | None:
    """The first line of a docstring."""
    lines = (inspect.getdoc(function) or "").strip().splitlines()
    return lines[0] if lines else None
