"""The file `$GRAMPUS_SPEC`: all that an attempt's process needs to know, as one JSON object.

The worker gives it to the warden with the launch. There it becomes a file of the slot (0600), which
the runner and `grampus.context()` read; a warm attempt has it in memory already.
"""

from __future__ import annotations

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


encode_spec = msgspec.json.Encoder().encode
decode_spec = msgspec.json.Decoder(Spec).decode


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
