"""What a running task may ask about itself."""

from __future__ import annotations

import datetime
import json
import os
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grampus.errors import UsageError


@dataclass(frozen=True)
class Context:
    """One attempt of one task."""

    run: str
    workflow: str
    version: int
    task: str
    #: 1 for the first.
    attempt: int
    #: Grows with every attempt of the cluster: hand it to what must not listen to an older one.
    fencing_token: int
    #: The planned time, or that of the submission; aware, in the zone of the schedule.
    tick: datetime.datetime
    params: dict[str, Any]


#: The attempt that `flow.local()` runs in this process.
LOCAL: ContextVar[Context | None] = ContextVar("grampus_local", default=None)


def context() -> Context:
    """The attempt that this code is part of. Raises UsageError outside of a task."""
    local = LOCAL.get()
    if local is not None:
        return local
    env = os.environ
    if "GRAMPUS_RUN" not in env:
        raise UsageError("grampus.context() is for running tasks: nothing here says which it is")
    try:
        spec: dict[str, Any] = {}
        if path := env.get("GRAMPUS_SPEC"):
            spec = json.loads(Path(path).read_bytes())
        return Context(
            run=env["GRAMPUS_RUN"],
            workflow=env["GRAMPUS_WORKFLOW"],
            version=int(spec.get("version", 0)),
            task=env["GRAMPUS_TASK"],
            attempt=int(env["GRAMPUS_ATTEMPT"]),
            fencing_token=int(env["GRAMPUS_FENCING_TOKEN"]),
            tick=at_tick(int(env["GRAMPUS_TICK"]), str(spec.get("tz", "UTC"))),
            params=dict(spec.get("params", {})),
        )
    except (KeyError, ValueError, OSError) as error:
        raise UsageError(f"the environment of this task is damaged: {error!r}") from error


def at_tick(ms: int, tz: str) -> datetime.datetime:
    """Milliseconds since the epoch as an aware time."""
    import zoneinfo

    return datetime.datetime.fromtimestamp(ms / 1000, zoneinfo.ZoneInfo(tz))
