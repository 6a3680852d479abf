"""What a worker must not forget when its process dies: a few kinds of entries, and what they add
up to.

Rule: `Memory` is the sum of the entries and of nothing else, so that a core made of it goes on
where the one before was killed. An entry is written before what it speaks of leaves the process:
before a launch is given to the warden, before a final report is sent, before the warden may forget
an end. All of it belongs to one session and one incarnation of the warden; `Opened` begins anew.
The file is `worker.journal`.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from grampus.protocol import Report
from grampus.worker.core.seen import Seen


class Opened(Struct, frozen=True, array_like=True, tag="opened"):
    """A session begins: nothing of an earlier one counts any more."""

    session: int
    #: Of the warden.
    instance: str
    #: Under which the worker is registered.
    name: str
    group: str


class Launched(Struct, frozen=True, array_like=True, tag="launched"):
    """Attempt `n` goes to the warden; all that is needed to take it over from a dead process."""

    n: int
    slots: int
    run: str
    task: str
    attempt: int
    #: Its output file holds what a shell command wrote.
    shell: bool
    #: The bundle that it uses.
    bundle: str | None

    @property
    def stem(self) -> str:
        """`<run>/<task>.<attempt>`: its name, and that of its files."""
        return f"{self.run}/{self.task}.{self.attempt}"


class Wish(Struct, frozen=True, array_like=True, tag="wish"):
    """The warden is to end `n`."""

    n: int
    reason: str


class Closed(Struct, frozen=True, array_like=True, tag="closed"):
    """Of all numbers below `next_n` none but `live` may start."""

    next_n: int
    live: list[int]


class Spans(Struct, frozen=True, array_like=True, tag="spans"):
    """Half-open intervals of numbers that may not start again."""

    intervals: list[tuple[int, int]]


class Gone(Struct, frozen=True, array_like=True, tag="gone"):
    """These attempts and reports are of no interest any more; their numbers stay seen."""

    numbers: list[int]


#: A final report is an entry too: it is kept until it is acknowledged.
Entry = Opened | Launched | Wish | Closed | Spans | Report | Gone


class Memory:
    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.session: int | None = None
        self.instance = self.name = self.group = ""
        #: Numbers that were launched, refused, reported over or closed.
        self.seen = Seen()
        self.launched: dict[int, Launched] = {}
        #: Why the warden was told to end it, by number, of those in `launched`.
        self.wishes: dict[int, str] = {}
        #: Final reports without an acknowledgement.
        self.outbox: dict[int, Report] = {}

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        match entry:
            case Opened():
                self._clear()
                self.session, self.instance = entry.session, entry.instance
                self.name, self.group = entry.name, entry.group
            case Launched(n):
                self.seen.add(n)
                self.launched[n] = entry
            case Wish(n, reason):
                if n in self.launched:
                    self.wishes[n] = reason
            case Closed(next_n, live):
                self.seen.close_below(next_n, live)
            case Spans(intervals):
                self.seen.add_ranges(intervals)
            case Report():
                self._leave(entry.n)
                self.seen.add(entry.n)
                self.outbox[entry.n] = entry
            case Gone(numbers):
                for n in numbers:
                    self._leave(n)
                    self.outbox.pop(n, None)

    def _leave(self, n: int) -> None:
        self.launched.pop(n, None)
        self.wishes.pop(n, None)

    def entries(self) -> list[Entry]:
        """The shortest list that adds up to this."""
        if self.session is None:
            return []
        return [
            Opened(self.session, self.instance, self.name, self.group),
            Spans(self.seen.intervals()),
            *self.launched.values(),
            *(Wish(n, reason) for n, reason in self.wishes.items()),
            *self.outbox.values(),
        ]
