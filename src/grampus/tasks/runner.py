"""Runs inside the process of an attempt: reads its spec, does what it says, leaves the result.

Nothing but this process decodes a pickle, imports the user's code or runs a rich template. It
imports only what the kind needs. What goes wrong is said twice: on stderr for people, in
`$GRAMPUS_OUTPUT` for the worker.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from grampus.model.template import TemplateError, evaluate, is_simple, may_mention, render
from grampus.model.workflow import Http, Python, Shell, Sql
from grampus.tasks import python
from grampus.tasks.failure import TaskFailure, class_names, one_line
from grampus.tasks.output import write_error, write_value
from grampus.tasks.spec import Spec, decode_spec, load_inputs, scope_of
from grampus.tasks.value import encode

if TYPE_CHECKING:
    import traceback

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def main(spec: Spec | None = None, arguments: Mapping[str, Any] | None = None) -> int:
    """The exit code of the attempt. `spec`: what is in `$GRAMPUS_SPEC`, if it is known;
    `arguments`: what `plain_arguments` said of it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.line_buffering:
            stream.reconfigure(line_buffering=True)
    output = os.environ["GRAMPUS_OUTPUT"]
    if spec is None:
        with open(os.environ["GRAMPUS_SPEC"], "rb") as file:
            spec = decode_spec(file.read())
    sys.argv = [spec.task.name]
    code = 1
    try:
        encoding, data = encode(_run(spec, arguments))
        write_value(output, encoding, data)
        code = 0
    except SystemExit as error:
        code = _exit(output, error)
    except (TaskFailure, TemplateError) as error:
        names = error.names if isinstance(error, TaskFailure) else class_names(error)
        _failed(output, str(error), names, f"{error}\n")
    except BaseException as error:
        _failed(output, one_line(error), class_names(error), _traceback(error))
    return code


def plain_arguments(spec: Spec) -> Mapping[str, Any] | None:
    """What the function of a Python task is called with, where that can be said without a pickle, a
    rich template or anything else that belongs into its own process; else None."""
    action = spec.task.action
    if not isinstance(action, Python) or spec.task.env or not _is_plain(action.args):
        return None
    if any(item.encoding != "json" or item.data is None for item in spec.inputs.values()):
        return None
    if not action.args:
        return {}
    try:
        found: Mapping[str, Any] = evaluate(action.args, _scope(spec))
    except TemplateError:
        return None  # The attempt says so, in its own name.
    return found


def _is_plain(value: Any) -> bool:
    match value:
        case str(text):
            return is_simple(text)
        case dict(items):
            return all(map(_is_plain, items.values()))
        case list(items) | tuple(items):
            return all(map(_is_plain, items))
    return True


def _scope(spec: Spec) -> dict[str, Any]:
    return scope_of(
        params=spec.params,
        after=spec.task.after,
        outputs=load_inputs(spec),
        tick=spec.tick if _needs_tick(spec) else None,
        tz=spec.tz,
        run=spec.run,
        workflow=spec.workflow,
        version=spec.version,
    )


def _run(spec: Spec, arguments: Mapping[str, Any] | None) -> Any:
    if spec.bundle is not None and spec.bundle not in sys.path[:1]:
        sys.path.insert(0, spec.bundle)
    if arguments is not None:
        assert isinstance(spec.task.action, Python)
        return python.call(spec.task.action.call, arguments)
    scope = _scope(spec)
    for name, text in spec.task.env.items():
        os.environ[name] = render(text, scope, quote=False)
    match spec.task.action:
        case Python() as action:
            return python.run(action, scope)
        case Http() as action:
            from grampus.tasks import http

            return http.run(action, scope)
        case Sql() as action:
            from grampus.tasks import sql

            return sql.run(action, scope, spec.bundle)
        case Shell() as action:
            from grampus.tasks import shell

            shell.run(action, scope)
        case action:
            raise TaskFailure(f"{type(action).__name__} is not for the runner")


def _needs_tick(spec: Spec) -> bool:
    """Calendars touch many pages, each of which a warm attempt has to copy."""
    action = spec.task.action
    if not isinstance(action, Python):
        return True
    return may_mention([action.args, spec.task.env], "tick")


def _exit(output: str, error: SystemExit) -> int:
    """What Python itself makes of SystemExit; exit 0 is a success without a result."""
    if error.code is None or error.code == 0:
        write_value(output, "json", b"null")
        return 0
    code = error.code if isinstance(error.code, int) else 1
    text = f"exit code {code}" if isinstance(error.code, int) else str(error.code)
    shown = "" if isinstance(error.code, int) else f"{text}\n"
    _failed(output, text, class_names(error), shown)
    return code


def _failed(output: str, error: str, names: tuple[str, ...], shown: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(shown)
    sys.stderr.flush()
    write_error(output, error, names)


def _traceback(error: BaseException) -> str:
    """As Python prints it, without the frames of this package."""
    import traceback

    try:
        report = traceback.TracebackException.from_exception(error)
        _strip(report)
        return "".join(report.format())
    except Exception as broken:
        return f"{one_line(error)}\n(its traceback cannot be shown: {one_line(broken)})\n"


def _strip(report: traceback.TracebackException) -> None:
    import traceback

    todo: list[traceback.TracebackException | None] = [report]
    while todo:
        item = todo.pop()
        if item is None:
            continue
        kept = [frame for frame in item.stack if not frame.filename.startswith(_OURS)]
        while kept and kept[0].filename.startswith("<frozen importlib"):
            del kept[0]
        item.stack = traceback.StackSummary.from_list(kept)
        todo += [item.__cause__, item.__context__, *(item.exceptions or ())]
