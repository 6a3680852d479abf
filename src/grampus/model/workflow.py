"""What was declared: an immutable graph of tasks. Python and YAML both end here.

Rule: a `Workflow` is canonical. Two files that mean the same give equal values and therefore the
same `content()` bytes; so `Task.after` holds every upstream task, those that are only mentioned in
a template included, in the order in which the tasks are declared. Durations are milliseconds.

A string anywhere in an action (`Shell.command`, `Python.args`, `Http.url`, `Task.env`, ...) is a
Jinja2 template (see `template`). In `Python.args`, `Http.json` and `Sql.params`, a string that is
nothing but one `{{ expression }}` stands for the value itself, type and all. Checks are in `check`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from grampus.model.duration import UNITS

ParamType = Literal["str", "int", "float", "bool", "date", "list", "json"]
OnFailure = Literal["stop", "continue"]
Overlap = Literal["allow", "skip", "queue", "cancel_old"]
Missed = Literal["latest", "none", "all"]

DEFAULT_GROUP = "default"
#: A definition has at most so many bytes.
CONTENT_LIMIT = 8 * 1024 * 1024


class Param(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A named input of a run."""

    name: str
    type: ParamType = "str"
    #: JSON value or template (`{{ tick.date }}`); only meaningful when not `required`.
    default: Any = None
    required: bool = False
    description: str = ""


class Retry(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`max` more tries after the first; the k-th waits delay * factor^(k-1), at most
    `max_delay`."""

    max: int = 0
    delay: int = 0
    factor: float = 1.0
    max_delay: int = UNITS["h"]
    #: Part of the wait that is random, 0 to 1: the wait is in [wait * (1 - jitter), wait].
    jitter: float = 0.0
    #: Try again only after these exit codes; None is any. (Signals count as 128 + number.)
    on_exit: tuple[int, ...] | None = None
    #: Try again only after these exceptions, by class name, base classes included; None is any.
    on_exception: tuple[str, ...] | None = None


class Shell(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="shell"):
    """`/bin/sh -c command`; templated values are shell-quoted unless `| raw`."""

    command: str


class Python(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="python"):
    """Calls `module:function` of the bundle with keyword arguments; what it returns is the
    result."""

    call: str
    args: dict[str, Any] = field(default_factory=dict)


class Http(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="http"):
    """One request. The result is `{"status": int, "headers": {...}, "body": JSON value or
    text}`."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    #: Text to send; not together with `json`.
    body: str | None = None
    #: JSON value to send; None sends nothing.
    json: Any = None
    #: Status codes that are a success; () is any from 200 to 299.
    expect: tuple[int, ...] = ()


class Sql(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="sql"):
    """Statements through SQLAlchemy, in one transaction. Result: rows of the last one, as
    objects."""

    url: str
    #: Exactly one of the two. `file` is relative to the bundle.
    statement: str | None = None
    file: str | None = None
    #: Bound parameters (`:name` in the statement): values never become SQL text.
    params: dict[str, Any] = field(default_factory=dict)
    #: At most this many rows become the result.
    max_rows: int = 1000


class Sleep(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="sleep"):
    """Waits; holds its slot."""

    duration: int


Action = Shell | Python | Http | Sql | Sleep


class Task(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One node of the graph."""

    name: str
    action: Action
    #: All upstream tasks, in declaration order.
    after: tuple[str, ...] = ()
    retry: Retry = Retry()
    #: Of one attempt, in ms; None is no limit.
    timeout: int | None = None
    #: How long a silent worker keeps the attempt, in ms; -1 is `keep`; None is the default.
    lease: int | None = None
    group: str = DEFAULT_GROUP
    #: Slots that an attempt occupies on its worker.
    slots: int = 1
    #: Higher starts first; -1000 to 1000.
    priority: int = 0
    env: dict[str, str] = field(default_factory=dict)
    #: Working directory; None is the unpacked bundle.
    cwd: str | None = None
    #: How many lost attempts are replaced before the task fails.
    max_lost: int = 3
    #: Path or name of the interpreter for `python` actions; None is the worker's own.
    python: str | None = None
    #: Between TERM and KILL at a cancel or time-out, in ms.
    grace: int = 10_000
    description: str = ""


class Schedule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When the workflow starts by itself: exactly one of `cron` and `every`."""

    cron: str | None = None
    #: Interval in ms, counted from `start` or the epoch.
    every: int | None = None
    tz: str = "UTC"
    missed: Missed = "latest"
    overlap: Overlap = "skip"
    #: ISO dates or date-times in `tz`; ticks outside are not planned.
    start: str | None = None
    end: str | None = None


class Workflow(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The whole declaration. Its version is given by the ledger when its content changes."""

    name: str
    tasks: tuple[Task, ...]
    params: tuple[Param, ...] = ()
    schedule: Schedule | None = None
    on_failure: OnFailure = "stop"
    #: Runs that may be active at once; None is no limit. What is beyond: `overlap`.
    max_active_runs: int | None = None
    overlap: Overlap = "queue"
    #: Of a whole run from its start, in ms; None is no limit.
    timeout: int | None = None
    description: str = ""
    #: Content hash of the files that travel along; None when nothing needs to.
    bundle: str | None = None

    def content(self) -> bytes:
        """Canonical bytes: equal for equal workflows, read back by `read_workflow`."""
        return _ENCODER.encode(self)


_ENCODER = msgspec.json.Encoder(order="sorted")
_DECODER = msgspec.json.Decoder(Workflow)


def read_workflow(content: bytes) -> Workflow:
    """The reverse of `Workflow.content`. Raises msgspec.ValidationError, unknown fields
    included."""
    return _DECODER.decode(content)
