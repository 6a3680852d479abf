"""One ledger, one scheduler, no network: what master tests play in."""

from __future__ import annotations

from typing import Any

from grampus.ledger import Ledger
from grampus.master.core.check import check
from grampus.master.core.events import Declined, Happening, WorkerConnected, WorkerGone
from grampus.master.core.leases import SILENT_AFTER
from grampus.master.core.scheduler import Scheduler
from grampus.master.core.turn import SendAssign
from grampus.model.lease import DEFAULT_LEASE
from grampus.model.run import AttemptState
from grampus.protocol import Kill
from grampus.runs.change import Graphs
from grampus.runs.commands import (
    Command,
    OpenSession,
    Refusal,
    ReportAttempt,
    TakeOffice,
    encode_command,
)
from grampus.runs.queries import Queries


class World:
    """One ledger, one scheduler, and the attempts that were assigned and have not ended."""

    def __init__(self, slots: int = 3) -> None:
        self.ledger = Ledger(None)
        self.now = 1_000
        #: By how much the time since boot is ahead of the wall clock.
        self.skew = 0
        self.log: list[list[bytes]] = []
        self.pending: list[Happening] = []
        self.attempts: dict[tuple[int, int], SendAssign] = {}
        self.started: list[tuple[str, int, int]] = []
        (epoch,) = self.propose(TakeOffice(self.now, "n1", 1))
        self.scheduler = Scheduler(epoch)
        self.worker(slots)

    def worker(self, slots: int) -> None:
        instance = f"i{len(self.log)}"
        self.opening = OpenSession(
            self.now, "w1", instance, "m", "b", True, "default", slots, leased=True
        )
        (self.session,) = self.propose(self.opening)
        self.pending.append(WorkerConnected(self.session))

    def fall_silent(self) -> None:
        """The worker is not heard until the leases of all it has are over; then it is back."""
        self.pending.append(WorkerGone(self.session))
        self.turn()
        for ms in (SILENT_AFTER, DEFAULT_LEASE - SILENT_AFTER):
            self.now += ms
            self.turn()
        self.propose(self.opening)
        self.pending.append(WorkerConnected(self.session))

    def propose(self, *commands: Command) -> list[Any]:
        data = [encode_command(c) for c in commands]
        self.log.append(data)
        answers, facts = self.ledger.apply(len(self.log), 1, data)
        self.pending.extend(facts)  # type: ignore[arg-type]
        return answers

    def turn(self) -> None:
        """Steps until nothing is left to react to; bounded."""
        for _ in range(1_000):
            events, self.pending = self.pending, []
            turn = self.scheduler.step(self.now, events, ticks=self.now + self.skew)
            check(self.scheduler)
            self.carry_out(turn.messages)
            if not turn.commands:
                if not self.pending:
                    return
                continue
            answers = self.propose(*turn.commands)
            for command, answer in zip(turn.commands, answers, strict=True):
                if isinstance(answer, Refusal):
                    self.pending.append(Declined(command, answer))
        raise AssertionError("the scheduler does not come to rest")

    def carry_out(self, messages: tuple[Any, ...]) -> None:
        for message in messages:
            match message:
                case SendAssign(session=session, n=n):
                    assert (session, n) not in self.attempts, "assigned twice"
                    self.started.append((message.run, message.index, message.attempt))
                    self.attempts[(session, n)] = message
                case Kill(session=session, n=n):
                    if (session, n) in self.attempts:
                        self.report(session, n, AttemptState.CANCELLED)

    def report(self, session: int, n: int, state: AttemptState, exit: int | None = 0) -> Any:
        self.attempts.pop((session, n), None)
        (answer,) = self.propose(
            ReportAttempt(self.now, session, n, state, self.now, exit, "", (), None, 0, 0)
        )
        return answer

    def queries(self) -> Queries:
        return Queries(self.ledger.database, Graphs())
