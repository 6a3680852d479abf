"""What can happen to the scheduler, beside the facts of the ledger (`grampus.runs.events`)."""

from __future__ import annotations

from msgspec import Struct

from grampus.model.lease import KEEP
from grampus.runs.commands import (
    ExpireRun,
    LoseAttempts,
    Refusal,
    SilenceSession,
    StartAttempts,
)
from grampus.runs.events import Fact

#: Codes of refusals that the ledger did not give: what was asked for may be asked for again.
UNANSWERED = frozenset({"overloaded", "no-quorum", "unknown-outcome"})


class LiveAttempt(Struct, frozen=True):
    """An attempt that the ledger knows and that is not final."""

    session: int
    n: int
    run: str
    index: int
    attempt: int
    slots: int
    #: Fencing token: the revision of its start.
    token: int
    #: In ms, or KEEP.
    lease: int = KEEP


class ReadyTask(Struct, frozen=True):
    """A task that may start its `attempt`: now, or, when it is retrying, from `due` on."""

    run: str
    index: int
    attempt: int
    due: int
    group: str
    slots: int
    priority: int
    retrying: bool = False
    #: No delay of its retries is longer, in ms: a later `due` was made by a wrong clock.
    longest: int = 0

    def waits(self, now: int) -> bool:
        return self.retrying and now < self.due <= now + self.longest


class Seat(Struct, frozen=True):
    """A live session as the ledger has it."""

    session: int
    worker: str
    group: str
    slots: int
    next_n: int
    registered: int = 0
    silent: bool = False
    draining: bool = False


class Loaded(Struct, frozen=True):
    """The ledger at the moment of taking office; facts after `revision` follow."""

    revision: int
    seats: tuple[Seat, ...]
    ready: tuple[ReadyTask, ...]
    live: tuple[LiveAttempt, ...]
    #: Runs in CANCELLING.
    cancelling: tuple[str, ...]
    #: Runs in PAUSED.
    paused: tuple[str, ...] = ()
    #: Runs with a timeout of their own, and when it passes.
    expires: tuple[tuple[str, int], ...] = ()


class RunLoaded(Struct, frozen=True):
    """One run anew, after a refusal."""

    run: str
    ready: tuple[ReadyTask, ...]


#: What a scheduler asks the ledger for.
Proposal = StartAttempts | ExpireRun | SilenceSession | LoseAttempts


class Declined(Struct, frozen=True):
    """A command of a turn was refused. Normal: the ledger knew more."""

    command: Proposal
    refusal: Refusal


class WorkerConnected(Struct, frozen=True):
    session: int


class WorkerGone(Struct, frozen=True):
    """The connection is lost: nothing new for it until it is back."""

    session: int
    #: When its newest keep-alive was confirmed, in ticks; None is now.
    heard: int | None = None


class WorkerSynced(Struct, frozen=True):
    """The worker's answer to a Sync: numbers that should live and that it never saw."""

    session: int
    missing: tuple[int, ...]


class WorkerTroubled(Struct, frozen=True):
    """The worker says why it can start nothing; "" when it can again."""

    session: int
    why: str
    #: Attempts that it cannot end, by number.
    stuck: frozenset[int] = frozenset()


class Stopping(Struct, frozen=True):
    """The server is being stopped: start nothing more."""


Happening = (
    Fact
    | Loaded
    | RunLoaded
    | Declined
    | WorkerConnected
    | WorkerGone
    | WorkerSynced
    | WorkerTroubled
    | Stopping
)
