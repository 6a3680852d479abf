"""The attempts of one session: those that are not over, and what is kept of those that are.

Rules:
- An attempt that is over leaves the table, its slots and every wait, in one act; with it goes
  either a report, or the word that nobody waits for one.
- Its number is seen from its launch on, or from its report if it is never launched.
- All that a successor has to know is written down as it changes: `memory` is the sum of it.

Why an attempt is over, and when it may start, is decided by others: `reconcile`, `custody`, `core`.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from grampus.model.run import AttemptState, Value
from grampus.protocol import Report
from grampus.worker.core.attempt import UNLAUNCHED, Attempt, Stage
from grampus.worker.core.instructions import Drop, End, Launch
from grampus.worker.core.memory import Gone, Memory, Wish
from grampus.worker.core.outbox import Outbox, bounded
from grampus.worker.core.parked import Parked
from grampus.worker.core.seen import Seen
from grampus.worker.core.slots import Slots
from grampus.worker.core.starts import Starts
from grampus.worker.core.step import Step
from grampus.worker.orders import Ended


class Attempts:
    def __init__(self, slots: Slots, step: Step) -> None:
        self.slots = slots
        #: Whose numbers these are; None before a server knows the worker.
        self.session: int | None = None
        #: Those that are not over, by number.
        self.live: dict[int, Attempt] = {}
        #: Numbers that may not start: all but those of attempts that are not launched yet.
        self.seen = Seen()
        #: Final reports.
        self.outbox = Outbox()
        self.parked = Parked()
        self.starts = Starts()
        self._step = step

    def __iter__(self) -> Iterator[Attempt]:
        """Those that are not over; they may leave meanwhile."""
        return iter(list(self.live.values()))

    def inherit(self, memory: Memory) -> None:
        self.session = memory.session
        self.seen.add_ranges(memory.seen.intervals())
        for n, record in memory.launched.items():
            self.live[n] = Attempt(record, None, Stage.INHERITED, stop=memory.wishes.get(n))
        for report in memory.outbox.values():
            self.outbox.add(report, 0)

    def tell(self, memory: Memory) -> None:
        """The converse of `inherit`."""
        memory.session = self.session
        memory.seen.add_ranges(self.seen.intervals())
        for n, attempt in self.live.items():
            if attempt.stage not in UNLAUNCHED:
                memory.launched[n] = attempt.record
                if attempt.stop is not None:
                    memory.wishes[n] = attempt.stop
        memory.outbox = self.outbox.reports()

    def open(self, session: int) -> None:
        """Begins anew, with numbers from 1."""
        self.abandon()
        self.seen = Seen()
        self.session = session

    def abandon(self) -> None:
        """The session is over, and in the ledger every attempt of it."""
        for attempt in self:
            self.forget(attempt)
        for n in self.outbox.numbers():
            self.acknowledged(n)

    def is_mine(self, session: int, what: str) -> bool:
        """Warns when that is not for this session."""
        if session == self.session:
            return True
        self._step.warn(f"not me: {what} is for session {session}, this is {self.session}")
        return False

    # On its way

    def launch(self, n: int) -> None:
        """It is prepared."""
        attempt = self.live.get(n)
        if attempt is not None and attempt.stage is Stage.PREPARING:
            attempt.stage = Stage.LAUNCHED
            self.seen.add(n)
            self._step.write(attempt.record)
            self._step.ask(Launch(n))

    def end(self, attempt: Attempt, reason: str) -> None:
        """Tells the warden once; it goes on until the containment is empty."""
        if attempt.stop is None:
            attempt.stop = reason
            self._step.write(Wish(attempt.n, reason))
            self._step.ask(End(attempt.n))

    # Over

    def over(
        self,
        attempt: Attempt,
        state: AttemptState,
        error: str,
        *,
        exception: tuple[str, ...] = (),
        output: Value | None = None,
        ended: Ended | None = None,
    ) -> None:
        """`ended` is what the warden said of it, if it ran."""
        self._remove(attempt)
        self.report(attempt.n, state, error, exception=exception, output=output, ended=ended)

    def report(
        self,
        n: int,
        state: AttemptState,
        error: str,
        *,
        exception: tuple[str, ...] = (),
        output: Value | None = None,
        ended: Ended | None = None,
    ) -> None:
        assert self.session is not None
        at = self._step.now if ended is None else ended.at
        report = Report(
            self.session, n, state, at, error=bounded(error), exception=exception, output=output
        )
        if ended is not None:
            report = replace(
                report, exit=ended.exit, stdout=ended.stdout, stderr=ended.stderr,
                ticks=ended.ticks, took=ended.took,
            )  # fmt: skip
        self.seen.add(n)
        self._step.write(report)
        self.outbox.add(report, self._step.now)

    def never_launch(self, state: AttemptState, why: str) -> None:
        for attempt in self:
            if attempt.stage in UNLAUNCHED:
                self.over(attempt, state, why)

    def forget(self, attempt: Attempt) -> None:
        """Nobody waits for its report."""
        if attempt.stage not in UNLAUNCHED:
            self._step.write(Gone([attempt.n]))
        self._remove(attempt)

    def acknowledged(self, n: int) -> bool:
        """Its report need not be kept; False when there is none."""
        if not self.outbox.forget(n):
            return False
        self._step.write(Gone([n]))
        return True

    def _remove(self, attempt: Attempt) -> None:
        del self.live[attempt.n]
        self.parked.leave(attempt.n)
        self.slots.leave(attempt.n)
        self.starts.leave(attempt.n)
        if attempt.ended is not None:
            self._step.take(attempt.n)
        self._step.ask(Drop(attempt.n))
