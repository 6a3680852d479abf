"""What must be true of a `WorkerCore` after every step. Called by tests, not by a worker."""

from __future__ import annotations

from itertools import pairwise

from grampus.model.run import FINAL_ATTEMPT
from grampus.worker.core.attempt import UNLAUNCHED, WITH_WARDEN, Stage
from grampus.worker.core.core import WorkerCore
from grampus.worker.core.instructions import Instruction, Launch, Record, Send
from grampus.worker.core.memory import Memory
from grampus.worker.core.outbox import LAST_WAIT
from grampus.worker.core.seen import Seen

_WITH_SLOTS = (WITH_WARDEN | {Stage.PREPARING}) - {Stage.INHERITED}


def check(core: WorkerCore) -> None:
    """Raises AssertionError with the rule that is broken."""
    check_seen(core.attempts.seen)
    slots, seen, outbox = core.attempts.slots, core.attempts.seen, core.attempts.outbox
    held, line = slots.held(), [n for n, _ in slots.line()]
    stages = {n: attempt.stage for n, attempt in core.attempts.live.items()}
    assert slots.used == sum(held.values()), "the count of used slots is wrong"
    assert slots.used <= slots.room, "the warden is given more than it has room for"
    assert set(held) == {n for n, stage in stages.items() if stage in _WITH_SLOTS}, (
        "exactly what is between Prepare and its end has slots"
    )
    assert sorted(line) == sorted(n for n, stage in stages.items() if stage is Stage.WAITING), (
        "exactly what waits is in the line"
    )
    for n, stage in stages.items():
        assert stage in UNLAUNCHED or n in seen, "a launched attempt is not among the numbers seen"
    assert all(n in seen for n in outbox.numbers()), "a report of a number never seen"
    assert not set(stages) & set(outbox.numbers()), "an attempt is both live and reported over"
    assert set(core.attempts.parked) <= {
        n for n, stage in stages.items() if stage in UNLAUNCHED | {Stage.LAUNCHED}
    }, "what runs or reads its result does not wait to be started"
    assert core.session is not None or not stages, "an attempt without a session"
    if core.custody.may_start:
        first = slots.line()[:1]
        assert not first or slots.used + first[0][1] > slots.room, (
            "the first in line waits although it fits"
        )
    if core.connected and len(outbox):
        assert core.alarm is not None, "a report waits for its acknowledgement without an alarm"
        assert core.alarm <= core.now + LAST_WAIT, "a report is not repeated for too long"
    for n, attempt in core.attempts.live.items():
        assert attempt.n == n
        assert (attempt.ended is not None) == (attempt.stage is Stage.READING)


def check_seen(seen: Seen) -> None:
    intervals = seen.intervals()
    assert all(start < stop for start, stop in intervals), "an interval is empty"
    assert all(a[1] < b[0] for a, b in pairwise(intervals)), "intervals touch or overlap"


def same(one: Memory, other: Memory) -> bool:
    return (
        (one.session, one.instance, one.seen.intervals(), one.launched, one.wishes, one.outbox)
        == (other.session, other.instance, other.seen.intervals(), other.launched, other.wishes,
            other.outbox)
    )  # fmt: skip


class Watch:
    """Looks at the instructions of all steps together, and adds up what is written down."""

    def __init__(self, written: Memory | None = None) -> None:
        #: The journal, as it is.
        self.written = Memory() if written is None else written
        self.launched: set[tuple[int, int]] = set()
        self._final: dict[tuple[int, int], object] = {}

    def look(self, core: WorkerCore, out: list[Instruction]) -> None:
        check(core)
        assert not any(isinstance(i, Record) for i in out[1:]), "a Record comes first"
        for instruction in out:
            match instruction:
                case Record(entries):
                    self.written.add(entries)
                case Launch(n):
                    assert core.session is not None
                    assert (core.session, n) not in self.launched, f"{n} was launched twice"
                    assert (core.session, n) not in self._final, f"{n} was launched after its end"
                    self.launched.add((core.session, n))
                case Send(message):
                    assert core.connected, "something is sent without a connection"
                    for report in getattr(message, "reports", ()):
                        self._reported(report.session, report.n, report)

        assert same(self.written, core.memory()), "what is written does not add up to what is known"

    def _reported(self, session: int, n: int, report: object) -> None:
        final = self._final.get((session, n))
        state = getattr(report, "state", None)
        if final is not None:
            assert report == final or getattr(report, "error", "").startswith("the worker does not")
        elif state in FINAL_ATTEMPT:
            self._final[session, n] = report
