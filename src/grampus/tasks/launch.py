"""From an attempt's invocation to what the warden starts: argv, environment, working directory.

Rule: the worker's process handles text only. It renders templates of plain references; whatever
is richer (Jinja2, pickled or large inputs, Python, HTTP, SQL) is left to `runner` in the
attempt's own process, which finds what it needs in its spec. A simple shell task starts without any
Python: it is the fast path.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from grampus.model.run import Value
from grampus.model.template import TemplateError, is_simple, is_template, render_simple, tick_scope
from grampus.model.workflow import Python, Shell, Sleep, Task
from grampus.tasks import shell, sleep
from grampus.tasks.failure import TaskFailure
from grampus.tasks.spec import Input, Spec, encode_spec, scope_of

_BOOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Invocation(Protocol):
    """What `protocol.Invocation` says of an attempt."""

    @property
    def run(self) -> str: ...
    @property
    def workflow(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def task(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def fencing_token(self) -> int: ...
    @property
    def spec(self) -> bytes: ...
    @property
    def params(self) -> bytes: ...
    @property
    def tick(self) -> int: ...
    @property
    def tz(self) -> str: ...
    @property
    def inputs(self) -> dict[str, Value]: ...


class Place(Struct, frozen=True):
    """Where attempts of this worker live."""

    #: Environment of every task, before its own.
    env: dict[str, str]
    #: Without a bundle, the folder in here that is named like the run is the working directory.
    scratch: str
    #: Python functions may run in a fork of a process that has imported their module.
    warm: bool = True


class Process(Struct, frozen=True):
    """What to start."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    #: What the file `$GRAMPUS_SPEC` is to hold, if it needs one.
    spec: bytes | None
    #: The module of a function that may start warm, and the folder of its bundle.
    warm: tuple[str, str] | None = None


class Plan(Struct, frozen=True):
    """What is known of a task before any attempt of it."""

    task: Task
    #: Its templates are simple and it needs no Python process.
    direct: bool
    #: `env` without its templates.
    plain_env: dict[str, str]
    #: `env` with templates.
    templated_env: dict[str, str]
    needs_scope: bool

    @property
    def is_shell(self) -> bool:
        """Its output file holds what the user wrote, not what the runner wrote."""
        return isinstance(self.task.action, Shell | Sleep)


_TASKS = msgspec.json.Decoder(Task)
_PARAMS = msgspec.json.Decoder(dict[str, Any])


@lru_cache(maxsize=4096)
def plan(spec: bytes) -> Plan:
    """Raises TaskFailure when the spec cannot be read (a newer server's, perhaps)."""
    try:
        task = _TASKS.decode(spec)
    except msgspec.DecodeError as error:
        raise TaskFailure(f"this worker cannot read the task's declaration: {error}") from None
    env = task.env
    texts = [*env.values(), task.cwd or ""]
    if isinstance(task.action, Shell):
        texts.append(task.action.command)
    direct = isinstance(task.action, Shell | Sleep) and all(map(is_simple, texts))
    return Plan(
        task,
        direct,
        {name: text for name, text in env.items() if not is_template(text)},
        {name: text for name, text in env.items() if is_template(text)},
        any(map(is_template, texts)),
    )


def prepare(
    invocation: Invocation,
    place: Place,
    bundle: str | None,
    blob_path: Callable[[str], str],
) -> Process:
    """What to start for this attempt.

    `bundle` is the folder of the unpacked bundle, `blob_path` finds a blob that is on disk already.
    Raises TaskFailure or TemplateError: the declaration or its values are wrong; OSError.
    """
    made = plan(invocation.spec)
    task = made.task
    direct = made.direct and all(_is_text(value) for value in invocation.inputs.values())
    scope: dict[str, Any] | None = None
    if direct and made.needs_scope:
        outputs = {n: msgspec.json.decode(v.data or b"") for n, v in invocation.inputs.items()}
        scope = scope_of(
            params=_PARAMS.decode(invocation.params),
            after=task.after,
            outputs=outputs,
            tick=invocation.tick,
            tz=invocation.tz,
            run=invocation.run,
            workflow=invocation.workflow,
            version=invocation.version,
        )
    env = {**place.env, **made.plain_env, **_identity(invocation)}
    cwd = _cwd(task, scope, bundle or _scratch(place, invocation.run))
    if not direct:
        return _with_runner(invocation, made, place, bundle, blob_path, env, cwd)
    if scope is not None:
        for name, text in made.templated_env.items():
            env[name] = render_simple(text, scope, quote=False)
    action = task.action
    if isinstance(action, Sleep):
        return Process(sleep.argv(action), env, cwd, None)
    assert isinstance(action, Shell)
    command = action.command
    if scope is not None:
        command = render_simple(command, scope, quote=True)
    return Process(shell.argv(command), env, cwd, None)


def _is_text(value: Value) -> bool:
    return value.encoding == "json" and value.data is not None


def _identity(invocation: Invocation) -> dict[str, str]:
    return {
        "GRAMPUS_RUN": invocation.run,
        "GRAMPUS_WORKFLOW": invocation.workflow,
        "GRAMPUS_TASK": invocation.task,
        "GRAMPUS_ATTEMPT": str(invocation.attempt),
        "GRAMPUS_FENCING_TOKEN": str(invocation.fencing_token),
        "GRAMPUS_TICK": str(invocation.tick),
        "GRAMPUS_TICK_DATE": _date(invocation.tick, invocation.tz),
    }


@lru_cache(maxsize=256)
def _date(tick: int, tz: str) -> str:
    return str(tick_scope(tick, tz)["date"])


def _scratch(place: Place, run: str) -> str:
    """Made by the first attempt of the run here; what tasks leave in it is none of other runs."""
    folder = os.path.join(place.scratch, run)
    if not os.path.isdir(folder):
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
    return folder


def _cwd(task: Task, scope: dict[str, Any] | None, default: str) -> str:
    if task.cwd is None:
        return default
    cwd = task.cwd
    if is_template(cwd):
        if scope is None:
            raise TaskFailure("cwd may have plain references only, and only in a plain shell task")
        cwd = render_simple(cwd, scope, quote=False)
    return os.path.join(default, os.path.expanduser(cwd))


def _with_runner(
    invocation: Invocation,
    made: Plan,
    place: Place,
    bundle: str | None,
    blob_path: Callable[[str], str],
    env: dict[str, str],
    cwd: str,
) -> Process:
    spec = Spec(
        run=invocation.run,
        workflow=invocation.workflow,
        version=invocation.version,
        task=made.task,
        attempt=invocation.attempt,
        fencing_token=invocation.fencing_token,
        params=_PARAMS.decode(invocation.params),
        tick=invocation.tick,
        tz=invocation.tz,
        bundle=bundle,
        inputs={
            name: Input(value.encoding, data=value.data)
            if value.blob is None
            else Input(value.encoding, path=blob_path(value.blob))
            for name, value in invocation.inputs.items()
        },
    )
    argv = _interpreter(made.task, env, cwd)
    return Process(argv, env, cwd, encode_spec(spec), _warm(made, place, bundle))


def _warm(made: Plan, place: Place, bundle: str | None) -> tuple[str, str] | None:
    """A bundle never changes, and what its modules see of the environment at import must be known
    before the attempt is: then it makes no difference when they are imported."""
    action = made.task.action
    if not place.warm or bundle is None or not isinstance(action, Python):
        return None
    if made.task.python is not None or made.templated_env:
        return None
    return action.call.partition(":")[0], bundle


def _interpreter(task: Task, env: dict[str, str], cwd: str) -> list[str]:
    wanted = task.python
    if wanted is None or not isinstance(task.action, Python):
        return [sys.executable, _BOOT, _ROOT]
    name = os.path.expanduser(wanted)
    found = shutil.which(os.path.join(cwd, name) if os.sep in name else name, path=env.get("PATH"))
    if found is None:
        raise TaskFailure(f"python: there is no interpreter {wanted!r} on this worker")
    return [found, _BOOT]


__all__ = [
    "Invocation",
    "Place",
    "Plan",
    "Process",
    "TaskFailure",
    "TemplateError",
    "plan",
    "prepare",
]
