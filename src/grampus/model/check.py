"""Whether a declared workflow makes sense: every problem of it, each at its place.

Rule: what passes here can be run by any worker, whoever declared it, in whatever language. It looks
at values only; files are looked at where they are packed. Fields are spelled as in YAML.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec

from grampus.errors import Problem
from grampus.ids import is_name
from grampus.model.check_task import check_task
from grampus.model.duration import LONGEST, format_duration
from grampus.model.graph import cycles, mentioned, templated
from grampus.model.params import ALLOWED, PARAMS_LIMIT, default_of
from grampus.model.places import Places, at_place
from grampus.model.schedule import check_schedule
from grampus.model.spelling import nearest
from grampus.model.template import References, TemplateError, references_in, tick_scope
from grampus.model.workflow import CONTENT_LIMIT, Param, Task, Workflow

TASKS_LIMIT = 10_000
#: One task as JSON, in bytes.
TASK_LIMIT = 32 * 1024
NAME = "letters, digits and _, not a digit first, at most 64"


def check(workflow: Workflow, places: Places | None = None) -> list[Problem]:
    """All problems of a canonical workflow (see `graph.canonical`), in declaration order.

    `places` says in which file and line a field was declared; a field that is not there is
    at the place of the nearest one that it belongs to, and the workflow's is under "".
    """
    problems = [
        *_check_head(workflow),
        *_check_params(workflow),
        *(check_schedule(workflow.schedule) if workflow.schedule else ()),
        *_check_tasks(workflow),
        *_check_cycles(workflow),
    ]
    return [at_place(problem, places or {}) for problem in problems]


def _check_head(workflow: Workflow) -> Iterator[Problem]:
    if not is_name(workflow.name):
        yield Problem("no name for a workflow", None, None, "workflow", repr(workflow.name), NAME)
    if not workflow.tasks:
        yield Problem("the workflow has no tasks", field="tasks")
    if len(workflow.tasks) > TASKS_LIMIT:
        found, allowed = str(len(workflow.tasks)), f"at most {TASKS_LIMIT}"
        yield Problem("too many tasks", field="tasks", found=found, allowed=allowed)
    active = workflow.max_active_runs
    if active is not None and active < 1:
        found = str(active)
        yield Problem("out of range", field="max_active_runs", found=found, allowed="at least 1")
    timeout = workflow.timeout
    if timeout is not None and not 1 <= timeout <= LONGEST:
        found = format_duration(timeout) if timeout >= 0 else str(timeout)
        yield Problem("out of range", field="timeout", found=found, allowed="1ms to ten years")
    try:
        size = len(workflow.content())
    except (UnicodeEncodeError, msgspec.EncodeError, ValueError, TypeError) as error:
        yield Problem(f"cannot be written as JSON: {error}", field="workflow")
    else:
        if size > CONTENT_LIMIT:
            found, allowed = f"{size} bytes", f"{CONTENT_LIMIT} bytes"
            yield Problem("the workflow is too large", field="tasks", found=found, allowed=allowed)


def _check_params(workflow: Workflow) -> Iterator[Problem]:
    for name, count in Counter(param.name for param in workflow.params).items():
        if count > 1:
            yield Problem("this param is declared twice", field=f"params.{name}")
    for param in workflow.params:
        field = f"params.{param.name}"
        if not is_name(param.name):
            yield Problem("no name for a param", field=field, found=repr(param.name), allowed=NAME)
        if param.required and workflow.schedule is not None:
            text = "a workflow with a schedule starts by itself: this param needs a default"
            yield Problem(text, field=field)
        if not param.required:
            yield from _check_default(param)


def _check_default(param: Param) -> Iterator[Problem]:
    field = f"params.{param.name}.default"
    try:
        found = references_in(param.default)
        value = default_of(param, tick_scope(0, "UTC"))
    except TemplateError as error:
        yield Problem(f"{error}; only `tick` is known here", field=field, found=repr(param.default))
        return
    except ValueError:
        text, found_text = f"the default is not of type {param.type}", repr(param.default)[:80]
        yield Problem(text, field=field, found=found_text, allowed=ALLOWED[param.type])
        return
    if found != References():
        yield Problem("a default may use `tick` only", field=field, found=repr(param.default))
    elif len(msgspec.json.encode(value)) > PARAMS_LIMIT:
        yield Problem("the default is too large", field=field, allowed=f"{PARAMS_LIMIT} bytes")


def _check_tasks(workflow: Workflow) -> Iterator[Problem]:
    params = [param.name for param in workflow.params]
    names = {task.name: None for task in workflow.tasks}
    counts = Counter(task.name for task in workflow.tasks)
    for task in workflow.tasks:
        field = f"tasks.{task.name}"
        if not is_name(task.name):
            yield Problem("no name for a task", field=field, found=repr(task.name), allowed=NAME)
        if counts[task.name] > 1:
            yield Problem("another task has this name already", field=field)
            counts[task.name] = 0
        yield from check_task(task)
        yield from _check_references(task, names, params)
        if len(msgspec.json.encode(task)) > TASK_LIMIT:
            text = "the task is too large: put text into a file of the bundle, data into a param"
            yield Problem(text, field=field, allowed=f"{TASK_LIMIT} bytes of JSON")


def _check_references(
    task: Task, names: Mapping[str, None], params: list[str]
) -> Iterator[Problem]:
    field = f"tasks.{task.name}"
    found = mentioned(task)
    if len(set(task.after)) < len(task.after):
        yield Problem("a task is named twice", field=f"{field}.after")
    for name in dict.fromkeys([*task.after, *found.tasks]):
        declared, place = name in task.after, f"{field}.after"
        if name in found.tasks and (name == task.name or not declared or name not in names):
            place = _field_of(task, name, "tasks")
        if name == task.name:
            mention = "uses its own output" if name in found.tasks else "comes after itself"
            yield Problem(f"the task {mention}", field=place)
        elif name not in names:
            yield Problem(f"unknown task `{name}`{nearest(name, names)}", field=place)
        elif not declared:
            yield Problem(f"uses the output of `{name}`, which is not in `after`", field=place)
    for name in found.params:
        if name not in params:
            text, place = f"unknown param `{name}`{nearest(name, params)}", "params"
            allowed = ", ".join(params) or "the workflow has no params"
            yield Problem(text, field=_field_of(task, name, place), allowed=allowed)


def _field_of(task: Task, name: str, root: str) -> str:
    """The field of `task` in whose template `name` is mentioned."""
    for part in templated(task):
        try:
            found = references_in(part.value)
        except TemplateError:
            continue
        if name in (found.tasks if root == "tasks" else found.params):
            return f"tasks.{task.name}.{part.field}"
    return f"tasks.{task.name}"


def _check_cycles(workflow: Workflow) -> Iterator[Problem]:
    tasks = {task.name: task for task in workflow.tasks}
    for loop in cycles(tasks.values()):
        if len(loop) > 1:
            shown = [*loop, loop[0]] if len(loop) <= 12 else [*loop[:11], "…", loop[0]]
            text = f"these tasks wait for each other: {' → '.join(shown)}"
            yield Problem(text, field=f"tasks.{loop[0]}.after")
