"""What a worker and its warden say to each other, over a Unix socket, as length-prefixed msgpack
frames.

The warden is the only parent of attempts. It starts what it is told to start, ends what it is told
to end, and says when an attempt's containment is empty, never before. It knows nothing of
workflows. Paths are relative to the warden's `attempts` folder. Times are wall milliseconds, spans
milliseconds.

While an attempt runs, its stdout, stderr and output file are the reused files `slot<K>.out`, `.err`
and `.output` of its slot, and `slot<K>.spec` is what it is told. At the end the first three are
renamed to `<stem>.out`, `.err` and `.output` if something was written to them; else they stay with
the slot, and the attempt has no file of that kind. A small output is no file but part of `Ended`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Warm(Struct, frozen=True, array_like=True):
    """A Python function whose module may have been imported before the attempt begins."""

    module: str
    #: Folder that is imported from.
    bundle: str


class Launch(Struct, frozen=True, array_like=True, tag="launch"):
    """Start attempt `n` once all that were sent before have been started and its slots are free.

    The worker sends some more than can run, so that a free slot waits for nobody."""

    n: int
    argv: list[str]
    #: The whole environment. The warden adds GRAMPUS_OUTPUT, the absolute path of the output file,
    #: and GRAMPUS_SPEC if there is a `spec`.
    env: dict[str, str]
    cwd: str
    #: From the start of the process; None is no limit.
    timeout: int | None
    #: Between TERM and KILL.
    grace: int
    #: `<run>/<task>.<attempt>`: where its files go at the end.
    stem: str
    #: It may run in a fork of a prepared process instead of `argv` (see `stock`).
    warm: Warm | None = None
    #: Of the warden's, that it takes.
    slots: int = 1
    #: What GRAMPUS_SPEC, a file of the slot, holds; None is no such file.
    spec: bytes | None = None
    #: In ms; None: it is kept, however long nobody is heard (see `fence`).
    lease: int | None = None


class End(Struct, frozen=True, array_like=True, tag="end"):
    """TERM to everything in the containment, KILL after the attempt's grace. Unknown `n`:
    ignored."""

    n: int


class Recall(Struct, frozen=True, array_like=True, tag="recall"):
    """Give `n` back if it waits for a slot: Ended, `unable`. Else ignored."""

    n: int


class Confirmed(Struct, frozen=True, array_like=True, tag="confirmed"):
    """A server has confirmed the keep-alive that the worker sent then, in ms of CLOCK_BOOTTIME: all
    leases begin anew from there. What was fenced stays so."""

    sent: int


class Shutdown(Struct, frozen=True, array_like=True, tag="shutdown"):
    """End every attempt within `grace` at most, report each, then exit. What waits never starts."""

    grace: int


class Taken(Struct, frozen=True, array_like=True, tag="taken"):
    """The ends of these attempts are written down: the warden may forget them."""

    numbers: list[int]


class Running(Struct, frozen=True, array_like=True):
    """An attempt that the warden has: it waits, runs, or has an end that nobody has taken."""

    n: int
    #: None: it does not run.
    slot: int | None
    #: 0 when it was not started, or has ended.
    started: int
    #: Its Ended follows.
    ended: bool
    #: `started`, in ms since boot; 0 when not known.
    ticks: int = 0


class Ready(Struct, frozen=True, array_like=True, tag="ready"):
    """First message of the warden on a connection: its incarnation and what it has.

    The ends that nobody has taken are said again right after it."""

    instance: str
    #: `pid-namespace`, `cgroup` or `subreaper`
    containment: str
    #: How many it was made with.
    slots: int
    running: list[Running]


class Started(Struct, frozen=True, array_like=True, tag="started"):
    n: int
    slot: int
    at: int
    #: `at`, in ms since boot.
    ticks: int = 0


class Ended(Struct, frozen=True, array_like=True, tag="ended"):
    """The containment of `n` is empty. Kept, and said again to the next worker, until Taken."""

    n: int
    at: int
    #: `exit`: the process ended by itself. `timeout`, `end`: the warden ended it, or it obeyed
    #: TERM. `fenced`: so too, because its worker was not confirmed for too long. `lost`: its shim
    #: died. It was not started, and `error` says why: `spawn`, by what it
    #: asks for; `unable`, by this machine, which was tried again and again.
    cause: Literal["exit", "timeout", "end", "fenced", "spawn", "lost", "unable"]
    #: Exit code, -signal, or None when it was not started or is lost.
    exit: int | None
    error: str
    #: Bytes written, before any cap.
    stdout: int
    stderr: int
    #: It has an output: `small`, or else the file `<stem>.output`.
    output: bool
    small: bytes | None = None
    #: `at`, in ms since boot; and from its start to then, in ms, None when it was not started.
    ticks: int = 0
    took: int | None = None


class Stuck(Struct, frozen=True, array_like=True, tag="stuck"):
    """KILL was sent and processes are still there: the slot stays taken. Repeated every 10 s."""

    n: int
    pids: list[int]


class Trouble(Struct, frozen=True, array_like=True, tag="trouble"):
    """This machine cannot start attempts now, and is asked again and again. "": it can."""

    why: str


Order = Launch | End | Recall | Taken | Confirmed | Shutdown
Notice = Ready | Started | Ended | Stuck | Trouble
