"""Which warden has the attempts, and what its word makes of them.

Rules:
- Only the warden says that a launched attempt is over. Until then it keeps its place there, also
  while there is no warden: what a dead one had is judged when the next is ready, which has the lock
  of the folder and so has seen the end of it.
- A session belongs to one instance of the warden. When that is gone the worker is orphaned: nothing
  starts before a new session.

What is to be reported of an attempt is in `attempt.outcome`; who gets a slot is `core`'s business.
"""

from __future__ import annotations

from grampus.model.run import AttemptState
from grampus.worker.core.attempt import WITH_WARDEN, Attempt, Stage, outcome
from grampus.worker.core.attempts import Attempts
from grampus.worker.core.events import ResultRead
from grampus.worker.core.instructions import End, ReadResult, Renew
from grampus.worker.core.step import Step
from grampus.worker.orders import Ended, Running


class Custody:
    def __init__(self, attempts: Attempts, step: Step) -> None:
        self._attempts = attempts
        self._step = step
        #: A warden answers.
        self.present = False
        #: The instance of the warden that the session belongs to is gone.
        self.orphaned = False
        #: The whole worker shuts down; the warden ends what runs.
        self.stopping = False
        #: Instance of the warden that the session was opened for.
        self.opened_for = ""
        self._instance: str | None = None

    @property
    def may_start(self) -> bool:
        return self.present and not (self.stopping or self.orphaned)

    def inherit(self, instance: str) -> None:
        self._instance = self.opened_for = instance

    def open(self) -> None:
        """A session begins, for the warden that there is."""
        self.orphaned = False
        self.opened_for = self._instance or ""

    def renew(self) -> None:
        """Another warden is needed: the numbers of this one were used."""
        self.orphaned, self.present = self._attempts.session is not None, False
        self._step.ask(Renew())

    # It comes and goes

    def ready(self, instance: str, running: tuple[Running, ...]) -> None:
        same = self._instance == instance
        self.present, self._instance = True, instance
        if same and self.opened_for == instance:
            self.orphaned = False
        self._attempts.parked.restart(self._step.now)
        found = {known.n: known for known in running}
        charged = set() if same else self._may_have_run()
        for attempt in self._attempts:
            if attempt.stage not in WITH_WARDEN:
                continue
            known = found.pop(attempt.n, None)
            if known is not None:
                self._adopt(attempt, known)
            elif same:
                # Nobody's fault and no loss, see `outcome`.
                error = "the warden was never told to start it"
                self._attempts.over(attempt, AttemptState.CANCELLED, error)
            elif attempt.n in charged:
                self._attempts.over(attempt, AttemptState.LOST, "the warden died")
            else:
                error = "the warden died: it is not known to have started"
                self._attempts.over(attempt, AttemptState.CANCELLED, error)
        if self.orphaned:
            why = "the warden died before it was started"
            self._attempts.never_launch(AttemptState.CANCELLED, why)
        # The end of what was seen has been reported: it comes again, and is taken.
        strange = sorted(n for n in found if n not in self._attempts.seen)
        if strange:
            self._step.warn(f"the warden has attempts that nobody knows: {strange}; it is replaced")
            self.renew()

    def _may_have_run(self) -> set[int]:
        """Of what a dead warden had: what is known to have started, and the first that fit beside
        it into its slots. The ledger judges in the same way (`apply_sessions`)."""
        had = [a for a in self._attempts if a.stage in WITH_WARDEN]
        had.sort(key=lambda attempt: (attempt.stage is not Stage.RUNNING, attempt.n))
        room, found = self._attempts.slots.total, set()
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
            self._attempts.slots.hold(attempt.n, attempt.record.slots)
            attempt.stage = Stage.LAUNCHED
            self._attempts.parked.park(attempt.n, self._step.now)
        if known.started:
            self.started(attempt.n, known.started, known.ticks)
        if attempt.stop is not None:
            # Whoever wished it may have died before it was said.
            self._step.ask(End(attempt.n))

    def lost(self) -> None:
        """Nothing starts until a new session; what was launched may still have processes.

        What was not launched, and what is assigned meanwhile, waits for the next warden: was it
        given back now, it would be assigned here again, again and again."""
        self._step.warn("the warden is gone")
        self.present = False
        self.orphaned = self._attempts.session is not None
        for attempt in self._attempts:
            if attempt.stage is Stage.PREPARING:
                error = "the warden died before it was started"
                self._attempts.over(attempt, AttemptState.CANCELLED, error)

    # Its word about one attempt

    def started(self, n: int, at: int, ticks: int) -> None:
        attempt = self._attempts.live.get(n)
        if attempt is not None and attempt.stage is Stage.LAUNCHED:
            attempt.stage, attempt.started, attempt.ticks = Stage.RUNNING, at, ticks
            self._attempts.parked.leave(n)
            self._attempts.starts.hold_back(n, self._step.now)

    def ended(self, ended: Ended) -> None:
        attempt = self._attempts.live.get(ended.n)
        if attempt is None:
            self._step.take(ended.n)
            return
        if attempt.stage not in WITH_WARDEN:
            return
        attempt.ended = ended
        self._attempts.parked.leave(ended.n)
        if attempt.closed:
            self._attempts.forget(attempt)
        elif ended.cause == "exit" and (ended.output or (ended.exit != 0 and ended.stderr > 0)):
            attempt.stage = Stage.READING
            self._attempts.slots.leave(ended.n)
            self._attempts.starts.leave(ended.n)
            self._step.ask(ReadResult(ended.n, ended))
        else:
            state, error = outcome(ended, attempt.stop, self.stopping)
            self._attempts.over(attempt, state, error, ended=ended)

    def result_read(self, read: ResultRead) -> None:
        """What it left behind, which the end alone did not tell."""
        attempt = self._attempts.live.get(read.n)
        if attempt is None or attempt.ended is None:
            return
        state, error = outcome(attempt.ended, attempt.stop, self.stopping)
        if read.broken:
            state = AttemptState.FAILED
        self._attempts.over(
            attempt,
            state,
            read.error or error,
            exception=read.exception,
            output=read.output if state is AttemptState.SUCCEEDED else None,
            ended=attempt.ended,
        )

    def stuck(self, n: int, pids: tuple[int, ...]) -> None:
        attempt = self._attempts.live.get(n)
        name = str(n) if attempt is None else f"{attempt.name} ({n})"
        self._step.warn(
            f"ALARM: attempt {name} cannot be killed, and keeps its slot: processes {list(pids)}"
        )
