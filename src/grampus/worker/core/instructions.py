"""What the core asks of its driver. The driver carries them out in order and decides nothing."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from grampus.protocol import Invocation, Reports, Synced
from grampus.worker.core.memory import Entry
from grampus.worker.orders import Ended


class Record(Struct, frozen=True):
    """Write these down. Always the first of a step: what follows must not happen without it."""

    entries: tuple[Entry, ...]


class Prepare(Struct, frozen=True):
    """Get bundle and inputs, make argv; answered by Prepared or PrepareFailed, unless dropped."""

    n: int
    invocation: Invocation


class Launch(Struct, frozen=True):
    """Give what was prepared for `n` to the warden. Said once in the life of a number."""

    n: int


class End(Struct, frozen=True):
    """Tell the warden to end `n`."""

    n: int


class Recall(Struct, frozen=True):
    """Tell the warden to give `n` back if it has not started it."""

    n: int


class ReadResult(Struct, frozen=True):
    """Read what `n` left behind; answered by ResultRead, unless dropped."""

    n: int
    ended: Ended


class Forgo(Struct, frozen=True):
    """Tell the warden that it may forget the ends of these: Taken."""

    numbers: tuple[int, ...]


class Renew(Struct, frozen=True):
    """End the warden and all that it has, and start another: its numbers were used."""


class Send(Struct, frozen=True):
    """To the server, now; lost if the connection is."""

    message: Reports | Synced


class Drop(Struct, frozen=True):
    """Nothing more will be asked about `n`: stop its chores, remove what was prepared."""

    n: int


class SetAlarm(Struct, frozen=True):
    """Wake the core with Alarm after so many ms; replaces the one before; None is never."""

    after: int | None


class LogLine(Struct, frozen=True):
    level: Literal["info", "warning"]
    text: str


Instruction = (
    Record
    | Prepare
    | Launch
    | End
    | Recall
    | ReadResult
    | Forgo
    | Renew
    | Send
    | Drop
    | SetAlarm
    | LogLine
)
