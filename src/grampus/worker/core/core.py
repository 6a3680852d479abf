"""What a worker decides, without I/O: `step(now, events)` gives instructions.

Rules, each checked in `check`:
- A number that was launched, refused or killed before it arrived never starts again: `Seen`
  keeps it, also from process to process (`memory`).
- What must outlive this process is a Record, before all else that the step asks for.
- Only the warden says that a launched attempt is over; until then it keeps its place there.
- A final report is kept and repeated until it is acknowledged, or until its session has ended.
- The ledger is right: what it does not hold for live is ended here, without argument.

Time is wall milliseconds. Driver, files, processes and sockets are the business of
`worker.driver`.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from grampus.model.lease import fence_of
from grampus.model.run import AttemptState, Value
from grampus.protocol import Report, Synced
from grampus.worker.core.attempt import UNLAUNCHED, WITH_WARDEN, Attempt, Stage, outcome
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
from grampus.worker.core.instructions import (
    Drop,
    End,
    Forgo,
    Instruction,
    Launch,
    LogLine,
    Prepare,
    ReadResult,
    Recall,
    Record,
    Renew,
    Send,
    SetAlarm,
)
from grampus.worker.core.memory import Closed, Entry, Gone, Launched, Memory, Opened, Wish
from grampus.worker.core.outbox import Outbox, bounded, messages
from grampus.worker.core.seen import Seen
from grampus.worker.core.slots import Slots
from grampus.worker.orders import Ended, Running

#: An attempt that is over sooner is reported once, not twice.
RUNNING_DELAY = 50
#: What was assigned ahead of a free slot and has waited for one so long is given back.
AHEAD_PATIENCE = 1_000
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
        self.slots = Slots(slots, WITH_THE_WARDEN * slots, LINE_LIMIT)
        #: Numbers that may not start: all but those of attempts that are not launched yet.
        self.seen = Seen()
        self.outbox = Outbox()
        #: Attempts that are not over, by number.
        self.attempts: dict[int, Attempt] = {}
        self.session: int | None = None
        self.connected = False
        self.stopping = False
        self.alarm: int | None = None
        #: A warden answers.
        self.warden = False
        #: The instance of the warden that the session belongs to is gone.
        self.orphaned = False
        self._instance: str | None = None
        #: Instance of the warden that the session was opened for.
        self._opened_for = ""
        self._revision = -1
        #: RUNNING to be reported, by number, with the time.
        self._untold: dict[int, int] = {}
        #: Since when they wait to be started, by number, in the order of their coming.
        self._parked: dict[int, int] = {}
        self._synced: Synced | None = None
        self._now = 0
        self._out: list[Instruction] = []
        #: To be written down by the Record of this step.
        self._entries: list[Entry] = []
        self._taken: list[int] = []
        self._owner = name, group
        if memory is not None and memory.session is not None:
            self._inherit(memory)

    def _inherit(self, memory: Memory) -> None:
        self.session = memory.session
        self._instance = self._opened_for = memory.instance
        self._owner = memory.name, memory.group
        self.seen.add_ranges(memory.seen.intervals())
        for n, record in memory.launched.items():
            self.attempts[n] = Attempt(record, None, Stage.INHERITED, stop=memory.wishes.get(n))
        for report in memory.outbox.values():
            self.outbox.add(report, 0)

    def memory(self) -> Memory:
        """What a successor has to know: the sum of all entries."""
        memory = Memory()
        if self.session is None:
            return memory
        memory.session, memory.instance = self.session, self._opened_for
        memory.name, memory.group = self._owner
        memory.seen.add_ranges(self.seen.intervals())
        for n, attempt in self.attempts.items():
            if attempt.stage not in UNLAUNCHED:
                memory.launched[n] = attempt.record
                if attempt.stop is not None:
                    memory.wishes[n] = attempt.stop
        memory.outbox = self.outbox.reports()
        return memory

    def parked(self) -> list[int]:
        """What waits to be started, and was not called back yet."""
        return list(self._parked)

    def step(self, now: int, events: Iterable[Event]) -> list[Instruction]:
        """Takes in what happened until `now` and says what to do about it, in order."""
        self._now = now
        for event in events:
            self._react(event)
        self._place()
        self._give_back()
        self._speak()
        self._set_alarm()
        if self._taken:
            self._out.append(Forgo(tuple(self._taken)))
            self._taken = []
        if self._entries:
            self._out.insert(0, Record(tuple(self._entries)))
            self._entries = []
        out, self._out = self._out, []
        return out

    def _write(self, entry: Entry) -> None:
        self._entries.append(entry)

    def _react(self, event: Event) -> None:
        match event:
            case Assigned():
                self._assigned(event)
            case Prepared(n):
                self._prepared(n)
            case WardenStarted(n, at, ticks):
                self._started(n, at, ticks)
            case WardenEnded(notice):
                self._ended(notice)
            case ResultRead():
                self._result_read(event)
            case Acked():
                self._acked(event)
            case Alarm():
                self.alarm = None
            case PrepareFailed(n, state, error):
                attempt = self.attempts.get(n)
                if attempt is not None and attempt.stage is Stage.PREPARING:
                    self._over(attempt, state, self._now, error=error)
            case KillAsked():
                self._kill_asked(event)
            case Unheard(ms):
                self._unheard(ms)
            case SyncAsked():
                self._sync_asked(event)
            case Connected(session):
                self._connected(session)
            case Disconnected():
                self.connected = False
                self._synced = None
            case WardenReady(instance, running):
                self._warden_ready(instance, running)
            case WardenLost():
                self._warden_lost()
            case WardenStuck(n, pids):
                self._log(
                    f"ALARM: attempt {self._name(n)} cannot be killed, and keeps its slot:"
                    f" processes {list(pids)}"
                )
            case Stopping():
                self.stopping = True
                self._never_launch(AttemptState.CANCELLED, "the worker was stopped")

    # What servers say.

    def _connected(self, session: int) -> None:
        self.connected = True
        if self.session is not None and session != self.session and not self.orphaned:
            self._outlived(session)
            return
        if session != self.session:
            self._open(session)
            return
        for n, attempt in self.attempts.items():
            if attempt.stage is Stage.RUNNING and not attempt.told:
                self._untold[n] = self._now
        self.outbox.hurry(self._now)

    def _outlived(self, session: int) -> None:
        """The warden lives, its session does not: the numbers of the next one begin at 1 again."""
        self._log(f"session {session} replaces session {self.session}, its warden is replaced too")
        self._abandon()
        self.orphaned, self.warden = True, False
        self._out.append(Renew())

    def _open(self, session: int) -> None:
        """The session before is over, and in the ledger every attempt of it."""
        if self.session is not None:
            self._log(f"session {session} replaces session {self.session}")
        self._abandon()
        self._entries.clear()
        self.seen = Seen()
        self.session, self.orphaned, self._revision = session, False, -1
        self._opened_for = self._instance or ""
        self._write(Opened(session, self._opened_for, *self._owner))

    def _abandon(self) -> None:
        for attempt in list(self.attempts.values()):
            self._forget(attempt)
        for n in self.outbox.numbers():
            self._acknowledged(n)

    def _assigned(self, event: Assigned) -> None:
        n = event.n
        if not self._mine(event.session, f"Assign {n}") or n in self.seen or n in self.attempts:
            return
        work = event.invocation
        record = Launched(
            n, event.slots, work.run, work.task, work.attempt, event.shell, work.bundle
        )
        attempt = self.attempts[n] = Attempt(record, work, lease=event.lease)
        self._parked[n] = self._now
        if self.stopping:
            error = "the worker was stopped"
            self._over(attempt, AttemptState.CANCELLED, self._now, error=error)
        elif event.slots > self.slots.total:
            error = f"it needs {event.slots} slots, this worker has {self.slots.total}"
            self._over(attempt, AttemptState.FAILED, self._now, error=error)
        elif not self.slots.join(n, event.slots):
            self._over(attempt, AttemptState.LOST, self._now, error="the worker is overloaded")

    def _kill_asked(self, event: KillAsked) -> None:
        if self._mine(event.session, f"Kill {event.n}"):
            self._kill(event.n, event.reason)

    def _kill(self, n: int, reason: str) -> None:
        attempt = self.attempts.get(n)
        if attempt is not None and attempt.stage in WITH_WARDEN:
            self._end(attempt, reason)
        elif attempt is not None and attempt.stage is not Stage.READING:
            self._over(attempt, AttemptState.CANCELLED, self._now, error=reason)
        elif n not in self.seen:
            # Seen before it is confirmed: its Assign may still be on the way.
            self._report(n, AttemptState.CANCELLED, self._now, error=reason)

    def _unheard(self, ms: int) -> None:
        """What has not begun and may be with others by now never begins here. What was launched the
        warden judges, in the same way."""
        for attempt in list(self.attempts.values()):
            lease = attempt.lease
            if attempt.stage in UNLAUNCHED and lease is not None and ms >= fence_of(lease).term:
                error = f"fenced: no server confirmed this worker for {ms // 1000} s"
                self._over(attempt, AttemptState.CANCELLED, self._now, error=error)

    def _sync_asked(self, event: SyncAsked) -> None:
        if not self._mine(event.session, f"Sync {event.revision}"):
            return
        if event.revision < self._revision:
            self._log(f"Sync {event.revision} came after Sync {self._revision}")
            return
        self._revision = event.revision
        live = set(event.live)
        self._close(event.next_n, live)
        for n in event.stop:
            self._kill(n, "cancelled")
        for n in sorted(live):
            if n in self.seen and n not in self.attempts and n not in self.outbox:
                # It was reported and acknowledged, or so it seemed: say what is true now.
                self._report(n, AttemptState.LOST, self._now, error="the worker does not know it")
        running = [n for n in sorted(live) if n in self.attempts]
        missing = [n for n in sorted(live) if n not in self.seen and n not in self.attempts]
        self._synced = Synced(event.session, event.revision, running, missing)

    def _close(self, next_n: int, live: set[int]) -> None:
        """Of the numbers below `next_n` only the live ones are not over."""
        if self.seen.close_below(next_n, live):
            self._write(Closed(next_n, sorted(n for n in live if n < next_n)))
        for attempt in list(self.attempts.values()):
            if attempt.n >= next_n or attempt.n in live:
                continue
            attempt.closed = True
            if attempt.stage in WITH_WARDEN:
                self._end(attempt, "the ledger has ended it")
            else:
                self._forget(attempt)
        for n in self.outbox.numbers():
            if n < next_n and n not in live:
                self._acknowledged(n)

    def _acked(self, event: Acked) -> None:
        if event.session != self.session:
            return
        for n in event.done:
            self._acknowledged(n)
        for n in event.stale:
            attempt = self.attempts.get(n)
            if not self._acknowledged(n) and attempt is not None and attempt.stage in WITH_WARDEN:
                attempt.closed = True
                self._end(attempt, "the ledger has ended it")

    def _acknowledged(self, n: int) -> bool:
        if not self.outbox.forget(n):
            return False
        self._write(Gone([n]))
        return True

    # What the driver did.

    def _prepared(self, n: int) -> None:
        attempt = self.attempts.get(n)
        if attempt is not None and attempt.stage is Stage.PREPARING:
            attempt.stage = Stage.LAUNCHED
            self.seen.add(n)
            self._write(attempt.record)
            self._out.append(Launch(n))

    def _result_read(self, event: ResultRead) -> None:
        attempt = self.attempts.get(event.n)
        if attempt is None or attempt.ended is None:
            return
        state, error = outcome(attempt.ended, attempt.stop, self.stopping)
        if event.broken:
            state = AttemptState.FAILED
        self._over(
            attempt,
            state,
            attempt.ended.at,
            error=event.error or error,
            exception=event.exception,
            output=event.output if state is AttemptState.SUCCEEDED else None,
            ended=attempt.ended,
        )

    # What the warden says.

    def _warden_ready(self, instance: str, running: tuple[Running, ...]) -> None:
        same = self._instance == instance
        self.warden, self._instance = True, instance
        if same and self._opened_for == instance:
            self.orphaned = False
        self._parked = dict.fromkeys(self._parked, self._now)
        found = {known.n: known for known in running}
        charged = set() if same else self._may_have_run()
        for attempt in list(self.attempts.values()):
            if attempt.stage not in WITH_WARDEN:
                continue
            known = found.pop(attempt.n, None)
            if known is not None:
                self._adopt(attempt, known)
            elif same:
                # Nobody's fault and no loss, see `outcome`.
                error = "the warden was never told to start it"
                self._over(attempt, AttemptState.CANCELLED, self._now, error=error)
            elif attempt.n in charged:
                self._over(attempt, AttemptState.LOST, self._now, error="the warden died")
            else:
                error = "the warden died: it is not known to have started"
                self._over(attempt, AttemptState.CANCELLED, self._now, error=error)
        if self.orphaned:
            self._never_launch(AttemptState.CANCELLED, "the warden died before it was started")
        # The end of what was seen has been reported: it comes again, and is taken.
        strange = sorted(n for n in found if n not in self.seen)
        if strange:
            self._log(f"the warden has attempts that nobody knows: {strange}; it is replaced")
            self.orphaned, self.warden = self.session is not None, False
            self._out.append(Renew())

    def _may_have_run(self) -> set[int]:
        """Of what a dead warden had: what is known to have started, and the first that fit beside
        it into its slots. The ledger judges in the same way (`apply_sessions`)."""
        had = [a for a in self.attempts.values() if a.stage in WITH_WARDEN]
        had.sort(key=lambda attempt: (attempt.stage is not Stage.RUNNING, attempt.n))
        room, found = self.slots.total, set()
        for attempt in had:
            if attempt.stage is not Stage.RUNNING and attempt.record.slots > room:
                break  # Those behind it waited too.
            room -= attempt.record.slots
            found.add(attempt.n)
        return found

    def _adopt(self, attempt: Attempt, known: Running) -> None:
        if known.ended:
            return
        if attempt.stage is Stage.INHERITED:
            self.slots.hold(attempt.n, attempt.record.slots)
            attempt.stage = Stage.LAUNCHED
            self._parked[attempt.n] = self._now
        if known.started:
            self._started(attempt.n, known.started, known.ticks)
        if attempt.stop is not None:
            # Whoever wished it may have died before it was said.
            self._out.append(End(attempt.n))

    def _warden_lost(self) -> None:
        """Nothing starts until a new session; what was launched may still have processes.

        What was not launched, and what is assigned meanwhile, waits for the next warden: was it
        given back now, it would be assigned here again, again and again."""
        self._log("the warden is gone")
        self.warden = False
        self.orphaned = self.session is not None
        for attempt in list(self.attempts.values()):
            if attempt.stage is Stage.PREPARING:
                error = "the warden died before it was started"
                self._over(attempt, AttemptState.CANCELLED, self._now, error=error)

    def _started(self, n: int, at: int, ticks: int) -> None:
        attempt = self.attempts.get(n)
        if attempt is not None and attempt.stage is Stage.LAUNCHED:
            attempt.stage, attempt.started, attempt.ticks = Stage.RUNNING, at, ticks
            self._parked.pop(n, None)
            self._untold[n] = self._now + RUNNING_DELAY

    def _ended(self, ended: Ended) -> None:
        attempt = self.attempts.get(ended.n)
        if attempt is None:
            self._taken.append(ended.n)
            return
        if attempt.stage not in WITH_WARDEN:
            return
        attempt.ended = ended
        self._parked.pop(ended.n, None)
        if attempt.closed:
            self._forget(attempt)
        elif ended.cause == "exit" and (ended.output or (ended.exit != 0 and ended.stderr > 0)):
            attempt.stage = Stage.READING
            self.slots.leave(ended.n)
            self._untold.pop(ended.n, None)
            self._out.append(ReadResult(ended.n, ended))
        else:
            state, error = outcome(ended, attempt.stop, self.stopping)
            self._over(attempt, state, ended.at, error=error, ended=ended)

    # Pieces of the above.

    def _mine(self, session: int, what: str) -> bool:
        if session == self.session:
            return True
        self._log(f"not me: {what} is for session {session}, this is {self.session}")
        return False

    def _name(self, n: int) -> str:
        attempt = self.attempts.get(n)
        return str(n) if attempt is None else f"{attempt.name} ({n})"

    def _log(self, text: str) -> None:
        self._out.append(LogLine("warning", text))

    def _end(self, attempt: Attempt, reason: str) -> None:
        """Tells the warden once; it goes on until the containment is empty."""
        if attempt.stop is None:
            attempt.stop = reason
            self._write(Wish(attempt.n, reason))
            self._out.append(End(attempt.n))

    def _never_launch(self, state: AttemptState, why: str) -> None:
        for attempt in list(self.attempts.values()):
            if attempt.stage in UNLAUNCHED:
                self._over(attempt, state, self._now, error=why)

    def _forget(self, attempt: Attempt) -> None:
        """Nobody waits for its report."""
        if attempt.stage not in UNLAUNCHED:
            self._write(Gone([attempt.n]))
        self._remove(attempt)

    def _remove(self, attempt: Attempt) -> None:
        del self.attempts[attempt.n]
        self._parked.pop(attempt.n, None)
        self.slots.leave(attempt.n)
        self._untold.pop(attempt.n, None)
        if attempt.ended is not None:
            self._taken.append(attempt.n)
        self._out.append(Drop(attempt.n))

    def _over(
        self,
        attempt: Attempt,
        state: AttemptState,
        at: int,
        *,
        error: str,
        exception: tuple[str, ...] = (),
        output: Value | None = None,
        ended: Ended | None = None,
    ) -> None:
        self._remove(attempt)
        self._report(attempt.n, state, at, error, exception, output, ended)

    def _report(
        self,
        n: int,
        state: AttemptState,
        at: int,
        error: str = "",
        exception: tuple[str, ...] = (),
        output: Value | None = None,
        ended: Ended | None = None,
    ) -> None:
        assert self.session is not None
        report = Report(
            self.session, n, state, at, error=bounded(error), exception=exception, output=output
        )
        if ended is not None:
            report = replace(
                report, exit=ended.exit, stdout=ended.stdout, stderr=ended.stderr,
                ticks=ended.ticks, took=ended.took,
            )  # fmt: skip
        self.seen.add(n)
        self._write(report)
        self.outbox.add(report, self._now)

    # The end of a step.

    def _place(self) -> None:
        if not self.warden or self.stopping or self.orphaned:
            return
        while (n := self.slots.take()) is not None:
            attempt = self.attempts[n]
            assert attempt.invocation is not None
            attempt.stage = Stage.PREPARING
            self._out.append(Prepare(n, attempt.invocation))

    def _give_back(self) -> None:
        """Whoever waits here behind something long would be better off elsewhere, or in its place
        in the queue. Whether the warden has started it already, only the warden knows."""
        if not self._may_give_back():
            return
        if any(attempt.closed for attempt in self.attempts.values()):
            # The ledger counts on a slot that is not free yet: it would come again at once.
            self._parked = dict.fromkeys(self._parked, self._now)
            return
        for n, since in list(self._parked.items()):
            if self._now < since:
                self._parked[n] = self._now  # A clock was set back.
                continue
            if self._now < since + AHEAD_PATIENCE:
                return
            del self._parked[n]
            attempt = self.attempts[n]
            if attempt.stage is Stage.WAITING:
                error = "given back: no slot became free for it"
                self._over(attempt, AttemptState.CANCELLED, self._now, error=error)
                self._place()  # A smaller one may have stood behind it.
            elif attempt.stage is Stage.LAUNCHED:
                self._out.append(Recall(n))
            else:
                self._parked[n] = self._now  # It is being prepared.

    def _may_give_back(self) -> bool:
        return bool(self._parked) and self.warden and not (self.stopping or self.orphaned)

    def _speak(self) -> None:
        """Synced goes before the reports that it was made with: they are news, it is the state."""
        if not self.connected or self.session is None:
            return
        if self._synced is not None:
            self._out.append(Send(self._synced))
            self._synced = None
        due = self._take_untold() if self._untold else []
        if len(self.outbox):
            due += self.outbox.take_due(self._now)
        self._out.extend(Send(message) for message in messages(due))

    def _take_untold(self) -> list[Report]:
        assert self.session is not None
        reports = []
        for n, at in list(self._untold.items()):
            if at <= self._now or at > self._now + RUNNING_DELAY:
                del self._untold[n]
                attempt = self.attempts[n]
                attempt.told = True
                reports.append(
                    Report(
                        self.session, n, AttemptState.RUNNING, attempt.started, ticks=attempt.ticks
                    )
                )
        return reports

    def _set_alarm(self) -> None:
        wanted = None
        if self.connected:
            dues = list(self._untold.values())
            if self._may_give_back():
                dues.append(next(iter(self._parked.values())) + AHEAD_PATIENCE)
            due = self.outbox.next_due(self._now)
            wanted = min(dues if due is None else [*dues, due], default=None)
        if wanted != self.alarm:
            self.alarm = wanted
            after = None if wanted is None else max(0, wanted - self._now)
            self._out.append(SetAlarm(after))
