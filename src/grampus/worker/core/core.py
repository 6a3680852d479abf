"""What a worker decides, without I/O: `step(now, events)` gives instructions.

Here it is decided who may start, what is told to servers, and what a new session means. The rest
is left to the parts, each with its rules:
- `attempts`: what is live, what was seen, what is still to be reported.
- `custody`: only the warden says that a launched attempt is over.
- `reconcile`: the ledger is right; what it does not hold for live is ended here.
- `step`: what must outlive this process is a Record, before all else that the step asks for.
All of them are checked in `check`.

Time is wall milliseconds. Driver, files, processes and sockets are the business of
`worker.driver`.
"""

from __future__ import annotations

from collections.abc import Iterable

from grampus.model.run import AttemptState
from grampus.protocol import Report
from grampus.worker.core.attempt import Attempt, Stage
from grampus.worker.core.attempts import Attempts
from grampus.worker.core.custody import Custody
from grampus.worker.core.events import (
    Acked,
    Alarm,
    Assigned,
    Connected,
    Disconnected,
    Event,
    KillAsked,
    Prepared,
    PrepareFailed,
    ResultRead,
    Stopping,
    SyncAsked,
    Unheard,
    WardenEnded,
    WardenLost,
    WardenReady,
    WardenStarted,
    WardenStuck,
)
from grampus.worker.core.instructions import Instruction, Prepare, Recall, Send, SetAlarm
from grampus.worker.core.memory import Launched, Memory, Opened
from grampus.worker.core.outbox import messages
from grampus.worker.core.reconcile import Reconciler
from grampus.worker.core.slots import Slots
from grampus.worker.core.step import Step

#: Slots' worth of attempts that the warden is given, as a multiple of its slots: what does not fit
#: waits there for a free slot.
WITH_THE_WARDEN = 8
#: Attempts that may wait to be given to it.
LINE_LIMIT = 1_000


class WorkerCore:
    def __init__(
        self, slots: int, memory: Memory | None = None, *, name: str = "", group: str = ""
    ) -> None:
        """`memory` is what a process before this one has left; its warden must still be there."""
        self._step = Step()
        self.attempts = Attempts(Slots(slots, WITH_THE_WARDEN * slots, LINE_LIMIT), self._step)
        self.custody = Custody(self.attempts, self._step)
        self._reconciler = Reconciler(self.attempts, self._step)
        self.connected = False
        #: When the driver was asked to wake the core.
        self.alarm: int | None = None
        self._owner = name, group
        if memory is not None and memory.session is not None:
            self._owner = memory.name, memory.group
            self.attempts.inherit(memory)
            self.custody.inherit(memory.instance)

    @property
    def session(self) -> int | None:
        return self.attempts.session

    @property
    def now(self) -> int:
        """Of the newest step."""
        return self._step.now

    @property
    def idle(self) -> bool:
        """Nothing is live, and nothing is still to be reported."""
        return not (self.attempts.live or len(self.attempts.outbox))

    def memory(self) -> Memory:
        """What a successor has to know: the sum of all entries."""
        memory = Memory()
        if self.session is not None:
            memory.instance = self.custody.opened_for
            memory.name, memory.group = self._owner
            self.attempts.tell(memory)
        return memory

    def step(self, now: int, events: Iterable[Event]) -> list[Instruction]:
        """Takes in what happened until `now` and says what to do about it, in order."""
        self._step.now = now
        for event in events:
            self._react(event)
        self._place()
        self._give_back()
        self._speak()
        self._set_alarm()
        return self._step.finish()

    def _react(self, event: Event) -> None:
        match event:
            case Assigned():
                self._assigned(event)
            case Prepared(n):
                self.attempts.launch(n)
            case WardenStarted(n, at, ticks):
                self.custody.started(n, at, ticks)
            case WardenEnded(notice):
                self.custody.ended(notice)
            case ResultRead():
                self.custody.result_read(event)
            case Acked():
                self._reconciler.acked(event)
            case Alarm():
                self.alarm = None
            case PrepareFailed(n, state, error):
                attempt = self.attempts.live.get(n)
                if attempt is not None and attempt.stage is Stage.PREPARING:
                    self.attempts.over(attempt, state, error)
            case KillAsked():
                self._reconciler.kill(event)
            case Unheard(ms):
                self._reconciler.unheard(ms)
            case SyncAsked():
                self._reconciler.sync(event)
            case Connected(session):
                self._connected(session)
            case Disconnected():
                self.connected = False
                self._reconciler.forget_answer()
            case WardenReady(instance, running):
                self.custody.ready(instance, running)
            case WardenLost():
                self.custody.lost()
            case WardenStuck(n, pids):
                self.custody.stuck(n, pids)
            case Stopping():
                self.custody.stopping = True
                self.attempts.never_launch(AttemptState.CANCELLED, "the worker was stopped")

    # The session

    def _connected(self, session: int) -> None:
        self.connected = True
        if session == self.session:
            self._go_on()
        elif self.session is None or self.custody.orphaned:
            self._open(session)
        else:
            self._outlived(session)

    def _go_on(self) -> None:
        for attempt in self.attempts:
            if attempt.stage is Stage.RUNNING and not attempt.told:
                self.attempts.starts.hurry(attempt.n, self._step.now)
        self.attempts.outbox.hurry(self._step.now)

    def _outlived(self, session: int) -> None:
        """The warden lives, its session does not: the numbers of the next one begin at 1 again."""
        before = f"session {session} replaces session {self.session}"
        self._step.warn(f"{before}, its warden is replaced too")
        self.attempts.abandon()
        self.custody.renew()

    def _open(self, session: int) -> None:
        """The session before is over, and in the ledger every attempt of it."""
        if self.session is not None:
            self._step.warn(f"session {session} replaces session {self.session}")
        self.attempts.open(session)
        self.custody.open()
        self._reconciler.open()
        self._step.write(Opened(session, self.custody.opened_for, *self._owner))

    # Who may start

    def _assigned(self, event: Assigned) -> None:
        n, attempts = event.n, self.attempts
        if not attempts.is_mine(event.session, f"Assign {n}"):
            return
        if n in attempts.seen or n in attempts.live:
            return
        work = event.invocation
        record = Launched(
            n, event.slots, work.run, work.task, work.attempt, event.shell, work.bundle
        )
        attempt = attempts.live[n] = Attempt(record, work, lease=event.lease)
        attempts.parked.park(n, self._step.now)
        if self.custody.stopping:
            attempts.over(attempt, AttemptState.CANCELLED, "the worker was stopped")
        elif event.slots > attempts.slots.total:
            error = f"it needs {event.slots} slots, this worker has {attempts.slots.total}"
            attempts.over(attempt, AttemptState.FAILED, error)
        elif not attempts.slots.join(n, event.slots):
            attempts.over(attempt, AttemptState.LOST, "the worker is overloaded")

    def _place(self) -> None:
        if not self.custody.may_start:
            return
        while (n := self.attempts.slots.take()) is not None:
            attempt = self.attempts.live[n]
            assert attempt.invocation is not None
            attempt.stage = Stage.PREPARING
            self._step.ask(Prepare(n, attempt.invocation))

    def _give_back(self) -> None:
        """Whoever waits here behind something long would be better off elsewhere, or in its place
        in the queue. Whether the warden has started it already, only the warden knows."""
        parked, now = self.attempts.parked, self._step.now
        if not len(parked) or not self.custody.may_start:
            return
        if any(attempt.closed for attempt in self.attempts.live.values()):
            # The ledger counts on a slot that is not free yet: it would come again at once.
            parked.restart(now)
            return
        for n in parked.take_impatient(now):
            attempt = self.attempts.live[n]
            if attempt.stage is Stage.WAITING:
                error = "given back: no slot became free for it"
                self.attempts.over(attempt, AttemptState.CANCELLED, error)
                self._place()  # A smaller one may have stood behind it.
            elif attempt.stage is Stage.LAUNCHED:
                self._step.ask(Recall(n))
            else:
                parked.park(n, now)  # It is being prepared.

    # What is told to servers

    def _speak(self) -> None:
        """Synced goes before the reports that it was made with: they are news, it is the state."""
        if not self.connected or self.session is None:
            return
        synced = self._reconciler.take_answer()
        if synced is not None:
            self._step.ask(Send(synced))
        starts, outbox, now = self.attempts.starts, self.attempts.outbox, self._step.now
        due = [self._start(n) for n in starts.take_due(now)] if len(starts) else []
        if len(outbox):
            due += outbox.take_due(now)
        if due:
            for message in messages(due):
                self._step.ask(Send(message))

    def _start(self, n: int) -> Report:
        assert self.session is not None
        attempt = self.attempts.live[n]
        attempt.told = True
        return Report(self.session, n, AttemptState.RUNNING, attempt.started, ticks=attempt.ticks)

    def _set_alarm(self) -> None:
        wanted = self._next_due() if self.connected else None
        if wanted != self.alarm:
            self.alarm = wanted
            after = None if wanted is None else max(0, wanted - self._step.now)
            self._step.ask(SetAlarm(after))

    def _next_due(self) -> int | None:
        """When time alone makes a difference here."""
        starts, outbox, parked = self.attempts.starts, self.attempts.outbox, self.attempts.parked
        dues = []
        if len(starts):
            dues.append(starts.next_due())
        if len(outbox):
            dues.append(outbox.next_due(self._step.now))
        if len(parked) and self.custody.may_start:
            dues.append(parked.next_due())
        return min(dues) if dues else None
