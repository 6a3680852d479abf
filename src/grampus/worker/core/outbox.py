"""Final reports that no server has acknowledged yet. They are repeated until one does."""

from __future__ import annotations

from collections.abc import Iterable

from grampus.model.run import FINAL_ATTEMPT
from grampus.protocol import CONTROL_FRAME, Report, Reports

#: Without an acknowledgement a report is repeated after this long, then after twice as long, ...
FIRST_WAIT = 2_000
#: ... and at least this often.
LAST_WAIT = 10_000
#: Reports in one message.
BATCH = 500
#: Longest error text, in characters: with it and an inline output a report fits into a frame.
ERROR_LIMIT = 4_000
#: Class names of one exception, and characters of each.
NAMES_LIMIT, NAME_LIMIT = 32, 200


class Outbox:
    """Reports by number, each with the time of its next repetition.

    It cannot grow without bound: every entry was an attempt that a server assigned, and servers
    assign nothing to a worker that does not answer.
    """

    def __init__(self) -> None:
        self._reports: dict[int, Report] = {}
        self._due: dict[int, int] = {}
        self._wait: dict[int, int] = {}

    def __contains__(self, n: int) -> bool:
        return n in self._reports

    def __len__(self) -> int:
        return len(self._reports)

    def numbers(self) -> list[int]:
        return list(self._reports)

    def reports(self) -> dict[int, Report]:
        return dict(self._reports)

    def add(self, report: Report, now: int) -> None:
        """Keeps a final report that is due at once."""
        assert report.state in FINAL_ATTEMPT
        self._reports[report.n] = report
        self._due[report.n] = now
        self._wait[report.n] = FIRST_WAIT

    def forget(self, n: int) -> bool:
        """Removes the report of `n`; False when there is none."""
        self._due.pop(n, None)
        self._wait.pop(n, None)
        return self._reports.pop(n, None) is not None

    def hurry(self, now: int) -> None:
        """Makes every report due, as after a new connection."""
        for n in self._reports:
            self._due[n] = now
            self._wait[n] = FIRST_WAIT

    def take_due(self, now: int) -> list[Report]:
        """Reports to send now; each is due again after its wait."""
        due = [n for n, at in self._due.items() if at <= now]
        for n in due:
            self._due[n] = now + self._wait[n]
            self._wait[n] = min(2 * self._wait[n], LAST_WAIT)
        return [self._reports[n] for n in due]

    def next_due(self, now: int) -> int:
        """When something is due next; there must be something. A wall clock that was set back does
        not make it later."""
        for n, at in self._due.items():
            if at > now + LAST_WAIT:
                self._due[n] = now + LAST_WAIT
        return min(self._due.values())


def messages(reports: Iterable[Report]) -> list[Reports]:
    """The reports in as few messages as fit: at most BATCH each, and never a frame too long."""
    result: list[Reports] = []
    batch: list[Report] = []
    room = 0
    for report in reports:
        size = _size(report)
        if batch and (size > room or len(batch) == BATCH):
            result.append(Reports(batch))
            batch = []
        if not batch:
            room = CONTROL_FRAME - 1_024
        batch.append(report)
        room -= size
    if batch:
        result.append(Reports(batch))
    return result


def bounded(error: str) -> str:
    """`error`, cut in the middle when it is too long: its first and last words say most."""
    if len(error) <= ERROR_LIMIT:
        return error
    half = ERROR_LIMIT // 2 - 3
    return f"{error[:half]} ... {error[-half:]}"


def _size(report: Report) -> int:
    """At most so many bytes on the wire."""
    size = 160 + 4 * len(report.error) + sum(8 + 4 * len(name) for name in report.exception)
    if report.output is not None and report.output.data is not None:
        size += len(report.output.data)
    return size
