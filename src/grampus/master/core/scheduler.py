"""The scheduler: what should run where, next. It knows what the ledger told it, and nothing else.

`step(now, events)` takes everything that happened since the last step and returns one `Turn`.
Reactions first, placement once at the end. A start that was proposed keeps its slots reserved until
its facts come back (AttemptStarted) or its refusal does (Declined).
"""

from __future__ import annotations

from collections.abc import Iterable

from grampus.master.core.alarms import Alarms
from grampus.master.core.events import (
    UNANSWERED,
    Declined,
    Happening,
    LiveAttempt,
    Loaded,
    Proposal,
    ReadyTask,
    RunLoaded,
    Seat,
    Stopping,
    WorkerConnected,
    WorkerGone,
    WorkerSynced,
    WorkerTroubled,
)
from grampus.master.core.leases import Leases
from grampus.master.core.placement import Place, place_group
from grampus.master.core.queue import ReadyQueue
from grampus.master.core.turn import Order, SendAssign, Turn
from grampus.model.run import TaskState
from grampus.protocol import Kill, Sync
from grampus.runs.commands import ExpireRun, LoseAttempts, SilenceSession, StartAttempts
from grampus.runs.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    RunCancelling,
    RunFinished,
    RunPaused,
    RunResumed,
    RunStarted,
    SessionEnded,
    SessionOpened,
    SessionSeen,
    SessionSilent,
    TaskFinished,
    TaskReady,
    WorkerDraining,
)

#: How often a worker is told the whole truth, in ms.
SYNC_EVERY = 10_000
#: Starts in one command, and in one turn: a turn stays short.
STARTS_PER_COMMAND = 100
#: How long a timeout that could not be proposed waits, in ms.
EXPIRE_AGAIN = 1_000
STARTS_PER_TURN = 1_000


class Scheduler:
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.revision = 0
        self.places: dict[int, Place] = {}
        self.queue = ReadyQueue()
        #: Per session, by n.
        self.live: dict[int, dict[int, LiveAttempt]] = {}
        self.by_run: dict[str, dict[tuple[int, int], None]] = {}
        self.cancelling: dict[str, None] = {}
        #: Their tasks are not in the queue: they are told again when the run goes on.
        self.paused: dict[str, None] = {}
        #: By run: when its own timeout passes.
        self.expiries = Alarms()
        #: (run, index, attempt) → (session, slots): proposed, and not answered yet.
        self.proposed: dict[tuple[str, int, int], tuple[int, int]] = {}
        #: Who was not heard for how long, and what that means for its attempts.
        self.leases = Leases(epoch)
        #: Of the newest step: the time since boot, and by how much the wall clock is ahead of it.
        self._ticks = self._ahead = 0
        self._sync_at: dict[int, int] = {}
        self._messages: list[Order] = []
        self._reload: dict[str, None] = {}
        self._deposed = False
        self.stopping = False

    def step(
        self,
        now: int,
        events: Iterable[Happening],
        held: bool = False,
        ticks: int | None = None,
        awake: int = 0,
    ) -> Turn:
        """`held`: the time is in doubt, so no run is ended by it. `ticks` is the time since boot
        (without one, `now`), `awake` since when this server has not stood still, in ticks."""
        self._ticks = now if ticks is None else ticks
        self._ahead = now - self._ticks
        for event in events:
            self._react(now, event)
        self.queue.ripen(now)
        for session, at in list(self._sync_at.items()):
            # A wall clock that was set back must not keep the truth from a worker.
            if at <= now or at > now + SYNC_EVERY:
                self._sync(now, session)
        commands: tuple[Proposal, ...] = ()
        if not self._deposed:
            commands = () if held else self._expire(now)
            if not self.stopping:
                commands += (*self.leases.due(self._ticks, awake, now), *self._place(now))
        turn = Turn(
            tuple(self._messages),
            commands,
            tuple(self._reload),
            self._wake_at(now, held),
            self._deposed,
        )
        self._messages, self._reload = [], {}
        return turn

    # -- reactions ------------------------------------------------------------------------------

    def _react(self, now: int, event: Happening) -> None:
        if isinstance(event, Event):
            if event.revision <= self.revision:
                return
            self.revision = event.revision
        match event:
            case TaskReady():
                self._ready(
                    now,
                    ReadyTask(
                        event.run, event.index, event.attempt, event.due,
                        event.group, event.slots, event.priority,
                        event.state == TaskState.RETRYING, event.longest,
                    ),
                )  # fmt: skip
            case AttemptStarted():
                self._started(event)
            case AttemptFinished():
                self._finished(event)
            case TaskFinished():
                self.queue.remove(event.run, event.index)
            case RunStarted():
                if event.expires is not None:
                    self.expiries.set(event.run, event.expires)
            case RunPaused():
                self.paused[event.run] = None
                self.queue.remove_run(event.run)
            case RunResumed():
                self.paused.pop(event.run, None)
            case RunCancelling():
                self.paused.pop(event.run, None)
                self.expiries.drop(event.run)
                self._cancel(event.run, event.by)
            case RunFinished():
                self.cancelling.pop(event.run, None)
                self.paused.pop(event.run, None)
                self.expiries.drop(event.run)
            case SessionOpened():
                seat = Seat(
                    event.session, event.worker, event.group, event.slots, 1, event.registered,
                    draining=event.draining,
                )  # fmt: skip
                self._seat(now, seat)
            case SessionSeen():
                self.leases.seen(event.session, event.registered, self._ticks)
            case SessionSilent():
                self.leases.silenced(event.session)
            case WorkerDraining():
                if place := self.places.get(event.session):
                    place.draining = event.draining
            case SessionEnded():
                self.places.pop(event.session, None)
                self.leases.leave(event.session)
                self.live.pop(event.session, None)
                self._sync_at.pop(event.session, None)
            case WorkerConnected():
                if place := self.places.get(event.session):
                    place.connected, place.silent_since = True, None
                    self.leases.connected(event.session)
                    self._sync(now, event.session)
            case WorkerGone():
                self._gone(event)
            case WorkerSynced():
                self._assign_again(event)
            case WorkerTroubled():
                if place := self.places.get(event.session):
                    place.trouble, place.stuck = event.why, event.stuck
            case Declined():
                self._declined(event)
            case RunLoaded():
                self.queue.remove_run(event.run)
                for task in event.ready:
                    self._ready(now, task)
            case Loaded():
                self._load(now, event)
            case Stopping():
                self.stopping = True
            case _:
                pass  # facts that placement does not depend on

    def _load(self, now: int, loaded: Loaded) -> None:
        self.revision = loaded.revision
        for seat in loaded.seats:
            self._seat(now, seat)
        for attempt in loaded.live:
            self._add_live(attempt)
        for task in loaded.ready:
            self.queue.put(now, task)
        self.cancelling = dict.fromkeys(loaded.cancelling)
        self.paused = dict.fromkeys(loaded.paused)
        for run, expires in loaded.expires:
            self.expiries.set(run, expires)

    def _gone(self, event: WorkerGone) -> None:
        heard = self._ticks if event.heard is None else event.heard
        self.leases.gone(event.session, heard)
        if place := self.places.get(event.session):
            place.connected, place.silent_since = False, heard + self._ahead
            self._sync_at.pop(event.session, None)

    def _seat(self, now: int, seat: Seat) -> None:
        place = Place(seat.session, seat.worker, seat.group, seat.slots, seat.next_n)
        place.silent_since = now
        place.draining = bool(seat.draining)
        silenced = bool(seat.silent)
        self.leases.seat(seat.session, seat.worker, seat.registered, silenced, self._ticks)
        self.places[seat.session] = place

    def _ready(self, now: int, task: ReadyTask) -> None:
        """Into the queue, unless it must wait for its run, or its start is asked for already."""
        if (
            task.run not in self.paused
            and (task.run, task.index, task.attempt) not in self.proposed
        ):
            self.queue.put(now, task)

    def _started(self, event: AttemptStarted) -> None:
        self.queue.remove(event.run, event.index, event.attempt)
        self._release(event.run, event.index, event.attempt)
        place = self.places.get(event.session)
        if place is None:
            return
        place.next_n = max(place.next_n, event.n + 1)
        place.born(event.n, event.at)
        self._add_live(
            LiveAttempt(
                event.session, event.n, event.run, event.index, event.attempt, event.slots,
                event.revision, event.lease,
            )
        )  # fmt: skip
        self._assign(event.session, event.n)

    def _add_live(self, attempt: LiveAttempt) -> None:
        self.live.setdefault(attempt.session, {})[attempt.n] = attempt
        self.by_run.setdefault(attempt.run, {})[(attempt.session, attempt.n)] = None
        self.leases.begin(attempt.session, attempt.n, attempt.lease)
        if place := self.places.get(attempt.session):
            place.busy += attempt.slots

    def _finished(self, event: AttemptFinished) -> None:
        session, n = event.session, event.n
        self.leases.end(session, n)
        attempt = self.live.get(session, {}).pop(n, None)
        if attempt is None:
            return
        if place := self.places.get(session):
            place.busy -= attempt.slots
            place.ended(n, event.at)
        attempts = self.by_run[attempt.run]
        del attempts[(session, n)]
        if not attempts:
            del self.by_run[attempt.run]

    def _assign(self, session: int, n: int) -> None:
        attempt = self.live[session][n]
        if attempt.run not in self.cancelling:
            self._messages.append(
                SendAssign(
                    session, n, attempt.run, attempt.index, attempt.attempt, attempt.token
                )
            )  # fmt: skip

    def _cancel(self, run: str, by: str) -> None:
        self.cancelling[run] = None
        for session, n in self.by_run.get(run, ()):
            self._messages.append(Kill(session, n, f"cancelled by {by}"))

    def _assign_again(self, event: WorkerSynced) -> None:
        live = self.live.get(event.session, {})
        for n in event.missing:
            if n in live:
                self._assign(event.session, n)

    def _sync(self, now: int, session: int) -> None:
        live = self.live.get(session, {})
        stop = [n for n, attempt in live.items() if attempt.run in self.cancelling]
        self._messages.append(
            Sync(session, self.revision, self.places[session].next_n, sorted(live), sorted(stop))
        )
        self._sync_at[session] = now + SYNC_EVERY

    def _declined(self, event: Declined) -> None:
        command = event.command
        if event.refusal.code == "stale-epoch":
            self._deposed = True
        if isinstance(command, SilenceSession | LoseAttempts):
            answered = event.refusal.code not in UNANSWERED
            self.leases.declined(command, answered, self._ticks)
            return
        if isinstance(command, ExpireRun):
            if event.refusal.code in UNANSWERED:
                self.expiries.set(command.run, command.at + EXPIRE_AGAIN)
            return
        for index, attempt in command.tasks:
            self._release(command.run, index, attempt)
        self._reload[command.run] = None

    def _release(self, run: str, index: int, attempt: int) -> None:
        """What was reserved for a start. It may be elsewhere than where the attempt has started: a
        start without an answer is proposed again, and the ledger takes whichever comes first."""
        reserved = self.proposed.pop((run, index, attempt), None)
        if reserved is not None and (place := self.places.get(reserved[0])):
            place.busy -= reserved[1]

    def _expire(self, now: int) -> tuple[ExpireRun, ...]:
        """Each is asked for once; what the ledger refuses has ended by itself."""
        runs = self.expiries.due(now, STARTS_PER_TURN)
        return tuple(ExpireRun(now, self.epoch, run) for run in runs)

    def lease_over(self, session: int, n: int) -> int | None:
        """When the lease of an attempt is over, in wall ms, if its worker is not heard until then;
        None when it is heard, or when it keeps the attempt."""
        over = self.leases.is_over(session, n)
        return None if over is None else over + self._ahead

    # -- placement ------------------------------------------------------------------------------

    def _place(self, now: int) -> tuple[StartAttempts, ...]:
        chosen: dict[tuple[int, str], list[tuple[int, int]]] = {}
        for group in self.queue.groups():
            places = [p for p in self.places.values() if p.group == group and p.is_able]
            for place, task in place_group(self.queue, group, places, STARTS_PER_TURN, now):
                chosen.setdefault((place.session, task.run), []).append((task.index, task.attempt))
                key = (task.run, task.index, task.attempt)
                self.proposed[key] = (place.session, task.slots)
        return tuple(
            StartAttempts(now, self.epoch, session, run, tasks[i : i + STARTS_PER_COMMAND])
            for (session, run), tasks in chosen.items()
            for i in range(0, len(tasks), STARTS_PER_COMMAND)
        )

    def _wake_at(self, now: int, held: bool) -> int | None:
        expiry = self.expiries.next_due()
        if held and expiry is not None:
            expiry = max(expiry, now + EXPIRE_AGAIN)
        over = self.leases.next_due()
        if over is not None:
            over += self._ahead
        dues = (self.queue.next_due(), expiry, *self._sync_at.values(), over)
        return min((due for due in dues if due is not None), default=None)
