"""What can happen to a worker. The driver makes these of messages, notices and finished chores."""

from __future__ import annotations

from msgspec import Struct

from grampus.model.run import AttemptState, Value
from grampus.protocol import Invocation
from grampus.worker.orders import Ended, Running


class Connected(Struct, frozen=True):
    """A server registered this worker. Another session than before ends the one before."""

    session: int


class Disconnected(Struct, frozen=True):
    """Nothing can be sent until the next Connected."""


class Assigned(Struct, frozen=True):
    """A server asks for attempt `n`."""

    session: int
    n: int
    #: Slots that it takes (`Task.slots`).
    slots: int
    #: Its output file will hold what a shell command wrote.
    shell: bool
    #: Handed back in Prepare; the core looks at its names only.
    invocation: Invocation
    #: In ms; None: it is kept.
    lease: int | None = None


class Unheard(Struct, frozen=True):
    """No server had confirmed this worker for so many ms when one did again."""

    ms: int


class KillAsked(Struct, frozen=True):
    session: int
    n: int
    reason: str


class SyncAsked(Struct, frozen=True):
    """See `protocol.Sync`."""

    session: int
    revision: int
    next_n: int
    live: tuple[int, ...]
    stop: tuple[int, ...]


class Acked(Struct, frozen=True):
    """See `protocol.Ack`."""

    session: int
    done: tuple[int, ...]
    stale: tuple[int, ...]


class Prepared(Struct, frozen=True):
    """Bundle, inputs and argv of `n` are there: it can be launched."""

    n: int


class PrepareFailed(Struct, frozen=True):
    """`n` cannot be launched: FAILED is the declaration's fault, LOST is ours, and CANCELLED is
    nobody's: it is to be tried again, here or elsewhere."""

    n: int
    state: AttemptState
    error: str


class ResultRead(Struct, frozen=True):
    """What an ended attempt left behind."""

    n: int
    output: Value | None = None
    #: Why it failed; it has failed by this alone when `broken`.
    error: str = ""
    exception: tuple[str, ...] = ()
    #: What it left cannot be used, so that exit code 0 does not help.
    broken: bool = False


class WardenReady(Struct, frozen=True):
    """A warden holds the lock of the folder: what an earlier one ran is over."""

    instance: str
    #: What this warden has already.
    running: tuple[Running, ...] = ()


class WardenLost(Struct, frozen=True):
    """The warden is gone. What becomes of its attempts is known at the next WardenReady."""


class WardenStarted(Struct, frozen=True):
    n: int
    #: Wall milliseconds.
    at: int
    #: `at`, in ms since boot; 0 when not known.
    ticks: int = 0


class WardenEnded(Struct, frozen=True):
    """The containment of an attempt is empty."""

    notice: Ended


class WardenStuck(Struct, frozen=True):
    n: int
    pids: tuple[int, ...]


class Stopping(Struct, frozen=True):
    """The worker shuts down: no attempt starts any more, those that run are ended by the warden."""


class Alarm(Struct, frozen=True):
    """The time of the last SetAlarm has come."""


Event = (
    Connected
    | Disconnected
    | Assigned
    | Unheard
    | KillAsked
    | SyncAsked
    | Acked
    | Prepared
    | PrepareFailed
    | ResultRead
    | WardenReady
    | WardenLost
    | WardenStarted
    | WardenEnded
    | WardenStuck
    | Stopping
    | Alarm
)
