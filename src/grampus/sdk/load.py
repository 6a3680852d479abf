"""From a path to workflows that can be applied: read, checked, packed. All problems at once."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from grampus import ids
from grampus.errors import InvalidInput, Problem, UsageError
from grampus.model.workflow import Python, Workflow
from grampus.sdk.bundle import pack, walk
from grampus.sdk.files import Needs, gather
from grampus.sdk.flow import Traced, WorkflowFunction
from grampus.sdk.modules import importing, run_file
from grampus.sdk.trace import Place, shown
from grampus.sdk.yaml_dump import dump
from grampus.sdk.yaml_file import read_yaml

FILE_LIMIT = 8 * 1024 * 1024
SUFFIXES = (".py", ".yaml", ".yml")
_NUMBERED = re.compile(r"^(tasks\.\w+?)_\d+(?=\.|$)")


class Loaded(Struct, frozen=True):
    """A workflow that can be applied."""

    #: With the hash of `bundle`.
    workflow: Workflow
    #: A zip; None when no files are needed.
    bundle: bytes | None
    #: The file that declares it.
    source: Path


class _Read(Struct, frozen=True):
    """A workflow of a file, before its files are packed."""

    workflow: Workflow
    include: tuple[str, ...]
    place: Place


def load(path: Path) -> list[Loaded]:
    """The workflows of a file, or of all files at the top of a folder, which travels whole.

    Raises InvalidInput with the problems of all of them.
    """
    path = Path(os.path.abspath(path))
    if os.path.isdir(path):
        return _load_folder(path)
    found, problems = _read_file(path)
    loaded: list[Loaded] = []
    for read in found:
        needs = Needs(path.parent)
        if path.suffix == ".py":
            needs.add_source(path)
        gather(needs, read.workflow, read.include, read.place)
        problems += needs.problems
        bundle, wrong = pack(path.parent, needs.files, path)
        problems += wrong
        loaded.append(_loaded(read.workflow, bundle, path))
    return _finish(loaded, problems)


def _load_folder(folder: Path) -> list[Loaded]:
    try:
        sources = [path for path in sorted(folder.iterdir()) if _declares(path)]
    except OSError as error:
        problem = Problem(f"cannot be read: {error.strerror}", shown(str(folder)))
        raise InvalidInput([problem]) from error
    bundle, problems = pack(folder, walk(folder), folder)
    loaded: list[Loaded] = []
    if not sources:
        text = "no file of this folder declares a workflow (only those at its top are read)"
        problems.append(Problem(text, shown(str(folder))))
    for path in sources:
        found, wrong = _read_file(path)
        problems += wrong
        loaded += [_loaded(read.workflow, bundle, path) for read in found]
    return _finish(loaded, problems)


def _loaded(workflow: Workflow, bundle: bytes | None, path: Path) -> Loaded:
    name = ids.content_hash(bundle) if bundle is not None else None
    return Loaded(msgspec.structs.replace(workflow, bundle=name), bundle, path)


def _finish(loaded: list[Loaded], problems: list[Problem]) -> list[Loaded]:
    seen: set[str] = set()
    for each in loaded:
        name = each.workflow.name
        if name in seen:
            text = f"the workflow `{name}` is declared twice"
            problems.append(Problem(text, shown(str(each.source)), None, "workflow"))
        seen.add(name)
    if problems:
        raise InvalidInput(in_order(distinct(problems)))
    return loaded


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """By file, as they came, and by line."""
    listed = list(problems)
    files = list(dict.fromkeys(problem.file for problem in listed))
    return sorted(listed, key=lambda problem: (files.index(problem.file), problem.line or 0))


def distinct(problems: Iterable[Problem]) -> list[Problem]:
    """Each problem once: `month`, `month_2` ... that came from one line have it in common."""
    found: dict[tuple[object, ...], Problem] = {}
    for problem in problems:
        field = _NUMBERED.sub(r"\1", problem.field or "")
        key = (problem.file, problem.line, problem.message, field, problem.found)
        found.setdefault(key, problem)
    return list(found.values())


def _declares(path: Path) -> bool:
    """Whether a file looks as if it declared a workflow; nothing of it is run."""
    if path.name.startswith(".") or path.suffix not in SUFFIXES or not path.is_file():
        return False
    try:
        data = path.read_bytes()
        if path.suffix != ".py":
            return re.search(rb"^[\"']?workflow[\"']?\s*:", data, re.MULTILINE) is not None
        tree = ast.parse(data)
    except SyntaxError:
        return b"workflow" in data
    except (OSError, ValueError, RecursionError):
        return False
    marks = [
        mark.func if isinstance(mark, ast.Call) else mark
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for mark in node.decorator_list
    ]
    return any(
        (isinstance(mark, ast.Name) and mark.id == "workflow")
        or (isinstance(mark, ast.Attribute) and mark.attr == "workflow")
        for mark in marks
    )


def _read_file(path: Path) -> tuple[list[_Read], list[Problem]]:
    file = shown(str(path))
    try:
        path.stat()
    except PermissionError:
        return [], [Problem("cannot be read: Permission denied", file)]
    except OSError:
        return [], [Problem("there is no such file", file)]
    if path.suffix not in SUFFIXES:
        allowed = "a file that ends with .py, .yaml or .yml, or a folder"
        return [], [Problem("is not read as a workflow", file, allowed=allowed)]
    if not path.is_file():
        return [], [Problem("is no regular file", file)]
    if path.stat().st_size > FILE_LIMIT:
        return [], [Problem("the file is too large", file, allowed=f"{FILE_LIMIT} bytes")]
    return _read_python(path) if path.suffix == ".py" else _read_yaml(path)


def _read_yaml(path: Path) -> tuple[list[_Read], list[Problem]]:
    file = shown(str(path))
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return [], [Problem(f"cannot be read: {error}", file)]
    declared, problems = read_yaml(text, file)
    found = [_Read(d.workflow, d.include, d.places.get("", (file, None))) for d in declared]
    return found, problems


def _read_python(path: Path) -> tuple[list[_Read], list[Problem]]:
    with importing(path.parent):
        module, problems = run_file(path)
        if module is None:
            return [], problems
        flows = [
            value
            for value in dict.fromkeys(v for v in vars(module).values() if _is_flow(v))
            if value.__module__ == path.stem
        ]
        traced = [(flow, flow.trace()) for flow in flows]
    if not flows:
        text = "declares no workflow: put @workflow on a function that calls tasks"
        return [], [Problem(text, shown(str(path)))]
    found = [_of_traced(flow, each, path) for flow, each in traced]
    problems += [problem for _, each in traced for problem in each.problems]
    if not path.stem.isidentifier() and any(_calls(read.workflow, path.stem) for read in found):
        text = f"`{path.stem}` cannot be imported: rename the file to an identifier"
        problems = [p for p in problems if not (p.field or "").endswith("python.call")]
        problems.append(Problem(text, shown(str(path))))
    return found, problems


def _is_flow(value: object) -> bool:
    return isinstance(value, WorkflowFunction)


def _calls(workflow: Workflow, module: str) -> bool:
    actions = [task.action for task in workflow.tasks]
    return any(isinstance(a, Python) and a.call.startswith(f"{module}:") for a in actions)


def _of_traced(flow: WorkflowFunction, traced: Traced, path: Path) -> _Read:
    line = flow.__wrapped__.__code__.co_firstlineno
    return _Read(traced.workflow, traced.include, (shown(str(path)), line))


def load_workflow(flow: object) -> Loaded:
    """A workflow function of this process, with the files that it needs. Raises InvalidInput."""
    if not isinstance(flow, WorkflowFunction):
        raise UsageError(
            f"{type(flow).__name__} is no workflow: give a function with @workflow, or a path"
        )
    path = Path(os.path.abspath(flow.source))
    if not path.is_file():
        text = "a workflow has to be in a file, so that workers can get it"
        raise InvalidInput([Problem(text, shown(str(flow.source)))])
    traced = flow.trace()
    module = flow.__wrapped__.__module__
    depth = 0 if module == "__main__" else module.count(".")
    folder = path.parents[depth + (1 if path.name == "__init__.py" else 0)]
    workflow = _rename_main(traced.workflow)
    read = _of_traced(flow, traced, path)
    needs = Needs(folder)
    needs.add_source(path)
    if depth:
        needs.add_module(module)
    gather(needs, workflow, read.include, read.place)
    bundle, wrong = pack(folder, needs.files, path)
    problems = [*traced.problems, *needs.problems, *wrong]
    return _finish([_loaded(workflow, bundle, path)], problems)[0]


def _rename_main(workflow: Workflow) -> Workflow:
    """A script that is running is `__main__` here, and a module of its own name for a worker."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main is None:
        return workflow
    tasks = []
    for task in workflow.tasks:
        action = task.action
        if isinstance(action, Python) and action.call.startswith("__main__:"):
            call = f"{Path(main).stem}:{action.call.partition(':')[2]}"
            action = msgspec.structs.replace(action, call=call)
            task = msgspec.structs.replace(task, action=action)
        tasks.append(task)
    return msgspec.structs.replace(workflow, tasks=tuple(tasks))


def to_yaml(workflow: Workflow) -> str:
    """The YAML file that declares `workflow`."""
    return dump(workflow)
