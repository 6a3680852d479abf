"""The file `$GRAMPUS_SPEC`: all that an attempt's process needs to know, as one JSON object.

The worker writes it (0600), the runner and `grampus.context()` read it, the worker removes it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from grampus.model.template import tick_scope
from grampus.model.workflow import Task
from grampus.tasks.value import Encoding, decode


class Input(Struct, frozen=True, omit_defaults=True):
    """An upstream task's result: exactly one of `data` and `path` is there."""

    encoding: Encoding
    data: bytes | None = None
    path: str | None = None


class Spec(Struct, frozen=True, kw_only=True):
    run: str
    workflow: str
    version: int
    task: Task
    attempt: int
    fencing_token: int
    params: dict[str, Any]
    #: Wall milliseconds.
    tick: int
    tz: str
    #: Folder of the unpacked bundle.
    bundle: str | None
    inputs: dict[str, Input]


def write_spec(path: str, spec: Spec) -> None:
    """Creates `path`, readable by nobody else. What a crash left there is replaced."""
    data = msgspec.json.encode(spec)
    Path(path).unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(data)


_DECODE = msgspec.json.Decoder(Spec).decode


def read_spec(path: str) -> Spec:
    with open(path, "rb", buffering=0) as file:
        return _DECODE(file.read())


def load_inputs(spec: Spec) -> dict[str, Any]:
    """Results by task name. Unpickles: only in the task's process, with its bundle importable."""
    values = {}
    for name, item in spec.inputs.items():
        data = item.data if item.path is None else Path(item.path).read_bytes()
        assert data is not None
        values[name] = decode(item.encoding, data)
    return values


def scope_of(
    *,
    params: dict[str, Any],
    after: tuple[str, ...],
    outputs: dict[str, Any],
    tick: int | None,
    tz: str,
    run: str,
    workflow: str,
    version: int,
) -> dict[str, Any]:
    """What templates see. A task of `after` without a result is there, but has no `output`.

    Without `tick` only for templates that do not mention it."""
    tasks: dict[str, dict[str, Any]] = {name: {} for name in after}
    tasks |= {name: {"output": value} for name, value in outputs.items()}
    return {
        "params": params,
        "tasks": tasks,
        "tick": {} if tick is None else tick_scope(tick, tz),
        "run": {"id": run, "workflow": workflow, "version": version},
    }
