"""The shape of a workflow: which texts are templates, what they mention, what follows from what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from grampus.model.template import References, TemplateError, references_in
from grampus.model.workflow import Http, Python, Shell, Sleep, Sql, Task, Workflow

S = TypeVar("S", bound=Struct)


class Templated(Struct, frozen=True):
    """One value of a task in which templates are resolved."""

    #: Path of the field after the task's name, e.g. `http.url`.
    field: str
    #: Text, or a JSON value with templates anywhere in it.
    value: Any
    #: `shell` and `sql` are programs: what is inserted into them must not become code.
    kind: Literal["shell", "sql", "text", "value"]


def templated(task: Task) -> Iterator[Templated]:
    """Every field of `task` that may hold templates."""
    match task.action:
        case Shell(command=command):
            yield Templated("shell", command, "shell")
        case Python(args=args):
            for name, value in args.items():
                yield Templated(f"python.args.{name}", value, "value")
        case Http() as http:
            yield Templated("http.url", http.url, "text")
            for name, text in http.headers.items():
                yield Templated(f"http.headers.{name}", text, "text")
            yield Templated("http.body", http.body, "text")
            yield Templated("http.json", http.json, "value")
        case Sql() as sql:
            yield Templated("sql.url", sql.url, "text")
            yield Templated("sql.statement", sql.statement, "sql")
            for name, value in sql.params.items():
                yield Templated(f"sql.params.{name}", value, "value")
        case Sleep():
            pass
    for name, text in task.env.items():
        yield Templated(f"env.{name}", text, "text")
    yield Templated("cwd", task.cwd, "text")


def mentioned(task: Task) -> References:
    """Params and tasks in the templates of `task`. A template that cannot be read mentions none."""
    params: set[str] = set()
    tasks: set[str] = set()
    for part in templated(task):
        try:
            found = references_in(part.value)
        except TemplateError:
            continue
        params.update(found.params)
        tasks.update(found.tasks)
    return References(tuple(sorted(params)), tuple(sorted(tasks)))


def canonical(workflow: Workflow) -> Workflow:
    """`workflow` with every `after` complete and in declaration order; equal ones have equal bytes.

    Names that are not there stay, at the end, for `check` to tell.
    """
    place = {task.name: index for index, task in enumerate(workflow.tasks)}
    tasks = []
    for task in workflow.tasks:
        names = dict.fromkeys([*task.after, *mentioned(task).tasks])
        after = tuple(sorted(names, key=lambda name: place.get(name, len(place))))
        tasks.append(_defaulted(msgspec.structs.replace(task, after=after)))
    params = tuple(_defaulted(param) for param in workflow.params)
    return _defaulted(msgspec.structs.replace(workflow, tasks=tuple(tasks), params=params))


def _defaulted(value: S) -> S:
    """`value` with each field that equals its default being that default.

    Encoding leaves a field out when it *is* its default; one that only equals it would be written.
    """
    fields, defaults = value.__struct_fields__, value.__struct_defaults__
    known = dict(zip(fields[len(fields) - len(defaults) :], defaults, strict=True))
    changed: dict[str, Any] = {}
    for name in fields:
        item, default = getattr(value, name), known.get(name, msgspec.NODEFAULT)
        if type(item) is type(default) and item == default:
            changed[name] = default
        elif isinstance(item, Struct):
            changed[name] = _defaulted(item)
    return msgspec.structs.replace(value, **changed)


def order(tasks: Iterable[Task]) -> list[Task]:
    """`tasks`, each after all that it follows. Without those on a cycle or after one."""
    tasks = list(tasks)
    known = {task.name for task in tasks}
    followers: dict[str, list[int]] = {}
    missing = []
    for index, task in enumerate(tasks):
        upstream = {name for name in task.after if name in known}
        missing.append(len(upstream))
        for name in upstream:
            followers.setdefault(name, []).append(index)
    ready = [index for index, count in enumerate(missing) if not count]
    done: list[Task] = []
    while ready:
        following = []
        for index in ready:
            done.append(tasks[index])
            for follower in followers.get(tasks[index].name, ()):
                missing[follower] -= 1
                if not missing[follower]:
                    following.append(follower)
        ready = sorted(following)
    return done


def cycles(tasks: Iterable[Task], limit: int = 20) -> list[list[str]]:
    """Cycles that share no task, each as names in running order; at most `limit`.

    Every cycle shares a task with one of those found, if there are fewer than `limit`.
    """
    rest = {task.name: task for task in tasks}
    found: list[list[str]] = []
    while len(found) < limit:
        done = {task.name for task in order(rest.values())}
        rest = {name: task for name, task in rest.items() if name not in done}
        if not rest:
            break
        seen: dict[str, None] = {}
        name = next(iter(rest))
        while name not in seen:
            seen[name] = None
            name = next(upstream for upstream in rest[name].after if upstream in rest)
        path = list(seen)
        loop = path[path.index(name) :][::-1]
        place = {name: index for index, name in enumerate(rest)}
        first = min(range(len(loop)), key=[place[name] for name in loop].__getitem__)
        found.append(loop[first:] + loop[:first])
        for name in loop:
            del rest[name]
    return found
