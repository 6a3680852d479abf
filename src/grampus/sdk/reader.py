"""From what people write (`timeout: 20m`, `retry=2`) to model values. YAML and Python share it.

Rule: a wrong value is noted with its place and left out, so that reading goes on and people see all
that is wrong. None is the same as not written. What values must be together is in `model.check`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from grampus.errors import Problem
from grampus.model.duration import ALLOWED as DURATION
from grampus.model.duration import parse_duration
from grampus.model.json_value import json_fault
from grampus.model.lease import KEEP
from grampus.model.places import at_place
from grampus.model.spelling import nearest
from grampus.model.workflow import Missed, OnFailure, Overlap, Retry, Schedule

Convert = Callable[[Any], Any]
_SCALARS = (bool, int, float, str)


class Reader:
    """Collects problems, and where each field was written."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        #: Field path → (file, line); see `model.check.check`.
        self.places: dict[str, tuple[str | None, int | None]] = {}

    def wrong(
        self, field: str, message: str, found: object = None, allowed: str | None = None
    ) -> None:
        text = None if found is None else repr(found)[:80]
        problem = at_place(Problem(message, None, None, field, text, allowed), self.places)
        if problem not in self.problems:
            self.problems.append(problem)

    def mapping(self, raw: object, field: str, allowed: str) -> Mapping[str, Any]:
        """`raw` if it is an object, else nothing."""
        if isinstance(raw, Mapping):
            return raw
        self.wrong(field, "has to be an object", raw, allowed)
        return {}

    def fields(
        self, raw: Mapping[str, Any], field: str, known: Mapping[str, Convert]
    ) -> dict[str, Any]:
        """The known fields of `raw`. A `Convert` raises ValueError with what is allowed."""
        done = {}
        for name, value in raw.items():
            path = f"{field}.{name}" if field else name
            if name not in known:
                allowed = ", ".join(known)
                message = f"unknown field `{name}`{nearest(name, known)}"
                self.wrong(path, message, allowed=allowed)
            elif value is not None:
                try:
                    done[name] = known[name](value)
                except ValueError as error:
                    self.wrong(path, "cannot be used", value, str(error))
        return done


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**53:
        raise ValueError("a whole number")
    return value


def number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or json_fault(value):
        raise ValueError("a number")
    return float(value)


def duration(value: Any) -> int:
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError(DURATION) from None


def lease(value: Any) -> int:
    if value == "keep":
        return KEEP
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError(f"`keep`, or {DURATION}") from None


def names(value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
        raise ValueError("a name, or a list of names")
    return tuple(values)


def integers(value: Any) -> tuple[int, ...]:
    values = [value] if isinstance(value, int) else value
    if not isinstance(values, list | tuple):
        raise ValueError("a whole number, or a list of them")
    return tuple(integer(item) for item in values)


def exceptions(value: Any) -> tuple[str, ...]:
    """Class names without their modules: so they are reported by the process that failed."""
    found = []
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, type) and issubclass(item, BaseException):
            found.append(item.__name__)
        elif isinstance(item, str):
            found.append(item.rpartition(".")[2])
        else:
            raise ValueError("classes of exceptions, or their names")
    return tuple(found)


def texts(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(v, _SCALARS) for v in value.values()):
        raise ValueError("an object whose values are text")
    return {str(name): _spelled(item) for name, item in value.items()}


def _spelled(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def json_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("an object")
    return {str(name): json_value(item) for name, item in value.items()}


def json_value(value: Any) -> Any:
    if fault := json_fault(value):
        raise ValueError(f"a JSON value ({fault})")
    return _lists(value)


def _lists(value: Any) -> Any:
    match value:
        case list() | tuple():
            return [_lists(item) for item in value]
        case dict():
            return {name: _lists(item) for name, item in value.items()}
    return value


def one_of(values: tuple[str, ...]) -> Convert:
    def convert(value: Any) -> Any:
        if value not in values:
            raise ValueError(", ".join(values))
        return value

    return convert


RETRY: dict[str, Convert] = {
    "max": integer,
    "delay": duration,
    "factor": number,
    "max_delay": duration,
    "jitter": number,
    "on_exit": integers,
    "on_exception": exceptions,
}
#: Options of a task that both ways of writing have; `retry` and `after` are read apart.
OPTIONS: dict[str, Convert] = {
    "timeout": duration,
    "lease": lease,
    "group": text,
    "slots": integer,
    "priority": integer,
    "env": texts,
    "cwd": text,
    "max_lost": integer,
    "grace": duration,
    "description": text,
}
SCHEDULE: dict[str, Convert] = {
    "cron": text,
    "every": duration,
    "tz": text,
    "missed": one_of(get_args(Missed)),
    "overlap": one_of(get_args(Overlap)),
    "start": text,
    "end": text,
}
HEAD: dict[str, Convert] = {
    "on_failure": one_of(get_args(OnFailure)),
    "max_active_runs": integer,
    "overlap": one_of(get_args(Overlap)),
    "timeout": duration,
    "description": text,
}


def read_retry(reader: Reader, raw: object, field: str) -> Retry:
    """A number of further tries, or the fields of `Retry`."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        return Retry(max=raw)
    found = reader.mapping(raw, field, "a number of further tries, or " + ", ".join(RETRY))
    return Retry(**reader.fields(found, field, RETRY))


def read_schedule(reader: Reader, raw: object, field: str = "schedule") -> Schedule | None:
    """A cron line, or the fields of `Schedule`."""
    if raw is None:
        return None
    if isinstance(raw, str):
        return Schedule(cron=raw)
    found = reader.mapping(raw, field, "a cron line, or " + ", ".join(SCHEDULE))
    return Schedule(**reader.fields(found, field, SCHEDULE))
